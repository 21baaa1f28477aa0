//! The one structured event of each decision (DESIGN 6), the only place that logs a verdict.
//!
//! Everything that came from the network is escaped, so that one decision is one line.

use std::fmt::Write as _;

use crate::policy::decide::Verdict;
use crate::policy::evidence::Evidence;
use crate::policy::rule::{Action, Rung};
use crate::record::Record;
use crate::smtp::escape::Escaped;

/// What is known of a transaction beside the decision; empty = not known at this stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// The reverse path in its brackets; `<>` for the null sender.
    pub mail_from: &'a str,
    /// The recipient, or the first of several.
    pub rcpt: &'a str,
    /// Addresses in From:.
    pub from: &'a str,
    /// Addresses in Reply-To:.
    pub reply_to: &'a str,
}

pub(super) fn write(record: &Record, undecided: Option<&str>) {
    let (finding, rule) = (record.deciding(), record.deciding_rule());
    let because = record.because.map(|(because, _)| because);
    tracing::info!(
        target: "rmxd::decision",
        id = record.id.map(tracing::field::display),
        verdict = record.verdict.name(),
        mode = record.mode.name(),
        identity = rule.map(|finding| finding.identity.name()),
        rule = rule.map(|finding| finding.rule.name()),
        rung = record.rung().map(Rung::name),
        reason = because.map(|because| because.reason.name()),
        domain = rule.map(|finding| tracing::field::display(Escaped::new(finding.domain.as_str()))),
        client = %record.client,
        ptr = record.name().and_then(|name| shown(name.as_str())),
        helo = shown(&record.helo),
        mail_from = shown(&record.mail_from),
        rcpt = shown(&record.rcpt),
        from = shown(&record.from),
        reply_to = shown(&record.reply_to),
        duration = record.duration.as_secs_f64(),
        dns_queries = record.queries(),
        evidence = because.and(finding).map(|finding| summary(&finding.evidence)),
        "{}{}",
        undecided.map_or_else(|| sentence(record), |_| "accepted as far as it came, the body would have decided: "),
        undecided.unwrap_or_default(),
    );
}

fn sentence(record: &Record) -> &'static str {
    let greylists = record.because.is_some_and(|(because, _)| because.action == Action::Greylist);
    match (record.verdict, record.refused()) {
        (Verdict::Accept, _) => "accepted",
        (Verdict::Defer, true) if greylists => "greylisted",
        (Verdict::Defer, false) if greylists => "accepted, would have been greylisted",
        (Verdict::Reject, true) => "rejected",
        (Verdict::Defer, true) => "deferred",
        (Verdict::Reject, false) => "accepted, would have been rejected",
        (Verdict::Defer, false) => "accepted, would have been deferred",
    }
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
        write!(text, "{separator}{}: {} ({freshness}, ttl {ttl}s, age {age}s)", item.question, item.answer)
            .ok();
    }
    text
}
