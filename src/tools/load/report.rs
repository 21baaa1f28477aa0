//! The summary as text and as JSON.

use std::fmt::Write as _;

use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};

use crate::console::colour::{Colour, RIGHT, WRONG};
use crate::policy::door::DoorName;
use crate::tools::load::ledger::Balance;
use crate::tools::load::own::Outcomes;
use crate::tools::load::stats::Counts;
use crate::tools::load::summary::{DaemonSummary, Latency, Summary};

const HEADER: [&str; 12] = [
    "CLASS", "EXPECTED", "MESSAGES", "ACCEPTED", "REJECTED", "DEFERRED", "FAILED", "WRONG", "P50", "P99",
    "P99.9", "MAX",
];

/// Maximum number of replies in the text.
const REPLIES: usize = 12;

pub(super) fn json(summary: &Summary) -> String {
    // Plain fields can't fail to serialise; if they did, the empty text would be an error for its reader.
    serde_json::to_string_pretty(summary).map(|text| text + "\n").unwrap_or_default()
}

pub(super) fn text(summary: &Summary, colour: Colour) -> String {
    let mut text = format!("{}\n\n", colour.bold(&title(summary)));
    text.push_str(&classes(summary));
    text.push('\n');
    for reply in summary.replies.iter().take(REPLIES) {
        line(&mut text, &format!("{:>9}  {:<9} {}", reply.count, reply.class, reply.reply));
    }
    let rest =
        summary.replies.iter().skip(REPLIES).map(|reply| reply.count).sum::<u64>() + summary.other_replies;
    if rest > 0 {
        line(&mut text, &format!("{rest:>9}  other replies"));
    }
    for failure in &summary.failures {
        line(&mut text, &format!("{:>9}  failed: {}", failure.count, failure.failure));
    }
    text.push('\n');
    line(&mut text, &pace(summary));
    if let Some(balance) = &summary.delivery {
        line(&mut text, &delivery(balance));
    }
    if let Some(outcomes) = &summary.outcomes {
        line(&mut text, &counted(&summary.total, outcomes));
    }
    if let Some(daemon) = &summary.daemon {
        line(&mut text, &usage(daemon));
    }
    if summary.interrupted {
        line(&mut text, "The run was interrupted; this is the result until then.");
    }
    for problem in &summary.problems {
        line(&mut text, &colour.verdicts(&format!("{WRONG} {problem}")));
    }
    if summary.problems.is_empty() {
        line(&mut text, &colour.verdicts(&format!("{RIGHT} all as expected")));
    }
    text
}

fn line(text: &mut String, line: &str) {
    // Writing to a string can't fail.
    writeln!(text, "{line}").ok();
}

pub(super) fn title(summary: &Summary) -> String {
    let target = if summary.own { "a daemon of its own" } else { "the gate" };
    let pace = match summary.rate {
        Some(rate) => format!("{rate} sessions per second, at most {} at a time", summary.connections),
        None => format!("{} sessions at a time", summary.connections),
    };
    let door = match summary.door {
        DoorName::Smtp => "",
        DoorName::Milter => " as a milter",
        DoorName::Policy => " as a policy service",
    };
    format!("rmxd load: {target}{door} at {}, {pace}, seed {}", summary.target, summary.seed)
}

fn classes(summary: &Summary) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(HEADER);
    for row in &summary.classes {
        table.add_row(cells(row.class, &row.expected, &row.counts, row.latency));
    }
    if summary.classes.len() > 1 {
        table.add_row(cells("all", "", &summary.total, summary.latency));
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if at > 1 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt() + "\n"
}

fn cells(class: &str, expected: &str, counts: &Counts, latency: Option<Latency>) -> Vec<String> {
    let numbers =
        [counts.total(), counts.accepted, counts.rejected, counts.deferred, counts.failed, counts.wrong()];
    let times = latency.map(|it| [it.p50, it.p99, it.p99_9, it.max]);
    let mut cells = vec![class.to_owned(), expected.to_owned()];
    cells.extend(numbers.iter().map(ToString::to_string));
    cells.extend(times.map_or([const { String::new() }; 4], |times| times.map(time)));
    cells
}

pub(super) fn time(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} us"),
        1000..100_000 => format!("{:.1} ms", micros as f64 / 1e3),
        100_000..1_000_000 => format!("{:.0} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

pub(super) fn pace(summary: &Summary) -> String {
    let slow = match summary.slow_sessions {
        0 => String::new(),
        slow => format!(" ({slow} of them slow)"),
    };
    format!(
        "{} sessions{slow} in {:.1} s: {:.0} per second.",
        summary.sessions, summary.seconds, summary.sessions_per_second
    )
}

pub(super) fn delivery(balance: &Balance) -> String {
    let mut text = format!(
        "{} messages accepted, {} in the sink: {} lost, {} twice, {} damaged",
        balance.accepted, balance.received, balance.lost, balance.doubled, balance.damaged
    );
    for (count, what) in [
        (balance.received_though_refused, "received although refused"),
        (balance.foreign, "not sent by this run"),
        (balance.unanswered, "received without a reply to the client"),
    ] {
        if count > 0 {
            // Writing to a string can't fail.
            write!(text, ", {count} {what}").ok();
        }
    }
    text + "."
}

/// What the clients were answered, beside what the daemon counted.
pub(super) fn counted(total: &Counts, outcomes: &Outcomes) -> String {
    format!(
        "{} messages accepted, {} counted as passed by the daemon; {} refused or deferred, {} counted as refused.",
        total.accepted,
        outcomes.passed,
        total.rejected + total.deferred,
        outcomes.refused
    )
}

pub(super) fn usage(daemon: &DaemonSummary) -> String {
    let memory =
        |octets: Option<u64>| octets.map_or_else(|| "?".to_owned(), |octets| ByteSize(octets).to_string());
    let cpu = daemon.cpu_microseconds_per_session.map_or_else(|| "?".to_owned(), |cpu| format!("{cpu:.0}"));
    format!(
        "The daemon: memory {} before, {} at half time, {} at the end, {} at most; {cpu} us of processor time per session; \
         {} DNS queries.",
        memory(daemon.memory_before),
        memory(daemon.memory_half),
        memory(daemon.memory_end),
        memory(daemon.memory_peak),
        daemon.dns_questions,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::load::summary::tests::summary;

    #[test]
    fn the_table_has_a_row_for_each_class_and_one_for_all() {
        let mut summary = summary();
        let shown = text(&summary, Colour::NONE);
        let row = |name: &str| {
            let line = shown.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{shown}"));
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert!(row("clean").starts_with("clean accept 100 100 0 0 0 0 "), "{shown}");
        assert!(row("spoofed").starts_with("spoofed reject 100 0 100 0 0 0 "), "{shown}");
        assert!(row("all").starts_with("all 200 100 100 0 0 0 "), "{shown}");
        assert!(shown.ends_with("\u{2713} all as expected\n"), "{shown}");
        summary.problems.push("3 false accepts".to_owned());
        assert!(text(&summary, Colour::NONE).ends_with("\u{2717} 3 false accepts\n"));
    }

    #[test]
    fn times_are_written_with_the_unit_that_fits() {
        let rows =
            [(0, "0 us"), (999, "999 us"), (1234, "1.2 ms"), (234_567, "235 ms"), (2_345_678, "2.35 s")];
        rows.iter().for_each(|(micros, text)| assert_eq!(time(*micros), *text));
    }

    #[test]
    fn json_has_the_same_facts() {
        let value: serde_json::Value = serde_json::from_str(&json(&summary())).unwrap();
        assert_eq!(value["classes"][1]["class"], "spoofed");
        assert_eq!(value["classes"][1]["rejected"], 100);
        assert_eq!(value["problems"], serde_json::json!([]));
    }
}
