//! Findings that were kept, another policy, and the decision or what is missing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use compact_str::CompactString;

use crate::config::{DRAIN, Flags, load};
use crate::decision::{Actions, DecisionRecord, End, Id, LetIn, Scope};
use crate::evidence::{
    Answer, DnsFailure, Evidence, Freshness, Question, QuestionName, RecordType, Records, Target,
};
use crate::gate::hindsight::Candidate;
use crate::policy::decide::{Cause, Verdict, always_refused};
use crate::policy::door::DoorName;
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::identity::Identity::{From, Helo, MailFrom, Ptr, ReplyTo};
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::Rule::{Exists, Matches};
use crate::policy::rule::{Action, Mode, Rule, Rung};
use crate::reverse_mx::FcrdnsResult;
use crate::smtp::address::DomainName;
use crate::stats::hindsight::Fate::{self, Deferred, Greylisted, Refused, Taken};
use crate::stats::hindsight::{Missing, Why, Would};

const CLIENT: [u8; 4] = [192, 0, 2, 7];

/// Over the shipped defaults.
fn candidate(lines: &[&str]) -> Candidate {
    let base = ["hostname=gate.test", "relay.domains=here.test"].into_iter().chain(lines.iter().copied());
    let set = base.map(|line| line.split_once('=').unwrap());
    let set = set.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let settings = load(None, [], &Flags { set, drain: DRAIN }).unwrap().settings;
    // Addresses of documents count as routable here.
    let private_addresses = crate::reverse_mx::PrivateAddresses::Accept;
    let reverse_mx = crate::reverse_mx::Settings { private_addresses, ..settings.reverse_mx };
    Candidate::new(&settings.gate, &reverse_mx)
}

fn evidence(rtype: RecordType, name: &str, answer: Answer) -> Evidence {
    Evidence {
        question: Question { name: QuestionName::parse(name.as_bytes()).unwrap(), rtype },
        answer: Arc::new(answer),
        freshness: Freshness::Fresh,
        ttl_left: Duration::from_secs(60),
        age: Duration::ZERO,
        took: Duration::ZERO,
        server: None,
    }
}

/// What DNS has of `NAME.test`: `good` has the client as its exchanger, `far` another host, `none` no record at all, `sick`
/// a broken server.
fn answers(domain: &str) -> Vec<Evidence> {
    let host = format!("mx.{domain}");
    let mx = || Answer::Found(Records::Mx(vec![(10, Target::Host(DomainName::parse(&host).unwrap()))]));
    let address = |octets: [u8; 4]| Answer::Found(Records::A(vec![octets.into()]));
    match domain.split('.').next().unwrap() {
        "good" => {
            vec![evidence(RecordType::Mx, domain, mx()), evidence(RecordType::A, &host, address(CLIENT))]
        }
        "far" => {
            vec![
                evidence(RecordType::Mx, domain, mx()),
                evidence(RecordType::A, &host, address([203, 0, 113, 9])),
            ]
        }
        "sick" => {
            vec![evidence(RecordType::Mx, domain, Answer::Unavailable(DnsFailure::ServerFailure))]
        }
        _ => [RecordType::Mx, RecordType::A, RecordType::Aaaa]
            .map(|rtype| evidence(rtype, domain, Answer::NoSuchDomain))
            .into(),
    }
}

/// As the default rules find it: `far` fails by `matches`.
fn finding(identity: Identity, rule: Rule, domain: &str) -> Finding {
    let outcome = match (domain.split('.').next().unwrap(), rule) {
        ("good", _) | ("far", Exists) => RuleResult::Pass(Rung::Mx),
        ("far", Matches) => RuleResult::Fail(Reason::NotAnExchanger),
        ("sick", _) => RuleResult::TempError(DnsFailure::ServerFailure),
        (_, Exists) => RuleResult::Fail(Reason::NoSuchDomain),
        (_, Matches) => RuleResult::Fail(Reason::NotAnExchanger),
    };
    let subject = format!("a@{domain}");
    Finding { evidence: answers(domain), ..Finding::new(identity, rule, domain, &subject, outcome) }
}

/// A message whose envelope and header name these domains, taken; each with the findings of the rules in `rules`.
fn taken(mail_from: &str, from: &str, rules: &[(Identity, Rule)]) -> DecisionRecord {
    let domain = |identity| match identity {
        From | ReplyTo => from,
        Helo | Ptr | MailFrom => mail_from,
    };
    let findings = rules.iter().map(|(identity, rule)| finding(*identity, *rule, domain(*identity)));
    DecisionRecord {
        id: Some(Id::nth(1)),
        at: SystemTime::UNIX_EPOCH,
        client: CLIENT.into(),
        door: DoorName::Smtp,
        queue: CompactString::default(),
        tls: CompactString::default(),
        names: Some(FcrdnsResult::NoPtr),
        extent: Scope::Message,
        mode: Mode::Enforce,
        actions: Actions::from_all([Action::Tag; 10]),
        verdict: Verdict::Accept,
        cause: None,
        end: Some(End::of(Outcome::Delivered)),
        help_url: Arc::from(""),
        helo: mail_from.into(),
        mail_from: format!("<a@{mail_from}>").into(),
        rcpt: "user@here.test".into(),
        rcpts: 1,
        recipients: Vec::new(),
        from: format!("a@{from}").into(),
        reply_to: CompactString::default(),
        duration: Duration::ZERO,
        findings: Arc::new(findings.collect()),
        permit: None,
        whole: true,
    }
}

const USUAL: [(Identity, Rule); 4] = [(Ptr, Exists), (MailFrom, Exists), (MailFrom, Matches), (From, Exists)];
const ALL: [(Identity, Rule); 6] =
    [(Helo, Exists), (Ptr, Exists), (MailFrom, Exists), (MailFrom, Matches), (From, Exists), (From, Matches)];

/// The envelope was refused at RCPT, for its first finding that failed.
fn refused(mail_from: &str, action: Action) -> DecisionRecord {
    let record = taken(mail_from, "good.test", &[(MailFrom, Exists)]);
    let (verdict, reason) = match action {
        Action::Reject => (Verdict::Reject, Reason::NoSuchDomain),
        Action::Greylist => (Verdict::Defer, Reason::Greylisted),
        _ => (Verdict::Defer, Reason::NoSuchDomain),
    };
    let cause = Cause { reason, action, wait: None, finding: Some(0), subject: "a".into() };
    DecisionRecord {
        extent: Scope::Envelope,
        verdict,
        cause: Some(cause),
        end: Some(End::of(Outcome::Refused)),
        rcpts: 0,
        from: CompactString::default(),
        ..record
    }
}

/// A header that From: makes malformed.
fn malformed() -> DecisionRecord {
    let mut record = taken("good.test", "good.test", &[(MailFrom, Exists)]);
    let found = RuleResult::Fail(Reason::MalformedHeader);
    let finding = Finding::new(From, Exists, "", "the From: field stands more than once", found);
    Arc::make_mut(&mut record.findings).push(finding);
    DecisionRecord { from: "repeated".into(), ..record }
}

fn missing(would: &Would) -> Vec<(Option<(Identity, Rule)>, Why)> {
    would.missing.iter().map(|Missing { rule, why, .. }| (*rule, *why)).collect()
}

/// Rules of the defaults that would look at what these records don't have.
const QUIET: &str = "policy.from.matches=off";

#[test]
fn what_is_known_decides() {
    let good = || taken("good.test", "good.test", &ALL);
    let far = || taken("far.test", "far.test", &ALL);
    let none = || taken("none.test", "good.test", &ALL);
    let sick = || taken("sick.test", "good.test", &ALL);
    let monitored = || DecisionRecord { mode: Mode::Monitor, ..refused("none.test", Action::Reject) };
    let rows: Vec<(&str, DecisionRecord, &[&str], Fate)> = vec![
        ("nothing fails", good(), &[], Taken),
        ("mail_from.exists", none(), &[QUIET], Refused),
        ("defer", none(), &[QUIET, "policy.mail_from.exists=defer"], Deferred),
        ("greylist", none(), &[QUIET, "policy.mail_from.exists=greylist"], Greylisted),
        ("tag", none(), &[QUIET, "policy.mail_from.exists=tag"], Taken),
        ("off", none(), &[QUIET, "policy.mail_from.exists=off"], Taken),
        ("monitor", none(), &["policy.mode=monitor"], Taken),
        ("helo", none(), &[QUIET, "policy.mail_from.exists=tag", "policy.helo.exists=reject"], Refused),
        ("ptr", good(), &["policy.ptr.exists=reject"], Refused),
        ("from", taken("good.test", "none.test", &ALL), &[QUIET], Refused),
        (
            "matches",
            far(),
            &[QUIET, "policy.mail_from.matches=reject", "policy.matches_by=mx,network"],
            Refused,
        ),
        ("matches by mx", good(), &["policy.mail_from.matches=reject", "policy.matches_by=mx"], Taken),
        ("from.matches", far(), &["policy.from.matches=reject", "policy.from.matches_by=mx"], Refused),
        ("a failure of DNS", sick(), &[QUIET], Deferred),
        ("that passes", sick(), &[QUIET, "policy.on_dns_error=accept"], Taken),
        ("at MAIL", none(), &[QUIET, "policy.reject_at=mail"], Refused),
        ("a client exempt", none(), &["exempt.clients=192.0.2.0/24"], Taken),
        ("a domain exempt", none(), &[QUIET, "exempt.domains=none.test"], Taken),
        ("a recipient exempt", none(), &["exempt.recipients=user@here.test"], Taken),
        ("but not at MAIL", none(), &["exempt.recipients=user@here.test", "policy.reject_at=mail"], Refused),
        ("From: malformed", malformed(), &[], Refused),
        ("and tagged", malformed(), &["policy.malformed=tag"], Taken),
        ("monitor to enforce", monitored(), &[], Refused),
        ("still refused", refused("none.test", Action::Reject), &[], Refused),
        ("more strictly", refused("none.test", Action::Defer), &[], Refused),
        ("refused by no rule", no_rule(), &["policy.mode=monitor"], Refused),
    ];
    for (what, record, lines, expected) in rows {
        let would = candidate(lines).decides(&record);
        assert_eq!((would.at_least, would.at_most, missing(&would)), (expected, expected, vec![]), "{what}");
    }
}

fn no_rule() -> DecisionRecord {
    let decision = always_refused(Reason::RelayingDenied, "user@there.test");
    DecisionRecord {
        cause: decision.cause,
        verdict: decision.verdict,
        ..refused("good.test", Action::Reject)
    }
}

#[test]
fn what_was_not_looked_up_is_unknown_unless_it_does_not_matter() {
    let usual = || taken("good.test", "good.test", &USUAL);
    let exempt = || {
        let mut record = taken("far.test", "good.test", &USUAL);
        for finding in Arc::make_mut(&mut record.findings).iter_mut() {
            finding.evidence.clear();
            finding.outcome = RuleResult::None(Absence::Exempt);
        }
        record
    };
    let header = (None, Why::HeaderNotSeen);
    let rows: Vec<(&str, DecisionRecord, &[&str], (Fate, Fate), Vec<_>)> = vec![
        (
            "a rule that was off",
            taken("far.test", "good.test", &[(From, Exists)]),
            &[QUIET],
            (Taken, Refused),
            vec![(Some((MailFrom, Exists)), Why::NotLookedUp)],
        ),
        (
            "the same with less at stake",
            taken("far.test", "good.test", &[(From, Exists)]),
            &[QUIET, "policy.mail_from.exists=defer"],
            (Taken, Deferred),
            vec![(Some((MailFrom, Exists)), Why::NotLookedUp)],
        ),
        (
            "another finding refuses anyway",
            taken("far.test", "none.test", &[(From, Exists)]),
            &[QUIET],
            (Deferred, Refused),
            vec![(Some((MailFrom, Exists)), Why::NotLookedUp)],
        ),
        (
            "the same answers under another identity",
            taken("good.test", "good.test", &[(From, Exists)]),
            &[QUIET],
            (Taken, Taken),
            vec![],
        ),
        (
            "a rung that wasn't reached",
            taken("far.test", "good.test", &USUAL),
            &[QUIET, "policy.mail_from.matches=reject", "policy.matches_by=mx,spf"],
            (Taken, Refused),
            vec![(Some((MailFrom, Matches)), Why::OtherRungs)],
        ),
        ("dmarc that was off, but a rung holds", usual(), &[], (Taken, Taken), vec![]),
        (
            "dmarc that was off",
            taken("good.test", "far.test", &ALL),
            &["policy.from.matches_by=mx"],
            (Taken, Refused),
            vec![(Some((From, Matches)), Why::OtherRungs)],
        ),
        (
            "signatures that were not verified",
            taken("good.test", "far.test", &ALL),
            &["policy.from.matches=reject", "policy.from.matches_by=mx,dkim"],
            (Taken, Refused),
            vec![(Some((From, Matches)), Why::BodyNotSeen)],
        ),
        (
            "a domain that was exempt",
            exempt(),
            &[QUIET],
            (Taken, Refused),
            vec![(Some((MailFrom, Exists)), Why::Exempt), (Some((From, Exists)), Why::Exempt)],
        ),
        (
            "a client that was exempt",
            DecisionRecord { extent: Scope::ExemptClient, findings: Arc::default(), ..usual() },
            &[],
            (Taken, Refused),
            vec![(None, Why::Exempt)],
        ),
        (
            "the header behind an envelope that was refused",
            refused("none.test", Action::Reject),
            &["policy.mail_from.exists=tag"],
            (Taken, Refused),
            vec![header],
        ),
        (
            "the same where a header can't refuse",
            refused("none.test", Action::Reject),
            &[
                QUIET,
                "policy.mail_from.exists=tag",
                "policy.from.exists=tag",
                "policy.reply_to.exists=tag",
                "policy.malformed=tag",
            ],
            (Taken, Taken),
            vec![],
        ),
        (
            "at the policy service there is no header",
            DecisionRecord { door: DoorName::Policy, ..refused("none.test", Action::Reject) },
            &["policy.mail_from.exists=tag"],
            (Taken, Taken),
            vec![],
        ),
        (
            "a record that was shortened",
            DecisionRecord { whole: false, ..usual() },
            &[],
            (Taken, Refused),
            vec![(None, Why::NotKept)],
        ),
    ];
    for (what, record, lines, (at_least, at_most), expected) in rows {
        let would = candidate(lines).decides(&record);
        assert_eq!((would.at_least, would.at_most), (at_least, at_most), "{what}: {would:?}");
        assert_eq!(missing(&would), expected, "{what}");
    }
}

#[test]
fn mail_that_had_passed_the_greylist_passes() {
    let mut record = taken("none.test", "good.test", &USUAL);
    let greylist = [QUIET, "policy.mail_from.exists=greylist"];
    assert_eq!(candidate(&greylist).decides(&record).at_least, Greylisted);
    for finding in Arc::make_mut(&mut record.findings).iter_mut() {
        finding.action = Action::Greylist;
    }
    let would = candidate(&greylist).decides(&record);
    assert_eq!((would.at_least, would.at_most), (Taken, Taken));
    assert_eq!(
        candidate(&[QUIET]).decides(&record).at_least,
        Refused,
        "a refusal is no matter of the greylist"
    );
}

#[test]
fn the_answers_of_a_list_that_may_be_cut_are_unknown() {
    let mut record = taken("far.test", "good.test", &USUAL);
    let hosts =
        (0..100).map(|number| (10, Target::Host(DomainName::parse(&format!("h{number}.far.test")).unwrap())));
    let many = evidence(RecordType::Mx, "far.test", Answer::Found(Records::Mx(hosts.collect())));
    for finding in
        Arc::make_mut(&mut record.findings).iter_mut().filter(|finding| finding.domain == "far.test")
    {
        finding.evidence = vec![many.clone()];
    }
    let would = candidate(&[QUIET]).decides(&record);
    assert_eq!((would.at_least, would.at_most), (Taken, Refused), "{would:?}");
}

fn of_recipients(record: DecisionRecord, recipients: &[&str]) -> DecisionRecord {
    let (first, others) = recipients.split_first().unwrap();
    let recipients = others.iter().map(|&text| text.into()).collect();
    DecisionRecord { rcpt: (*first).into(), rcpts: others.len() + 1, recipients, ..record }
}

fn with_permit(record: DecisionRecord) -> DecisionRecord {
    DecisionRecord { permit: Some(LetIn { number: 1, until: None }), ..record }
}

/// Mail whose envelope has no findings but those of an exempt domain.
fn with_exempt_sender(helo: &str) -> DecisionRecord {
    let mut record = with_permit(taken("good.test", "good.test", &[(MailFrom, Exists), (From, Exists)]));
    for finding in Arc::make_mut(&mut record.findings).iter_mut() {
        finding.evidence.clear();
        finding.outcome = RuleResult::None(Absence::Exempt);
    }
    DecisionRecord { helo: helo.into(), ..record }
}

#[test]
fn what_a_permit_let_in_is_unknown_where_the_record_does_not_show_it() {
    let no_exempt = "exempt.recipients=";
    let exempt = |recipients: &[&str]| {
        let record = with_permit(taken("none.test", "none.test", &[]));
        of_recipients(DecisionRecord { extent: Scope::ExemptRecipients, ..record }, recipients)
    };
    let judged =
        |recipients: &[&str]| of_recipients(with_permit(taken("good.test", "none.test", &ALL)), recipients);
    let both = ["user@here.test", "postmaster@here.test"];
    let localhost = || with_exempt_sender("localhost");
    let by_names = DecisionRecord { permit: None, ..localhost() };
    let refused_for_from = DecisionRecord { cause: refused("none.test", Action::Reject).cause, ..by_names };
    let rows: Vec<(&str, DecisionRecord, Vec<&str>, (Fate, Fate))> = vec![
        (
            "a recipient, at MAIL",
            exempt(&["user@here.test"]),
            vec!["policy.reject_at=mail"],
            (Taken, Refused),
        ),
        ("one beside an exempt one", exempt(&both), vec![no_exempt], (Taken, Refused)),
        ("all exempt now", exempt(&both), vec!["exempt.recipients=user,postmaster"], (Taken, Taken)),
        ("beside one that is exempt now", judged(&both), vec![QUIET], (Taken, Refused)),
        ("beside none that is", judged(&both), vec![QUIET, no_exempt], (Refused, Refused)),
        ("of one recipient", judged(&both[..1]), vec![QUIET], (Refused, Refused)),
        ("the sender, and HELO", localhost(), vec![QUIET, "policy.helo.exists=reject"], (Taken, Refused)),
        ("the sender, and PTR", localhost(), vec![QUIET, "policy.ptr.exists=reject"], (Taken, Refused)),
        (
            "refused, which names no permit",
            refused_for_from,
            vec![QUIET, "policy.helo.exists=defer"],
            (Taken, Refused),
        ),
        (
            "the sender exempt now",
            localhost(),
            vec!["exempt.domains=good.test", "policy.helo.exists=reject"],
            (Taken, Taken),
        ),
        (
            "no permit",
            DecisionRecord { permit: None, ..localhost() },
            vec!["policy.mail_from.exists=tag", "policy.from.exists=tag", QUIET, "policy.helo.exists=reject"],
            (Refused, Refused),
        ),
    ];
    for (what, record, lines, expected) in rows {
        let would = candidate(&lines).decides(&record);
        assert_eq!((would.at_least, would.at_most), expected, "{what}: {would:?}");
        assert_eq!(would.missing.is_empty(), expected.0 == expected.1, "{what}: {would:?}");
    }
}

#[test]
fn a_transaction_that_ended_at_mail_is_judged_only_where_mail_is() {
    let ended = |extent, rules: &[(Identity, Rule)]| DecisionRecord {
        extent,
        rcpt: CompactString::default(),
        rcpts: 0,
        from: CompactString::default(),
        end: Some(End::of(Outcome::NotCompleted)),
        ..taken("none.test", "none.test", rules)
    };
    let nothing = || ended(Scope::Nothing, &[]);
    let envelope = || ended(Scope::Envelope, &[(MailFrom, Exists)]);
    let named = DecisionRecord { rcpt: "postmaster@here.test".into(), ..nothing() };
    let at_mail = "policy.reject_at=mail";
    let grey = "policy.mail_from.exists=greylist";
    let rows: Vec<(&str, DecisionRecord, Vec<&str>, (Fate, Fate))> = vec![
        ("no recipient", nothing(), vec![], (Taken, Taken)),
        ("decided at MAIL", nothing(), vec![at_mail], (Taken, Refused)),
        ("was decided at MAIL", envelope(), vec![], (Taken, Taken)),
        ("at MAIL both times", envelope(), vec![at_mail], (Refused, Refused)),
        ("greylisting waits for a recipient", envelope(), vec![at_mail, grey], (Taken, Taken)),
        ("a recipient that was exempt", named.clone(), vec!["exempt.recipients="], (Taken, Refused)),
        ("and is now", named, vec![], (Taken, Taken)),
    ];
    for (what, record, lines, expected) in rows {
        let would = candidate(&lines).decides(&record);
        assert_eq!((would.at_least, would.at_most), expected, "{what}: {would:?}");
    }
}

#[test]
fn only_a_finding_that_decided_shows_that_the_greylist_was_passed() {
    let with = |mail_from: &str, from: &str| {
        let mut record = malformed();
        Arc::make_mut(&mut record.findings).push(finding(Helo, Exists, "none.test"));
        for finding in Arc::make_mut(&mut record.findings).iter_mut() {
            finding.action = if finding.identity == From { Action::Greylist } else { Action::Tag };
        }
        DecisionRecord { helo: "none.test".into(), mail_from: mail_from.into(), from: from.into(), ..record }
    };
    let lines = ["policy.helo.exists=greylist", "policy.malformed=tag"];
    for (what, record, expected) in [
        ("From: of a bounce without a name", with("<>", "empty"), (Greylisted, Greylisted)),
        ("no From:, by an action that isn't kept", with("<a@good.test>", "missing"), (Taken, Greylisted)),
    ] {
        let would = candidate(&lines).decides(&record);
        assert_eq!((would.at_least, would.at_most), expected, "{what}: {would:?}");
    }
}

#[test]
fn a_quoted_local_part_is_no_second_address() {
    let of = |from: &str, reply_to: &str| DecisionRecord {
        from: from.into(),
        reply_to: reply_to.into(),
        ..taken("good.test", "good.test", &ALL)
    };
    let long = format!("\"{}, x@localhost", "a".repeat(250));
    let rows = [
        ("one address", of("\"x@localhost, b\"@good.test", ""), (Taken, Taken)),
        ("two", of("a@good.test, x@localhost", ""), (Refused, Refused)),
        ("one that is cut", of(&long, ""), (Taken, Refused)),
        ("Reply-To:", of("a@good.test", "\"x@localhost, b\"@good.test"), (Taken, Taken)),
    ];
    for (what, record, expected) in rows {
        let would = candidate(&[QUIET, "policy.reply_to.exists=reject"]).decides(&record);
        assert_eq!((would.at_least, would.at_most), expected, "{what}: {would:?}");
    }
}
