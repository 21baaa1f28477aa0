//! The one structured event of each decision (DESIGN 6), the only place that logs a verdict.
//!
//! Everything that came from the network is escaped, so that one decision is one line.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::gate::Inspection;
use crate::policy::decide::{Decision, Verdict};
use crate::policy::evidence::{Evidence, Freshness};
use crate::policy::finding::{Finding, Outcome};
use crate::policy::identity::Identity;
use crate::policy::rule::{Rule, Rung};
use crate::smtp::escape::Escaped;

/// What the event says beside the decision; empty = not known at this stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// The confirmed PTR name.
    pub ptr: &'a str,
    /// The HELO argument.
    pub helo: &'a str,
    /// The reverse path; `<>` for the null sender.
    pub mail_from: &'a str,
    /// The recipient, or the first of several.
    pub rcpt: &'a str,
    /// Addresses in From:.
    pub from: &'a str,
    /// Addresses in Reply-To:.
    pub reply_to: &'a str,
}

pub(super) fn write(inspection: &Inspection, client: IpAddr, decision: &Decision, facts: &Facts<'_>) {
    let cause = decision.cause.as_ref();
    let finding = cause.map(|cause| &cause.finding).or_else(|| passed(inspection));
    tracing::info!(
        target: "rmxd::decision",
        id = %inspection.id(),
        verdict = decision.verdict.name(),
        mode = inspection.mode().name(),
        identity = finding.map(|finding| finding.identity.name()),
        rule = finding.map(|finding| finding.rule.name()),
        rung = finding.and_then(rung).map(Rung::name),
        reason = cause.map(|cause| cause.reason.name()),
        domain = finding.map(|finding| tracing::field::display(Escaped::new(finding.domain.as_str()))),
        client = %client,
        ptr = shown(facts.ptr),
        helo = shown(facts.helo),
        mail_from = shown(facts.mail_from),
        rcpt = shown(facts.rcpt),
        from = shown(facts.from),
        reply_to = shown(facts.reply_to),
        duration = inspection.age().as_secs_f64(),
        dns_queries = inspection.queries(),
        evidence = cause.map(|cause| summary(&cause.finding.evidence)),
        "{}",
        sentence(decision),
    );
}

fn sentence(decision: &Decision) -> &'static str {
    match (decision.verdict, decision.refuses()) {
        (Verdict::Accept, _) => "accepted",
        (Verdict::Defer, true) if decision.greylists() => "greylisted",
        (Verdict::Defer, false) if decision.greylists() => "accepted, would have been greylisted",
        (Verdict::Reject, true) => "rejected",
        (Verdict::Defer, true) => "deferred",
        (Verdict::Reject, false) => "accepted, would have been rejected",
        (Verdict::Defer, false) => "accepted, would have been deferred",
    }
}

fn shown(text: &str) -> Option<tracing::field::DisplayValue<Escaped<'_>>> {
    (!text.is_empty()).then(|| tracing::field::display(Escaped::new(text)))
}

/// Of an accepted message: what passed that was hardest to pass. That the client matches, where it would have been
/// refused otherwise; before other senders the one that people see.
fn passed(inspection: &Inspection) -> Option<&Finding> {
    let passed = inspection.findings().iter().filter(|finding| matches!(finding.outcome, Outcome::Pass(_)));
    let refuses = |finding: &Finding| inspection.action(finding).refuses();
    let rank = |finding: &&Finding| {
        (finding.rule == Rule::Matches && refuses(finding), finding.identity == Identity::From)
    };
    passed.min_by_key(|finding| std::cmp::Reverse(rank(finding)))
}

fn rung(finding: &Finding) -> Option<Rung> {
    match finding.outcome {
        Outcome::Pass(rung) => Some(rung),
        Outcome::Fail(_) | Outcome::TempError(_) | Outcome::None(_) => None,
    }
}

/// Questions that were asked now; several findings may rest on the same one.
pub(super) fn queries(findings: &[Finding]) -> usize {
    let evidence = findings.iter().flat_map(|finding| &finding.evidence);
    let fresh = evidence.filter(|evidence| evidence.freshness == Freshness::Fresh);
    fresh.map(|evidence| &evidence.question).collect::<HashSet<_>>().len()
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
