//! Whatever is refused, by rmxd, by the dialogue itself or by the relay: the id in the reply leads to the event in the
//! log, to the decision in the history, and something is counted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::Value;

use super::{id, run};
use crate::admin::http::Request;
use crate::support::client::{Client, on_the_wire};
use crate::support::daemon::{Daemon, configuration};
use crate::support::process::{SOON, eventually, free_address};
use crate::support::relay::Relay;
use crate::support::zone::Zone;

/// One that is an exchanger of good.test.
const GOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const MAIL: &str = "MAIL FROM:<a@good.test>";
const RCPT: &str = "RCPT TO:<user@here.test>";

struct Row {
    /// Command lines, and `DATA` with the message behind it. The last reply refuses.
    sends: Vec<String>,
    reply: &'static str,
    reason: &'static str,
    outcome: &'static str,
    /// What the relay says to lines that begin like this.
    relay: Option<(&'static str, &'static str)>,
}

fn row(sends: &[&str], reply: &'static str, reason: &'static str, outcome: &'static str) -> Row {
    let sends = sends.iter().map(|line| (*line).to_owned()).collect();
    Row { sends, reply, reason, outcome, relay: None }
}

fn rows() -> Vec<Row> {
    let received = "Received: from a by b; Mon, 01 Jan 2024 12:00:00 +0000\r\n".repeat(101);
    let (looping, large) = (format!("DATA {received}"), format!("DATA X: {}\r\n", "x".repeat(900)));
    let large = large + &"twenty octets a line\r\n".repeat(400);
    let (refused, relay_refused) = ("refused", "relay_refused");
    let message = [MAIL, RCPT, "DATA From: a@good.test\r\n\r\nx\r\n"];
    let by_relay = |line, said, row: Row| Row { relay: Some((line, said)), ..row };
    vec![
        row(&["MAIL FROM:<a b@good.test>"], "501 5.", "bad_address", refused),
        row(&[MAIL, "RCPT TO:<@>"], "501 5.1.3", "bad_address", refused),
        row(&["MAIL FROM:<a@good.test> FOO=1"], "555 5.5.4", "bad_parameter", refused),
        row(&[MAIL, "RCPT TO:<user@here.test> NOTIFY=NEVER"], "555 5.5.4", "bad_parameter", refused),
        row(&["MAIL FROM:<a@good.test> SIZE=99999"], "552 5.3.4", "too_big", refused),
        row(&[MAIL, RCPT, &large], "552 5.3.4", "too_big", refused),
        row(&[MAIL, RCPT, RCPT, RCPT], "452 4.5.3", "too_many_recipients", refused),
        row(&[MAIL, RCPT, &looping], "554 5.4.6", "mail_loop", refused),
        row(&[MAIL, RCPT, "DATA a\nb\r\n"], "521 5.5.2", "bare_newline", refused),
        row(&[MAIL, RCPT, "DATA  x\r\n"], "550 5.6.0", "malformed_header", refused),
        row(&[MAIL, "RCPT TO:<user@elsewhere.test>"], "550 5.7.1", "relaying_denied", refused),
        by_relay(
            "MAIL",
            "550 5.7.1 not you",
            row(&[MAIL, RCPT], "550 5.7.1 not you", relay_refused, relay_refused),
        ),
        by_relay("RCPT", "550 5.1.1 who", row(&[MAIL, RCPT], "550 5.1.1 who", relay_refused, relay_refused)),
        by_relay("DATA", "452 4.3.1 full", row(&message, "452 4.3.1 full", relay_refused, relay_refused)),
        by_relay(".", "554 5.7.0 spam", row(&message, "554 5.7.0 spam", relay_refused, relay_refused)),
        by_relay("connect", "554 no", row(&[MAIL, RCPT], "451 4.4.1", "relay_unreachable", "relay_failed")),
        by_relay(".", "(close)", row(&message, "451 4.4.2", "relay_lost", "relay_failed")),
    ]
}

/// Sends a row in a session of its own; the last reply.
async fn play(row: &Row, to: SocketAddr) -> String {
    let mut client = Client::greeted(GOOD, to, "mail.good.test").await;
    let mut last = String::new();
    for line in &row.sends {
        last = match line.strip_prefix("DATA ") {
            None => client.command(line).await.text,
            Some(message) => {
                assert_eq!(client.command("DATA").await.code, 354);
                let faulty = message == "a\nb\r\n";
                client.send(&if faulty { message.into() } else { on_the_wire(message.as_bytes()) }).await;
                client.reply().await.text
            }
        };
    }
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_each_refusal_leads_to_its_event_its_decision_and_its_count() {
    let (zone, relay) = (Zone::start(), Relay::start().await);
    let (address, admin) = (free_address(), free_address());
    let more = format!(
        "[relay]\nnext_hop = \"smtp://{}\"\ndomains = [\"here.test\"]\n\
         [limits]\nmessage = \"8KiB\"\nrecipients = 2\n[policy]\nmode = \"monitor\"",
        relay.address
    );
    let text = configuration("gate.test", &[address], zone.address(), &more);
    let text = text.replace("admin = \"\"", &format!("admin = \"{admin}\""));
    let daemon = Daemon::start(&text, &["--set", "history.path=decisions"]).await;
    let counts = || async { Request::get("/metrics").send(admin).await.text().to_owned() };
    let mut seen = Vec::new();
    for row in rows() {
        relay.rules.lock().unwrap().clear();
        relay
            .rules
            .lock()
            .unwrap()
            .extend(row.relay.map(|(line, reply)| (line.to_owned(), reply.to_owned())));
        let before = counts().await;
        let reply = play(&row, address).await;
        let id = id(&reply).to_owned();
        assert!(reply.starts_with(row.reply) && reply.lines().all(|line| line.len() <= 510), "{reply}");
        let after = counts().await;
        let series = format!("rmxd_refusals_total{{reason=\"{}\"}}", row.reason);
        assert_eq!(count(&after, &series), count(&before, &series) + 1.0, "{reply}");
        seen.push((row, reply, id));
    }
    let is_listed = |(row, _, id): &(Row, String, String), listed: &Value| {
        let is_it = |one: &Value| one["id"] == id.as_str() && one["outcome"] == row.outcome;
        listed.as_array().unwrap().iter().any(is_it)
    };
    eventually("all of them in the history", SOON, || {
        let listed = run(daemon.home(), "history --json --limit 100").json();
        seen.iter().all(|one| is_listed(one, &listed)).then_some(())
    })
    .await;
    let log = daemon.whole_log().await;
    for (row, reply, id) in &seen {
        let fits = |line: &&str| line.contains(" rmxd::decision: ") && line.contains(&format!("id={id} "));
        let events: Vec<&str> = log.lines().filter(fits).collect();
        let fields = [("outcome", row.outcome), ("reason", row.reason)];
        let told = events
            .iter()
            .find(|event| fields.iter().all(|(name, value)| event.contains(&format!(" {name}={value} "))));
        let event = told.unwrap_or_else(|| panic!("{reply}: {events:#?}"));
        assert!(event.contains(" helo=mail.good.test ") && event.contains(" mail_from="), "{event}");
        assert!(!event.contains(" identity=") || row.outcome.starts_with("relay"), "{event}");
        let whole = run(daemon.home(), &format!("explain {id} --json")).json();
        let decisions = [&[whole.clone()][..], whole["also"].as_array().unwrap()].concat();
        let explained =
            decisions.iter().find(|one| one["reason"] == row.reason).unwrap_or_else(|| panic!("{whole:#}"));
        assert_eq!(
            (&explained["outcome"], &explained["reply"]),
            (&row.outcome.into(), &reply.as_str().into())
        );
        assert_eq!(
            explained["relay_reply"].is_string(),
            row.relay.is_some_and(|(_, said)| said != "(close)")
        );
        let shown = run(daemon.home(), &format!("explain {id}"));
        assert!(shown.out.contains(&format!("\noutcome:   {}\n", row.outcome)), "{}", shown.out);
    }
    // what nobody can be exempt from is proposed to nobody
    let would = run(daemon.home(), "history --would --json").json();
    assert_eq!(would["exempt"], Value::Array(vec![]), "{would:#}");
    let text = counts().await;
    let outcome =
        |name: &str| count(&text, &format!("rmxd_outcomes_total{{door=\"smtp\",outcome=\"{name}\"}}"));
    assert_eq!((outcome("relay_refused"), outcome("relay_failed")), (4.0, 2.0), "{text}");
}

fn count(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("no {series}")).trim().parse().unwrap()
}
