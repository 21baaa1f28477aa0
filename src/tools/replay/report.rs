//! The report: tables for people, and JSON for programs; the same facts in both.
//!
//! What Postfix took and this policy would refuse is what matters: it comes first, and only for it are there lines for
//! `[exempt]`. DNS in trouble says nothing of a sender and stands apart.

use std::time::Duration;

use serde_json::json;

use crate::console::colour::Colour;
use crate::console::refusals::{kinds_table, line, list, shown, sum, table};
use crate::stats::refusals::{Kind, Row, Volume};
use crate::tools::replay::judge::Judged;
use crate::tools::replay::mail::Counts;

/// What has to be known at whatever the numbers are.
const LIMITS: [&str; 2] = [
    "From: and Reply-To: are not in a log and were not judged: run the daemon with policy.mode = \"monitor\" for these.",
    "Judged by DNS as it is now, not as it was then.",
];

pub(super) struct ReplayFacts<'a> {
    pub(super) counts: Counts,
    pub(super) judged: &'a Judged,
    /// Logs that were not read to their end.
    pub(super) problems: Vec<String>,
    pub(super) interrupted: bool,
    pub(super) took: Duration,
}

impl ReplayFacts<'_> {
    fn no_address(&self) -> Volume {
        self.counts.no_address
    }

    /// Of refusals, and of DNS in trouble.
    fn kinds(&self) -> (Vec<(Kind, Volume)>, Vec<(Kind, Volume)>) {
        self.judged.tally.kinds().into_iter().partition(|(kind, _)| !kind.is_trouble())
    }

    fn rows(&self) -> (Vec<Row>, Vec<Row>) {
        self.judged.tally.rows().into_iter().partition(|row| !row.kind.is_trouble())
    }
}

pub(super) fn json(facts: &ReplayFacts<'_>, top: usize) -> String {
    let (kinds, troubles) = facts.kinds();
    let (rows, trouble_rows) = facts.rows();
    let (rows, exempt) = shown(&rows, top);
    let (trouble_rows, _) = shown(&trouble_rows, top);
    let value = json!({
        "counts": facts.counts,
        "no_address": facts.no_address(),
        "different_senders": facts.judged.senders,
        "dns_questions": facts.judged.questions,
        "seconds": facts.took.as_secs_f64(),
        "passes": facts.judged.passed,
        "would_be_refused": sum(&kinds),
        "dns_trouble": sum(&troubles),
        "kinds": kinds.iter().map(|(kind, volume)| kind.json(*volume)).collect::<Vec<_>>(),
        "senders": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "in_dns_trouble": trouble_rows.iter().map(Row::json).collect::<Vec<_>>(),
        "exempt": exempt,
        "not_judged": ["from", "reply_to"],
        "problems": facts.problems,
        "interrupted": facts.interrupted,
    });
    format!("{value:#}\n")
}

pub(super) fn text(facts: &ReplayFacts<'_>, top: usize, colour: Colour) -> String {
    let mut text = String::new();
    read(&mut text, facts);
    let (kinds, troubles) = facts.kinds();
    let (rows, trouble_rows) = facts.rows();
    let (would, trouble, passed) = (sum(&kinds), sum(&troubles), facts.judged.passed);
    let mut table = table(&["", "TAKEN", "REFUSED"], &[1, 2]);
    for (name, volume) in [
        ("all by Postfix", facts.counts.messages),
        ("pass here too", passed),
        ("would be refused here", would),
        ("DNS in trouble", trouble),
        ("no address, refused at MAIL", facts.no_address()),
    ] {
        table.add_row([name.to_owned(), volume.taken.to_string(), volume.refused.to_string()]);
    }
    line(&mut text, &format!("\n{}\n{}", colour.bold("Messages"), table.trim_fmt()));
    if !kinds.is_empty() {
        line(&mut text, &format!("\n{}", colour.bold("What would be refused, and why")));
        line(&mut text, &kinds_table(&kinds));
        line(&mut text, &format!("\n{}", colour.bold("By sender domain, most mail that Postfix took first")));
        list(&mut text, &rows, top, "--top");
    }
    if !troubles.is_empty() {
        line(
            &mut text,
            &format!("\n{}", colour.bold("DNS in trouble: nothing is known of these, try again later")),
        );
        list(&mut text, &trouble_rows, top, "--top");
    }
    let (_, exempt) = shown(&rows, top);
    if !exempt.is_empty() {
        let title = "For the configuration, as far as you want this mail";
        line(&mut text, &format!("\n{}\n[exempt]\n{}", colour.bold(title), exempt.join("\n")));
    }
    text.push('\n');
    LIMITS.iter().for_each(|limit| line(&mut text, limit));
    if facts.interrupted {
        line(&mut text, "Interrupted: this is what was judged until then.");
    }
    for problem in &facts.problems {
        line(&mut text, &format!("Incomplete: {problem}"));
    }
    text
}

/// What the logs were.
fn read(text: &mut String, facts: &ReplayFacts<'_>) {
    let counts = &facts.counts;
    let Counts { lines, postfix, foreign, unreadable, .. } = counts;
    line(
        text,
        &format!(
            "{lines} lines: {postfix} of Postfix, {foreign} of other programs, {unreadable} can't be read. {} different \
             senders, {} questions to DNS, {:.1} s.",
            facts.judged.senders,
            facts.judged.questions,
            facts.took.as_secs_f64(),
        ),
    );
    match (&counts.first, &counts.last) {
        (Some(first), Some(last)) => line(text, &format!("From {first} to {last}.")),
        _ => line(text, "No line of Postfix: is this a mail log?"),
    }
    line(
        text,
        &format!(
            "Left out: {} messages of authenticated users, {} from this machine, {} clients refused before MAIL FROM.",
            counts.authenticated, counts.internal, counts.refused_early
        ),
    );
    for sample in &counts.unreadable_samples {
        line(text, &format!("Can't be read: {sample}"));
    }
}
