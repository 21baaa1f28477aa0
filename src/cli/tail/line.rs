//! One decision as one line.

use std::io::{self, Write};
use std::time::SystemTime;

use serde_json::Value;

use crate::console::Exit;
use crate::console::colour::{Colour, Paint};
use crate::console::time::LocalZone;
use crate::smtp::escape::OneLine;

/// Writes to standard output.
#[derive(Debug)]
pub(super) struct Writer {
    json: bool,
    zone: LocalZone,
    colour: Colour,
    /// The date of the last line; at first today.
    date: String,
}

impl Writer {
    pub(super) fn new(json: bool, zone: LocalZone, colour: Colour) -> Self {
        let date = zone.date(SystemTime::now());
        Self { json, zone, colour, date }
    }

    /// Returns `false` when nobody reads any more.
    ///
    /// # Errors
    /// [`Exit::Temporary`], with a message on standard error.
    pub(super) fn write(&mut self, decision: &Value) -> Result<bool, Exit> {
        let line = if self.json { decision.to_string() } else { self.line(decision) };
        let mut out = io::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => {
                eprintln!("rmxd: standard output: {error}");
                Err(Exit::Temporary)
            }
        }
    }

    /// A line of another day than the line before has its date.
    fn line(&mut self, decision: &Value) -> String {
        let text =
            |name: &str| OneLine(decision.get(name).and_then(Value::as_str).unwrap_or_default()).to_string();
        let verdict = text("verdict");
        let paint = match verdict.as_str() {
            "accept" => Paint::Green,
            "reject" => Paint::Red,
            _ => Paint::Yellow,
        };
        let mut parts = vec![
            self.time(&text("at")),
            self.colour.paint(&format!("{verdict:<6}"), paint),
            format!("{:<13}", text("outcome")),
            text("id"),
            format!("{:<6}", text("door")),
            text("client"),
            text("mail_from"),
            "->".to_owned(),
            recipients(&text("rcpt"), decision.get("rcpts").and_then(Value::as_u64)),
        ];
        parts.push(why(&text, decision));
        parts.retain(|part| !part.is_empty());
        parts.join(" ")
    }

    fn time(&mut self, at: &str) -> String {
        let Ok(at) = humantime::parse_rfc3339(at) else { return at.to_owned() };
        let (date, clock) = (self.zone.date(at), self.zone.clock(at));
        if date == self.date {
            return clock;
        }
        let shown = format!("{date} {clock}");
        self.date = date;
        shown
    }
}

fn recipients(first: &str, all: Option<u64>) -> String {
    match (first, all) {
        ("", _) => "-".to_owned(),
        (first, Some(all)) if all > 1 => format!("{first} and {} more", all - 1),
        (first, _) => first.to_owned(),
    }
}

/// The reason with its rule, and what the relay said.
fn why(text: &impl Fn(&str) -> String, decision: &Value) -> String {
    let reason = text("reason");
    if reason.is_empty() {
        return String::new();
    }
    let rule = [text("identity"), text("rule"), text("domain")];
    let rule: Vec<&str> = rule.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    let rule = if rule.is_empty() { String::new() } else { format!(" ({})", rule.join(" ")) };
    let is_monitor = text("mode") == "monitor" && text("verdict") != "accept";
    let monitor = if is_monitor && decision.get("refused") == Some(&Value::Bool(false)) {
        ", not refused: mode monitor"
    } else {
        ""
    };
    let relay = text("relay_reply");
    let relay = if relay.is_empty() { String::new() } else { format!(": {relay}") };
    format!("{reason}{rule}{monitor}{relay}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused() -> Value {
        json!({
            "at": "2026-11-29T23:30:01.250Z", "id": "4KXN7Q2M", "verdict": "reject", "outcome": "refused",
            "door": "smtp", "client": "192.0.2.7", "mail_from": "<a@spoof.test>", "rcpt": "user@here.test",
            "rcpts": 0, "reason": "no_mx", "identity": "mail_from", "rule": "exists", "domain": "spoof.test",
            "mode": "enforce", "refused": true, "relay_reply": null,
        })
    }

    fn writer() -> Writer {
        let mut writer = Writer::new(false, LocalZone::posix("CET-1"), Colour::NONE);
        writer.date = "2026-11-29".to_owned();
        writer
    }

    #[test]
    fn a_decision_is_one_line_and_another_day_has_its_date_once() {
        let mut writer = writer();
        let line = "00:30:01 reject refused       4KXN7Q2M smtp   192.0.2.7 <a@spoof.test> -> user@here.test \
                    no_mx (mail_from exists spoof.test)";
        assert_eq!(writer.line(&refused()), format!("2026-11-30 {line}"));
        assert_eq!(writer.line(&refused()), line);
    }

    #[test]
    fn monitor_mode_and_the_reply_of_the_relay_are_told() {
        let mut monitor = refused();
        monitor["mode"] = json!("monitor");
        monitor["refused"] = json!(false);
        monitor["outcome"] = json!("delivered");
        monitor["rcpts"] = json!(3);
        let line = writer().line(&monitor);
        let end = "user@here.test and 2 more no_mx (mail_from exists spoof.test), not refused: mode monitor";
        assert!(line.ends_with(end), "{line}");
        let relay = json!({ "at": "x", "verdict": "accept", "outcome": "relay_refused", "reason": "relay_refused",
            "relay_reply": "550 5.1.1 no such user\u{1b}[2J", "mail_from": "<>", "client": "::1" });
        let line = writer().line(&relay);
        assert!(line.contains("<> -> - relay_refused: 550 5.1.1 no such user"), "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
    }
}
