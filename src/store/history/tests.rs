//! The history with a real file: round trips, searches and limits.

mod faults;
mod view;

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::UNIX_EPOCH;

use compact_str::{CompactString, format_compact};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::decision::{Actions, End, LetIn, Node, Scope};
use crate::evidence::{
    Answer, DnsFailure, Evidence, Freshness, Question, QuestionName, RecordType, Records, Target,
};
use crate::policy::authentication::{
    Authentication, DmarcCheck, DmarcResult, Indirect, Request, SignatureCheck, SignatureResult, SpfCheck,
    SpfResult, WaySign,
};
use crate::policy::decide::{Cause, Verdict};
use crate::policy::door::DoorName;
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Mode, Rule, Rung};
use crate::policy::senders::Entry;
use crate::reverse_mx::FcrdnsResult;
use crate::smtp::address::DomainName;
use crate::store::history::row::Scratch;

const KEEP: Duration = Duration::from_secs(3600);

fn settings(folder: &Path) -> Settings {
    Settings { path: folder.join("history"), keep: KEEP, size: 64 << 20 }
}

fn opened() -> (TempDir, Settings, History) {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let history = History::open(&settings).unwrap();
    (folder, settings, history)
}

/// Drops the history and waits for the end of its thread.
fn close(history: History) {
    let weak = history.downgrade();
    drop(history);
    weak.wait_until_written();
}

fn archive(settings: &Settings) -> Archive {
    Archive::open(settings.clone()).unwrap().expect("a history")
}

/// The time in milliseconds, as a record keeps it.
fn now() -> SystemTime {
    decode::time(encode::milliseconds(SystemTime::now())).unwrap()
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn evidence(rtype: RecordType, domain: &str, answer: Answer) -> Evidence {
    let name = QuestionName::parse(domain.as_bytes()).unwrap();
    let [ttl_left, age] = [55_000, 5_000].map(Duration::from_millis);
    let (question, took) = (Question { name, rtype }, Duration::from_micros(1234));
    let servers = ["192.0.2.53:53", "[fe80::1%3]:5353"].map(|text| Arc::new(text.parse().unwrap()));
    let [v4, v6] = servers;
    let server = match answer {
        Answer::Unavailable(DnsFailure::Timeout) => Some(v4),
        Answer::Unavailable(DnsFailure::NoRoute) => Some(v6),
        _ => None,
    };
    Evidence { question, answer: Arc::new(answer), freshness: Freshness::Cached, ttl_left, age, took, server }
}

fn finding(identity: Identity, subject: &str, outcome: RuleResult, evidence: Vec<Evidence>) -> Finding {
    let domain = subject.rsplit('@').next().unwrap();
    let action = Action::Reject;
    Finding { action, evidence, ..Finding::new(identity, Rule::Exists, domain, subject, outcome) }
}

fn cause(reason: Reason, action: Action, at: usize, subject: &str) -> Cause {
    Cause { reason, action, wait: None, finding: Some(at), subject: subject.into() }
}

/// A refusal for a domain without an MX record.
pub(super) fn refusal(number: u64, domain: &str) -> DecisionRecord {
    let sender = format!("user@{domain}");
    let found = vec![evidence(RecordType::Mx, domain, Answer::NoData)];
    DecisionRecord {
        id: Some(Id::nth(number)),
        at: now(),
        client: "192.0.2.7".parse().unwrap(),
        door: DoorName::Smtp,
        queue: CompactString::default(),
        tls: CompactString::default(),
        names: Some(FcrdnsResult::NoPtr),
        extent: Scope::Envelope,
        mode: Mode::Enforce,
        actions: Actions::from_all([Action::Reject; 10]),
        verdict: Verdict::Reject,
        cause: Some(cause(Reason::NoMx, Action::Reject, 0, &sender)),
        end: None,
        rcpts: 0,
        recipients: Vec::new(),
        help_url: Arc::from(""),
        helo: "mail.example.test".into(),
        mail_from: format_compact!("<{sender}>"),
        rcpt: "user@here.test".into(),
        from: CompactString::default(),
        reply_to: CompactString::default(),
        duration: Duration::from_micros(4321),
        findings: Arc::new(vec![finding(Identity::MailFrom, &sender, RuleResult::Fail(Reason::NoMx), found)]),
        permit: None,
        whole: true,
    }
}

/// A record with every field.
fn richest() -> DecisionRecord {
    use Answer::{Found, NoSuchDomain, Unavailable};
    let host = |text: &str| Target::Host(name(text));
    let addresses = ["2001:db8::1", "::1"].map(|text| text.parse().unwrap());
    let answers = [
        (RecordType::Mx, Found(Records::Mx(vec![(0, Target::Root), (65_535, host("mx.rich.test"))]))),
        (RecordType::A, Found(Records::A(vec!["192.0.2.1".parse().unwrap()]))),
        (RecordType::Aaaa, Found(Records::Aaaa(addresses.to_vec()))),
        (RecordType::Ptr, Found(Records::Ptr(vec![Target::Invalid("b\\032d.test".into()), host("a.test")]))),
        (
            RecordType::Txt,
            Found(Records::Txt(vec![b"v=spf1 \xff -all".as_slice().into(), b"".as_slice().into()])),
        ),
        (RecordType::Cname, Found(Records::Cname(host("alias.test")))),
        (RecordType::A, NoSuchDomain),
        (RecordType::Aaaa, Unavailable(DnsFailure::AliasLoop)),
        (RecordType::Aaaa, Unavailable(DnsFailure::Timeout)),
        (RecordType::Mx, Unavailable(DnsFailure::NoRoute)),
    ];
    let found: Vec<_> = answers.map(|(rtype, answer)| evidence(rtype, "rich.test", answer)).into();
    let outcomes = [
        (Identity::Helo, RuleResult::TempError(DnsFailure::Down)),
        (Identity::Ptr, RuleResult::None(Absence::Exempt)),
        (Identity::MailFrom, RuleResult::Fail(Reason::NotAnExchanger)),
        (Identity::From, RuleResult::Pass(Rung::Dkim)),
        (Identity::ReplyTo, RuleResult::None(Absence::AwaitsBody)),
    ];
    let mut findings =
        outcomes.map(|(identity, outcome)| finding(identity, "a@rich.test", outcome, found.clone()));
    findings[3].action = Action::Dmarc;
    findings[3].entry = Some(Entry::new("policy.senders 1: .rich.test"));
    findings[2].authentication = Some(Box::new(Authentication {
        spf: Some(SpfCheck {
            result: SpfResult::SoftFail,
            identity: Identity::MailFrom,
            domain: "rich.test".into(),
        }),
        ..Authentication::default()
    }));
    let signature = |result, aligned| SignatureCheck {
        result,
        domain: "rich.test".into(),
        selector: "key1".into(),
        aligned,
    };
    let indirect = Indirect { sign: WaySign::Arc, envelope: "lists.test".into(), rung: Rung::Spf };
    findings[3].authentication = Some(Box::new(Authentication {
        spf: None,
        dkim: vec![signature(SignatureResult::Pass, true), signature(SignatureResult::PermError, false)],
        dkim_whole: true,
        dmarc: Some(DmarcCheck {
            result: Some(DmarcResult::Fail),
            request: Some(Request::Reject),
            testing: true,
            record_at: "rich.test".into(),
            organization: "test".into(),
            indirect: Some(indirect),
        }),
    }));
    let wait = Some(Duration::from_secs(299));
    DecisionRecord {
        client: "2001:db8::7".parse().unwrap(),
        door: DoorName::Policy,
        queue: "4jcGdd1D05z1VcKC".into(),
        tls: "TLSv1.3".into(),
        names: Some(FcrdnsResult::Confirmed(vec![name("a.rich.test"), name("rich.test")])),
        extent: Scope::Message,
        mode: Mode::Monitor,
        verdict: Verdict::Defer,
        cause: Some(Cause { wait, ..cause(Reason::Greylisted, Action::Greylist, 2, "a@rich.test") }),
        end: Some(End {
            outcome: Outcome::RelayFailed,
            trouble: Some(Reason::RelayLost),
            relay_reply: "421 4.3.2 bye".into(),
            answer: "451 4.4.2 lost (id 00000000)".into(),
        }),
        rcpts: 300,
        recipients: vec!["two@here.test".into(), "Three@here.test".into()],
        permit: Some(LetIn {
            number: 300,
            until: Some(UNIX_EPOCH + Duration::from_millis(1_764_000_000_000)),
        }),
        help_url: Arc::from("https://mail.example/why"),
        helo: "\u{202e}\u{1b}[31m".into(),
        from: "a@rich.test, b@rich.test".into(),
        reply_to: "c@rich.test".into(),
        findings: Arc::new(findings.into()),
        ..refusal(0, "rich.test")
    }
}

fn domains(records: &[DecisionRecord]) -> Vec<&str> {
    records.iter().map(|record| record.deciding().unwrap().domain.as_str()).collect()
}

#[test]
fn a_decoded_record_equals_the_encoded_one() {
    let others = [
        Some(FcrdnsResult::NotConfirmed(vec!["one.test".into(), "b\\032d.test".into()])),
        Some(FcrdnsResult::TempError(DnsFailure::Refused)),
        None,
    ];
    let others = others.map(|names| DecisionRecord { names, id: None, cause: None, ..refusal(1, "a.test") });
    for record in [refusal(7, "spoof.test"), richest()].into_iter().chain(others) {
        let mut octets = Vec::new();
        encode::record(&mut octets, &record, &[]);
        assert_eq!(decode::record(&octets, vec![], |_| true), Some(Some(record.clone())));
        // A text that the decoder knows takes an octet.
        let known = [record.helo.as_str(), "rich.test", "a@rich.test", "spoof.test", "not in it"];
        let mut shorter = Vec::new();
        encode::record(&mut shorter, &record, &known);
        assert_eq!(decode::record(&shorter, known.to_vec(), |_| true), Some(Some(record.clone())));
        assert!(shorter.len() + record.helo.len() <= octets.len());
        // A shortened record is invalid, unless it has the form of older versions.
        let plain = record.findings.iter().map(|finding| Finding {
            action: record.actions.action(finding.identity, finding.rule),
            entry: None,
            authentication: None,
            ..finding.clone()
        });
        let mut without_marks = record.clone();
        for finding in Arc::make_mut(&mut without_marks.findings) {
            if let Some(results) = &mut finding.authentication {
                results.dkim_whole = false;
            }
        }
        let without_permit = DecisionRecord { permit: None, ..without_marks.clone() };
        let without_recipients =
            DecisionRecord { recipients: vec![], tls: CompactString::default(), ..without_permit.clone() };
        let without_door = DecisionRecord {
            door: DoorName::Smtp,
            queue: CompactString::default(),
            ..without_recipients.clone()
        };
        let without_results = DecisionRecord { findings: Arc::new(plain.collect()), ..without_door.clone() };
        let without_end = DecisionRecord { end: None, rcpts: 0, ..without_results.clone() };
        let read = (0..octets.len()).filter_map(|end| decode::record(&octets[..end], vec![], |_| true));
        let expected =
            [without_end, without_results, without_door, without_recipients, without_permit, without_marks];
        assert_eq!(read.flatten().collect::<Vec<_>>(), expected);
    }
}

/// RFC 3339, in which times are shown, ends with the year 9999.
#[test]
fn a_time_past_the_year_9999_is_damage() {
    let last = UNIX_EPOCH + Duration::from_millis(253_402_300_799_999);
    let of = |at, until| DecisionRecord {
        at,
        permit: Some(LetIn { number: 7, until: Some(until) }),
        ..refusal(7, "a.test")
    };
    let late = last + Duration::from_millis(1);
    for (record, is_read) in [(of(last, last), true), (of(late, last), false), (of(last, late), false)] {
        let mut octets = Vec::new();
        encode::record(&mut octets, &record, &[]);
        let read = decode::record(&octets, vec![], |_| true).flatten();
        assert_eq!(read.is_some(), is_read);
        if let Some(record) = read {
            assert!(crate::decision::report::utc(record.at).starts_with("9999-12-31T23:59:59"));
        }
    }
}

#[test]
fn a_refusal_without_a_rule_has_no_finding_in_old_records_either() {
    let found = finding(Identity::MailFrom, "a@good.test", RuleResult::Pass(Rung::Mx), Vec::new());
    let new = DecisionRecord {
        cause: Some(Cause::without_rule(Reason::RelayingDenied, "b@elsewhere.test")),
        findings: Arc::new(vec![found.clone()]),
        ..refusal(7, "good.test")
    };
    // As older versions wrote it.
    let denied = RuleResult::Fail(Reason::RelayingDenied);
    let made_up =
        Finding { domain: "".into(), ..finding(Identity::MailFrom, "b@elsewhere.test", denied, Vec::new()) };
    let old = DecisionRecord {
        cause: Some(cause(Reason::RelayingDenied, Action::Reject, 1, "")),
        findings: Arc::new(vec![found, made_up]),
        ..new.clone()
    };
    for record in [&new, &old] {
        let mut octets = Vec::new();
        encode::record(&mut octets, record, &[]);
        assert_eq!(decode::record(&octets, vec![], |_| true), Some(Some(new.clone())));
    }
}

#[test]
fn a_refusal_takes_few_octets_and_a_huge_answer_is_cut() {
    let mut octets = Vec::new();
    encode::record(&mut octets, &refusal(7, "spoof.test"), &[]);
    assert!(octets.len() < 200, "{}", octets.len());
    let hosts = (0..5000).map(|at| (10, Target::Host(name(&format!("mx{at}.huge.test"))))).collect();
    let found = vec![evidence(RecordType::Mx, "huge.test", Answer::Found(Records::Mx(hosts))); 10];
    let huge = finding(Identity::MailFrom, "a@huge.test", RuleResult::Pass(Rung::Mx), found);
    octets.clear();
    encode::record(
        &mut octets,
        &DecisionRecord { findings: Arc::new(vec![huge]), ..refusal(1, "huge.test") },
        &[],
    );
    assert!(octets.len() < 4096, "{}", octets.len());
}

proptest! {
    #[test]
    fn decoding_never_panics(octets in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..400, byte: u8) {
        decode::record(&octets, vec!["known"], |_| true);
        let mut changed = Vec::new();
        encode::record(&mut changed, &richest(), &[]);
        let place = at % changed.len();
        changed[place] = byte;
        decode::record(&changed, vec![], |_| true);
    }
}

#[tokio::test]
async fn a_decision_is_found_before_and_after_it_is_written() {
    let (_folder, settings, history) = opened();
    let records: Vec<_> = (0..5).map(|number| refusal(number, &format!("d{number}.test"))).collect();
    records.iter().for_each(|record| history.record(record.clone()));
    let newest: Vec<_> = records.iter().rev().cloned().collect();
    for _ in 0..2 {
        let page = history.search(Filter::default(), None, 10).await.unwrap();
        assert_eq!((page.records, page.next), (newest.clone(), None));
        assert_eq!(history.find(Id::nth(3)).await.unwrap(), [records[3].clone()]);
        assert_eq!(history.find(Id::nth(99)).await.unwrap(), []);
        history.flush();
    }
    assert!(archive(&settings).is_live());
    assert_eq!(archive(&settings).find(Id::nth(2)).unwrap(), [records[2].clone()]);
    close(history);
    assert!(!archive(&settings).is_live());
    // Another daemon continues the history.
    let history = History::open(&settings).unwrap();
    history.record(refusal(5, "d5.test"));
    let page = history.search(Filter::default(), None, 3).await.unwrap();
    assert_eq!(domains(&page.records), ["d5.test", "d4.test", "d3.test"]);
    assert_eq!(history.count().recorded, 1);
}

#[tokio::test]
async fn pages_have_no_gaps_or_repetitions_while_records_are_added() {
    let (_folder, settings, history) = opened();
    for number in 0..1000 {
        history.record(refusal(number, &format!("d{number}.test")));
        if number % 300 == 0 {
            history.flush();
        }
    }
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = history.search(Filter::default(), before, 77).await.unwrap();
        assert!(page.records.len() == 77 || page.next.is_none());
        seen.extend(page.records.iter().map(|record| record.id.unwrap().number()));
        let Some(next) = page.next else { break };
        let text = next.to_string();
        assert_eq!(text.parse(), Ok(next), "{text}");
        before = Some(next);
        history.record(refusal(5000, "late.test"));
        history.flush();
    }
    assert_eq!(seen, (0..1000).rev().collect::<Vec<_>>());
    let mut count = 0;
    archive(&settings).all(&Filter::default(), |_| count += 1).unwrap();
    assert_eq!(count, 1000 + 12);
    let folded = history.fold(Filter::default(), 0, |count, _| *count += 1).await.unwrap();
    assert_eq!(folded, count);
}

#[tokio::test]
async fn filters_find_the_matching_decisions() {
    let (_folder, _settings, history) = opened();
    let began = now();
    let monitored = DecisionRecord { mode: Mode::Monitor, ..refusal(1, "sub.spoof.test") };
    let client: IpAddr = "198.51.100.9".parse().unwrap();
    let other = DecisionRecord { client, verdict: Verdict::Defer, ..refusal(2, "notspoof.test") };
    let passed = {
        let pass = finding(Identity::From, "a@good.test", RuleResult::Pass(Rung::Mx), vec![]);
        DecisionRecord {
            verdict: Verdict::Accept,
            cause: None,
            findings: Arc::new(vec![pass]),
            from: "x@listed.test, y@exempt.test".into(),
            ..refusal(3, "bounce.test")
        }
    };
    let old = DecisionRecord { at: began - Duration::from_secs(600), ..refusal(4, "old.test") };
    let end = End { outcome: Outcome::RelayFailed, ..richest().end.unwrap() };
    let passed = DecisionRecord {
        end: Some(end),
        queue: "4jcGdd1D05z1VcKC".into(),
        recipients: vec!["Second@here.test".into()],
        ..passed
    };
    let tagged = |mut record: DecisionRecord| {
        let fails = RuleResult::Fail(Reason::NotAnExchanger);
        let tag = Finding { action: Action::Tag, ..finding(Identity::Helo, "helo.test", fails, vec![]) };
        record.findings = Arc::new(record.findings.iter().cloned().chain([tag]).collect());
        record
    };
    for record in [old, refusal(0, "spoof.test"), monitored, tagged(other), passed] {
        history.record(record);
    }
    let all = &[3, 2, 1, 0, 4][..];
    let rows: [(&[(&str, &str)], &[u64]); 40] = [
        (&[], all),
        (&[("verdict", "reject")], &[1, 0, 4]),
        (&[("verdict", "accept")], &[3]),
        (&[("reason", "no_mx")], &[2, 1, 0, 4]),
        (&[("reason", "null_mx")], &[]),
        (&[("identity", "mail_from")], &[2, 1, 0, 4]),
        (&[("identity", "from")], &[3]),
        (&[("domain", "spoof.test")], &[1, 0]),
        (&[("domain", ".Spoof.TEST")], &[1, 0]),
        (&[("domain", "exempt.test")], &[3]),
        (&[("domain", "bounce.test")], &[3]),
        (&[("domain", "bounce.test"), ("identity", "from")], &[]),
        (&[("domain", "mail.example.test")], all),
        (&[("client", "198.51.100.9")], &[2]),
        (&[("client", "192.0.2.0/24")], &[3, 1, 0, 4]),
        (&[("client", "::ffff:198.51.100.9")], &[2]),
        (&[("client", "::ffff:192.0.2.0/120")], &[3, 1, 0, 4]),
        (&[("client", "2001:db8::/32")], &[]),
        (&[("reason", "relay_lost")], &[3]),
        (&[("outcome", "relay_failed")], &[3]),
        (&[("outcome", "delivered")], &[]),
        (&[("queue", "4jcGdd1D05z1VcKC")], &[3]),
        (&[("queue", "4JCGDD1D05Z1VCKC")], &[]),
        (&[("rcpt", "USER@here.test")], all),
        (&[("rcpt", "second@here.test")], &[3]),
        (&[("rcpt", "nobody@here.test")], &[]),
        (&[("tag", "not_an_exchanger")], &[2]),
        (&[("tag", "no_mx")], &[]),
        (&[("tag", "not_an_exchanger"), ("verdict", "accept")], &[]),
        (&[("since", "5m")], &[3, 2, 1, 0]),
        (&[("until", "5m")], &[4]),
        (&[("would", "true")], &[1]),
        (&[("id", "7HQF6WQY")], &[2]),
        (&[("id", " 7hqf-6wqy")], &[2]),
        (&[("sender", "USER@Spoof.test")], &[0]),
        (&[("sender", "<user@spoof.test>")], &[0]),
        (&[("sender", "b@spoof.test")], &[]),
        (&[("sender", "<>")], &[]),
        (&[("sender", "y@EXEMPT.test")], &[3]),
        (&[("would", "false"), ("domain", "spoof.test")], &[0]),
    ];
    for (keys, expected) in rows {
        let mut filter = Filter::default();
        keys.iter().for_each(|(key, value)| filter.set(key, value, SystemTime::now()).unwrap());
        for _ in 0..2 {
            let page = history.search(filter.clone(), None, 10).await.unwrap();
            let found: Vec<_> = page.records.iter().map(|record| record.id.unwrap().number()).collect();
            assert_eq!(found, expected, "{keys:?}");
            history.flush();
        }
    }
    let time = humantime::format_rfc3339_millis(began - Duration::from_secs(1)).to_string();
    let mut filter = Filter::default();
    filter.set("since", &time, SystemTime::now()).unwrap();
    assert_eq!(history.search(filter, None, 10).await.unwrap().records.len(), 4);
}

#[tokio::test]
async fn briefs_go_on_from_a_position_in_both_directions_and_repeat_nothing() {
    let (_folder, _settings, history) = opened();
    for number in 0..10 {
        history.record(refusal(number, "spoof.test"));
    }
    history.flush();
    for number in 10..14 {
        history.record(refusal(number, "waits.test"));
    }
    let accepted = DecisionRecord { verdict: Verdict::Accept, cause: None, ..refusal(14, "good.test") };
    history.record(accepted);
    let read = |scan| history.brief(scan, 4);
    let (mut scan, mut found) = (Scan::Before(None), Vec::new());
    loop {
        let rows = read(scan).await.unwrap();
        found.extend(rows.iter().cloned());
        match rows.last() {
            Some(last) if rows.len() == 4 => scan = Scan::Before(Some(last.cursor)),
            _ => break,
        }
    }
    assert_eq!(found.len(), 15);
    assert!(found.is_sorted_by(|one, other| one.cursor > other.cursor));
    let senders = |domain: &str| {
        let of = |one: &&Brief| one.sender.as_ref().is_some_and(|(known, _)| known == domain);
        found.iter().filter(of).count()
    };
    assert_eq!((senders("spoof.test"), senders("waits.test"), senders("good.test")), (10, 4, 0));
    assert_eq!((found[0].verdict, found[0].reason), (Verdict::Accept, None));
    assert_eq!((found[14].verdict, found[14].reason), (Verdict::Reject, Some(Reason::NoMx)));
    history.flush();
    let mut again = read(Scan::Before(None)).await.unwrap();
    assert_eq!(again, found[..4], "written or not, a decision is the same");
    let newer = read(Scan::After(found[6].cursor)).await.unwrap();
    assert_eq!(newer.iter().rev().collect::<Vec<_>>(), found[2..6].iter().collect::<Vec<_>>());
    history.record(refusal(15, "spoof.test"));
    again = read(Scan::After(found[0].cursor)).await.unwrap();
    assert_eq!(again.len(), 1);
}

#[test]
fn a_filter_refuses_an_invalid_value_with_what_is_allowed() {
    let rows = [
        ("verdict", "no", "\"no\" is not allowed: accept, defer, reject"),
        ("reason", "x", "\"x\" is not allowed: no_such_domain, no_mx, "),
        ("identity", "sender", "\"sender\" is not allowed: helo, ptr, mail_from, from, reply_to"),
        ("domain", "a b", "\"a b\" is not a domain name"),
        ("client", "host", "\"host\" is neither an address nor a network"),
        ("since", "soon", "\"soon\" is neither a duration back from now"),
        ("would", "maybe", "\"maybe\" is not allowed: true, false"),
        ("outcome", "lost", "\"lost\" is not allowed: delivered, refused, "),
        ("tag", "x", "\"x\" is not allowed: no_such_domain, no_mx, "),
        ("rcpt", "", "is empty"),
        ("id", "4KXN7Q2", "\"4KXN7Q2\" is not an id: "),
        ("sender", "spoof.test", "\"spoof.test\" is neither an address such as"),
        ("colour", "red", "is not known: id, verdict, reason, "),
    ];
    for (key, value, expected) in rows {
        let what = Filter::default().set(key, value, SystemTime::now()).unwrap_err();
        assert!(what.starts_with(expected), "{key}: {what}");
    }
    assert!("5-1".parse::<Cursor>().is_err() && "x-1".parse::<Cursor>().is_err());
}

#[test]
fn the_size_limit_holds_and_the_oldest_records_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { size: 1 << 20, ..settings(folder.path()) };
    let history = History::open(&settings).unwrap();
    for number in 0..10_000 {
        history.record(refusal(number, &format!("d{number}.test")));
        if number % 500 == 0 {
            history.flush();
            let octets = octets(folder.path());
            let log = file::wal_octets(&settings.path);
            assert!(octets <= settings.size, "{number}: {octets}, {log} of them in the log");
        }
    }
    history.flush();
    assert_eq!(history.count().octets, octets(folder.path()));
    assert!(history.count().octets > settings.size / 2, "{:?}", history.count());
    let mut numbers = Vec::new();
    archive(&settings).all(&Filter::default(), |it| numbers.push(it.id.unwrap().number())).unwrap();
    let oldest = *numbers.last().unwrap();
    assert_eq!(numbers, (oldest..10_000).rev().collect::<Vec<_>>());
    assert!(oldest < 9_000, "{oldest}");
    // A smaller limit from now on.
    history.set_limits(&Settings { size: 640 << 10, ..settings.clone() });
    history.flush();
    assert!(octets(folder.path()) <= 640 << 10, "{}", octets(folder.path()));
}

/// Octets of all files in a folder.
fn octets(folder: &Path) -> u64 {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn old_records_are_not_found_and_are_removed() {
    let (_folder, settings, history) = opened();
    history.record(DecisionRecord { at: now() - KEEP * 2, ..refusal(1, "old.test") });
    history.record(DecisionRecord { at: now() - KEEP / 2, ..refusal(2, "young.test") });
    history.record(refusal(3, "new.test"));
    let page = history.search(Filter::default(), None, 10).await.unwrap();
    assert_eq!(domains(&page.records), ["new.test", "young.test"], "before they are written");
    history.flush();
    let page = history.search(Filter::default(), None, 10).await.unwrap();
    assert_eq!(domains(&page.records), ["new.test", "young.test"]);
    assert_eq!(history.find(Id::nth(1)).await.unwrap(), []);
    assert_eq!(archive(&settings).find(Id::nth(1)).unwrap(), []);
    // A daemon without new records removes old ones too.
    history.flush();
    assert_eq!(rows(&settings), 2);
    history.set_limits(&Settings { keep: KEEP / 4, ..settings.clone() });
    history.flush();
    assert_eq!(rows(&settings), 1);
}

/// Rows on disk.
fn rows(settings: &Settings) -> u64 {
    let connection = file::open_for_reading(&settings.path).unwrap();
    connection.query_row("SELECT count(*) FROM decisions", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_clock_jump_removes_little_at_a_time_and_nothing_that_is_young_beside_the_newest() {
    let (_folder, settings, history) = opened();
    (0..5_000).for_each(|number| history.record(refusal(number, "a.test")));
    history.flush();
    let far = SystemTime::now() + KEEP * 1000;
    (0..9).for_each(|_| history.0.shared.write_at(far));
    assert_eq!(rows(&settings), 5_000);
    history.record(DecisionRecord { at: far, ..refusal(5_000, "a.test") });
    history.flush();
    history.0.shared.write_at(far);
    assert_eq!(rows(&settings), 3_001);
    // A record of the future protects no other.
    history.record(refusal(5_001, "a.test"));
    history.flush();
    history.set_limits(&Settings { keep: Duration::from_millis(1), ..settings.clone() });
    (0..3).for_each(|_| history.flush());
    assert!(rows(&settings) < 3_000, "{}", rows(&settings));
}

#[test]
fn a_second_daemon_can_not_open_the_file() {
    let (_folder, settings, history) = opened();
    let error = History::open(&settings).unwrap_err();
    assert!(error.is_temporary());
    assert_eq!(error.to_string(), format!("{}: in use by another rmxd", settings.path.display()));
    assert!(history.is_at(&settings));
    let weak = history.downgrade();
    assert!(weak.upgrade().is_some());
    drop(history);
    assert!(weak.upgrade().is_none());
    History::open(&settings).unwrap();
    let error = History::open(&Settings { path: "/proc/nowhere/history".into(), ..settings }).unwrap_err();
    assert!(!error.is_temporary() && error.to_string().starts_with("/proc/nowhere/history: "), "{error}");
}

#[test]
fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, _settings, history) = opened();
    history.record(refusal(1, "a.test"));
    history.flush();
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(Result::unwrap).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
}

#[tokio::test]
async fn records_without_room_are_dropped_and_counted() {
    let (_folder, _settings, history) = opened();
    let heavy = vec![evidence(RecordType::Mx, "d.test", Answer::NoData); 3000];
    let heavy = finding(Identity::From, "a@d.test", RuleResult::Fail(Reason::NoMx), heavy);
    let heavy = DecisionRecord { findings: Arc::new(vec![heavy]), ..refusal(1, "d.test") };
    let room = (32 << 20) / waiting::weight(Scratch::default().row(&heavy).1);
    history.0.shared.while_blocked(|| {
        for _ in 0..room + 10 {
            history.record(heavy.clone());
        }
    });
    let count = history.count();
    assert_eq!((count.recorded, count.dropped), ((room + 10) as u64, 10));
    history.flush();
    let found = history.fold(Filter::default(), 0, |count, _| *count += 1).await.unwrap();
    assert_eq!(found, room);
}

#[test]
fn decisions_of_one_transaction_are_found_together() {
    let (_folder, settings, history) = opened();
    let first =
        DecisionRecord { verdict: Verdict::Defer, rcpt: "one@here.test".into(), ..refusal(7, "a.test") };
    let second = DecisionRecord { rcpt: "two@here.test".into(), ..first.clone() };
    let last = DecisionRecord { verdict: Verdict::Accept, cause: None, ..second.clone() };
    for record in [first.clone(), refusal(8, "b.test"), second.clone(), last.clone()] {
        history.record(record);
        history.flush();
    }
    assert_eq!(archive(&settings).find(Id::nth(7)).unwrap(), [first, second, last]);
}

#[tokio::test]
async fn an_abandoned_search_keeps_its_permit_until_it_ends() {
    let (_folder, _settings, history) = opened();
    history.record(refusal(1, "a.test"));
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let own = history.clone();
    let search = tokio::spawn(async move {
        let each = move |_: &mut (), _: &DecisionRecord| {
            begun.send(()).unwrap();
            ends.recv().ok();
        };
        own.fold(Filter::default(), (), each).await
    });
    begins.recv().await.unwrap();
    search.abort();
    assert!(search.await.unwrap_err().is_cancelled());
    assert_eq!(history.0.searches.available_permits(), MAX_SEARCHES - 1);
    drop(end);
    assert_eq!(history.0.searches.acquire_many(2).await.unwrap().num_permits(), MAX_SEARCHES);
}

#[test]
fn dropping_the_last_handle_does_not_wait_and_reopening_waits_for_the_writer() {
    let (_folder, settings, history) = opened();
    history.record(refusal(1, "a.test"));
    let (weak, shared) = (history.downgrade(), Arc::clone(&history.0.shared));
    let (reopened, opens) = std::sync::mpsc::channel();
    shared.while_blocked(|| {
        drop(history);
        assert!(weak.upgrade().is_none());
        let settings = settings.clone();
        std::thread::spawn(move || reopened.send(History::open(&settings)).unwrap());
        assert!(opens.recv_timeout(Duration::from_millis(200)).is_err());
    });
    drop(shared);
    let history = opens.recv().unwrap().unwrap();
    weak.wait_until_written();
    assert_eq!(archive(&settings).find(Id::nth(1)).unwrap().len(), 1);
    drop(history);
}

#[test]
fn positions_increase_even_if_the_clock_is_behind() {
    let (_folder, settings, history) = opened();
    let node = Node::default();
    let ahead = Id::nth(Id::next(node).number() + 16 * 1_000_000);
    history.record(DecisionRecord { at: now() + KEEP, id: Some(ahead), ..refusal(3, "a.test") });
    history.record(refusal(4, "a.test"));
    let last = history.0.shared.last();
    close(history);
    let history = History::open(&settings).unwrap();
    assert_eq!(history.0.shared.last(), last);
    assert!(Id::next(node).number() > ahead.number(), "an id was given twice");
    history.record(refusal(5, "a.test"));
    history.flush();
    assert_eq!(domains(&archive(&settings).search(&Filter::default(), None, 9).unwrap().records).len(), 3);
}

#[test]
fn a_hostile_answer_can_not_make_a_record_too_large() {
    let long = |at: usize| {
        let labels = ["x"; 3].map(|letter| letter.repeat(60)).join(".");
        format!("n{at}.{labels}.huge.test")
    };
    let hosts = |first: usize| (first..first + 100).map(|at| (10, Target::Host(name(&long(at))))).collect();
    let text = |at: usize| format!("v=spf1 {at} {}", "y".repeat(600)).into_bytes().into_boxed_slice();
    let found = |first: usize| -> Vec<_> {
        let mx = |at| evidence(RecordType::Mx, &long(at), Answer::Found(Records::Mx(hosts(at))));
        let txt = Answer::Found(Records::Txt((0..100).map(text).collect()));
        let txt = evidence(RecordType::Txt, "huge.test", txt);
        (first..first + 30).map(mx).chain([txt]).collect()
    };
    let shared = found(0);
    let findings = |number: usize| {
        let subject = format!("{}@{}", "a".repeat(2000), long(number));
        let found = if number > 7 { shared.clone() } else { found(number * 1000) };
        finding(Identity::From, &subject, RuleResult::Fail(Reason::NoMx), found)
    };
    let said = CompactString::from("é".repeat(5000));
    for decided in [0, 9] {
        let record = DecisionRecord {
            names: Some(FcrdnsResult::Confirmed((0..200).map(|at| name(&long(at))).collect())),
            helo: said.clone(),
            from: format_compact!("{said}x"),
            cause: Some(cause(Reason::NoMx, Action::Reject, decided, "")),
            findings: Arc::new((0..10).map(findings).collect()),
            ..refusal(1, "huge.test")
        };
        let mut octets = Vec::new();
        encode::record(&mut octets, &record, &[]);
        assert!(octets.len() <= encode::MAX_RECORD, "{decided}: {}", octets.len());
        let read = decode::record(&octets, vec![], |_| true).flatten().expect("a record");
        assert_eq!(read.findings.len(), 10);
        let [first, deciding] = [&record, &read].map(|record| record.deciding().unwrap());
        assert_eq!((&first.domain, first.outcome), (&deciding.domain, deciding.outcome));
        let kept = |finding: &Finding| finding.evidence.len();
        assert!(kept(deciding) > 0);
        let max = read.findings.iter().map(kept).max();
        assert_eq!(Some(kept(deciding)), max);
    }
}
