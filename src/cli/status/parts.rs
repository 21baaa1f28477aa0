//! What the daemon answers, as parts of a screen: each is well or wrong, and a wrong one says what to do.
//!
//! A daemon of another version may lack fields; its parts are left out then. The certificate, a fleet and the like are one
//! function each, in the list of [`all`].

use std::time::Duration;

use bytesize::ByteSize;
use serde_json::Value;

use crate::console::time::LocalZone;
use crate::smtp::escape::OneLine;

/// A line of the screen, or several where it is long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) wrong: bool,
    pub(super) text: String,
}

impl Part {
    fn well(name: &str, text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), wrong: false, text: text.into() }
    }

    fn wrong(name: &str, text: impl Into<String>) -> Self {
        Self { wrong: true, ..Self::well(name, text) }
    }
}

/// Name and version, mode and time since the start.
pub(super) fn title(status: &Value) -> String {
    let uptime = Duration::from_secs(number(status, "/uptime_seconds"));
    format!(
        "rmxd {} on {}, mode {}, up {}",
        text(status, "/version"),
        text(status, "/hostname"),
        text(status, "/mode"),
        uptime_words(uptime)
    )
}

/// `ready` is the answer of `/readyz`.
pub(super) fn all(status: &Value, ready: &Value, zone: &LocalZone) -> Vec<Part> {
    let mut parts: Vec<Part> = items(status, "/doors").iter().map(door).collect();
    let rest = [
        listeners(ready),
        connections(status),
        verdicts(status),
        dns(status),
        cache(status),
        relay(status, ready),
        history(status),
        greylist(status),
        permits(status, zone),
        fleet(status),
        certificate(status),
        reload(status, zone),
        panics(status),
        version(status),
    ];
    parts.extend(rest.into_iter().flatten());
    parts
}

fn door(door: &Value) -> Part {
    let (mut open, mut shut) = (Vec::new(), Vec::new());
    for listener in items(door, "/addresses") {
        let is_accepting = flag(listener, "/accepting").unwrap_or(true);
        if is_accepting { &mut open } else { &mut shut }.push(text(listener, "/address"));
    }
    let name = text(door, "/door");
    if !shut.is_empty() {
        let what = format!(
            "{} takes no connections any more: systemctl restart rmxd, and report it",
            shut.join(", ")
        );
        return Part::wrong(&name, what);
    }
    let rate = |verdict: &str| {
        let rate = door.pointer(&format!("/verdicts_per_minute/{verdict}")).and_then(Value::as_f64);
        let rate = rate.unwrap_or_default();
        let digits = usize::from(rate > 0.0 && rate < 10.0);
        format!("{rate:.digits$} {verdict}")
    };
    let place = if open.is_empty() { "closed".to_owned() } else { open.join(", ") };
    let rates = ["accept", "defer", "reject"].map(rate).join(", ");
    Part::well(&name, format!("{place}; {} open; per minute: {rates}", number(door, "/open")))
}

fn listeners(ready: &Value) -> Option<Part> {
    (flag(ready, "/listeners/ok") == Some(false)).then(|| match text(ready, "/listeners/detail").as_str() {
        "shutting down" => Part::wrong("listeners", "it is shutting down and takes no new connections"),
        detail => Part::wrong(
            "listeners",
            format!("{detail}: no mail can come in; see listen in the configuration"),
        ),
    })
}

fn connections(status: &Value) -> Option<Part> {
    let at = status.get("connections")?;
    let (open, limit) = (number(at, "/open"), number(at, "/limit"));
    let count = format!("{open} of {limit} open, {} since the start", number(at, "/total"));
    Some(if open >= limit {
        Part::wrong("connections", format!("{count}: others are turned away; raise limits.connections"))
    } else {
        Part::well("connections", count)
    })
}

fn verdicts(status: &Value) -> Option<Part> {
    let at = status.get("verdicts")?;
    let counts = ["accept", "defer", "reject"].map(|verdict| {
        let count = number(at, &format!("/{verdict}"));
        format!("{count} {verdict}")
    });
    let mode = if text(status, "/mode") == "monitor" { " (mode monitor refuses none of it)" } else { "" };
    Some(Part::well("verdicts", format!("{} since the start{mode}", counts.join(", "))))
}

fn dns(status: &Value) -> Option<Part> {
    let at = status.get("dns")?;
    let servers = items(at, "/servers");
    if flag(at, "/ok") == Some(false) {
        let what = format!(
            "{}; policy.on_dns_error decides about mail: repair the servers or the network, or set dns.servers",
            text(at, "/detail")
        );
        return Some(Part::wrong("dns", what));
    }
    let (good, bad): (Vec<&Value>, Vec<&Value>) =
        servers.iter().partition(|server| flag(server, "/ok").unwrap_or(true));
    if !bad.is_empty() {
        let each =
            bad.iter().map(|server| format!("{} {}", text(server, "/address"), text(server, "/detail")));
        return Some(Part::wrong("dns", each.collect::<Vec<_>>().join("; ")));
    }
    let known = |server: &&Value| text(server, "/detail") != "was not checked yet";
    let names = |list: &[&Value]| {
        let names: Vec<String> = list.iter().map(|server| text(server, "/address")).collect();
        names.join(", ")
    };
    let (known, unknown): (Vec<&Value>, Vec<&Value>) = good.into_iter().partition(known);
    let mut words = Vec::new();
    if !known.is_empty() {
        words.push(format!("{} {}", names(&known), if known.len() == 1 { "answers" } else { "answer" }));
    }
    if !unknown.is_empty() {
        words.push(format!("{} not checked yet", names(&unknown)));
    }
    Some(Part::well("dns", words.join("; ")))
}

fn cache(status: &Value) -> Option<Part> {
    let at = status.get("cache")?;
    let size = format!(
        "{} answers, {} of {}",
        number(at, "/entries"),
        ByteSize::b(number(at, "/bytes")),
        ByteSize::b(number(at, "/limit_bytes"))
    );
    let hits = at.get("hit_rate").and_then(Value::as_f64);
    let hits = hits.map(|rate| format!("; {:.0} % of the last minute's lookups", rate * 100.0));
    Some(Part::well("cache", size + &hits.unwrap_or_default()))
}

fn relay(status: &Value, ready: &Value) -> Option<Part> {
    let at = status.get("relay")?;
    if flag(at, "/used") == Some(false) {
        return Some(Part::well("relay", "not used: nothing listens for SMTP"));
    }
    let next_hop = text(at, "/next_hop");
    // What was tried for this answer is newer than what the daemon had seen before.
    let tried = ready.pointer("/relay").filter(|tried| tried.get("detail").is_some()).unwrap_or(at);
    if flag(tried, "/ok").unwrap_or(true) {
        let limit = at.get("limit").map(|limit| format!(" of {limit}")).unwrap_or_default();
        let open = number(at, "/connections");
        return Some(Part::well("relay", format!("{next_hop} can be used; {open}{limit} connections")));
    }
    let what = format!(
        "{next_hop} can't be used, mail is deferred: {}; start the mail server there, or correct relay.next_hop",
        text(tried, "/detail")
    );
    Some(Part::wrong("relay", what))
}

fn history(status: &Value) -> Option<Part> {
    let at = status.get("history")?;
    if flag(at, "/on") != Some(true) {
        return Some(Part::well("history", "off (history.path is empty)"));
    }
    let (dropped, recent) = (number(at, "/dropped"), number(status, "/recent/history_dropped"));
    let size = ByteSize::b(number(at, "/bytes"));
    let before = if dropped == 0 { String::new() } else { format!("; {dropped} left out since the start") };
    Some(if recent > 0 {
        let minutes = number(status, "/recent/seconds") / 60;
        let what = format!(
            "{recent} decisions were left out in the last {minutes} minutes: the disk of history.path is full, or too slow"
        );
        Part::wrong("history", what)
    } else {
        Part::well("history", format!("{size}{before}"))
    })
}

fn greylist(status: &Value) -> Option<Part> {
    let at = status.get("greylist")?;
    if flag(at, "/on") != Some(true) {
        return Some(Part::well("greylist", "off: no rule has the action greylist"));
    }
    let memory =
        if flag(at, "/on_disk") == Some(false) { "; in memory only, a restart forgets it" } else { "" };
    let counts = format!("{} wait, {} have passed", number(at, "/waiting"), number(at, "/passed"));
    Some(Part::well("greylist", counts + memory))
}

fn permits(status: &Value, zone: &LocalZone) -> Option<Part> {
    let at = status.get("permits")?;
    let end = humantime::parse_rfc3339(&text(at, "/next_end")).map(|end| zone.full(end));
    let next = end.map(|end| format!("; the next ends {end}")).unwrap_or_default();
    let count = match number(at, "/count") {
        0 => "none".to_owned(),
        count => format!("{count} in effect{next}"),
    };
    let memory =
        if flag(at, "/on_disk") == Some(false) { "; in memory only, a restart forgets them" } else { "" };
    let unknown =
        if flag(at, "/shared") == Some(false) { "; other nodes don't know all of it yet" } else { "" };
    Some(Part::well("permits", count + memory + unknown))
}

fn fleet(status: &Value) -> Option<Part> {
    let at = status.get("cluster").filter(|at| !at.is_null())?;
    let (node, redis) = (number(at, "/node"), text(at, "/redis"));
    let detail = text(at, "/detail");
    Some(if flag(at, "/up") == Some(true) && detail.is_empty() {
        let others = items(at, "/others")
            .iter()
            .map(|other| format!("{} {}", number(other, "/node"), text(other, "/hostname")));
        let others: Vec<String> = others.collect();
        let others = if others.is_empty() {
            "no other node is there".to_owned()
        } else {
            format!("with {}", others.join(", "))
        };
        Part::well("fleet", format!("node {node} {others}; {redis} answers"))
    } else {
        let what = format!(
            "node {node} goes on alone: {redis} {detail}; mail waits for nothing, but nodes don't share what they learn"
        );
        Part::wrong("fleet", what)
    })
}

fn certificate(status: &Value) -> Option<Part> {
    let at = status.get("certificate").filter(|at| !at.is_null())?;
    let detail = text(at, "/detail");
    Some(if flag(at, "/ok") == Some(false) {
        Part::wrong("certificate", format!("{detail}; renew it, rmxd finds the new files by itself"))
    } else {
        Part::well("certificate", detail)
    })
}

fn reload(status: &Value, zone: &LocalZone) -> Option<Part> {
    let at = status.get("reload")?;
    if at.get("at").is_none_or(Value::is_null) {
        return Some(Part::well("reload", "none since the start"));
    }
    let time = humantime::parse_rfc3339(&text(at, "/at")).map(|at| zone.full(at)).unwrap_or_default();
    let detail = text(at, "/detail");
    Some(if flag(at, "/applied") == Some(true) {
        let but = if detail.is_empty() { String::new() } else { format!(", but: {detail}") };
        Part::well("reload", format!("{time}, applied{but}"))
    } else {
        let what = format!(
            "{time}, not applied, the settings before it are in effect: {detail}; see rmxd config check, then reload again"
        );
        Part::wrong("reload", what)
    })
}

fn panics(status: &Value) -> Option<Part> {
    let panics = number(status, "/panics");
    let what = "connections or requests ended in a defect of rmxd: report the log's lines with \"panic\"";
    (panics > 0).then(|| Part::wrong("defects", format!("{panics} {what}; a restart clears this")))
}

fn version(status: &Value) -> Option<Part> {
    let (own, daemon) = (env!("CARGO_PKG_VERSION"), text(status, "/version"));
    let what = format!("the daemon is {daemon}, this command {own}; a restart takes the installed one");
    (daemon != own).then(|| Part::well("version", what))
}

fn uptime_words(uptime: Duration) -> String {
    // Two units are enough: 3days 4h.
    let words = humantime::format_duration(uptime).to_string();
    words.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// On one line, without anything that controls a terminal.
fn text(value: &Value, pointer: &str) -> String {
    OneLine(value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()).to_string()
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

fn flag(value: &Value, pointer: &str) -> Option<bool> {
    value.pointer(pointer).and_then(Value::as_bool)
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wrong(status: &Value) -> Vec<String> {
        let zone = LocalZone::posix("CET-1");
        let parts = all(status, &json!({}), &zone);
        parts
            .into_iter()
            .filter(|part| part.wrong)
            .map(|part| format!("{}: {}", part.name, part.text))
            .collect()
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_do() {
        let rows = [
            (json!({}), None),
            (json!({ "connections": { "open": 9, "limit": 10, "total": 12 } }), None),
            (
                json!({ "connections": { "open": 10, "limit": 10, "total": 12 } }),
                Some("connections: 10 of 10 open, 12 since the start: others are turned away; raise limits."),
            ),
            (
                json!({ "doors": [{ "door": "milter", "addresses": [{ "address": "unix:/m", "accepting": false }] }] }),
                Some("milter: unix:/m takes no connections any more: systemctl restart rmxd"),
            ),
            (
                json!({ "dns": { "ok": true, "servers": [
                    { "address": "[::1]:53", "ok": true, "detail": "is as it should be" },
                    { "address": "192.0.2.1:53", "ok": false, "detail": "is slow" },
                ] } }),
                Some("dns: 192.0.2.1:53 is slow"),
            ),
            (json!({ "history": { "on": true, "bytes": 1, "dropped": 3 } }), None),
            (
                json!({
                    "history": { "on": true, "bytes": 1, "dropped": 3 },
                    "recent": { "seconds": 300, "history_dropped": 2 },
                }),
                Some(
                    "history: 2 decisions were left out in the last 5 minutes: the disk of history.path is full",
                ),
            ),
            (
                json!({ "reload": { "at": "2026-11-29T10:00:00Z", "applied": false, "detail": "f:1:2: no such key" } }),
                Some(
                    "reload: 2026-11-29 11:00:00 CET, not applied, the settings before it are in effect: f:1:2:",
                ),
            ),
            (json!({ "certificate": null }), None),
            (json!({ "certificate": { "ok": true, "detail": "valid until 2026-12-30T00:00:00Z" } }), None),
            (
                json!({ "certificate": { "ok": false, "detail": "/c.pem expires in 9 days" } }),
                Some("certificate: /c.pem expires in 9 days; renew it"),
            ),
            (json!({ "panics": 1 }), Some("defects: 1 connections or requests ended in a defect of rmxd")),
            (
                json!({ "relay": { "ok": false, "detail": "refused", "next_hop": "127.0.0.1:25" } }),
                Some(
                    "relay: 127.0.0.1:25 can't be used, mail is deferred: refused; start the mail server there",
                ),
            ),
            (json!({ "relay": { "ok": false, "used": false } }), None),
        ];
        for (status, expected) in rows {
            let found = wrong(&status);
            match expected {
                None => assert!(found.is_empty(), "{found:?}"),
                Some(text) => assert!(found.len() == 1 && found[0].starts_with(text), "{found:?}"),
            }
        }
    }

    #[test]
    fn permits_have_the_next_end_in_local_time() {
        let zone = LocalZone::posix("CET-1");
        let rows = [
            (json!({ "count": 0, "on_disk": true, "next_end": null }), "none"),
            (json!({ "count": 2, "on_disk": true, "next_end": null }), "2 in effect"),
            (
                json!({ "count": 1, "on_disk": false, "next_end": "2026-11-29T10:00:00Z" }),
                "1 in effect; the next ends 2026-11-29 11:00:00 CET; in memory only, a restart forgets them",
            ),
            (json!({ "count": 1, "on_disk": true, "next_end": null, "shared": true }), "1 in effect"),
            (
                json!({ "count": 0, "on_disk": true, "next_end": null, "shared": false }),
                "none; other nodes don't know all of it yet",
            ),
        ];
        for (at, expected) in rows {
            let part = permits(&json!({ "permits": at }), &zone).unwrap();
            assert_eq!((part.wrong, part.text.as_str()), (false, expected));
        }
    }

    #[test]
    fn nothing_of_the_answer_controls_the_terminal() {
        let shown = title(&json!({ "version": "1\u{1b}[2J", "hostname": "a\nb", "mode": "enforce" }));
        assert!(!shown.contains(['\u{1b}', '\n']), "{shown:?}");
    }
}
