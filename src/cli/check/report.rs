//! A decision as a tree for people and as JSON for programs: the same facts in both.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::gate::{Gate, Inspection};
use crate::policy::decide::{Decision, Verdict};
use crate::policy::evidence::{Evidence, Trouble};
use crate::policy::finding::{Absence, Finding, Outcome};
use crate::policy::identity::Identity;
use crate::policy::rule::{IdentityRules, Mode, Rung};
use crate::reverse_mx::{ClientNames, NamesOutcome};
use crate::smtp::escape::Escaped;

pub(super) struct Report<'a> {
    pub(super) gate: &'a Gate,
    pub(super) names: Option<&'a ClientNames>,
    pub(super) inspection: &'a Inspection,
    pub(super) decision: &'a Decision,
}

impl Report<'_> {
    /// For people.
    pub(super) fn tree(&self, client: IpAddr) -> String {
        let mut tree = Tree::default();
        tree.line(0, true, &self.headline());
        tree.line(0, true, &format!("client {client}{}", self.name_of_client()));
        for (at, identity) in Identity::ALL.into_iter().enumerate() {
            self.identity(&mut tree, identity, at + 1 == Identity::ALL.len());
        }
        if let Some(cause) = &self.decision.cause {
            tree.line(0, true, &format!("help: {}", cause.reason.help()));
        }
        tree.text
    }

    fn headline(&self) -> String {
        let verdict = self.decision.verdict.name();
        let mode = match (self.decision.mode, self.decision.verdict) {
            (Mode::Monitor, Verdict::Reject | Verdict::Defer) => " (mode monitor: accepted all the same)",
            _ => "",
        };
        match self.reply() {
            Some(reply) => format!("verdict: {verdict}{mode}, {reply}"),
            None => format!("verdict: {verdict}{mode}"),
        }
    }

    /// The reply that enforcing gives.
    fn reply(&self) -> Option<String> {
        let enforced = Decision { mode: Mode::Enforce, ..self.decision.clone() };
        self.gate.refusal(&enforced, self.inspection.id()).map(|reply| reply.to_string())
    }

    fn name_of_client(&self) -> String {
        match self.names.map(|names| &names.outcome) {
            None => String::new(),
            Some(NamesOutcome::Confirmed(names)) => {
                let names: Vec<_> = names.iter().map(ToString::to_string).collect();
                format!(" = {} (forward-confirmed)", names.join(", "))
            }
            Some(NamesOutcome::NoPtr) => " (no PTR record)".to_owned(),
            Some(NamesOutcome::NotConfirmed(_)) => " (PTR name not confirmed)".to_owned(),
            Some(NamesOutcome::TempError(trouble)) => format!(" (PTR unknown: {trouble})"),
        }
    }

    fn identity(&self, tree: &mut Tree, identity: Identity, last: bool) {
        let rules = self.gate.policy().rules(identity);
        let findings: Vec<&Finding> =
            self.inspection.findings().iter().filter(|finding| finding.identity == identity).collect();
        let note = match (findings.is_empty(), rules.looks()) {
            (false, _) => "",
            (true, true) => ": not given",
            (true, false) => ": off",
        };
        tree.line(1, last, &format!("{identity}{note}"));
        for (at, finding) in findings.iter().enumerate() {
            self.finding(tree, finding, rules, (last, at + 1 == findings.len()));
        }
    }

    fn finding(&self, tree: &mut Tree, finding: &Finding, rules: &IdentityRules, last: (bool, bool)) {
        let decides = self.decision.cause.as_ref().is_some_and(|cause| cause.finding == *finding);
        let mark = if decides { "  <-- decides" } else { "" };
        let (subject, rule) = (Escaped::new(finding.subject.as_str()), finding.rule);
        let action = rules.action(rule).name();
        tree.open = vec![!last.0];
        tree.line(2, last.1, &format!("{rule} of {subject}: {} [{action}]{mark}", result(finding)));
        tree.open = vec![!last.0, !last.1];
        for (at, evidence) in finding.evidence.iter().enumerate() {
            tree.line(3, at + 1 == finding.evidence.len(), &record(evidence));
        }
        tree.open = vec![];
    }

    /// For programs.
    pub(super) fn json(&self, client: IpAddr) -> String {
        let findings = self.inspection.findings().iter();
        let names = match self.names.map(|names| &names.outcome) {
            Some(NamesOutcome::Confirmed(names)) => names.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        let cause = self.decision.cause.as_ref();
        let value = json!({
            "verdict": self.decision.verdict.name(),
            "mode": self.decision.mode.name(),
            "reply": self.reply(),
            "identity": cause.map(|cause| cause.finding.identity.name()),
            "rule": cause.map(|cause| cause.finding.rule.name()),
            "reason": cause.map(|cause| cause.reason.name()),
            "help": cause.map(|cause| cause.reason.help()),
            "client": client.to_string(),
            "ptr": names,
            "findings": findings.map(|finding| self.finding_json(finding)).collect::<Vec<_>>(),
        });
        format!("{value:#}\n")
    }

    fn finding_json(&self, finding: &Finding) -> Value {
        let action = self.gate.policy().rules(finding.identity).action(finding.rule);
        let (rung, reason) = match finding.outcome {
            Outcome::Pass(rung) => (Some(rung.name()), None),
            Outcome::Fail(reason) => (None, Some(reason.name())),
            Outcome::TempError(_) | Outcome::None(_) => (None, None),
        };
        json!({
            "identity": finding.identity.name(),
            "rule": finding.rule.name(),
            "action": action.name(),
            "subject": finding.subject.as_str(),
            "domain": finding.domain.as_str(),
            "result": finding.outcome.word(),
            "rung": rung,
            "reason": reason,
            "evidence": finding.evidence.iter().map(evidence_json).collect::<Vec<_>>(),
        })
    }
}

fn result(finding: &Finding) -> String {
    match finding.outcome {
        Outcome::Pass(rung) => format!("pass ({})", Rung::name(rung)),
        Outcome::Fail(reason) => format!("fail ({reason})"),
        Outcome::TempError(trouble) => format!("temperror ({})", Trouble::to_string(&trouble)),
        Outcome::None(Absence::NotGiven) => "none (not given)".to_owned(),
        Outcome::None(Absence::Exempt) => "none (exempt)".to_owned(),
    }
}

fn record(evidence: &Evidence) -> String {
    let Evidence { question, answer, freshness, ttl_left, age, took } = evidence;
    let age = if age.is_zero() { String::new() } else { format!(", {} old", short(*age)) };
    format!(
        "{question}: {answer} ({}, ttl {}{age}, took {})",
        freshness.name(),
        short(*ttl_left),
        short(*took)
    )
}

fn evidence_json(evidence: &Evidence) -> Value {
    json!({
        "question": evidence.question.to_string(),
        "answer": evidence.answer.to_string(),
        "freshness": evidence.freshness.name(),
        "ttl_left": evidence.ttl_left.as_secs_f64(),
        "age": evidence.age.as_secs_f64(),
        "took": evidence.took.as_secs_f64(),
    })
}

fn short(duration: Duration) -> String {
    match duration.as_millis() {
        0 => format!("{} us", duration.as_micros()),
        millis @ 1..1000 => format!("{millis} ms"),
        _ => format!("{} s", duration.as_secs()),
    }
}

/// Lines with branches.
#[derive(Default)]
struct Tree {
    text: String,
    /// For each level above the current one: whether its branch goes on below.
    open: Vec<bool>,
}

impl Tree {
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
