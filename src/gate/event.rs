//! The structured event of a transaction (contract 9), the only place that logs a verdict. There is one for what is refused,
//! when it is refused, and else one at the end of the transaction with what became of it.
//!
//! Everything that came from the network is escaped, so that one decision is one line.

use std::fmt::Write as _;
use std::time::Duration;

use crate::decision::DecisionRecord;
use crate::evidence::Evidence;
use crate::policy::decide::Verdict;
use crate::policy::finding::{Absence, RuleResult};
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Rung};
use crate::smtp::escape::Escaped;

pub(super) fn write(record: &DecisionRecord, octets: u64) {
    let (finding, cause) = (record.deciding(), record.cause.as_ref());
    let without_rule = cause.filter(|cause| cause.finding.is_none());
    let tags = record.tags();
    tracing::info!(
        target: "rmxd::decision",
        id = record.id.map(tracing::field::display),
        node = record.id.map(|id| id.node().number()).filter(|node| *node != 0),
        door = record.door.name(),
        queue = shown(&record.queue),
        tls = shown(&record.tls),
        verdict = record.verdict.name(),
        outcome = record.outcome().map(Outcome::name),
        mode = record.mode.name(),
        identity = finding.map(|finding| finding.identity.name()),
        rule = finding.map(|finding| finding.rule.name()),
        rung = record.rung().map(Rung::name),
        reason = record.reason().map(Reason::name),
        subject = without_rule.and_then(|cause| shown(&cause.subject)),
        domain = finding.map(|finding| tracing::field::display(Escaped::new(finding.domain.as_str()))),
        client = %record.client,
        ptr = record.name().and_then(|name| shown(name.as_str())),
        helo = shown(&record.helo),
        mail_from = shown(&record.mail_from),
        rcpt = shown(&record.rcpt),
        rcpts = Some(record.rcpts).filter(|count| *count > 1),
        from = shown(&record.from),
        reply_to = shown(&record.reply_to),
        permit = record.permit.map(|permit| permit.number),
        tags = (!tags.is_empty()).then(|| tags.join(",")),
        relay_reply = record.relay_reply().and_then(shown),
        octets = Some(octets).filter(|octets| *octets > 0),
        duration = seconds(record.duration),
        dns_queries = record.queries(),
        evidence = cause.and(finding).map(|finding| summary(&finding.evidence)),
        "{}{}{}",
        sentence(record),
        would(record),
        if is_open(record) { ", the body would have decided" } else { "" },
    );
    if record.reason() == Some(Reason::MailLoop) {
        tracing::warn!(
            id = record.id.map(tracing::field::display),
            "a message went in a circle: look at the hosts in its Received: fields. If hostname is among them again and \
             again, relay.next_hop, or a forwarding of the mail server behind, leads back to rmxd"
        );
    }
}

fn sentence(record: &DecisionRecord) -> &'static str {
    match record.outcome() {
        None | Some(Outcome::Delivered) => "accepted",
        Some(Outcome::Refused) => verb(record),
        Some(Outcome::RelayRefused) => "refused by relay",
        Some(Outcome::RelayFailed) => "relay failed",
        Some(Outcome::NotCompleted) => "not completed",
        Some(Outcome::Passed) => "passed",
    }
}

fn would(record: &DecisionRecord) -> &'static str {
    match (record.would_be_refused(), verb(record)) {
        (false, _) => "",
        (true, "greylisted") => ", would have been greylisted",
        (true, "rejected") => ", would have been rejected",
        (true, _) => ", would have been deferred",
    }
}

/// A DKIM signature may still have counted.
fn is_open(record: &DecisionRecord) -> bool {
    record.findings.iter().any(|finding| finding.outcome == RuleResult::None(Absence::AwaitsBody))
}

fn verb(record: &DecisionRecord) -> &'static str {
    let greylists = record.cause.as_ref().is_some_and(|cause| cause.action == Action::Greylist);
    match record.verdict {
        Verdict::Accept => "accepted",
        Verdict::Defer if greylists => "greylisted",
        Verdict::Defer => "deferred",
        Verdict::Reject => "rejected",
    }
}

/// Rounded to 10 µs, so that JSON needs no exponent.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e5).round() / 1e5
}

fn shown(text: &str) -> Option<tracing::field::DisplayValue<Escaped<'_>>> {
    (!text.is_empty()).then(|| tracing::field::display(Escaped::new(text)))
}

/// `MX spoof.test: NXDOMAIN (cached, ttl 55s, age 5s)`, one after the other.
fn summary(evidence: &[Evidence]) -> String {
    let mut text = String::new();
    for (at, item) in evidence.iter().enumerate() {
        let (separator, freshness) = (if at == 0 { "" } else { "; " }, item.freshness.name());
        let (ttl, age) = (item.ttl_left.as_secs(), item.age.as_secs());
        // Writing to a String can't fail.
        write!(text, "{separator}{}: {} ({freshness}, ttl {ttl}s, age {age}s)", item.question, item.answer())
            .ok();
    }
    text
}
