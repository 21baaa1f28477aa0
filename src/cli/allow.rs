//! `rmxd allow`: temporary permits of the running daemon (contract 3.5).

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::admin::{AskError, Client, encoded};
use crate::cli::running;
use crate::console::time::LocalZone;
use crate::console::{ConfigSource, Exit, print};
use crate::smtp::escape::OneLine;

const PERMITS: &str = "/api/v1/permits";

/// Let in a sender for a time: a permit by the id of its refusal, or by what you name
///
/// With an id, mail of the refused client's network and the sender's domain is let in, and of no other; where From: or Reply-To:
/// was refused, this field alone. Permits are in effect at once, and a restart keeps them. In a fleet they are in effect on all nodes
/// within two seconds, and any node removes them.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "\
rmxd allow ID [--for TIME] [--note TEXT]
       rmxd allow [--client NET] [--domain DOMAIN] [--recipient RCPT] [--for TIME] [--note TEXT]
       rmxd allow --list
       rmxd allow --remove NUMBER",
    after_long_help = "\
All that is named has to hold. A client alone, or with a domain, is let in as an exempt client. A domain alone is let in as one of \
exempt.domains: a forged MAIL FROM doesn't exempt the visible sender. A recipient is let in as one of exempt.recipients. What no policy \
decides, such as a message that is too big, is refused nevertheless.

The command asks the daemon at listen.admin of the configuration, with its admin.token. Without a token, only --list works. For the id \
of another node of a fleet, the daemon asks that node for the decision.

Examples:
  rmxd allow 4KXN7Q2M --note \"until their DNS is repaired\"
  rmxd allow --client 192.0.2.0/24 --domain example.org --for 7d
  rmxd allow --domain .example.org --for forever

Exit codes: 0 done, 1 no such decision or permit, or none can be made of it, 64 wrong usage, 75 no daemon answers, \
or not the node that has the decision, 78 configuration error."
)]
pub struct Args {
    #[command(flatten)]
    source: ConfigSource,
    /// The id of a refusal, in upper or lower case
    #[arg(value_name = "ID", conflicts_with_all = ["client", "domain", "recipient", "list", "remove"])]
    id: Option<String>,
    /// The client's network or address
    #[arg(long, value_name = "NET")]
    client: Option<String>,
    /// The domain of MAIL FROM (for <> the HELO name), From: or Reply-To:; with a leading dot also the names below
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// A recipient's address, or a local part in any domain
    #[arg(long, value_name = "RCPT")]
    recipient: Option<String>,
    /// How long, such as 90m, 24h or 7d; forever: until it is removed [default: 24h]
    #[arg(long = "for", value_name = "TIME", conflicts_with_all = ["list", "remove"])]
    time: Option<String>,
    /// Why, for the list and the log
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["list", "remove"])]
    note: Option<String>,
    /// List the permits that are in effect
    #[arg(long, conflicts_with_all = ["client", "domain", "recipient", "remove"])]
    list: bool,
    /// Remove the permit with this number
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["client", "domain", "recipient"])]
    remove: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> ExitCode {
    allow(args).unwrap_or_else(|exit| exit).into()
}

fn allow(args: &Args) -> Result<Exit, Exit> {
    let wanted = wanted(args);
    if wanted.is_empty() && !args.list && args.remove.is_none() {
        eprintln!(
            "rmxd: what is to be let in? Give the ID of a refusal, or --client, --domain or --recipient; or --list, \
             --remove"
        );
        return Err(Exit::Usage);
    }
    let client = running::client(&args.source)?;
    if !args.list && !client.has_token() {
        eprintln!(
            "rmxd: admin.token is empty, and permits are only made and removed with a token: set admin.token to a long \
             random text, and reload"
        );
        return Err(Exit::Config);
    }
    running::run(async {
        let text = match args.remove {
            _ if args.list => list(args, &client).await,
            Some(number) => remove(args, &client, number).await,
            None => make(args, &client, wanted).await,
        };
        text.map(|text| print(&text)).map_err(|error| failed(&client, &error))
    })
}

/// The body of the request, without `for` and `note` alone.
fn wanted(args: &Args) -> Map<String, Value> {
    let conditions = [
        ("id", &args.id),
        ("client", &args.client),
        ("domain", &args.domain),
        ("recipient", &args.recipient),
    ];
    let mut wanted = Map::new();
    let mut put = |name: &str, text: &Option<String>| {
        wanted.extend(text.iter().map(|text| (name.to_owned(), json!(text))));
    };
    conditions.into_iter().for_each(|(name, text)| put(name, text));
    if !wanted.is_empty() {
        let rest = [("for", &args.time), ("note", &args.note)];
        for (name, text) in rest {
            wanted.extend(text.iter().map(|text| (name.to_owned(), json!(text))));
        }
    }
    wanted
}

async fn make(args: &Args, client: &Client, wanted: Map<String, Value>) -> Result<String, AskError> {
    let permit = client.post(PERMITS, &Value::Object(wanted)).await?;
    if args.json {
        return Ok(format!("{permit:#}\n"));
    }
    let number = number(&permit);
    let mut text = format!(
        "Permit {number} lets in {}, {}.\nTake it back with: rmxd allow --remove {number}\n",
        what(&permit),
        until(&permit, &LocalZone::of_system())
    );
    let hint = self::text(&permit, "hint");
    if !hint.is_empty() {
        text.push_str(&format!("{hint}\n"));
    }
    if is_in_memory(&permit) {
        text.push_str("It is kept in memory only: a restart of rmxd forgets it; the log says why.\n");
    }
    Ok(text)
}

async fn remove(args: &Args, client: &Client, number: u64) -> Result<String, AskError> {
    let answer = client.delete(&format!("{PERMITS}/{}", encoded(&number.to_string()))).await?;
    let hint = text(&answer, "hint");
    if args.json {
        let removed = if hint.is_empty() { json!({ "removed": number }) } else { answer };
        return Ok(format!("{removed:#}\n"));
    }
    let hint = if hint.is_empty() { hint } else { format!("{hint}\n") };
    Ok(format!("Permit {number} is removed.\n{hint}"))
}

async fn list(args: &Args, client: &Client) -> Result<String, AskError> {
    let all = client.get(PERMITS).await?;
    if args.json {
        return Ok(format!("{all:#}\n"));
    }
    let zone = LocalZone::of_system();
    let permits = all.get("permits").and_then(Value::as_array).map_or::<&[Value], _>(&[], Vec::as_slice);
    let mut text: String = permits.iter().map(|permit| line(permit, &zone)).collect();
    if permits.is_empty() {
        text.push_str("No permits are in effect.\n");
    }
    if is_in_memory(&all) {
        text.push_str("They are kept in memory only: a restart of rmxd forgets them; the log says why.\n");
    }
    if all.get("shared") == Some(&Value::Bool(false)) {
        text.push_str(
            "Redis lacks some of what was made or removed here: the other nodes don't know it yet.\n",
        );
    }
    Ok(text)
}

/// `7  client 192.0.2.0/24 with domain spoof.test, until 2026-11-30 14:03:22 CET (4KXN7Q2M, a note)`.
fn line(permit: &Value, zone: &LocalZone) -> String {
    let node = permit.get("node").and_then(Value::as_u64).map(|node| format!("node {node}"));
    let about =
        ["decision", "note"].into_iter().map(|name| text(permit, name)).filter(|text| !text.is_empty());
    let about: Vec<String> = node.into_iter().chain(about).collect();
    let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
    format!("{:<5} {}, {}{about}\n", number(permit), what(permit), until(permit, zone))
}

/// What a permit lets in, in plain words.
fn what(permit: &Value) -> String {
    let [client, domain, recipient] = ["client", "domain", "recipient"].map(|name| text(permit, name));
    let from = if client.is_empty() { String::new() } else { format!(" from {client}") };
    let field = match text(permit, "identity").as_str() {
        "from" => "From:",
        "reply_to" => "Reply-To:",
        _ => "",
    };
    match (domain.as_str(), recipient.as_str()) {
        (domain, "") if !field.is_empty() => {
            format!("the {field} domain {domain}{from}, and no other identity")
        }
        ("", "") => format!("all mail{from}"),
        (domain, "") if client.is_empty() => {
            format!("the sender domain {domain}, in the envelope and in the header each for itself")
        }
        (domain, "") => format!("mail of {domain}{from}"),
        ("", recipient) => format!("mail to {recipient}{from}"),
        (domain, recipient) => format!("mail of {domain} to {recipient}{from}"),
    }
}

/// In local time.
fn until(permit: &Value, zone: &LocalZone) -> String {
    let end = permit.get("until").and_then(Value::as_str).map(humantime::parse_rfc3339);
    match end {
        Some(Ok(end)) => format!("until {}", zone.full(end)),
        Some(Err(_)) | None => "until it is removed".to_owned(),
    }
}

fn number(permit: &Value) -> String {
    permit.get("number").map(ToString::to_string).unwrap_or_default()
}

fn is_in_memory(answer: &Value) -> bool {
    answer.get("on_disk") == Some(&Value::Bool(false))
}

/// On one line, without anything that controls a terminal.
fn text(permit: &Value, name: &str) -> String {
    OneLine(permit.get(name).and_then(Value::as_str).unwrap_or_default()).to_string()
}

/// Says why it wasn't done.
fn failed(client: &Client, error: &AskError) -> Exit {
    let AskError::Problem { status, detail } = error else { return running::no_answer(client, error) };
    let exit = match status {
        400 => Exit::Usage,
        403 => Exit::Config,
        404 | 409 => Exit::Reject,
        // The node of a fleet that has the decision doesn't answer.
        504 => Exit::Temporary,
        _ => return running::no_answer(client, error),
    };
    eprintln!("rmxd: {detail}");
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_said_in_plain_words_with_its_end_in_local_time() {
        let zone = LocalZone::posix("CET-1");
        let of = |client: Value, domain: Value, recipient: Value| {
            json!({ "number": 7, "client": client, "domain": domain, "recipient": recipient, "note": "", "decision": null,
                "until": "2026-11-29T10:00:00Z" })
        };
        let (net, domain, rcpt) = (json!("192.0.2.0/24"), json!("spoof.test"), json!("u@here.test"));
        let none = Value::Null;
        let rows = [
            (of(net.clone(), domain.clone(), none.clone()), "mail of spoof.test from 192.0.2.0/24"),
            (of(net.clone(), none.clone(), none.clone()), "all mail from 192.0.2.0/24"),
            (
                of(none.clone(), domain.clone(), none.clone()),
                "the sender domain spoof.test, in the envelope and in the header each for itself",
            ),
            (of(none.clone(), none.clone(), rcpt.clone()), "mail to u@here.test"),
            (of(net.clone(), none.clone(), rcpt.clone()), "mail to u@here.test from 192.0.2.0/24"),
            (of(none.clone(), domain.clone(), rcpt.clone()), "mail of spoof.test to u@here.test"),
            (of(net, domain, rcpt), "mail of spoof.test to u@here.test from 192.0.2.0/24"),
        ];
        for (permit, expected) in rows {
            assert_eq!(what(&permit), expected);
            assert_eq!(line(&permit, &zone), format!("7     {expected}, until 2026-11-29 11:00:00 CET\n"));
        }
        for (identity, expected) in [
            ("mail_from", "mail of spoof.test from 192.0.2.0/24"),
            ("from", "the From: domain spoof.test from 192.0.2.0/24, and no other identity"),
            ("reply_to", "the Reply-To: domain spoof.test from 192.0.2.0/24, and no other identity"),
        ] {
            let mut permit = of(json!("192.0.2.0/24"), json!("spoof.test"), none.clone());
            permit["identity"] = json!(identity);
            assert_eq!(what(&permit), expected);
        }
        let mut permit = of(json!("192.0.2.1/32"), none.clone(), none.clone());
        permit["node"] = json!(7);
        let of_a_node = line(&permit, &zone);
        assert_eq!(of_a_node, "7     all mail from 192.0.2.1/32, until 2026-11-29 11:00:00 CET (node 7)\n");
        permit["node"] = none.clone();
        permit["until"] = none;
        permit["decision"] = json!("4KXN7Q2M");
        permit["note"] = json!("a\u{1b}[2J\nb");
        let line = line(&permit, &zone);
        assert!(
            line.starts_with("7     all mail from 192.0.2.1/32, until it is removed (4KXN7Q2M, a"),
            "{line}"
        );
        assert!(!line.contains('\u{1b}') && line.matches('\n').count() == 1, "{line}");
    }
}
