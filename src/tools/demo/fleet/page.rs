//! The tour of a fleet as text and as JSON, with the same facts.

use serde_json::json;

use crate::console::colour::{Colour, RIGHT, WRONG};
use crate::tools::demo::doors::wrapped;
use crate::tools::demo::fleet::stage::{DELAY, Stage};
use crate::tools::demo::fleet::step::{Check, Step};

/// Columns of the page.
const WIDTH: usize = 120;
/// Of a note.
const INDENT: usize = 3;
/// Of the text of a frame: who and what stand before it.
const TEXT: usize = 24;

pub(super) fn introduction(stage: &Stage, colour: Colour) -> String {
    let what = format!(
        "Two gates with one Maildir behind them, a Redis server of their own, and a name server with sample zones ({}). No part \
         is simulated: clients on loopback addresses speak SMTP over TCP. The delay of the greylist is {}. {RIGHT} means that \
         replies, reasons and log are as expected; reasons are from the log.",
        stage.name_server(),
        humantime::format_duration(DELAY),
    );
    let title = colour.bold("rmxd demo --fleet: what gates share, and what happens without Redis");
    format!("{title}\n\n{}\n\n", wrapped(&what, WIDTH).join("\n"))
}

/// One step; `number` counts from 1.
pub(super) fn step(step: &Step, number: usize, colour: Colour) -> String {
    let mut text = format!("{}\n", colour.bold(&format!("-- {number}. {}", step.title)));
    for line in wrapped(step.note, WIDTH - INDENT) {
        text.push_str(&format!("{:INDENT$}{line}\n", ""));
    }
    text.push('\n');
    for frame in &step.frames {
        let head = format!("{:INDENT$}{:<11}{:<10}", "", frame.from, frame.what);
        let mut start = head.as_str();
        let below = " ".repeat(TEXT);
        for line in frame.text.split('\n').flat_map(|line| wrapped(line, WIDTH - TEXT)) {
            text.push_str(format!("{start}{line}").trim_end());
            text.push('\n');
            start = &below;
        }
    }
    for check in &step.checks {
        text.push_str(&colour.verdicts(&format!("{:INDENT$}{}\n", "", verdict(check))));
    }
    if let Some(error) = &step.error {
        text.push_str(&colour.verdicts(&format!("{:INDENT$}{WRONG} it broke: {error}\n", "")));
    }
    text + "\n"
}

fn verdict(check: &Check) -> String {
    let Check { expected, seen } = check;
    if check.is_wrong() { format!("{WRONG} {seen}; expected {expected}") } else { format!("{RIGHT} {seen}") }
}

pub(super) fn summary(all: &[Step], colour: Colour) -> String {
    let verdict = match all.iter().filter(|step| step.is_wrong()).count() {
        0 => format!("{RIGHT} all as expected"),
        wrong => format!("{WRONG} {wrong} not as expected"),
    };
    format!("{} steps. {}\n", all.len(), colour.verdicts(&verdict))
}

pub(super) fn json(all: &[Step]) -> String {
    let steps = all.iter().map(|step| {
        let frames = step.frames.iter();
        let frames = frames.map(|it| json!({ "from": it.from, "what": it.what, "text": it.text }));
        let checks = step.checks.iter();
        let checks = checks
            .map(|it| json!({ "expected": it.expected, "seen": it.seen, "as_expected": !it.is_wrong() }));
        json!({
            "name": step.name,
            "title": step.title,
            "note": step.note,
            "frames": frames.collect::<Vec<_>>(),
            "checks": checks.collect::<Vec<_>>(),
            "error": step.error,
            "as_expected": !step.is_wrong(),
        })
    });
    format!("{:#}\n", serde_json::Value::Array(steps.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_expected_has_a_mark_and_says_what_was_expected() {
        let mut shown = Step::new("a", "Title", "Note");
        shown.show("gate 1", "replies", "450 later");
        shown.check("450 greylisted", "450 greylisted");
        let text = step(&shown, 1, Colour::NONE);
        assert_eq!(
            text,
            "-- 1. Title\n   Note\n\n   gate 1     replies   450 later\n   \u{2713} 450 greylisted\n\n"
        );
        assert!(!shown.is_wrong());
        shown.check("250 delivered", "450 greylisted");
        assert!(shown.is_wrong());
        assert!(step(&shown, 1, Colour::NONE).contains("\u{2717} 450 greylisted; expected 250 delivered"));
        assert!(summary(&[shown], Colour::NONE).contains("1 not as expected"));
        assert!(Step::new("a", "", "").is_wrong(), "a step without a check shows nothing");
    }
}
