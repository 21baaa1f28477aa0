//! The audit as JSON for programs; `src/audit/README.md` describes it.

use serde_json::{Value, json};

use crate::audit::facts::{Climbed, Judged, Line};
use crate::audit::owner::{Asked, Asks, Owner};
use crate::audit::remedy::{Step, Zone};
use crate::audit::report::Report;
use crate::audit::standing::Standing;
use crate::policy::finding;
use crate::reverse_mx::FcrdnsResult;
use crate::smtp::address::DomainName;

impl Report {
    /// The report for programs.
    pub fn json(&self) -> Value {
        let lines = self.lines().zip(&self.standings).map(|(line, standing)| self.line_json(line, standing));
        json!({
            "domain": self.facts.domain.as_str(),
            "sender": self.facts.sender.to_string(),
            "exit": self.outcome() as u8,
            "dmarc": self.dmarc_json(),
            "addresses": lines.collect::<Vec<_>>(),
            "remarks": self.remedy.remarks,
            "steps": self.remedy.steps.iter().map(step_json).collect::<Vec<_>>(),
        })
    }

    fn dmarc_json(&self) -> Value {
        let Owner { asks, .. } = &self.facts.owner;
        let (asked, result) = match asks {
            Asks::Record(asked) => (Some(asked), "record"),
            Asks::Nothing => (None, "none"),
            Asks::Malformed => (None, "permerror"),
            Asks::Unknown(_) => (None, "temperror"),
        };
        let organization = asked.and_then(|asked| asked.organization.as_ref());
        json!({
            "result": result,
            "record_at": asked.map(|asked| asked.applied.name.as_str()),
            "tag": asked.map(Asked::tag),
            "request": asked.map(|asked| asked.request.name()),
            "testing": asked.is_some_and(|asked| asked.applied.record.testing),
            "in_force": asked.map(|asked| asked.in_force().name()),
            "organization": organization.map(DomainName::as_str),
            "text": self.facts.owner.sentence(&self.facts.domain),
        })
    }

    fn line_json(&self, line: &Line, standing: &Standing) -> Value {
        let hosts = self.exchangers(line.address);
        let hosts = hosts.map(
            |exchanger| json!({ "preference": exchanger.preference, "host": exchanger.target.to_string() }),
        );
        let (ptr, names) = match &line.names {
            FcrdnsResult::Confirmed(names) => ("confirmed", names.iter().map(ToString::to_string).collect()),
            FcrdnsResult::NoPtr => ("none", Vec::new()),
            FcrdnsResult::NotConfirmed(names) => {
                ("not_confirmed", names.iter().map(ToString::to_string).collect())
            }
            FcrdnsResult::TempError(_) => ("temperror", Vec::new()),
        };
        let mut value = json!({
            "address": line.address.to_string(),
            "mx_hosts": hosts.collect::<Vec<_>>(),
            "ptr": ptr,
            "names": names,
            "helo": line.helo,
            "spf": line.spf.name(),
            "dmarc": self.facts.owner.fate(line.spf).name(),
            "policies": line.judged.iter().map(judged_json).collect::<Vec<_>>(),
            "lost": standing.lost,
            "unknown": standing.unknown,
            "unless_signed": standing.unless_signed,
        });
        if !line.rungs.is_empty() {
            let rungs = line.rungs.iter().map(
                |Climbed { rule, rung, outcome }| json!({ "rule": rule.name(), "rung": rung.name(), "result": outcome.word() }),
            );
            if let Some(fields) = value.as_object_mut() {
                fields.insert("rungs".to_owned(), rungs.collect());
            }
        }
        value
    }
}

fn judged_json(judged: &Judged) -> Value {
    let cause = judged.decision.cause.as_ref();
    let rung = match judged.matches {
        Some(finding::RuleResult::Pass(rung)) => Some(rung.name()),
        Some(
            finding::RuleResult::Fail(_) | finding::RuleResult::TempError(_) | finding::RuleResult::None(_),
        )
        | None => None,
    };
    json!({
        "policy": judged.policy,
        "verdict": judged.decision.verdict.name(),
        "mode": judged.decision.mode.name(),
        "identity": judged.refused_by.map(|(identity, _)| identity.name()),
        "rule": judged.refused_by.map(|(_, rule)| rule.name()),
        "reason": cause.map(|cause| cause.reason.name()),
        "matches": judged.matches.map(finding::RuleResult::word),
        "rung": rung,
    })
}

fn step_json(step: &Step) -> Value {
    json!({
        "why": step.why,
        "zone": match step.zone { Zone::Own => "own", Zone::Provider => "provider" },
        "remove": step.remove.iter().map(|record| record.existing()).collect::<Vec<_>>(),
        "add": step.add.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
