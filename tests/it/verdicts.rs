//! What the gate decides: tables of cases, each a transaction against a name server of its own.
//!
//! A file of `verdicts/*.table` has parts. `== SENTENCE` opens one and says what it shows; `KEY=VALUE` lines are its
//! configuration (lists are parted by commas); `permit: NAME=VALUE ...` are temporary permits, numbered from 1 on, with client,
//! domain, recipient, identity, all that they have; then comes a table. Its first row names the columns, of
//!
//!   client, helo, mail_from, rcpt   as the client gives them; `<>` is the null sender
//!   from, reply_to                  values of the header fields; `-`: the field isn't there
//!   header                          the header block instead, `\n` for its line ends
//!   answer                          `accept`, or the stage (mail, rcpt, header) and how the reply begins
//!   cause                           identity, rule and reason that decided; `-`: nothing did
//!   findings                        some that must be among the findings: IDENTITY.RULE[:DOMAIN]=RESULT(WHY)
//!   permit                          the number of the permit that let it in; `-`: none did
//!   dns                             `silent`: DNS was not asked anything
//!
//! What has no column is a good sender's. The name server has the sample zones and `verdicts/more.zone`.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use rmxd::config::Settings;
use rmxd::dns::Clock;
use rmxd::evidence::Freshness;
use rmxd::exempt::entry;
use rmxd::exempt::permits::Conditions;
use rmxd::gate::{Gate, Transaction};
use rmxd::policy::decide::{Decision, Verdict};
use rmxd::policy::finding::{Finding, RuleResult};
use rmxd::policy::identity::Identity;
use rmxd::smtp::address::{ForwardPath, ReversePath};
use rmxd::store::permits::{self, NewPermit, PermitStore};
use rmxd::zone::{Behaviour, Name, Server, Zone};

use crate::support::{self, case_files};

const COLUMNS: [&str; 12] = [
    "client",
    "helo",
    "mail_from",
    "rcpt",
    "from",
    "reply_to",
    "header",
    "answer",
    "cause",
    "findings",
    "permit",
    "dns",
];

/// What stands in no column.
const USUAL: [(&str, &str); 6] = [
    ("client", "127.0.0.10"),
    ("helo", "mail.good.test"),
    ("mail_from", "a@good.test"),
    ("rcpt", "user@here.test"),
    ("from", "a@good.test"),
    ("reply_to", "-"),
];

pub(crate) struct Part {
    /// File, line and sentence.
    pub(crate) title: String,
    pub(crate) settings: Settings,
    permits: Vec<Conditions>,
    pub(crate) rows: Vec<Row>,
}

pub(crate) struct Row {
    pub(crate) line: usize,
    cells: HashMap<String, String>,
}

impl Row {
    fn cell(&self, name: &str) -> Option<&str> {
        let usual = || USUAL.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        self.cells.get(name).map(String::as_str).or_else(usual)
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.cell(name).unwrap_or_else(|| panic!("row {}: no {name}", self.line))
    }

    /// The header block, every line with its CRLF.
    pub(crate) fn header(&self) -> String {
        if let Some(block) = self.cell("header") {
            return block.replace("\\n", "\r\n");
        }
        let field = |name, value: &str| match value {
            "-" => String::new(),
            value => format!("{name}: {value}\r\n"),
        };
        field("From", self.text("from")) + &field("Reply-To", self.text("reply_to"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_of_the_tables_is_decided_as_it_says() {
    let mut wrong = Vec::new();
    for file in case_files("verdicts", "table") {
        for part in parts(&file) {
            assert!(!part.rows.is_empty(), "{} has no rows", part.title);
            let played = part.rows.iter().map(|row| play(&part, row));
            wrong.extend(futures_util::future::join_all(played).await.into_iter().flatten());
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

pub(crate) fn zone() -> Zone {
    let mut zone = Zone::sample();
    let more = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/verdicts/more.zone");
    zone.merge(Zone::read(&more).unwrap());
    zone
}

/// What went otherwise than the row says.
async fn play(part: &Part, row: &Row) -> Vec<String> {
    let server = Server::start("127.0.0.1:0".parse().unwrap(), zone()).await.unwrap();
    let permits = PermitStore::in_memory(permits::Clock::default());
    for conditions in part.permits.clone() {
        permits
            .add(NewPermit { conditions, note: String::new(), time: None, decision: None, node: None })
            .unwrap();
    }
    let dns = support::dns(&part.settings, server.address(), Clock::running());
    let gate = rmxd::daemon::gate_with_permits(dns, &part.settings, Some(permits)).unwrap();
    let seen = transaction(&gate, row).await;
    let mut wrong = Vec::new();
    let mut compare = |what: &str, expected: &str, seen: &str| {
        if expected != seen {
            wrong.push(format!("{}, row {}: {what}: expected {expected}, got {seen}", part.title, row.line));
        }
    };
    let answer = row.text("answer");
    match &seen.refused {
        Some((_, reply)) if reply.starts_with(answer) => {}
        Some((_, reply)) => compare("answer", answer, reply),
        None => compare("answer", answer, "accept"),
    }
    let cause = seen.decision.cause.as_ref().map_or("-".to_owned(), |cause| {
        let finding = cause.finding_of(&seen.findings).unwrap();
        format!("{} {} {}", finding.identity, finding.rule, cause.reason)
    });
    if let Some(expected) = row.cell("cause") {
        compare("cause", expected, &cause);
    }
    let findings: Vec<String> = seen.findings.iter().flat_map(shown).collect();
    for expected in row.cell("findings").unwrap_or_default().split_whitespace() {
        if !findings.iter().any(|finding| finding == expected) {
            compare("findings", expected, &findings.join(" "));
        }
    }
    if let Some(expected) = row.cell("permit") {
        compare("permit", expected, &seen.permit.map_or("-".to_owned(), |number| number.to_string()));
    }
    if row.cell("dns") == Some("silent") {
        let asked: Vec<_> = server.questions().latest.iter().map(ToString::to_string).collect();
        compare("questions", "", &asked.join(", "));
    }
    // whatever else, DNS trouble is never a 5xx, and a refusal never goes without its id
    if let Some((id, reply)) = &seen.refused {
        assert!(reply.contains(&format!("(id {id})")), "{reply}");
        let reason = seen.decision.cause.as_ref().map(|cause| cause.reason.name());
        assert!(reason != Some("dns_error") || reply.contains(" 451 4.4.3 "), "{reply}");
    }
    wrong
}

struct Seen {
    /// The id, and stage and reply.
    refused: Option<(String, String)>,
    decision: Decision,
    findings: Vec<Finding>,
    permit: Option<u64>,
}

impl Seen {
    fn of(transaction: &Transaction, refused: Option<String>) -> Self {
        let decision = transaction.decision().cloned().unwrap_or_else(rmxd::policy::decide::exempt);
        let refused = refused.map(|reply| (transaction.id().to_string(), reply));
        let permit = transaction.record(&decision).permit.map(|permit| permit.number);
        Self { refused, decision, findings: transaction.findings().to_vec(), permit }
    }
}

/// A transaction of the gate, as a door drives it.
async fn transaction(gate: &std::sync::Arc<Gate>, row: &Row) -> Seen {
    let mail_from = row.text("mail_from").trim_start_matches('<').trim_end_matches('>');
    let recipient = ForwardPath::parse(row.text("rcpt")).unwrap();
    let mut client = gate.client(row.text("client").parse().unwrap());
    client.helo(row.text("helo"));
    let mut transaction = client.transaction(&ReversePath::parse(mail_from).unwrap());
    if let Err(reply) = transaction.mail(&mut client).await {
        return Seen::of(&transaction, Some(format!("mail {reply}")));
    }
    match transaction.rcpt(&mut client, &recipient).await {
        Ok(permit) => transaction.accepted(permit, recipient),
        Err(reply) => return Seen::of(&transaction, Some(format!("rcpt {reply}"))),
    }
    if let Err(reply) = transaction.header(&mut client, row.header().as_bytes()).await {
        return Seen::of(&transaction, Some(format!("header {reply}")));
    }
    let refused = transaction.end().await.err().map(|reply| format!("body {reply}"));
    Seen::of(&transaction, refused)
}

/// A finding without and with its domain.
fn shown(finding: &Finding) -> [String; 2] {
    let Finding { identity, rule, domain, outcome, .. } = finding;
    let result = match outcome {
        RuleResult::Pass(rung) => format!("pass({rung})"),
        RuleResult::Fail(reason) => format!("fail({reason})"),
        RuleResult::TempError(_) | RuleResult::None(_) => outcome.word().to_owned(),
    };
    [format!("{identity}.{rule}={result}"), format!("{identity}.{rule}:{domain}={result}")]
}

pub(crate) fn parts(file: &Path) -> Vec<Part> {
    let name = file.file_name().unwrap().to_str().unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let mut parts = Vec::new();
    for part in format!("\n{text}").split("\n== ").skip(1) {
        let (sentence, body) = part.split_once('\n').unwrap();
        let before = text.split(&format!("== {sentence}\n")).next().unwrap().lines().count();
        let lines: Vec<(usize, &str)> =
            body.lines().enumerate().map(|(at, line)| (before + 2 + at, line.trim())).collect();
        let set = lines.iter().map(|(_, line)| *line);
        let set = set
            .filter(|line| !line.is_empty() && !line.starts_with(['#', '|']) && !line.starts_with("permit:"));
        let permits =
            lines.iter().filter_map(|(_, line)| line.strip_prefix("permit:")).map(conditions).collect();
        let mut table = lines.iter().filter_map(|(at, line)| Some((*at, cells(line)?)));
        let (_, columns) = table.next().unwrap_or_else(|| panic!("{name}: {sentence}: no table"));
        for column in &columns {
            assert!(COLUMNS.contains(&column.as_str()), "{name}: {sentence}: no column {column}");
        }
        let rows = table.map(|(line, cells)| {
            assert_eq!(cells.len(), columns.len(), "{name}:{line}");
            Row { line, cells: columns.iter().cloned().zip(cells).collect() }
        });
        let rows = rows.collect();
        let title = format!("{name}: {sentence}");
        parts.push(Part { title, settings: support::settings(set), permits, rows });
    }
    parts
}

fn conditions(text: &str) -> Conditions {
    let mut conditions = Conditions::default();
    for part in text.split_whitespace() {
        match part.split_once('=').unwrap() {
            ("client", value) => conditions.client = Some(entry::network(value).unwrap()),
            ("domain", value) => conditions.domain = Some(entry::pattern(value).unwrap()),
            ("identity", value) => {
                conditions.identity = Identity::ALL.into_iter().find(|it| it.name() == value);
                assert!(conditions.identity.is_some(), "{value}");
            }
            ("recipient", value) => conditions.recipient = Some(entry::recipient(value).unwrap()),
            (other, _) => panic!("{other}"),
        }
    }
    conditions
}

fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// Asked again, with DNS as it is now.
async fn again(gate: &std::sync::Arc<Gate>, mail_from: &str) -> Seen {
    let cells = [("mail_from", mail_from), ("answer", "-")];
    let cells = cells.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    transaction(gate, &Row { line: 0, cells }).await
}

/// contract 1.3: the same domains before their answers expire, after it, and after the time for which a stale answer
/// counts; DNS fails from the second time on.
#[tokio::test]
async fn an_expired_answer_carries_an_accept_while_dns_fails_and_never_a_5xx() {
    let server = Server::start("127.0.0.1:0".parse().unwrap(), Zone::sample()).await.unwrap();
    let clock = Clock::standing();
    let settings =
        support::settings(["policy.matches_by=mx", "policy.mail_from.matches=reject", "dns.cache.stale=1h"]);
    let gate = support::gate(&settings, server.address(), clock.clone());
    let verdicts = async || {
        let mut verdicts = Vec::new();
        for mail_from in ["a@good.test", "a@nomx.test", "a@nowhere.test", "a@bulk.test"] {
            let seen = again(&gate, mail_from).await;
            let cause = seen.decision.cause.as_ref().map_or("", |cause| cause.reason.name());
            let stale =
                |finding: &Finding| finding.evidence.iter().any(|it| it.freshness == Freshness::Stale);
            let stale = seen.findings.iter().any(stale);
            verdicts.push((seen.decision.verdict, cause, stale));
        }
        verdicts
    };
    let clear = [
        (Verdict::Accept, "", false),
        (Verdict::Reject, "no_mx", false),
        (Verdict::Reject, "no_such_domain", false),
        (Verdict::Reject, "not_an_exchanger", false),
    ];
    assert_eq!(verdicts().await, clear);

    let mut broken = Zone::new();
    broken.behave(&Name::root(), None, Behaviour::ServFail);
    server.replace(broken);
    assert_eq!(verdicts().await, clear, "within their TTL the answers are as good as before");

    clock.advance(Duration::from_secs(600));
    let defer = |stale| (Verdict::Defer, "dns_error", stale);
    // bulk.test has an MX that was found before, but none that is the client: that is not held against it
    let stale = [(Verdict::Accept, "", true), defer(false), defer(false), defer(true)];
    assert_eq!(verdicts().await, stale);

    clock.advance(Duration::from_secs(4 * 3600));
    assert_eq!(verdicts().await, [defer(false); 4], "too old to count");

    server.replace(Zone::sample());
    clock.advance(Duration::from_secs(3600));
    assert_eq!(verdicts().await, clear, "DNS is well again");
}

/// contract 1.3: neither an expired DMARC record nor an expired SPF policy carries a 5xx; a pass may rest on both.
#[tokio::test]
async fn an_expired_answer_about_the_owner_of_from_carries_no_5xx() {
    let rows = [
        ("the record", "127.0.99.9", "a@a-only.test", "_dmarc.vault.test", Verdict::Defer),
        ("a record above", "127.0.99.9", "a@a-only.test", "_dmarc.strict.test", Verdict::Reject),
        ("the SPF policy", "127.0.99.9", "a@vault.test", "vault.test", Verdict::Defer),
        ("the SPF policy", "127.0.81.1", "a@vault.test", "vault.test", Verdict::Accept),
    ];
    for (what, client, mail_from, broken, expected) in rows {
        let server = Server::start("127.0.0.1:0".parse().unwrap(), zone()).await.unwrap();
        let clock = Clock::standing();
        let settings = support::settings(["dns.cache.stale=1h"]);
        let gate = support::gate(&settings, server.address(), clock.clone());
        let cells = [
            ("client", client),
            ("helo", "out.vault.test"),
            ("mail_from", mail_from),
            ("from", "a@vault.test"),
            ("answer", "-"),
        ];
        let cells = cells.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let row = Row { line: 0, cells };
        let first = transaction(&gate, &row).await;
        let usual = if expected == Verdict::Accept { Verdict::Accept } else { Verdict::Reject };
        assert_eq!(first.decision.verdict, usual, "{what}, fresh");
        let mut sick = zone();
        sick.merge(Zone::parse(&format!(";! servfail {broken}. TXT\n"), None).unwrap());
        server.replace(sick);
        clock.advance(Duration::from_secs(600));
        let later = transaction(&gate, &row).await;
        assert_eq!(later.decision.verdict, expected, "{what}: {:?}", later.findings);
    }
}

/// contract 1.8, 3.3: what makes a message indirect is evidence, whether or not `mail_from.matches` was looked at anyway.
#[tokio::test]
async fn the_envelope_of_indirect_mail_is_in_the_evidence() {
    let server = Server::start("127.0.0.1:0".parse().unwrap(), zone()).await.unwrap();
    for set in [
        ["policy.mail_from.matches=off", "policy.mail_from.exists=off"],
        ["policy.mail_from.matches=tag", ""],
    ] {
        let settings = support::settings(set.into_iter().filter(|line| !line.is_empty()));
        let gate = support::gate(&settings, server.address(), Clock::running());
        let cells = [
            ("client", "127.0.82.1"),
            ("mail_from", "d@lists.test"),
            ("header", "From: a@vault.test\\nList-Id: d <d.lists.test>\\n"),
            ("answer", "-"),
        ];
        let cells = cells.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let seen = transaction(&gate, &Row { line: 0, cells }).await;
        let mut asked = seen.findings.iter().flat_map(|finding| &finding.evidence);
        assert!(
            asked.any(|seen| seen.question.to_string() == "MX lists.test"),
            "{set:?}: {:?}",
            seen.findings
        );
    }
}
