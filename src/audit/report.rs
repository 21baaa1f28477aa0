//! The audit as a table and a zone file for people; `json` has the same facts for programs.

mod json;

use std::fmt::Write as _;
use std::net::IpAddr;

use comfy_table::{Table, presets};

use crate::audit::facts::{Climbed, Facts, Judged, Line};
use crate::audit::owner::{Asks, Fate};
use crate::audit::remedy::{Remedy, Step, Zone};
use crate::audit::standing::{Standing, is_unless_signed};
use crate::audit::{AuditResult, RIGHT, WARNING, WRONG};
use crate::policy::authentication::Request;
use crate::policy::decide::Verdict;
use crate::policy::finding;
use crate::policy::rule::{Mode, Rule};
use crate::reverse_mx::{Exchanger, FcrdnsResult};
use crate::spf;

/// Columns of a line at most.
const WIDTH: usize = 110;
/// The cell of the rung `dkim`, which no DNS lookup can decide.
const DKIM: &str = "depends on the signature";

/// The result of an audit.
pub struct Report {
    facts: Facts,
    /// One for each line.
    standings: Vec<Standing>,
    remedy: Remedy,
}

impl Report {
    pub(super) fn of(facts: Facts) -> Self {
        let standings = facts.lines.iter().map(|line| Standing::of(&facts, line)).collect();
        let remedy = Remedy::of(&facts);
        Self { facts, standings, remedy }
    }

    /// The result of all addresses together.
    pub fn outcome(&self) -> AuditResult {
        if self.standings.iter().any(|standing| !standing.lost.is_empty()) {
            AuditResult::Lost
        } else if self.standings.iter().any(|standing| !standing.unknown.is_empty()) {
            AuditResult::Unknown
        } else {
            AuditResult::Accepted
        }
    }

    /// The report for people; the first line is the title.
    pub fn text(&self) -> String {
        let Facts { domain, sender, .. } = &self.facts;
        let mut text = format!("Mail from {sender}, over each address of {domain}:\n\n{}\n", self.table());
        if self.lines().any(|line| !line.rungs.is_empty()) {
            text.push_str(&format!("\nRungs that hold for MAIL FROM:<{sender}>\n{}\n", self.rungs()));
        }
        text.push('\n');
        text.push_str(&self.dmarc());
        text.push('\n');
        text.push_str(&self.summary());
        if !self.remedy.remarks.is_empty() {
            text.push('\n');
        }
        for remark in &self.remedy.remarks {
            text.push_str(&wrapped("! ", "  ", remark));
        }
        text + &self.records()
    }

    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.facts.lines.iter()
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let policies = self.facts.lines.first().map_or(&[][..], |line| &line.judged);
        let policies = policies.iter().map(|judged| judged.policy.to_uppercase());
        let header = ["ADDRESS", "MX HOST", "PTR", "SPF", "DMARC"].map(str::to_owned);
        table.set_header(header.into_iter().chain(policies));
        for line in self.lines() {
            let row = [
                line.address.to_string(),
                self.exchanger(line.address),
                names(line),
                mark_spf(line.spf),
                self.facts.owner.fate(line.spf).to_string(),
            ];
            table.add_row(row.into_iter().chain(line.judged.iter().map(verdict)));
        }
        plain(&table)
    }

    fn exchanger(&self, address: IpAddr) -> String {
        let with: Vec<String> = self.exchangers(address).map(host).collect();
        match (with.is_empty(), self.facts.mx_report.trouble()) {
            (false, _) => format!("{RIGHT} {}", with.join(", ")),
            (true, Some(trouble)) => format!("? {trouble}"),
            (true, None) => format!("{WRONG} none"),
        }
    }

    fn exchangers(&self, address: IpAddr) -> impl Iterator<Item = &Exchanger> {
        self.facts.mx_report.listed().iter().filter(move |exchanger| exchanger.has(address))
    }

    /// A row for each rung, a column for each address.
    fn rungs(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let addresses = self.lines().map(|line| line.address.to_string());
        table.set_header(["RULE".to_owned(), "RUNG".to_owned()].into_iter().chain(addresses));
        let rungs = self.facts.lines.first().map_or(&[][..], |line| &line.rungs);
        for (at, climbed) in rungs.iter().enumerate() {
            let cells =
                self.lines().filter_map(|line| line.rungs.get(at)).map(|climbed| climbs(climbed).to_owned());
            let names = [climbed.rule.name().to_owned(), climbed.rung.name().to_owned()];
            table.add_row(names.into_iter().chain(cells));
        }
        let dkim = self.lines().map(|_| DKIM.to_owned());
        table.add_row([Rule::Matches.name().to_owned(), "dkim".to_owned()].into_iter().chain(dkim));
        plain(&table)
    }

    /// What the owner asks for, then a sentence for each address.
    fn dmarc(&self) -> String {
        let Facts { domain, owner, .. } = &self.facts;
        let mut text = wrapped("DMARC: ", "  ", &owner.sentence(domain));
        for (line, standing) in self.lines().zip(&self.standings) {
            let mark = match owner.fate(line.spf) {
                Fate::Passes => RIGHT,
                Fate::UnlessSigned(Request::Quarantine | Request::Reject) => WARNING,
                Fate::UnlessSigned(Request::None) | Fate::NoRecord | Fate::Malformed => '-',
                Fate::Unknown => '?',
            };
            let what = match (line.spf, &owner.asks) {
                (spf::SpfResult::Pass, Asks::Record(_)) => "passes by SPF".to_owned(),
                (spf::SpfResult::Pass, _) => "SPF passes, so DMARC can't fail".to_owned(),
                (spf::SpfResult::TempError, _) => "SPF is unknown, as a lookup failed".to_owned(),
                (result, Asks::Nothing | Asks::Malformed) => format!(
                    "SPF gives {result}, so with a record only a DKIM signature ({}) would make DMARC pass",
                    owner.signer(domain)
                ),
                (result, _) => format!(
                    "SPF gives {result}, so only a DKIM signature ({}) makes DMARC pass",
                    owner.signer(domain)
                ),
            };
            let otherwise = match standing.unless_signed.as_slice() {
                [] => String::new(),
                all => format!(" Unless it is signed, {}.", all.join("; ")),
            };
            let what = format!("{}: {what}.{otherwise}", line.address);
            text.push_str(&wrapped(&format!("{mark} "), "  ", &what));
        }
        text
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        for (line, standing) in self.lines().zip(&self.standings) {
            let Standing { lost, unknown, .. } = standing;
            if !lost.is_empty() {
                let what = format!("Mail over {} would be lost: {}.", line.address, lost.join("; "));
                text.push_str(&wrapped(&format!("{WRONG} "), "  ", &what));
            }
            if !unknown.is_empty() {
                let what = format!("The result for {} is unknown: {}.", line.address, unknown.join("; "));
                text.push_str(&wrapped("? ", "  ", &what));
            }
        }
        if text.is_empty() {
            let all = match self.facts.lines.len() {
                1 => "this address".to_owned(),
                2 => "both addresses".to_owned(),
                count => format!("all {count} addresses"),
            };
            let condition = match self.standings.iter().all(|standing| standing.unless_signed.is_empty()) {
                true => "",
                false => ", if it is signed where DMARC needs that",
            };
            text = format!("{RIGHT} accepted over {all}{condition}.\n");
        }
        text
    }

    /// A zone file: the steps in the domain's own zone, then those for the provider.
    fn records(&self) -> String {
        let mut text = String::new();
        let titles = [
            (Zone::Own, format!("In the zone of {}", self.facts.domain)),
            (Zone::Provider, "To ask the provider of the address for".to_owned()),
        ];
        for (zone, title) in titles {
            let steps: Vec<&Step> = self.remedy.steps.iter().filter(|step| step.zone == zone).collect();
            if steps.is_empty() {
                continue;
            }
            // Writing to a String can't fail.
            writeln!(text, "\n; === {title} ===").ok();
            for step in steps {
                writeln!(text, ";").ok();
                text.push_str(&wrapped("; ", "; ", &step.why));
                for record in &step.remove {
                    writeln!(text, "; remove: {}", record.existing()).ok();
                }
                for record in &step.add {
                    writeln!(text, "{record}").ok();
                }
            }
        }
        text
    }
}

fn host(exchanger: &Exchanger) -> String {
    format!("{} {}", exchanger.preference, exchanger.target)
}

fn names(line: &Line) -> String {
    match &line.names {
        FcrdnsResult::Confirmed(names) => {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            format!("{RIGHT} {}", names.join(", "))
        }
        FcrdnsResult::NoPtr => format!("{WRONG} none"),
        FcrdnsResult::NotConfirmed(names) => format!("{WRONG} {}, not confirmed", names.join(", ")),
        FcrdnsResult::TempError(trouble) => format!("? {trouble}"),
    }
}

fn mark_spf(outcome: spf::SpfResult) -> String {
    let mark = match outcome {
        spf::SpfResult::Pass => RIGHT,
        spf::SpfResult::Fail => WRONG,
        spf::SpfResult::TempError => '?',
        spf::SpfResult::SoftFail
        | spf::SpfResult::Neutral
        | spf::SpfResult::None
        | spf::SpfResult::PermError => '-',
    };
    format!("{mark} {outcome}")
}

/// `accept (mx)` with the rung of `matches`; `accept (tag not_an_exchanger)`; `reject: mail_from not_an_exchanger`.
fn verdict(judged: &Judged) -> String {
    let Judged { decision, matches, .. } = judged;
    let mark = if decision.verdict == Verdict::Accept { RIGHT } else { WRONG };
    let why = match (&decision.cause, matches) {
        (Some(cause), _) => {
            let identity = judged.refused_by.map(|(identity, _)| format!("{identity} ")).unwrap_or_default();
            let unless = if is_unless_signed(cause.reason) { " unless signed" } else { "" };
            format!(": {identity}{}{unless}", cause.reason)
        }
        (None, Some(finding::RuleResult::Pass(rung))) => format!(" ({rung})"),
        (None, Some(finding::RuleResult::Fail(reason))) => format!(" (tag {reason})"),
        (None, Some(finding::RuleResult::TempError(trouble))) => format!(" ({trouble})"),
        (None, Some(finding::RuleResult::None(_)) | None) => String::new(),
    };
    let monitor = match (decision.mode, &decision.cause) {
        (Mode::Monitor, Some(_)) => " (mode monitor)",
        (Mode::Monitor, None) | (Mode::Enforce, _) => "",
    };
    format!("{mark} {}{why}{monitor}", decision.verdict.name())
}

fn climbs(climbed: &Climbed) -> &'static str {
    match climbed.outcome {
        finding::RuleResult::Pass(_) => "holds",
        finding::RuleResult::Fail(_) => "no",
        finding::RuleResult::TempError(_) => "unknown",
        finding::RuleResult::None(_) => "-",
    }
}

/// The text of the table without white space at the ends of lines.
fn plain(table: &Table) -> String {
    table.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Wraps a sentence into lines.
fn wrapped(first: &str, next: &str, text: &str) -> String {
    let mut lines = vec![first.to_owned()];
    let mut empty = true;
    for word in text.split(' ') {
        let length = lines.last().map_or(0, |line| line.chars().count());
        if !empty && length + 1 + word.chars().count() > WIDTH {
            lines.push(next.to_owned());
            empty = true;
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(if empty { "" } else { " " });
            line.push_str(word);
        }
        empty = false;
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_broken_at_blanks_and_every_line_has_its_mark() {
        let text = wrapped("; ", "; ", &"word ".repeat(60));
        assert!(text.lines().count() > 2);
        for line in text.lines() {
            assert!(line.starts_with("; word") && line.len() <= WIDTH, "{line}");
        }
        let long = "x".repeat(200);
        assert_eq!(wrapped("! ", "  ", &format!("a {long} b")), format!("! a\n  {long}\n  b\n"));
    }
}
