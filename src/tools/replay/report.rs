//! The report as text and as JSON, with the same facts.
//!
//! Mail that Postfix accepted and this policy would refuse comes first, and only such mail has lines for `[exempt]`. DNS errors
//! say nothing about a sender and have a list of their own.

use std::time::Duration;

use serde_json::json;

use crate::console::colour::Colour;
use crate::console::refusals::{kinds_table, line, list, shown, sum, table};
use crate::stats::refusals::{Kind, Row, Volume};
use crate::tools::replay::form::FORMS;
use crate::tools::replay::judge::Judged;
use crate::tools::replay::mail::Counts;

/// Limits of every report.
const LIMITS: [&str; 2] = [
    "From: and Reply-To: are not in a log and were not judged; for these run the daemon with policy.mode = \"monitor\".",
    "The results depend on the DNS records of now, not of the time of the log.",
];

pub(super) struct ReplayFacts<'a> {
    pub(super) counts: Counts,
    /// Turns of the year from the first time stamp to the last, by stamps without a year.
    pub(super) years: i32,
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

    /// Refusals, and DNS errors.
    fn kinds(&self) -> (Vec<(Kind, Volume)>, Vec<(Kind, Volume)>) {
        self.judged.refusals.kinds().into_iter().partition(|(kind, _)| !kind.is_trouble())
    }

    fn rows(&self) -> (Vec<Row>, Vec<Row>) {
        self.judged.refusals.rows().into_iter().partition(|row| !row.kind.is_trouble())
    }
}

pub(super) fn json(facts: &ReplayFacts<'_>, top: usize) -> String {
    let (kinds, dns_errors) = facts.kinds();
    let (rows, error_rows) = facts.rows();
    let (rows, exempt) = shown(&rows, top);
    let (error_rows, _) = shown(&error_rows, top);
    let value = json!({
        "counts": facts.counts,
        "no_address": facts.no_address(),
        "different_senders": facts.judged.senders,
        "dns_questions": facts.judged.questions,
        "seconds": facts.took.as_secs_f64(),
        "passes": facts.judged.passed,
        "would_be_refused": sum(&kinds),
        "dns_trouble": sum(&dns_errors),
        "kinds": kinds.iter().map(|(kind, volume)| kind.json(*volume)).collect::<Vec<_>>(),
        "senders": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "in_dns_trouble": error_rows.iter().map(Row::json).collect::<Vec<_>>(),
        "exempt": exempt,
        "not_judged": ["from", "reply_to"],
        "problems": facts.problems,
        "interrupted": facts.interrupted,
    });
    format!("{value:#}\n")
}

pub(super) fn text(facts: &ReplayFacts<'_>, top: usize, colour: Colour) -> String {
    let mut text = String::new();
    logs(&mut text, facts);
    let (kinds, dns_errors) = facts.kinds();
    let (rows, error_rows) = facts.rows();
    let (would, failed, passed) = (sum(&kinds), sum(&dns_errors), facts.judged.passed);
    let mut table = table(&["", "TAKEN", "REFUSED"], &[1, 2]);
    for (name, volume) in [
        ("all in the logs", facts.counts.messages),
        ("would pass", passed),
        ("would be refused", would),
        ("DNS errors", failed),
        ("not an address, refused at MAIL", facts.no_address()),
    ] {
        table.add_row([name.to_owned(), volume.taken.to_string(), volume.refused.to_string()]);
    }
    line(&mut text, &format!("\n{}\n{}", colour.bold("Messages"), table.trim_fmt()));
    if !kinds.is_empty() {
        line(&mut text, &format!("\n{}", colour.bold("What would be refused, and why")));
        line(&mut text, &kinds_table(&kinds));
        line(
            &mut text,
            &format!(
                "\n{}",
                colour.bold("By sender domain, those with the most mail that Postfix accepted first")
            ),
        );
        list(&mut text, &rows, top, "--top");
    }
    if !dns_errors.is_empty() {
        line(
            &mut text,
            &format!("\n{}", colour.bold("DNS errors: no result for these senders, try again later")),
        );
        list(&mut text, &error_rows, top, "--top");
    }
    let (_, exempt) = shown(&rows, top);
    if !exempt.is_empty() {
        let title = "For the configuration, as far as you want this mail";
        line(&mut text, &format!("\n{}\n[exempt]\n{}", colour.bold(title), exempt.join("\n")));
    }
    text.push('\n');
    LIMITS.iter().for_each(|limit| line(&mut text, limit));
    if facts.interrupted {
        line(&mut text, "The run was interrupted; this is the result until then.");
    }
    for problem in &facts.problems {
        line(&mut text, &format!("Incomplete: {problem}"));
    }
    text
}

/// What stamps without a year show of it.
fn turns(years: i32) -> String {
    match years {
        0 => String::new(),
        1 => " of the next year".to_owned(),
        2.. => format!(" {years} years later"),
        _ => ", an earlier year: logs have to be named in the order of their age, oldest first".to_owned(),
    }
}

/// Facts about the logs.
fn logs(text: &mut String, facts: &ReplayFacts<'_>) {
    let counts = &facts.counts;
    let Counts { lines, postfix, foreign, unreadable, .. } = counts;
    line(
        text,
        &format!(
            "{lines} lines: {postfix} of Postfix, {foreign} of other programs, {unreadable} unreadable. {} different \
             senders, {} DNS queries, {:.1} s.",
            facts.judged.senders,
            facts.judged.questions,
            facts.took.as_secs_f64(),
        ),
    );
    match (&counts.first, &counts.last) {
        (Some(first), Some(last)) => {
            line(text, &format!("From {first} to {last}{}.", turns(facts.years)));
        }
        _ if *postfix > 0 => line(text, "The lines have no time."),
        _ => line(text, &format!("No line of Postfix: is this a mail log? {FORMS}.")),
    }
    line(
        text,
        &format!(
            "Left out: {} messages of authenticated users, {} from this machine, {} clients refused before MAIL FROM.",
            counts.authenticated, counts.internal, counts.refused_early
        ),
    );
    for sample in &counts.unreadable_samples {
        line(text, &format!("Unreadable: {sample}"));
    }
}
