//! The tree and the JSON of a record: findings, notes, and the decision that counts.

use super::report::{json, summary, transaction, tree, utc};
use serde_json::{Value, json as value};

use super::*;
use crate::policy::door::DoorName;
use crate::policy::finding::Absence;
use crate::smtp::escape::is_hazard;

fn finding(identity: Identity, rule: Rule, outcome: RuleResult) -> Finding {
    Finding::new(identity, rule, "d.test", "a@d.test", outcome)
}

/// Accepted at the end of the header; helo is off, ptr only tags.
pub(crate) fn accepted(findings: Vec<Finding>) -> DecisionRecord {
    use Action::{Off, Reject, Tag};
    let actions = Actions::from_all([Off, Off, Tag, Off, Reject, Reject, Reject, Off, Tag, Off]);
    let acted = findings
        .into_iter()
        .map(|finding| Finding { action: actions.action(finding.identity, finding.rule), ..finding });
    DecisionRecord {
        id: Some(Id::nth(1)),
        at: SystemTime::UNIX_EPOCH,
        client: "192.0.2.1".parse().unwrap(),
        door: DoorName::Smtp,
        queue: CompactString::default(),
        tls: CompactString::default(),
        names: None,
        extent: Scope::Message,
        mode: Mode::Enforce,
        actions,
        verdict: Verdict::Accept,
        cause: None,
        end: None,
        help_url: Arc::from(""),
        helo: CompactString::default(),
        mail_from: "<a@d.test>".into(),
        rcpt: CompactString::default(),
        rcpts: 0,
        recipients: Vec::new(),
        from: CompactString::default(),
        reply_to: CompactString::default(),
        duration: Duration::ZERO,
        findings: Arc::new(acted.collect()),
        permit: None,
        whole: true,
    }
}

fn cause(reason: Reason, action: Action, at: usize) -> Cause {
    Cause { reason, action, wait: None, finding: Some(at), subject: "a@d.test".into() }
}

fn refused(rcpt: &str) -> DecisionRecord {
    let fail = finding(Identity::MailFrom, Rule::Exists, RuleResult::Fail(Reason::NoMx));
    let base = DecisionRecord { rcpt: rcpt.into(), extent: Scope::Envelope, ..accepted(vec![fail]) };
    DecisionRecord { verdict: Verdict::Reject, cause: Some(cause(Reason::NoMx, Action::Reject, 0)), ..base }
}

#[test]
fn the_tree_explains_each_identity_without_findings() {
    let absent = |identity| finding(identity, Rule::Exists, RuleResult::None(Absence::NotGiven));
    let nothing = vec![absent(Identity::MailFrom), absent(Identity::From), absent(Identity::ReplyTo)];
    let of = |extent| DecisionRecord { extent, ..accepted(Vec::new()) };
    let rows: [(DecisionRecord, [&str; 5]); 6] = [
        (of(Scope::ExemptClient), ["exempt client"; 5]),
        (of(Scope::ExemptRecipients), ["exempt recipients"; 5]),
        (of(Scope::Permit), ["not looked at, a permit lets in the message"; 5]),
        (
            of(Scope::Envelope),
            [
                "off, not looked up",
                "not waited for, it refuses nothing",
                "not given, or the null sender",
                "not looked at, the envelope decided",
                "not looked at, the envelope decided",
            ],
        ),
        (
            accepted(nothing),
            [
                "off, not looked up",
                "not judged, MAIL FROM is exempt",
                "not given, or the null sender",
                "not given",
                "not given",
            ],
        ),
        (
            DecisionRecord { actions: Actions::from_all([Action::Off; 10]), ..of(Scope::Envelope) },
            ["off, not looked up"; 5],
        ),
    ];
    for (record, notes) in rows {
        let (tree, json) = (tree(&record, utc), json(&record));
        for (identity, note) in Identity::ALL.into_iter().zip(notes) {
            let line = format!("─ {identity}: {note}\n");
            assert!(tree.contains(&line), "{:?}: no {line:?} in\n{tree}", record.extent);
            let found = record.findings.iter().any(|finding| finding.identity == identity);
            let shown = &json["notes"][identity.name()];
            assert_eq!(shown.as_str(), (!found).then_some(note), "{:?} {identity}", record.extent);
        }
    }
}

#[test]
fn a_refusal_without_a_rule_is_explained_without_one() {
    let cause = Cause::without_rule(Reason::RelayingDenied, "b@elsewhere.test");
    let base = DecisionRecord { extent: Scope::ExemptClient, ..accepted(Vec::new()) };
    let record = DecisionRecord { verdict: Verdict::Reject, cause: Some(cause), ..base };
    let reply = format!("550 5.7.1 <b@elsewhere.test>: relaying denied (id {})", Id::nth(1));
    let (tree, json) = (tree(&record, utc), json(&record));
    for part in [
        "verdict:   reject, because of relaying_denied\n".to_owned(),
        format!("reply:     {reply}\n"),
        "helo: exempt client\n".to_owned(),
        "from: exempt client\n".to_owned(),
    ] {
        assert!(tree.contains(&part), "no {part:?} in\n{tree}");
    }
    assert_eq!((&json["reason"], &json["reply"]), (&"relaying_denied".into(), &reply.into()));
    assert!(!tree.contains("<-- decides"), "{tree}");
    assert!(json["identity"].is_null() && json["rule"].is_null() && json["domain"].is_null(), "{json}");
    assert_eq!(json["findings"], Value::Array(vec![]));
}

#[test]
fn a_dry_run_has_no_id_and_no_transaction_lines() {
    let tree = tree(&DecisionRecord { id: None, ..refused("") }, utc);
    assert!(
        tree.starts_with("verdict: reject, because of mail_from: exists no_mx\nreply:   550 5.1.8 "),
        "{tree}"
    );
    assert!(tree.contains("(id ID)\n") && !tree.contains("<a@d.test>\n"), "{tree}");
}

#[test]
fn of_several_decisions_the_last_refusal_counts() {
    let accepted = || accepted(Vec::new());
    let rows = [
        (vec![refused("one"), refused("two"), accepted()], "two", vec!["one", ""]),
        (vec![accepted()], "", vec![]),
        (vec![refused("one")], "one", vec![]),
    ];
    let rcpt = |value: &serde_json::Value| value["rcpt"].as_str().unwrap_or_default().to_owned();
    for (records, main, others) in rows {
        let value = transaction(&records);
        let also: Vec<_> = value["also"].as_array().unwrap().iter().map(rcpt).collect();
        assert_eq!((rcpt(&value), also), (main.to_owned(), others.into_iter().map(str::to_owned).collect()));
    }
    assert!(transaction(&[]).is_null());
}

#[test]
fn a_summary_is_the_whole_without_findings_and_help() {
    let record = DecisionRecord { helo: "\u{202e}x".into(), ..refused("user@here.test") };
    let (mut whole, summary) = (json(&record), summary(&record));
    let object = whole.as_object_mut().unwrap();
    assert!(["findings", "help", "notes"].iter().all(|name| object.remove(*name).is_some()));
    assert_eq!(whole, summary);
    assert_eq!(summary["at"], "1970-01-01T00:00:00.000Z");
    assert_eq!(summary["helo"], "\\u{202e}x");
    assert_eq!(summary["identity"], "mail_from");
}

#[test]
fn the_finding_that_decided_shows_the_action_that_took_effect() {
    use crate::evidence::DnsFailure;
    let temperror = finding(Identity::MailFrom, Rule::Matches, RuleResult::TempError(DnsFailure::Timeout));
    let malformed = finding(Identity::ReplyTo, Rule::Matches, RuleResult::Fail(Reason::MalformedHeader));
    let rows = [
        (0, Reason::DnsError, Action::Defer, ["[defer]  <-- decides", "[off]\n"]),
        (1, Reason::MalformedHeader, Action::Reject, ["[reject]  <-- decides", "[reject]\n"]),
    ];
    for (at, reason, action, shown) in rows {
        let base = accepted(vec![temperror.clone(), malformed.clone()]);
        let cause = Some(cause(reason, action, at));
        let record = DecisionRecord { verdict: Verdict::Reject, cause, ..base };
        let (tree, json) = (tree(&record, utc), json(&record));
        assert!(shown.iter().all(|part| tree.contains(part)), "{tree}");
        for place in [0, 1] {
            assert_eq!(json["findings"][place]["decides"], place == at, "{json}");
        }
        assert_eq!(json["findings"][at]["action"], action.name());
    }
}

#[test]
fn text_of_clients_is_printable_everywhere() {
    let wild = "\u{9b}31m\u{202e}x@d.test";
    let mut record = refused(wild);
    let mut fail = record.findings[0].clone();
    (fail.subject, fail.domain) = (wild.into(), "\u{202e}d.test".into());
    (record.findings, record.mail_from) = (Arc::new(vec![fail]), wild.into());
    record.end = Some(End { relay_reply: wild.into(), ..End::of(Outcome::RelayRefused) });
    let shown = [tree(&record, utc), json(&record).to_string(), summary(&record).to_string()];
    for text in &shown {
        assert!(!text.replace('\n', "").chars().any(is_hazard), "{text:?}");
        assert!(text.contains("550 5.1.8 <??31m???x@d.test>: ???d.test has no MX record"), "{text}");
    }
    assert_eq!(json(&record)["reply"], record.reply().unwrap());
    assert_eq!(json(&record)["findings"][0]["subject"], "\\u{9b}31m\\u{202e}x@d.test");
}

#[test]
fn the_outcome_and_the_relays_reply_are_shown_to_people_and_programs() {
    let end = End {
        outcome: Outcome::RelayRefused,
        trouble: Some(Reason::RelayRefused),
        relay_reply: "550 5.1.1 no such user".into(),
        answer: "550 5.1.1 no such user (id X)".into(),
    };
    let tagged = |identity| finding(identity, Rule::Exists, RuleResult::Fail(Reason::NoMx));
    let findings = vec![tagged(Identity::Ptr), tagged(Identity::Ptr), tagged(Identity::ReplyTo)];
    let record = DecisionRecord { end: Some(end), rcpts: 2, ..accepted(findings) };
    let (tree, json) = (tree(&record, utc), json(&record));
    for line in [
        "verdict:   accept\n",
        "outcome:   relay_refused\n",
        "relay:     550 5.1.1 no such user\n",
        "reply:     550 5.1.1 no such user (id X)\n",
        "tagged:    ptr.exists.no_mx, reply_to.exists.no_mx\n",
    ] {
        assert!(tree.contains(line), "no {line:?} in\n{tree}");
    }
    let expected = [
        ("outcome", "relay_refused"),
        ("reason", "relay_refused"),
        ("relay_reply", "550 5.1.1 no such user"),
        ("reply", "550 5.1.1 no such user (id X)"),
    ];
    for (name, value) in expected {
        assert_eq!(json[name], value, "{json}");
    }
    assert_eq!(json["tags"], serde_json::json!(["ptr.exists.no_mx", "reply_to.exists.no_mx"]));
    assert_eq!(json["rcpts"], 2);
    let older = summary(&refused(""));
    assert!(older["outcome"].is_null() && older["relay_reply"].is_null(), "{older}");
}

#[test]
fn a_permit_is_named_with_its_end() {
    for (until, shown, json_until) in [
        (Some(Duration::from_secs(90)), "until 1970-01-01T00:01:30.000Z", value!("1970-01-01T00:01:30Z")),
        (None, "until it is removed", Value::Null),
    ] {
        let until = until.map(|after| SystemTime::UNIX_EPOCH + after);
        let permit = Some(LetIn { number: 7, until });
        let record = DecisionRecord { extent: Scope::Permit, permit, ..accepted(Vec::new()) };
        let (tree, json) = (tree(&record, utc), json(&record));
        assert!(tree.contains(&format!("permit:    let in by permit 7, {shown}\n")), "{tree}");
        assert_eq!((&json["permit"], &json["permit_until"]), (&value!(7), &json_until));
    }
    let none = json(&accepted(Vec::new()));
    assert_eq!((&none["permit"], &none["permit_until"]), (&Value::Null, &Value::Null));
}
