//! Decisions of all nodes of a fleet, for `rmxd explain` and `rmxd history --fleet`: the running daemon asks the others.

use std::time::SystemTime;

use serde_json::Value;

use crate::admin::{AskError, Client, encoded};
use crate::cli::running;
use crate::console::refusals::table;
use crate::console::time::LocalZone;
use crate::console::{ConfigSource, Exit, print};
use crate::decision::Id;
use crate::smtp::escape::OneLine;

/// Decisions that are asked for at a time, the most that the API gives.
const PAGE: usize = 1000;

/// A decision of another node.
pub(super) fn explain(source: &ConfigSource, id: Id, as_json: bool) -> Result<Exit, Exit> {
    let client = running::client(source)?;
    running::run(async {
        let tree = if as_json { "" } else { "?tree=true" };
        match client.get(&format!("/api/v1/decisions/{id}{tree}")).await {
            Ok(decision) if as_json => Ok(print(&format!("{decision:#}\n"))),
            Ok(decision) => Ok(print(&in_local_time(&decision, &LocalZone::of_system()))),
            Err(AskError::Problem { status, detail }) => {
                eprintln!("rmxd: {detail}");
                Err(if status == 404 { Exit::Reject } else { Exit::Temporary })
            }
            Err(error) => Err(running::no_answer(&client, &error)),
        }
    })
}

/// The tree of a decision, which has its times in UTC, as the JSON does: the rows of the id and of the permit have them. It is
/// text of another machine: nothing in it controls the terminal.
fn in_local_time(decision: &Value, zone: &LocalZone) -> String {
    let tree = decision.get("tree").and_then(Value::as_str).unwrap_or_default();
    let row = |row: &str| {
        let row = OneLine(row).to_string();
        if !row.starts_with("id: ") && !row.starts_with("permit: ") {
            return row + "\n";
        }
        let local = |part: &str| {
            let bare = part.trim_end_matches(',');
            let time = humantime::parse_rfc3339(bare).ok();
            time.map_or_else(|| part.to_owned(), |time| part.replace(bare, &zone.exact(time)))
        };
        row.split(' ').map(local).collect::<Vec<_>>().join(" ") + "\n"
    };
    tree.lines().map(row).collect()
}

/// The newest `limit` decisions of all nodes; `query` has the filters, as the API takes them.
pub(super) fn history(source: &ConfigSource, query: &str, limit: usize, as_json: bool) -> Result<Exit, Exit> {
    let client = running::client(source)?;
    running::run(show(&client, query, limit, as_json))
}

async fn show(client: &Client, query: &str, limit: usize, as_json: bool) -> Result<Exit, Exit> {
    let Found { decisions, missing, more } = found(client, query, limit).await?;
    let text = if as_json {
        format!("{:#}\n", Value::from(decisions.clone()))
    } else {
        let more = if more { "and older ones (--limit)\n" } else { "" };
        format!("{}{more}", listed(&decisions, &LocalZone::of_system()))
    };
    if decisions.is_empty() && !as_json {
        eprintln!("rmxd: no matching decisions at the nodes that answer");
    } else if let Exit::Done = print(&text) {
    } else {
        return Err(Exit::Temporary);
    }
    for node in &missing {
        eprintln!("rmxd: {} is missing: {}", named(node), text_of(node, "why"));
    }
    Ok(match (missing.is_empty(), decisions.is_empty()) {
        (false, _) => Exit::Temporary,
        (true, true) => Exit::Reject,
        (true, false) => Exit::Done,
    })
}

struct Found {
    decisions: Vec<Value>,
    /// Nodes that didn't answer for one of the pages.
    missing: Vec<Value>,
    /// Whether there may be older ones.
    more: bool,
}

/// Asks for one page after the other.
async fn found(client: &Client, query: &str, limit: usize) -> Result<Found, Exit> {
    let mut found = Found { decisions: Vec::new(), missing: Vec::new(), more: true };
    let mut before = String::new();
    while found.more && found.decisions.len() < limit {
        let page = (limit - found.decisions.len()).min(PAGE);
        let target = format!("/api/v1/decisions?fleet=true&limit={page}{query}{before}");
        let answer = client.get(&target).await.map_err(|error| running::no_answer(client, &error))?;
        let items = |name: &str| answer.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        found.decisions.extend(items("decisions"));
        let number = |node: &Value| node.get("node").and_then(Value::as_u64);
        for node in items("missing") {
            if found.missing.iter().all(|known| number(known) != number(&node)) {
                found.missing.push(node);
            }
        }
        let next = answer.get("next").and_then(Value::as_str);
        found.more = next.is_some();
        before = next.map(|next| format!("&before={}", encoded(next))).unwrap_or_default();
    }
    Ok(found)
}

/// `node 2 (gate2.test)`; a node that nobody knows has no name.
fn named(node: &Value) -> String {
    let (number, name) =
        (node.get("node").and_then(Value::as_u64).unwrap_or_default(), text_of(node, "hostname"));
    if name.is_empty() { format!("node {number}") } else { format!("node {number} ({name})") }
}

fn listed(decisions: &[Value], zone: &LocalZone) -> String {
    let now = SystemTime::now();
    let (time, today) = (format!("TIME ({})", zone.short(now)), zone.date(now));
    let names = [
        time.as_str(),
        "NODE",
        "ID",
        "VERDICT",
        "OUTCOME",
        "REASON",
        "IDENTITY",
        "DOMAIN",
        "CLIENT",
        "RCPT",
        "RELAY",
    ];
    let mut table = table(&names, &[]);
    for decision in decisions {
        let text = |key: &str| text_of(decision, key);
        let refused = decision.get("refused").and_then(Value::as_bool).unwrap_or_default();
        let verdict = text("verdict");
        let monitor =
            if verdict != "accept" && !refused && text("mode") == "monitor" { " (monitor)" } else { "" };
        let at = text_at(decision).and_then(|at| humantime::parse_rfc3339(at).ok());
        table.add_row([
            at.map(|at| zone.of_row(at, &today)).unwrap_or_default(),
            decision.get("node").and_then(Value::as_u64).map(|node| node.to_string()).unwrap_or_default(),
            text("id"),
            format!("{verdict}{monitor}"),
            text("outcome"),
            text("reason"),
            text("identity"),
            text("domain"),
            text("client"),
            text("rcpt"),
            text("relay_reply"),
        ]);
    }
    format!("{}\n", table.trim_fmt())
}

/// Its time, in RFC 3339 and UTC.
fn text_at(decision: &Value) -> Option<&str> {
    decision.get("at").and_then(Value::as_str)
}

fn text_of(value: &Value, key: &str) -> String {
    OneLine(value.get(key).and_then(Value::as_str).unwrap_or_default()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_tree_of_another_node_has_local_times_and_nothing_else_is_changed() {
        let (first, second) = ("2026-11-29T22:59:59.250Z", "2026-11-29T23:00:01.500Z");
        let tree = format!(
            "id:      4KXN7Q2M, {first}, node 2\nrcpt:    {first}\u{1b}[2J\n\nid:      4KXN7Q2M, {second}\n\
             permit:  let in by permit 7, until {second}\n└─ from: id: {second}\n"
        );
        assert_eq!(
            in_local_time(&json!({ "tree": tree }), &LocalZone::posix("CET-1")),
            format!(
                "id:      4KXN7Q2M, 2026-11-29 23:59:59.250 CET, node 2\nrcpt:    {first}\\x1b[2J\n\n\
                 id:      4KXN7Q2M, 2026-11-30 00:00:01.500 CET\n\
                 permit:  let in by permit 7, until 2026-11-30 00:00:01.500 CET\n└─ from: id: {second}\n"
            )
        );
    }
}
