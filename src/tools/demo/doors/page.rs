//! The tour of a door as text and as JSON, with the same facts.

use serde_json::json;

use crate::console::colour::{Colour, RIGHT, WRONG};
use crate::policy::decide::Verdict;
use crate::policy::door::DoorName;
use crate::tools::demo::doors::frame::Frame;
use crate::tools::demo::doors::judged::Judged;
use crate::tools::demo::doors::played::Played;
use crate::tools::demo::doors::stage::Stage;
use crate::tools::demo::doors::tap::Side;

/// Longest line.
const WIDTH: usize = 120;
/// Of a note.
const INDENT: usize = 3;
/// Of the text of a frame: side and name stand before it.
const TEXT: usize = 22;

pub(super) fn introduction(stage: &Stage, colour: Colour) -> String {
    let socket = stage.socket(crate::tools::demo::doors::scene::Policy::Enforce);
    let (title, what) = match stage.door {
        DoorName::Policy => (
            "rmxd demo --door policy: what Postfix asks a policy service, and what rmxd answers",
            "Postfix has port 25 and the client. With rmxd in check_policy_service it asks at each recipient: lines of text with \
             all that it knows, over a unix socket. rmxd answers with one line, and Postfix carries it out.",
        ),
        DoorName::Milter | DoorName::Smtp => (
            "rmxd demo --door milter: what Postfix reports to a milter, and what rmxd answers",
            "Postfix has port 25 and the client. With rmxd in smtpd_milters it reports each step of a session of SMTP, one packet \
             for each, over a unix socket. At some steps it waits for rmxd's answer, and carries it out. In parentheses \
             are macros: i is the id of the message in Postfix's queue, auth_authen the user who has logged in. What is the \
             same in every session is shown in the first one only: OPTNEG, macros that rmxd does not need, its results, and ABORT \
             before QUIT.",
        ),
    };
    let parts = format!(
        "Here the demo takes Postfix's part, with the octets that a Postfix 3.7 sends, at {socket}. The answers are those of \
         rmxd, over a name server with sample zones ({}). {RIGHT} means that verdict and reason are as expected; the reason \
         is from the log.",
        stage.name_server(),
    );
    let text = [wrapped(what, WIDTH), wrapped(&parts, WIDTH)].map(|lines| lines.join("\n")).join("\n\n");
    format!("{}\n\n{text}\n\n", colour.bold(title))
}

/// One session; `number` counts from 1.
pub(super) fn session(played: &Played, number: usize, door: DoorName, colour: Colour) -> String {
    let scene = &played.scene;
    let mut text = format!("{}\n", colour.bold(&format!("-- {number}. {}", scene.title)));
    for line in wrapped(scene.note(door), WIDTH - INDENT) {
        text.push_str(&format!("{:INDENT$}{line}\n", ""));
    }
    text.push('\n');
    let frames =
        if number == 1 { played.frames.iter().map(lines).collect() } else { shortened(&played.frames) };
    text.push_str(&frames.concat());
    let mut verdicts: Vec<String> =
        played.judged.iter().filter(|judged| is_shown(judged, played)).map(verdict).collect();
    verdicts.extend(played.error.as_ref().map(|error| format!("{WRONG} the session broke: {error}")));
    for verdict in verdicts {
        text.push_str(&colour.verdicts(&format!("{:INDENT$}{verdict}\n", "")));
    }
    text + "\n"
}

/// Without what each connection begins and ends with, and with the beginning of our results.
fn shortened(frames: &[Frame]) -> Vec<String> {
    let ends = |at: usize| {
        frames
            .get(at + 1..)
            .is_some_and(|rest| rest.iter().all(|it| matches!(it.name, "ABORT" | "QUIT" | "log")))
    };
    let shown = frames.iter().enumerate().filter(|(at, frame)| match frame.name {
        "OPTNEG" => false,
        "ABORT" => !ends(*at),
        _ => true,
    });
    shown
        .map(|(_, frame)| match frame.text.split('\n').collect::<Vec<_>>().as_slice() {
            [place, field, _, ..] if frame.name == "insert" => {
                let text = format!("{place}\n{field} ...");
                lines(&Frame::rmxd("insert", text))
            }
            _ if frame.name == "MAIL" => lines(frame),
            _ => lines_of(frame, ""),
        })
        .collect()
}

/// What passes at RCPT is not of interest where the end of the message is judged as well.
fn is_shown(judged: &Judged, played: &Played) -> bool {
    let ends = played.judged.iter().any(|other| !other.at.starts_with("RCPT"));
    let is_plain = judged.verdict == Verdict::Accept && judged.reason.is_none();
    judged.is_wrong() || !(is_plain && ends && judged.at.starts_with("RCPT"))
}

/// `Postfix  RCPT      <you@demo.test>`, and what follows from it.
fn lines(frame: &Frame) -> String {
    lines_of(frame, &frame.macros)
}

fn lines_of(frame: &Frame, macros: &str) -> String {
    let side = match frame.from {
        Side::Postfix => "Postfix",
        Side::Rmxd => "rmxd",
    };
    let head = format!("{:INDENT$}{side:<8} {:<9} ", "", frame.name);
    let mut text = String::new();
    let mut start = head.as_str();
    let below = " ".repeat(TEXT);
    let shown = if macros.is_empty() { frame.text.clone() } else { format!("{}   {macros}", frame.text) };
    for line in shown.split('\n').flat_map(|line| wrapped(line, WIDTH - TEXT)) {
        text.push_str(&format!("{start}{line}"));
        text = text.trim_end().to_owned() + "\n";
        start = &below;
    }
    if !frame.effect.is_empty() {
        let mut mark = "\u{2192} ";
        for line in wrapped(&frame.effect, WIDTH - TEXT - 2) {
            text.push_str(&format!("{below}{mark}{line}\n"));
            mark = "  ";
        }
    }
    text
}

/// `✓ reject at RCPT you@demo.test: no_such_domain`.
fn verdict(judged: &Judged) -> String {
    let mark = if judged.is_wrong() { WRONG } else { RIGHT };
    let mut line = format!("{mark} {} at {}", judged.verdict.name(), judged.at);
    match (judged.reason, judged.verdict) {
        (Some(reason), Verdict::Accept) => line.push_str(&format!(", and the log has {reason}")),
        (Some(reason), Verdict::Defer | Verdict::Reject) => line.push_str(&format!(": {reason}")),
        (None, _) => {}
    }
    if judged.is_wrong() {
        let wanted = judged.wanted;
        let reason = wanted.reason().map(|reason| format!(" {reason}")).unwrap_or_default();
        let edits: String = judged.wanted_edits.iter().map(|edit| format!(", {edit}")).collect();
        let code = wanted.enhanced().map(|enhanced| format!(" {enhanced}")).unwrap_or_default();
        line.push_str(&format!("; expected {}{code}{reason}{edits}", wanted.verdict().name()));
    }
    line
}

pub(super) fn summary(all: &[Played], colour: Colour) -> String {
    let messages: usize = all.iter().map(|played| played.scene.messages.len()).sum();
    let verdict = match all.iter().filter(|played| played.is_wrong()).count() {
        0 => format!("{RIGHT} all as expected"),
        wrong => format!("{WRONG} {wrong} not as expected"),
    };
    format!("{} sessions with {messages} messages. {}\n", all.len(), colour.verdicts(&verdict))
}

pub(super) fn json(all: &[Played], door: DoorName) -> String {
    let sessions: Vec<serde_json::Value> = all.iter().map(|played| session_json(played, door)).collect();
    // Plain fields can't fail to serialise; if they did, the empty text would be an error for its reader.
    serde_json::to_string_pretty(&sessions).map(|text| text + "\n").unwrap_or_default()
}

fn session_json(played: &Played, door: DoorName) -> serde_json::Value {
    let scene = &played.scene;
    let frame = |frame: &Frame| {
        let from = if frame.from == Side::Postfix { "postfix" } else { "rmxd" };
        json!({ "from": from, "name": frame.name, "text": frame.text, "macros": frame.macros, "effect": frame.effect })
    };
    let decision = |judged: &Judged| {
        let reason = |reason: Option<crate::policy::reason::Reason>| reason.map(|reason| reason.name());
        json!({
            "at": judged.at,
            "verdict": judged.verdict.name(),
            "reason": reason(judged.reason),
            "reply": judged.reply.as_ref().map(ToString::to_string),
            "id": judged.id(),
            "edits": judged.edits,
            "expected": {
                "verdict": judged.wanted.verdict().name(),
                "reason": reason(judged.wanted.reason()),
                "edits": judged.wanted_edits,
            },
            "as_expected": !judged.is_wrong(),
        })
    };
    json!({
        "name": scene.name,
        "title": scene.title,
        "note": scene.note(door),
        "door": door.name(),
        "mode": scene.gate.name(),
        "client": scene.client,
        "login": scene.login,
        "frames": played.frames.iter().map(frame).collect::<Vec<_>>(),
        "decisions": played.judged.iter().map(decision).collect::<Vec<_>>(),
        "error": played.error,
        "as_expected": !played.is_wrong(),
    })
}

/// The text in lines of at most this width, broken at blanks; further lines of an indented one are indented too.
pub(in crate::tools::demo) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let indent = " ".repeat(text.len() - text.trim_start().len());
    let mut lines = vec![String::new()];
    for word in text.split_inclusive(' ') {
        let Some(last) = lines.last_mut() else { break };
        let length = last.chars().count() + word.trim_end().chars().count();
        if length > width && !last.trim().is_empty() {
            lines.push(format!("{indent}{}", word.trim_start()));
        } else {
            last.push_str(word);
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_blanks_and_keep_their_indentation() {
        let rows = [
            ("one two three", 7, vec!["one two", "three"]),
            ("one  two  three", 8, vec!["one  two", "three"]),
            ("one  two  three", 9, vec!["one  two", "three"]),
            (" one two three", 8, vec![" one two", " three"]),
            ("overlong word", 4, vec!["overlong", "word"]),
            ("", 4, vec![""]),
        ];
        for (text, width, expected) in rows {
            assert_eq!(wrapped(text, width), expected, "{text:?}");
        }
    }

    #[test]
    fn a_frame_has_its_side_its_name_and_what_follows() {
        let frame = Frame::rmxd("reply", "550 5.1.8 no").with("Postfix passes it on");
        let expected =
            "   rmxd     reply     550 5.1.8 no\n                      \u{2192} Postfix passes it on\n";
        assert_eq!(lines(&frame), expected);
        assert_eq!(lines(&Frame::rmxd("continue", "")), "   rmxd     continue\n");
        assert_eq!(
            lines(&Frame::postfix("DATA", "a\n b")),
            "   Postfix  DATA      a\n                       b\n"
        );
    }
}
