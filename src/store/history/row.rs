//! A decision as a row, and back.
//!
//! The columns have what is searched for and what the view shows; the column `record` has the whole record
//! ([`super::encode`]), in which a text of a column is a reference. The texts of the columns are bounded.

use std::fmt::Write as _;

use compact_str::CompactString;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Statement, ToSql};
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
/// Texts of a row, with the record behind them.
const PARTS: usize = 16;
/// The parameter of [`INSERT`] for the first of them.
const FIRST_PART: usize = 15;
/// Codes of a row.
const CODES: usize = 8;
/// There is no code; the tables of codes are shorter.
const NO_CODE: u8 = u8::MAX;

/// The places of some parts.
mod part {
    pub(super) const DOMAINS: usize = 4;
    pub(super) const RCPT: usize = 5;
    pub(super) const PTR: usize = 8;
    pub(super) const HELO: usize = 9;
    pub(super) const MAIL_FROM: usize = 10;
    pub(super) const HEADER_FROM: usize = 11;
    pub(super) const REPLY_TO: usize = 12;
    pub(super) const RECORD: usize = 15;
}

/// A decision as the values of its columns; the texts and the record are beside it, in one piece.
#[derive(Debug)]
pub(super) struct Row {
    /// Milliseconds since 1970.
    pub(super) at: i64,
    pub(super) id: Option<Id>,
    /// verdict, mode, door, outcome, identity, rule, rung, reason.
    codes: [u8; CODES],
    rcpts: u32,
    dns_queries: u32,
    duration: i64,
    /// The ends of the parts.
    ends: [u32; PARTS],
}

impl Row {
    /// Inserts the row by the statement [`INSERT`], and returns the octets that it takes, about.
    pub(super) fn insert(
        &self,
        statement: &mut Statement<'_>,
        seq: i64,
        octets: &[u8],
    ) -> rusqlite::Result<usize> {
        statement.clear_bindings();
        statement.raw_bind_parameter(1, seq)?;
        statement.raw_bind_parameter(2, self.at)?;
        for (at, code) in self.codes.into_iter().enumerate().filter(|(_, code)| *code != NO_CODE) {
            statement.raw_bind_parameter(3 + at, code)?;
        }
        statement.raw_bind_parameter(11, self.rcpts)?;
        statement.raw_bind_parameter(12, self.duration)?;
        statement.raw_bind_parameter(13, self.dns_queries)?;
        if let Some(id) = &self.id {
            statement.raw_bind_parameter(14, id.as_str())?;
        }
        let mut start = 0;
        for (at, end) in self.ends.into_iter().enumerate() {
            let value = octets.get(start..end as usize).unwrap_or_default();
            start = end as usize;
            if at == part::RECORD {
                statement.raw_bind_parameter(FIRST_PART + at, value)?;
            } else if !value.is_empty() {
                statement.raw_bind_parameter(FIRST_PART + at, Text(value))?;
            }
        }
        statement.raw_execute()?;
        Ok(OVERHEAD + octets.len())
    }

    /// As [`record`], of a row that isn't written yet.
    pub(super) fn record(
        &self,
        octets: &[u8],
        wanted: impl FnOnce(&DecisionRecord) -> bool,
    ) -> Option<DecisionRecord> {
        use part::{DOMAINS, HEADER_FROM, HELO, MAIL_FROM, PTR, RCPT, RECORD, REPLY_TO};
        let part = |at: usize| {
            let end = |at: usize| self.ends.get(at).map(|end| *end as usize);
            let start = at.checked_sub(1).and_then(end).unwrap_or_default();
            octets.get(start..end(at).unwrap_or_default()).unwrap_or_default()
        };
        let text = |at: usize| std::str::from_utf8(part(at)).unwrap_or_default();
        let texts = [HELO, MAIL_FROM, RCPT, HEADER_FROM, REPLY_TO, PTR].map(text);
        let known = known(texts, text(DOMAINS)).into_vec();
        super::decode::record(part(RECORD), known, wanted).flatten()
    }
}

/// Buffers for one row after the other.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    domains: String,
    recipients: String,
    tags: String,
    findings: String,
    client: String,
    record: Vec<u8>,
    /// The parts of the last row.
    octets: Vec<u8>,
}

impl Scratch {
    /// A decision as a row, and its octets.
    pub(super) fn row(&mut self, record: &DecisionRecord) -> (Row, &[u8]) {
        self.fill(record);
        let texts = texts(record);
        let [helo, mail_from, rcpt, from, reply_to, ptr] = texts;
        let known = known(texts, &self.domains);
        encode::record(&mut self.record, record, &known);
        let deciding = record.deciding();
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let domain = deciding.map(|finding| cut(&finding.domain)).unwrap_or_default();
        let relay_reply = cut(record.relay_reply().unwrap_or_default());
        let parts: [&[u8]; PARTS] = [
            cut(&record.queue).as_bytes(),
            cut(&record.tls).as_bytes(),
            self.client.as_bytes(),
            domain.as_bytes(),
            self.domains.as_bytes(),
            rcpt.as_bytes(),
            self.recipients.as_bytes(),
            self.tags.as_bytes(),
            ptr.as_bytes(),
            helo.as_bytes(),
            mail_from.as_bytes(),
            from.as_bytes(),
            reply_to.as_bytes(),
            relay_reply.as_bytes(),
            self.findings.as_bytes(),
            &self.record,
        ];
        self.octets.clear();
        let ends = parts.map(|part| {
            self.octets.extend_from_slice(part);
            small(self.octets.len())
        });
        let row = Row {
            at: i64::try_from(milliseconds(record.at)).unwrap_or(i64::MAX),
            id: record.id,
            codes: [
                record.verdict.code(),
                record.mode.code(),
                record.door.code(),
                record.outcome().map_or(NO_CODE, Coded::code),
                deciding.map_or(NO_CODE, |finding| finding.identity.code()),
                deciding.map_or(NO_CODE, |finding| finding.rule.code()),
                record.rung().map_or(NO_CODE, Coded::code),
                record.reason().map_or(NO_CODE, Coded::code),
            ],
            rcpts: small(record.rcpts),
            dns_queries: small(record.queries()),
            duration: i64::try_from(record.duration.as_micros()).unwrap_or(i64::MAX),
            ends,
        };
        (row, &self.octets)
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
        self.client.clear();
        // Writing to a String can't fail.
        write!(self.client, "{}", record.client.to_canonical()).ok();
    }
}

struct Text<'t>(&'t [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

/// helo, mail_from, rcpt, from, reply_to, ptr.
type Texts<'r> = [&'r str; 6];

fn texts(record: &DecisionRecord) -> Texts<'_> {
    let DecisionRecord { helo, mail_from, rcpt, from, reply_to, .. } = record;
    let ptr = record.name().map(DomainName::as_str).unwrap_or_default();
    [helo, mail_from, rcpt, from, reply_to, ptr].map(cut)
}

pub(super) fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or(text)
}

/// The texts that the encoded record refers to.
fn known<'r>(texts: Texts<'r>, domains: &'r str) -> SmallVec<[&'r str; 32]> {
    texts.into_iter().chain(domains.split(' ')).filter(|text| !text.is_empty()).collect()
}

/// The record of a row with [`COLUMNS`]: `None` if it is damaged, `Some(None)` if `wanted` returns false, as in
/// [`super::decode::record`].
pub(super) fn record(
    row: &rusqlite::Row<'_>,
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
    let mut seen: SmallVec<[&str; MAX_DOMAINS]> = SmallVec::new();
    // Returns whether there is room for no more.
    let mut add = |text| {
        if str::is_empty(text) || seen.contains(&text) {
            return false;
        }
        seen.push(text);
        if let Ok(name) = DomainName::parse_unicode(text)
            && !out.split(' ').any(|known| known == name.as_str())
        {
            push_word(out, name.as_str());
        }
        seen.len() == MAX_DOMAINS || out.len() > MAX_DOMAIN_OCTETS
    };
    let DecisionRecord { helo, mail_from, from, reply_to, .. } = record;
    let full = [helo, mail_from, from, reply_to].into_iter().any(|text| {
        // Few have several addresses, and a search for two octets takes longer than all else here.
        if text.contains(',') {
            text.split(", ").any(|one| add(domain_of(one)))
        } else {
            add(domain_of(text))
        }
    });
    if !full {
        record.findings.iter().any(|finding| add(&finding.domain));
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
        push_json(out, cut(&finding.domain));
        out.push(']');
    }
    out.push(']');
}

/// A text as JSON; most need no escape, and no memory of their own then.
fn push_json(out: &mut String, text: &str) {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

fn push_code(out: &mut String, code: u8) {
    if code >= 10 {
        push_code(out, code / 10);
    }
    out.push(char::from(b'0' + code % 10));
}
