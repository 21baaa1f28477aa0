//! A decision as a tree for people and as JSON for programs: the same facts in both.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use compact_str::CompactString;
use serde_json::{Map, Value, json};

use crate::decision::notes;
use crate::decision::results::{dmarc_json, signature_json, spf_json};
use crate::decision::{DecisionRecord, LetIn, Scope};
use crate::evidence::{Answer, Evidence, Freshness, Records};
use crate::policy::door::DoorName;
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Rule, Rung};
use crate::policy::senders::Entry;
use crate::reverse_mx::FcrdnsResult;
use crate::smtp::escape::Escaped;

/// Records of one answer that the tree shows.
const MAX_RECORDS: usize = 5;
/// The widest text that sets the width of the column.
const MAX_WIDTH: usize = 80;

/// The decision as a tree, for people; `time` is how they read a time.
#[must_use]
pub fn tree(record: &DecisionRecord, time: impl Fn(SystemTime) -> String) -> String {
    let mut tree = Tree { width: if record.id.is_some() { 11 } else { 9 }, ..Tree::default() };
    if let Some(id) = record.id {
        tree.top("id", &format!("{id}, {}{}", time(record.at), id.of_node()));
    }
    tree.top("verdict", &verdict(record));
    if let Some(reply) = record.reply() {
        tree.top("reply", &reply);
    }
    if let Some(reason) = record.reason() {
        tree.top("help", reason.help());
    }
    tree.top("client", &format!("{}{}", record.client, name_of_client(record)));
    if let Some(permit) = record.permit {
        tree.top("permit", &let_in(permit, time));
    }
    if record.id.is_some() {
        transaction_lines(&mut tree, record);
    }
    for (at, identity) in Identity::ALL.into_iter().enumerate() {
        show_identity(&mut tree, record, identity, at + 1 == Identity::ALL.len());
    }
    tree.text
}

/// The envelope, the outcome and the duration of a past decision; the user of a dry run knows its input.
fn transaction_lines(tree: &mut Tree, record: &DecisionRecord) {
    let DecisionRecord { helo, mail_from, from, reply_to, queue, tls, .. } = record;
    let texts = [("helo", helo), ("mail_from", mail_from)].into_iter();
    let texts = texts.chain(record.all_recipients().map(|recipient| ("rcpt", recipient)));
    let texts = texts.chain([("from", from), ("reply_to", reply_to), ("queue", queue), ("tls", tls)]);
    for (name, text) in texts.filter(|(_, text)| !text.is_empty()) {
        tree.top(name, &Escaped::new(text.as_str()).to_string());
    }
    if record.door != DoorName::Smtp {
        tree.top("door", record.door.name());
    }
    if let Some(outcome) = record.outcome() {
        tree.top("outcome", outcome.name());
    }
    if let Some(reply) = record.relay_reply() {
        tree.top("relay", &Escaped::new(reply).to_string());
    }
    let tags = record.tags();
    if !tags.is_empty() {
        tree.top("tagged", &tags.join(", "));
    }
    let questions = match record.queries() {
        1 => "1 question".to_owned(),
        many => format!("{many} questions"),
    };
    tree.top("took", &format!("{} since MAIL, {questions} to DNS", short(record.duration)));
}

/// `let in by permit 7, until 2026-11-30 14:00:00.000 CET`.
fn let_in(LetIn { number, until }: LetIn, time: impl Fn(SystemTime) -> String) -> String {
    match until {
        Some(until) => format!("let in by permit {number}, until {}", time(until)),
        None => format!("let in by permit {number}, until it is removed"),
    }
}

/// RFC 3339, UTC.
fn seconds(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// RFC 3339, UTC.
#[must_use]
pub fn utc(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

fn verdict(record: &DecisionRecord) -> String {
    let verdict = record.verdict.name();
    let mode = if record.would_be_refused() { " (mode monitor: accepted all the same)" } else { "" };
    let why = record.cause.as_ref().map(|cause| match cause.finding_of(&record.findings) {
        Some(finding) => format!(", because of {}: {} {}", finding.identity, finding.rule, cause.reason),
        None => format!(", because of {}", cause.reason),
    });
    format!("{verdict}{mode}{}", why.unwrap_or_default())
}

fn name_of_client(record: &DecisionRecord) -> String {
    match &record.names {
        None => String::new(),
        Some(FcrdnsResult::Confirmed(_)) => format!(" = {} (forward-confirmed)", record.ptr().join(", ")),
        Some(FcrdnsResult::NoPtr) => " (no PTR record)".to_owned(),
        Some(FcrdnsResult::NotConfirmed(names)) => {
            format!(" (PTR {}, not forward-confirmed)", names.join(", "))
        }
        Some(FcrdnsResult::TempError(trouble)) => format!(" (PTR unknown: {trouble})"),
    }
}

fn show_identity(tree: &mut Tree, record: &DecisionRecord, identity: Identity, last: bool) {
    let findings = findings(record, identity);
    if let Some(note) = note(record, identity, &findings) {
        return tree.line(1, last, &format!("{identity}: {note}"));
    }
    tree.line(1, last, identity.name());
    for (nth, (at, finding)) in findings.iter().enumerate() {
        let decides = decides(record, *at);
        let mark = if decides { "  <-- decides" } else { "" };
        let subject = Escaped::new(finding.subject.as_str());
        let rule = finding.rule;
        let action = action(record, *at, finding).name();
        let last_finding = nth + 1 == findings.len();
        tree.open = vec![!last];
        tree.line(2, last_finding, &format!("{rule} of {subject}: {} [{action}]{mark}", result(finding)));
        tree.open = vec![!last, !last_finding];
        tree.records(&notes::of(finding), &finding.evidence);
        tree.open = vec![];
    }
}

/// The findings of one identity, with their index in the record.
fn findings(record: &DecisionRecord, identity: Identity) -> Vec<(usize, &Finding)> {
    let all = record.findings.iter().enumerate();
    all.filter(|(_, finding)| finding.identity == identity).collect()
}

fn decides(record: &DecisionRecord, at: usize) -> bool {
    record.cause.as_ref().is_some_and(|cause| cause.finding == Some(at))
}

/// The rule's action. For the deciding finding it is the action in force, which may come from another setting
/// (`policy.malformed`, `policy.on_dns_error`).
fn action(record: &DecisionRecord, at: usize, finding: &Finding) -> Action {
    match &record.cause {
        Some(cause) if cause.finding == Some(at) => cause.action,
        _ => finding.action,
    }
}

/// Why an identity has no findings to show; `None` if it has some.
fn note(record: &DecisionRecord, identity: Identity, findings: &[(usize, &Finding)]) -> Option<&'static str> {
    let missing = findings.iter().all(|(_, finding)| finding.outcome == RuleResult::None(Absence::NotGiven));
    let of_header = matches!(identity, Identity::From | Identity::ReplyTo);
    let refuses = Rule::ALL.into_iter().any(|rule| record.actions.action(identity, rule).refuses());
    match identity {
        _ if record.extent == Scope::ExemptClient => Some("exempt client"),
        _ if record.extent == Scope::ExemptRecipients => Some("exempt recipients"),
        _ if record.extent == Scope::Permit => Some("not looked at, a permit lets in the message"),
        _ if record.extent == Scope::Nothing => Some("not looked at, it ended before"),
        _ if findings.is_empty() && !record.actions.looks(identity) => Some("off, not looked up"),
        _ if record.extent == Scope::Envelope && of_header => Some("not looked at, the envelope decided"),
        _ if record.extent == Scope::Envelope && findings.is_empty() && !refuses => {
            Some("not waited for, it refuses nothing")
        }
        // An exempt MAIL FROM domain exempts helo and ptr too.
        Identity::Ptr if findings.is_empty() => Some("not judged, MAIL FROM is exempt"),
        Identity::Helo if findings.is_empty() => Some("not given, or MAIL FROM is exempt"),
        Identity::MailFrom if missing => Some("not given, or the null sender"),
        _ if missing => Some("not given"),
        _ => None,
    }
}

/// The complete decision, for programs.
#[must_use]
pub fn json(record: &DecisionRecord) -> Value {
    let mut object = facts(record);
    let all = record.findings.iter().enumerate();
    let shown = all.map(|(at, finding)| finding_json(record, at, finding));
    object.insert("help".to_owned(), json!(record.reason().map(Reason::help)));
    object.insert("findings".to_owned(), shown.collect());
    object.insert("notes".to_owned(), notes(record));
    Value::Object(object)
}

/// The notes of the identities without findings.
fn notes(record: &DecisionRecord) -> Value {
    let without = Identity::ALL.into_iter().filter(|identity| findings(record, *identity).is_empty());
    let notes = without.filter_map(|identity| Some((identity.name(), note(record, identity, &[])?)));
    Value::Object(notes.map(|(name, note)| (name.to_owned(), json!(note))).collect())
}

/// All decisions of one transaction, for programs: the last refusal, or else the last decision, with the others as `also`.
/// `records` has the oldest first.
#[must_use]
pub fn transaction(records: &[DecisionRecord]) -> Value {
    let refused = records.iter().rposition(|record| record.reason().is_some());
    let Some(at) = refused.or(records.len().checked_sub(1)) else { return Value::Null };
    let mut all: Vec<Value> = records.iter().map(json).collect();
    let mut main = all.remove(at);
    if let Value::Object(object) = &mut main {
        object.insert("also".to_owned(), Value::Array(all));
    }
    main
}

/// The decision without findings, notes and help, for lists.
#[must_use]
pub fn summary(record: &DecisionRecord) -> Value {
    Value::Object(facts(record))
}

fn facts(record: &DecisionRecord) -> Map<String, Value> {
    let deciding = record.deciding();
    let text = |text: &CompactString| (!text.is_empty()).then(|| Escaped::new(text.as_str()).to_string());
    let facts = [
        ("id", json!(record.id.map(|id| id.to_string()))),
        ("at", json!(utc(record.at))),
        ("verdict", json!(record.verdict.name())),
        ("mode", json!(record.mode.name())),
        ("refused", json!(record.refused())),
        ("identity", json!(deciding.map(|finding| finding.identity.name()))),
        ("rule", json!(deciding.map(|finding| finding.rule.name()))),
        ("rung", json!(record.rung().map(Rung::name))),
        ("reason", json!(record.reason().map(Reason::name))),
        ("domain", json!(deciding.map(|finding| Escaped::new(finding.domain.as_str()).to_string()))),
        ("node", json!(record.id.map(|id| id.node().number()))),
        ("door", json!(record.door.name())),
        ("queue", json!(text(&record.queue))),
        ("tls", json!(text(&record.tls))),
        ("client", json!(record.client.to_string())),
        ("ptr", json!(record.ptr())),
        ("helo", json!(text(&record.helo))),
        ("mail_from", json!(text(&record.mail_from))),
        ("rcpt", json!(text(&record.rcpt))),
        ("rcpts", json!(record.rcpts)),
        ("recipients", record.all_recipients().map(text).collect()),
        ("from", json!(text(&record.from))),
        ("reply_to", json!(text(&record.reply_to))),
        ("reply", json!(record.reply())),
        ("outcome", json!(record.outcome().map(Outcome::name))),
        ("relay_reply", json!(record.relay_reply().map(|reply| Escaped::new(reply).to_string()))),
        ("tags", json!(record.tags())),
        ("permit", json!(record.permit.map(|permit| permit.number))),
        ("permit_for", permit_for(record)),
        ("permit_until", json!(record.permit.and_then(|permit| permit.until).map(seconds))),
        ("duration", json!(record.duration.as_secs_f64())),
        ("dns_queries", json!(record.queries())),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn permit_for(record: &DecisionRecord) -> Value {
    let wanted = record.permit_for();
    json!(wanted.map(|(identity, domain)| json!({ "identity": identity.name(), "domain": domain.as_str() })))
}

fn finding_json(record: &DecisionRecord, at: usize, finding: &Finding) -> Value {
    let authentication = finding.authentication.as_deref();
    let (rung, reason) = match finding.outcome {
        RuleResult::Pass(rung) => (Some(rung.name()), None),
        RuleResult::Fail(reason) => (None, Some(reason.name())),
        RuleResult::TempError(_) | RuleResult::None(_) => (None, None),
    };
    json!({
        "identity": finding.identity.name(),
        "rule": finding.rule.name(),
        "action": action(record, at, finding).name(),
        "decides": decides(record, at),
        "subject": Escaped::new(finding.subject.as_str()).to_string(),
        "domain": Escaped::new(finding.domain.as_str()).to_string(),
        "result": finding.outcome.word(),
        "rung": rung,
        "reason": reason,
        "entry": finding.entry.as_ref().map(Entry::as_str),
        "spf": authentication.and_then(|results| results.spf.as_ref()).map(spf_json),
        "dkim": authentication.map(|results| &results.dkim).into_iter().flatten().map(signature_json).collect::<Vec<_>>(),
        "dmarc": authentication.and_then(|results| results.dmarc.as_ref()).map(dmarc_json),
        "evidence": finding.evidence.iter().map(evidence_json).collect::<Vec<_>>(),
    })
}

fn result(finding: &Finding) -> String {
    match finding.outcome {
        RuleResult::Pass(rung) => format!("pass ({rung})"),
        RuleResult::Fail(reason) => format!("fail ({reason})"),
        RuleResult::TempError(trouble) => format!("temperror ({trouble})"),
        RuleResult::None(Absence::NotGiven) => "none (not given)".to_owned(),
        RuleResult::None(Absence::Exempt) => "none (exempt)".to_owned(),
        RuleResult::None(Absence::AwaitsBody) => "none (the body is missing)".to_owned(),
    }
}

/// `MX good.test: 10 mail.good.test`, and the age of the answer.
fn record(evidence: &Evidence) -> (String, String) {
    let Evidence { question, answer, freshness, ttl_left, age, took, .. } = evidence;
    let text = match &**answer {
        Answer::Found(Records::Mx(list)) if list.len() > MAX_RECORDS => {
            let first = list.get(..MAX_RECORDS).unwrap_or_default().to_vec();
            let first = Answer::Found(Records::Mx(first));
            format!("{first} and {} more (--json has them)", list.len() - MAX_RECORDS)
        }
        Answer::NoData => format!("no {} record", question.rtype),
        _ => evidence.answer().into_string(),
    };
    let known = match freshness {
        Freshness::Fresh => format!("fresh, TTL {}, took {}", short(*ttl_left), short(*took)),
        Freshness::Cached => format!("cached, TTL {}, {} old", short(*ttl_left), short(*age)),
        Freshness::Stale => format!("stale, {} old", short(*age)),
    };
    (format!("{question}: {text}"), known)
}

fn evidence_json(evidence: &Evidence) -> Value {
    json!({
        "question": evidence.question.to_string(),
        "answer": evidence.answer().as_str(),
        "freshness": evidence.freshness.name(),
        "ttl_left": evidence.ttl_left.as_secs_f64(),
        "age": evidence.age.as_secs_f64(),
        "took": evidence.took.as_secs_f64(),
    })
}

fn short(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "under 1 ms".to_owned(),
        millis @ 1..1000 => format!("{millis} ms"),
        _ => format!("{:.0} s", duration.as_secs_f64()),
    }
}

/// Text lines with branches.
#[derive(Default)]
struct Tree {
    text: String,
    /// The column of the texts in the head.
    width: usize,
    /// For each level above the current one, whether its branch continues.
    open: Vec<bool>,
    /// Records that are already shown in full.
    shown: Vec<String>,
}

impl Tree {
    fn top(&mut self, name: &str, text: &str) {
        // Writing to a String can't fail.
        writeln!(self.text, "{:width$}{text}", format!("{name}:"), width = self.width).ok();
    }

    /// The notes and the records of one finding, each once; a record that is shown above is only referred to.
    fn records(&mut self, notes: &[String], evidence: &[Evidence]) {
        let mut lines: Vec<(String, String)> = Vec::new();
        for (text, known) in evidence.iter().map(record) {
            if lines.iter().all(|(other, _)| *other != text) {
                lines.push((text, known));
            }
        }
        let lengths = lines.iter().map(|(text, _)| text.chars().count());
        let width = lengths.filter(|length| *length <= MAX_WIDTH).max().unwrap_or_default();
        let count = lines.len();
        for (at, note) in notes.iter().enumerate() {
            self.line(3, count == 0 && at + 1 == notes.len(), note);
        }
        for (at, (text, known)) in lines.into_iter().enumerate() {
            let known = if self.shown.contains(&text) { "as above" } else { &known };
            self.line(3, at + 1 == count, &format!("{text:width$}  ({known})"));
            self.shown.push(text);
        }
    }

    fn line(&mut self, level: usize, last: bool, text: &str) {
        for open in &self.open {
            self.text.push_str(if *open { "│  " } else { "   " });
        }
        if level > 0 {
            self.text.push_str(if last { "└─ " } else { "├─ " });
        }
        // Writing to a String can't fail.
        writeln!(self.text, "{text}").ok();
    }
}
