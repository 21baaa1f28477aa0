//! A decision as a tree for people and as JSON for programs: the same facts in both.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::gate::{Gate, Inspection};
use crate::policy::decide::{Decision, Verdict};
use crate::policy::evidence::{Answer, Evidence, Freshness, Records, Trouble};
use crate::policy::finding::{Absence, Finding, Outcome};
use crate::policy::identity::Identity;
use crate::policy::rule::{IdentityRules, Mode, Rung};
use crate::reverse_mx::{ClientNames, NamesOutcome};
use crate::smtp::escape::Escaped;

/// Records of one answer that are shown.
const MOST_RECORDS: usize = 5;
/// What stands in columns; longer lines run over.
const WIDEST: usize = 80;

pub(super) struct Report<'a> {
    pub(super) gate: &'a Gate,
    pub(super) names: Option<&'a ClientNames>,
    pub(super) inspection: &'a Inspection,
    pub(super) decision: &'a Decision,
    /// The client is exempt: nothing was looked at.
    pub(super) exempt: bool,
}

impl Report<'_> {
    /// For people.
    pub(super) fn tree(&self, client: IpAddr) -> String {
        let mut tree = Tree::default();
        tree.top("verdict", &self.verdict());
        if let Some(reply) = self.reply() {
            tree.top("reply", &reply);
        }
        if let Some(cause) = &self.decision.cause {
            tree.top("help", cause.reason.help());
        }
        tree.top("client", &format!("{client}{}", self.name_of_client()));
        for (at, identity) in Identity::ALL.into_iter().enumerate() {
            self.identity(&mut tree, identity, at + 1 == Identity::ALL.len());
        }
        tree.text
    }

    fn verdict(&self) -> String {
        let verdict = self.decision.verdict.name();
        let mode = match (self.decision.mode, self.decision.verdict) {
            (Mode::Monitor, Verdict::Reject | Verdict::Defer) => " (mode monitor: accepted all the same)",
            _ => "",
        };
        let why = self.decision.cause.as_ref().map(|cause| {
            format!(", because of {}: {} {}", cause.finding.identity, cause.finding.rule, cause.reason)
        });
        format!("{verdict}{mode}{}", why.unwrap_or_default())
    }

    /// The reply that enforcing gives. Its id is left out: no log has it.
    fn reply(&self) -> Option<String> {
        let enforced = Decision { mode: Mode::Enforce, ..self.decision.clone() };
        let id = self.inspection.id();
        self.gate.refusal(&enforced, id).map(|reply| reply.to_string().replace(id.as_str(), "ID"))
    }

    fn name_of_client(&self) -> String {
        match self.names.map(|names| &names.outcome) {
            None => String::new(),
            Some(NamesOutcome::Confirmed(names)) => {
                let names: Vec<_> = names.iter().map(ToString::to_string).collect();
                format!(" = {} (forward-confirmed)", names.join(", "))
            }
            Some(NamesOutcome::NoPtr) => " (no PTR record)".to_owned(),
            Some(NamesOutcome::NotConfirmed(names)) => {
                format!(" (calls itself {}, which doesn't lead back to it)", names.join(", "))
            }
            Some(NamesOutcome::TempError(trouble)) => format!(" (PTR unknown: {trouble})"),
        }
    }

    fn identity(&self, tree: &mut Tree, identity: Identity, last: bool) {
        let rules = self.gate.policy().rules(identity);
        let all = self.inspection.findings().iter();
        let findings: Vec<&Finding> = all.filter(|finding| finding.identity == identity).collect();
        let absent = |finding: &&Finding| finding.outcome == Outcome::None(Absence::NotGiven);
        let note = match identity {
            _ if self.exempt => Some("exempt client"),
            _ if findings.is_empty() && !rules.looks() => Some("off, not looked up"),
            // an exempt MAIL FROM takes them along
            Identity::Ptr if findings.is_empty() => Some("not judged, MAIL FROM is exempt"),
            Identity::Helo if findings.is_empty() => Some("not given, or MAIL FROM is exempt"),
            Identity::MailFrom if findings.iter().all(absent) => Some("not given, or the null sender"),
            _ if findings.iter().all(absent) => Some("not given"),
            _ => None,
        };
        if let Some(note) = note {
            return tree.line(1, last, &format!("{identity}: {note}"));
        }
        tree.line(1, last, identity.name());
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
        tree.records(&finding.evidence);
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
        Outcome::None(Absence::AwaitsBody) => "none (the body is missing)".to_owned(),
    }
}

/// `MX good.test: 10 mail.good.test`, and how that is known.
fn record(evidence: &Evidence) -> (String, String) {
    let Evidence { question, answer, freshness, ttl_left, age, took } = evidence;
    let text = match &**answer {
        Answer::Found(Records::Mx(list)) if list.len() > MOST_RECORDS => {
            let first = list.get(..MOST_RECORDS).unwrap_or_default().to_vec();
            let first = Answer::Found(Records::Mx(first));
            format!("{first} and {} more (--json has them)", list.len() - MOST_RECORDS)
        }
        Answer::NoData => format!("no {} record", question.rtype),
        other => other.to_string(),
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
        "answer": evidence.answer.to_string(),
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

/// Lines with branches.
#[derive(Default)]
struct Tree {
    text: String,
    /// For each level above the current one: whether its branch goes on below.
    open: Vec<bool>,
    /// Records that were shown with everything that is known of them.
    shown: Vec<String>,
}

impl Tree {
    fn top(&mut self, name: &str, text: &str) {
        // Writing to a String can't fail.
        writeln!(self.text, "{:9}{text}", format!("{name}:")).ok();
    }

    /// The records of one finding, each once; what stands further up is only referred to.
    fn records(&mut self, evidence: &[Evidence]) {
        let mut lines: Vec<(String, String)> = Vec::new();
        for (text, known) in evidence.iter().map(record) {
            if lines.iter().all(|(other, _)| *other != text) {
                lines.push((text, known));
            }
        }
        let lengths = lines.iter().map(|(text, _)| text.chars().count());
        let width = lengths.filter(|length| *length <= WIDEST).max().unwrap_or_default();
        let count = lines.len();
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
