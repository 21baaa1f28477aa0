//! A decision as a row, and back.
//!
//! The columns have what is searched for and what the view shows; the column `record` has the whole record
//! ([`super::encode`]), in which a text of a column is a reference. The texts of the columns are bounded.

use std::net::IpAddr;

use compact_str::CompactString;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Row, Statement, ToSql};
use smallvec::SmallVec;

use crate::decision::{DecisionRecord, Id};
use crate::policy::finding::RuleResult;
use crate::smtp::address::DomainName;
use crate::store::history::codes::Coded;
use crate::store::history::encode::{self, milliseconds, tag};

/// Octets of a text in a column.
const MAX_TEXT: usize = 512;
/// Sender domains of one decision that can be searched for, and their octets.
const MAX_DOMAINS: usize = 24;
const MAX_DOMAIN_OCTETS: usize = 2048;

/// A position that is taken, as in a file that was moved back, costs one decision and no more.
pub(super) const INSERT: &str = "INSERT OR IGNORE INTO rows (seq, at, verdict, mode, door, outcome, identity, rule, rung, reason, rcpts, \
     duration, dns_queries, id, queue, tls, client, domain, domains, rcpt, recipients, tags, ptr, helo, mail_from, header_from, \
     reply_to, relay_reply, findings, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, \
     ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30)";

/// The columns that [`record`] needs, of the table `r`.
pub(super) const COLUMNS: &str =
    "r.seq, r.helo, r.mail_from, r.rcpt, r.header_from, r.reply_to, r.ptr, r.domains, r.record";

/// Octets that a row takes, beside its texts.
const OVERHEAD: usize = 60;

/// Buffers for one row after the other.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    domains: String,
    recipients: String,
    tags: String,
    findings: String,
    record: Vec<u8>,
}

impl Scratch {
    /// Inserts a decision by the statement [`INSERT`], and returns the octets that it takes, about.
    pub(super) fn insert(
        &mut self,
        statement: &mut Statement<'_>,
        seq: i64,
        record: &DecisionRecord,
    ) -> rusqlite::Result<usize> {
        self.fill(record);
        let texts = texts(record);
        let [helo, mail_from, rcpt, from, reply_to, ptr] = texts;
        let known = known(texts, &self.domains);
        encode::record(&mut self.record, record, &known);
        let (id, client) = (record.id, record.client.to_canonical().to_string());
        let deciding = record.deciding();
        let coded = |code: Option<u8>| code.map(i64::from);
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let values: [&dyn ToSql; 30] = [
            &seq,
            &i64::try_from(milliseconds(record.at)).unwrap_or(i64::MAX),
            &record.verdict.code(),
            &record.mode.code(),
            &record.door.code(),
            &coded(record.outcome().map(Coded::code)),
            &coded(deciding.map(|finding| finding.identity.code())),
            &coded(deciding.map(|finding| finding.rule.code())),
            &coded(record.rung().map(Coded::code)),
            &coded(record.reason().map(Coded::code)),
            &number(record.rcpts),
            &i64::try_from(record.duration.as_micros()).unwrap_or(i64::MAX),
            &number(record.queries()),
            &id.as_ref().map(Id::as_str),
            &Text(cut(&record.queue)),
            &Text(cut(&record.tls)),
            &client,
            &Text(deciding.map(|finding| cut(&finding.domain)).unwrap_or_default()),
            &Text(&self.domains),
            &Text(rcpt),
            &Text(&self.recipients),
            &Text(&self.tags),
            &Text(ptr),
            &Text(helo),
            &Text(mail_from),
            &Text(from),
            &Text(reply_to),
            &Text(cut(record.relay_reply().unwrap_or_default())),
            &self.findings,
            &self.record,
        ];
        for (at, value) in values.into_iter().enumerate() {
            statement.raw_bind_parameter(at + 1, value)?;
        }
        statement.raw_execute()?;
        let octets = texts.iter().map(|text| text.len()).sum::<usize>();
        let lists = self.domains.len() + self.recipients.len() + self.tags.len() + self.findings.len();
        Ok(OVERHEAD + octets + lists + self.record.len())
    }

    /// Fills the lists.
    fn fill(&mut self, record: &DecisionRecord) {
        self.domains.clear();
        domains(&mut self.domains, record);
        self.recipients.clear();
        if !record.recipients.is_empty() {
            let all: Vec<&str> = record.all_recipients().map(CompactString::as_str).collect();
            self.recipients = serde_json::to_string(&all).unwrap_or_default();
        }
        self.tags.clear();
        for tag in record.tags() {
            push_word(&mut self.tags, &tag);
        }
        self.findings.clear();
        findings(&mut self.findings, record);
    }
}

/// An empty text is NULL.
struct Text<'t>(&'t str);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        if self.0.is_empty() {
            return Ok(ToSqlOutput::Owned(Value::Null));
        }
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0.as_bytes())))
    }
}

/// helo, mail_from, rcpt, from, reply_to, ptr.
type Texts<'r> = [&'r str; 6];

fn texts(record: &DecisionRecord) -> Texts<'_> {
    let DecisionRecord { helo, mail_from, rcpt, from, reply_to, .. } = record;
    let ptr = record.name().map(DomainName::as_str).unwrap_or_default();
    [helo, mail_from, rcpt, from, reply_to, ptr].map(cut)
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or(text)
}

/// The texts that the encoded record refers to.
fn known<'r>(texts: Texts<'r>, domains: &'r str) -> SmallVec<[&'r str; 32]> {
    texts.into_iter().chain(domains.split(' ')).filter(|text| !text.is_empty()).collect()
}

/// The record of a row with [`COLUMNS`]: `None` if it is damaged, `Some(None)` if `wanted` returns false, as in
/// [`super::decode::record`].
pub(super) fn record(
    row: &Row<'_>,
    wanted: impl FnOnce(&DecisionRecord) -> bool,
) -> rusqlite::Result<Option<Option<DecisionRecord>>> {
    let mut texts: Texts<'_> = [""; 6];
    for (at, text) in texts.iter_mut().enumerate() {
        *text = row.get_ref(at + 1)?.as_str_or_null()?.unwrap_or_default();
    }
    let domains = row.get_ref(7)?.as_str_or_null()?.unwrap_or_default();
    let known = known(texts, domains).into_vec();
    Ok(super::decode::record(row.get_ref(8)?.as_blob()?, known, wanted))
}

/// The sender domains, each once, parted by blanks: names in A-labels and lower case.
fn domains(out: &mut String, record: &DecisionRecord) {
    let DecisionRecord { helo, mail_from, from, reply_to, .. } = record;
    let of_findings = record.findings.iter().map(|finding| finding.domain.as_str());
    let of_texts = [helo, mail_from, from, reply_to].into_iter().flat_map(|text| text.split(", "));
    let mut seen: SmallVec<[&str; MAX_DOMAINS]> = SmallVec::new();
    for text in of_texts.map(domain_of).chain(of_findings) {
        if text.is_empty() || seen.contains(&text) {
            continue;
        }
        seen.push(text);
        let Ok(name) = DomainName::parse_unicode(text) else { continue };
        if !out.split(' ').any(|known| known == name.as_str()) {
            push_word(out, name.as_str());
        }
        if seen.len() == MAX_DOMAINS || out.len() > MAX_DOMAIN_OCTETS {
            return;
        }
    }
}

/// The domain of an address, with or without angle brackets; of another text all of it.
pub(super) fn domain_of(address: &str) -> &str {
    address.trim_end_matches('>').rsplit('@').next().unwrap_or_default()
}

fn push_word(out: &mut String, word: &str) {
    if !out.is_empty() {
        out.push(' ');
    }
    out.push_str(word);
}

/// `[[identity, rule, result, rung or reason, action, "domain"], ...]`, with codes.
fn findings(out: &mut String, record: &DecisionRecord) {
    out.push('[');
    for (at, finding) in record.findings.iter().enumerate() {
        let (result, detail) = match finding.outcome {
            RuleResult::Pass(rung) => (tag::PASS, rung.code()),
            RuleResult::Fail(reason) => (tag::FAIL, reason.code()),
            RuleResult::TempError(trouble) => (tag::TEMPERROR, trouble.code()),
            RuleResult::None(absence) => (tag::NONE, absence.code()),
        };
        out.push_str(if at == 0 { "[" } else { ",[" });
        for code in [finding.identity.code(), finding.rule.code(), result, detail, finding.action.code()] {
            push_code(out, code);
            out.push(',');
        }
        out.push_str(&serde_json::to_string(cut(&finding.domain)).unwrap_or_default());
        out.push(']');
    }
    out.push(']');
}

fn push_code(out: &mut String, code: u8) {
    if code >= 10 {
        push_code(out, code / 10);
    }
    out.push(char::from(b'0' + code % 10));
}

/// What can be searched for by an index: the kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Id = 0,
    Queue = 1,
    Recipient = 2,
    Client = 3,
    /// A sender domain, from its last label to its first, each with a dot behind it: `test.spoof.`.
    Domain = 4,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Id, Self::Queue, Self::Recipient, Self::Client, Self::Domain];

    pub(super) fn code(self) -> i64 {
        self as i64
    }
}

/// The columns that [`keys`] needs.
pub(super) const KEY_COLUMNS: &str = "seq, at, id, queue, rcpt, recipients, client, domains";

/// Calls `each` for all keys of a row with [`KEY_COLUMNS`].
pub(super) fn keys(row: &Row<'_>, mut each: impl FnMut(Kind, CompactString)) -> rusqlite::Result<()> {
    let text = |at: usize| row.get_ref(at).map(|value| value.as_str_or_null().ok().flatten());
    for (kind, at) in [(Kind::Id, 2), (Kind::Queue, 3)] {
        if let Some(text) = text(at)? {
            each(kind, CompactString::new(text));
        }
    }
    match (text(5)?, text(4)?) {
        (Some(list), _) => {
            let all: Vec<String> = serde_json::from_str(list).unwrap_or_default();
            all.iter().for_each(|one| each(Kind::Recipient, recipient_key(one)));
        }
        (None, Some(one)) => each(Kind::Recipient, recipient_key(one)),
        (None, None) => {}
    }
    if let Some(client) = text(6)?.and_then(|text| text.parse().ok()) {
        each(Kind::Client, client_key(client));
    }
    for domain in text(7)?.unwrap_or_default().split(' ').filter(|domain| !domain.is_empty()) {
        each(Kind::Domain, domain_key(domain));
    }
    Ok(())
}

/// In lower case, as nobody remembers how a recipient was written.
pub(super) fn recipient_key(recipient: &str) -> CompactString {
    cut(recipient).to_ascii_lowercase().into()
}

/// Addresses of one family are in the order of their numbers.
pub(super) fn client_key(client: IpAddr) -> CompactString {
    match client.to_canonical() {
        IpAddr::V4(address) => compact_str::format_compact!("4{:08x}", address.to_bits()),
        IpAddr::V6(address) => compact_str::format_compact!("6{:032x}", address.to_bits()),
    }
}

pub(super) fn domain_key(domain: &str) -> CompactString {
    let mut key = CompactString::with_capacity(domain.len() + 1);
    for label in domain.rsplit('.') {
        key.push_str(label);
        key.push('.');
    }
    key
}
