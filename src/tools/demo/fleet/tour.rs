//! The steps of the tour. The senders and their clients are those of the sample zones (`rmxd zone --list`).

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::admin::AskError;
use crate::policy::reason::Reason;
use crate::smtp::escape::OneLine;
use crate::tools::demo::fleet::server;
use crate::tools::demo::fleet::stage::{Gate, Stage};
use crate::tools::demo::fleet::step::Step;
use crate::tools::demo::observed::{self, find, logged};
use crate::tools::demo::session::{self, Mail};

/// The recipient of most messages.
const RECIPIENT: &str = "you@demo.test";
/// For a line of the log that follows from a change: gates try Redis again after 1, 2, 4 ... s.
const NOTICED: Duration = Duration::from_secs(15);
/// For a permit of another gate.
const SHARED: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// Someone who sends.
struct Sender {
    client: Ipv4Addr,
    helo: &'static str,
    address: &'static str,
}

/// Nothing confirms that its domain sends from this client.
const UNCONFIRMED: Sender =
    Sender { client: Ipv4Addr::new(127, 0, 2, 77), helo: "host.other.test", address: "ann@good.test" };
/// Its domain has no MX record.
const WITHOUT_MX: Sender =
    Sender { client: Ipv4Addr::new(127, 0, 0, 12), helo: "mail.nomx.test", address: "info@nomx.test" };

/// What came of one message.
struct Sent {
    id: Option<String>,
    /// `450 greylisted`, `250 delivered`.
    seen: String,
}

pub(super) async fn greylisted(stage: &Stage) -> (Step, Option<String>) {
    let [one, _] = &stage.gates;
    let mut step = Step::new(
        "greylisted",
        "A client that no gate knows comes to gate 1",
        "Nothing confirms that good.test sends from this client, and both gates have mail_from.matches = greylist. What Redis \
         holds of it is a keyed hash and a time: it shows nobody who writes to whom.",
    );
    let id = match send(stage, one, &UNCONFIRMED, RECIPIENT, &mut step).await {
        Ok(sent) => {
            step.check("450 greylisted", sent.seen);
            sent.id
        }
        Err(error) => fail(&mut step, error),
    };
    if let Err(error) = show_triples(stage, &mut step).await {
        step.error = Some(format!("Redis: {error}"));
    }
    (step, id)
}

pub(super) async fn passed(stage: &Stage) -> Step {
    let [_, two] = &stage.gates;
    let step = Step::new(
        "passed",
        "After the delay it comes to gate 2",
        "Gate 2 has never seen this client. Redis knows that it has waited, so it doesn't wait a second time.",
    );
    expecting(stage, two, &UNCONFIRMED, RECIPIENT, "250 delivered", step).await
}

/// `id` is that of a decision of gate 1.
pub(super) async fn explained(stage: &Stage, id: Option<&str>) -> Step {
    let [one, two] = &stage.gates;
    let mut step = Step::new(
        "explained",
        "Gate 2 explains what gate 1 did",
        "Decisions stay on the gate that made them. The number of that gate is in the id, so gate 2 asks it.",
    );
    let Some(id) = id else { return failed(step, "the first reply has no id") };
    step.show("operator", "runs", format!("rmxd explain {id} --config {}", two.file()));
    match get(two, &format!("/api/v1/decisions/{id}?tree=true")).await {
        Ok(decision) => {
            let tree = decision.get("tree").and_then(Value::as_str).unwrap_or_default();
            let head = tree.lines().take_while(|line| !line.starts_with(['├', '└']));
            let head: Vec<String> = head.map(|line| OneLine(line).to_string()).collect();
            step.show(two.name(), "prints", head.join("\n") + "\n...");
            let text = |name: &str| decision.get(name).map(ToString::to_string).unwrap_or_default();
            let seen = format!("decision {} of node {}", text("id").trim_matches('"'), text("node"));
            step.check(format!("decision {id} of node {}", one.node), seen);
        }
        Err(error) => step.error = Some(error),
    }
    step
}

pub(super) async fn permit(stage: &Stage) -> Step {
    let [one, two] = &stage.gates;
    let mut step = Step::new(
        "permit",
        "A sender that gate 1 refused is let in, and gate 2 lets it in too",
        "The permit is for the network of the client with the domain of the sender. It is in effect at gate 1 at once, and at \
         gate 2 within two seconds.",
    );
    let refused = match send(stage, one, &WITHOUT_MX, RECIPIENT, &mut step).await {
        Ok(refused) => refused,
        Err(error) => return failed(step, error),
    };
    step.check("550 no_mx", refused.seen);
    let Some(id) = refused.id else { return failed(step, "the reply has no id") };
    step.show("operator", "runs", format!("rmxd allow {id} --for 1h --config {}", one.file()));
    let Some(client) = one.client() else { return failed(step, "gate 1 has no API") };
    match client.post("/api/v1/permits", &json!({ "id": id, "for": "1h" })).await {
        Ok(made) => {
            step.show(one.name(), "made", format!("permit {}", made.get("number").unwrap_or(&Value::Null)))
        }
        Err(error) => return failed(step, error),
    }
    let until = Instant::now() + SHARED;
    loop {
        let mut tried = Step::new("", "", "");
        let seen = match send(stage, two, &WITHOUT_MX, RECIPIENT, &mut tried).await {
            Ok(sent) => sent.seen,
            Err(error) => return failed(step, error),
        };
        if seen == "250 delivered" || Instant::now() >= until {
            step.frames.append(&mut tried.frames);
            step.check("250 delivered", seen);
            return step;
        }
        sleep(POLL).await;
    }
}

pub(super) async fn away(stage: &Stage) -> Step {
    let [one, two] = &stage.gates;
    let mut step = Step::new(
        "away",
        "Redis is killed",
        "Mail goes on: each gate decides by what it knows itself. Gate 1 knows since the first step that this client has waited. A \
         client that is new waits, as it would with one gate alone.",
    );
    let before = log_length(stage);
    stage.redis().kill();
    step.show("Redis", "ends", "kill -9");
    step = expecting(stage, one, &UNCONFIRMED, RECIPIENT, "250 delivered", step).await;
    step = expecting(stage, two, &UNCONFIRMED, "away@demo.test", "450 greylisted", step).await;
    let step = log_line(stage, before, "Redis is away", step).await;
    ready(one, "away", step).await
}

pub(super) async fn back(stage: &Stage) -> Step {
    let [one, two] = &stage.gates;
    let mut step = Step::new(
        "back",
        "Redis is back, and empty",
        "The gates have tried again after 1, 2, 4 ... s. Nothing has to be repaired: what they learn from now on is shared again.",
    );
    let before = log_length(stage);
    let started = stage.redis().spawn();
    if let Err(error) = started {
        return failed(step, error);
    }
    step.show("Redis", "starts", "without data");
    step = log_line(stage, before, "Redis is back", step).await;
    for gate in [one, two] {
        step = ready(gate, "up", step).await;
    }
    step = expecting(stage, two, &UNCONFIRMED, "back@demo.test", "450 greylisted", step).await;
    if let Err(error) = show_triples(stage, &mut step).await {
        step.error = Some(format!("Redis: {error}"));
    }
    step
}

/// Sends one message, and shows the commands and the reply that decides.
async fn send(
    stage: &Stage,
    gate: &Gate,
    sender: &Sender,
    recipient: &str,
    step: &mut Step,
) -> io::Result<Sent> {
    let server = gate.smtp().ok_or_else(|| io::Error::other("the gate has no port"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let token = format!("fleet.{now}@demo.test");
    let address = sender.address;
    let message = format!(
        "From: <{address}>\r\nTo: <{recipient}>\r\nSubject: a fleet\r\nMessage-ID: <{token}>\r\n\r\n\
         A message of rmxd's demo, sent by {}.\r\n",
        sender.client
    );
    let mail = Mail {
        client: IpAddr::V4(sender.client),
        helo: sender.helo,
        mail_from: address,
        recipient,
        message: &message,
    };
    let reply = session::send(&mail, server).await?;
    let commands = format!("MAIL FROM:<{address}>  RCPT TO:<{recipient}>");
    step.show(sender.client.to_string(), "sends", format!("to {}: {commands}", gate.name()));
    step.show(gate.name(), "replies", reply.text.clone());
    let id = observed::id(&reply.text);
    let reason = match &id {
        Some(id) => logged(&stage.log(), id).await?,
        None => None,
    };
    let is_delivered = find(&stage.maildir(), &token)?.is_some();
    let what = match (is_delivered, reason.map(Reason::name)) {
        (true, None) => "delivered",
        (true, Some(_)) => "delivered, and refused",
        (false, reason) => reason.unwrap_or("and no message in the Maildir"),
    };
    let seen = format!("{} {what}", reply.code);
    Ok(Sent { id, seen })
}

async fn expecting(
    stage: &Stage,
    gate: &Gate,
    sender: &Sender,
    recipient: &str,
    expected: &str,
    mut step: Step,
) -> Step {
    match send(stage, gate, sender, recipient, &mut step).await {
        Ok(sent) => step.check(expected, sent.seen),
        Err(error) => step.error = Some(error.to_string()),
    }
    step
}

/// What Redis holds of clients that wait or have passed.
async fn show_triples(stage: &Stage, step: &mut Step) -> io::Result<()> {
    let keys = server::ask(&stage.folder, "KEYS rmxd:1:g:*").await?;
    step.check("1 key", format!("{} key{}", keys.len(), if keys.len() == 1 { "" } else { "s" }));
    for key in keys {
        let value = server::ask(&stage.folder, &format!("GET {key}")).await?.join(" ");
        step.show("Redis", "holds", format!("{} = {}", OneLine(&key), OneLine(&value)));
    }
    Ok(())
}

fn log_length(stage: &Stage) -> usize {
    std::fs::read_to_string(stage.log()).map(|log| log.len()).unwrap_or_default()
}

/// Waits for a line that the log has from an offset on, and shows it without its time.
async fn log_line(stage: &Stage, from: usize, words: &str, mut step: Step) -> Step {
    let until = Instant::now() + NOTICED;
    loop {
        let log = std::fs::read_to_string(stage.log()).unwrap_or_default();
        let new = log.get(from..).unwrap_or_default();
        if let Some(line) = new.lines().find(|line| line.contains(words)) {
            let line = line.split_once(' ').map_or(line, |(_time, rest)| rest);
            step.show("a gate", "logs", line.trim());
            step.check(words, words);
            return step;
        }
        if Instant::now() >= until {
            step.check(words, "no such line in the log");
            return step;
        }
        sleep(POLL).await;
    }
}

/// Waits until a gate says this of Redis, and shows it.
async fn ready(gate: &Gate, wanted: &str, mut step: Step) -> Step {
    let until = Instant::now() + NOTICED;
    loop {
        let seen = match get(gate, "/readyz").await {
            Ok(ready) => ready.get("cluster").and_then(Value::as_str).unwrap_or_default().to_owned(),
            Err(error) => return failed(step, error),
        };
        if seen == wanted || Instant::now() >= until {
            step.show(gate.name(), "/readyz", format!("200, \"cluster\": \"{seen}\""));
            step.check(format!("\"cluster\": \"{wanted}\""), format!("\"cluster\": \"{seen}\""));
            return step;
        }
        sleep(POLL).await;
    }
}

async fn get(gate: &Gate, target: &str) -> Result<Value, String> {
    let client = gate.client().ok_or("the gate has no API")?;
    client.get(target).await.map_err(|error: AskError| error.to_string())
}

fn failed(mut step: Step, error: impl ToString) -> Step {
    step.error = Some(error.to_string());
    step
}

fn fail<T>(step: &mut Step, error: impl ToString) -> Option<T> {
    step.error = Some(error.to_string());
    None
}
