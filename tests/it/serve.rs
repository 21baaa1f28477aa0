//! `rmxd serve`, the real binary: how it starts, refuses to, drains, and what it logs.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use rmxd::zone::{Server, Zone};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::support::client::Client;
use crate::support::daemon::{Daemon, Home, any_port, configuration};
use crate::support::process::{SOON, rmxd};
use crate::support::relay::Relay;

/// Nobody asks DNS: the clients are exempt.
const EXEMPT: &str = "exempt.clients=127.0.0.0/8";
const HERE: &str = "relay.domains=here.test";

const TO_DATA: [(&str, &str); 4] = [
    ("EHLO mail.good.test", "250"),
    ("MAIL FROM:<a@good.test>", "250"),
    ("RCPT TO:<user@here.test>", "250"),
    ("DATA", "354"),
];

/// One with these lines over the configuration, `KEY=VALUE` as for `--set`, and flags; it may fail to start. Unless a line
/// names another, its DNS server is one that doesn't answer.
fn launch(lines: &[&str], flags: &[&str]) -> Daemon {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let home = Home::with(&configuration("gate.test", &[any_port()], nobody, ""));
    let mut command = home.serve();
    command.args(lines.iter().flat_map(|line| ["--set", line])).args(flags);
    Daemon::launch(command, home)
}

/// The same, and it listens there.
async fn start(lines: &[&str], flags: &[&str]) -> (Daemon, SocketAddr) {
    let mut daemon = launch(lines, flags);
    let address = daemon.listens().await;
    (daemon, address)
}

/// A client, and its greeting.
async fn connect(from: &str, to: SocketAddr) -> (Client, String) {
    let mut client = Client::connect(from.parse().unwrap(), to).await;
    let greeting = client.reply().await.text;
    (client, greeting)
}

#[tokio::test]
async fn sigterm_lets_an_open_transaction_finish_and_ends_with_0() {
    let (mut daemon, address) = start(&[EXEMPT], &[]).await;
    let (mut busy, _) = connect("127.0.0.10", address).await;
    busy.talk(&TO_DATA).await;
    busy.send("From: a@good.test\r\n").await;
    let (mut idle, _) = connect("127.0.0.10", address).await;
    daemon.signal("TERM");
    assert_eq!(idle.reply().await.text, "421 4.3.2 gate.test is shutting down, closing connection");
    assert!(TcpStream::connect(address).await.is_err(), "a new client is let in");
    assert_eq!(busy.command("\r\nbody\r\n.").await.text, "250 2.0.0 Message stored");
    assert!(busy.reply().await.text.starts_with("421 4.3.2 "));
    drop((busy, idle)); // closed by us as well, it needn't wait for octets
    assert_eq!(daemon.ended(SOON).await.code(), Some(0));
    assert_eq!(daemon.home().messages().len(), 1);
    assert!(daemon.log().contains("drained"), "{}", daemon.log());
}

#[tokio::test]
async fn a_second_sigterm_or_the_end_of_the_drain_time_cuts_off_what_is_open() {
    for (flags, twice, said) in
        [(["--drain", "1m"], true, "stopped while draining"), (["--drain", "300ms"], false, "were cut off")]
    {
        let (mut daemon, address) = start(&[EXEMPT], &flags).await;
        let (mut busy, _) = connect("127.0.0.10", address).await;
        busy.talk(&TO_DATA).await;
        let began = Instant::now();
        daemon.signal("TERM");
        daemon.logged("draining").await;
        if twice {
            daemon.signal("TERM");
        }
        assert_eq!(daemon.ended(SOON).await.code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(busy.is_closed().await);
        assert!(daemon.log().contains(said), "{}", daemon.log());
        assert_eq!(daemon.home().messages().len(), 0);
        assert_eq!(
            std::fs::read_dir(daemon.home().path().join("mail/tmp")).unwrap().count(),
            0,
            "a draft is left"
        );
    }
}

#[tokio::test]
async fn what_cannot_work_stops_the_start_with_a_line_that_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("listen.smtp={}", taken.local_addr().unwrap());
    let relay = Relay::start().await;
    let relay = format!("relay.next_hop=smtp://{}", relay.address);
    let rows: [(&[&str], i32, &[&str]); 5] = [
        (&[&taken], 75, &["listen.smtp: 127.0.0.1:", "in use"]),
        (&["limits.errors=0"], 78, &["limits.errors"]),
        (&["dns.servers=nowhere"], 78, &["dns.servers"]),
        (&[&relay], 78, &["relay.next_hop: ", "XCLIENT", "smtpd_authorized_xclient_hosts", "relay.domains"]),
        (&["relay.next_hop=maildir:log/mail"], 78, &["relay.next_hop: ", "Maildir"]),
    ];
    for (lines, code, said) in rows {
        let mut daemon = launch(lines, &[]);
        assert_eq!(daemon.ended(SOON).await.code(), Some(code), "{lines:?}: {}", daemon.log());
        let log = daemon.log();
        assert_eq!(log.lines().count(), 1, "{log}");
        for part in said {
            assert!(log.contains(part), "{lines:?}: no {part} in {log}");
        }
    }
    let wrong = rmxd(&["serve", "--drain", "soon"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(64));
}

#[tokio::test]
async fn a_relay_that_is_down_at_the_start_is_no_obstacle_and_mail_is_deferred_until_it_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    drop(listener);
    let next_hop = format!("relay.next_hop=smtp://{place}");
    let (daemon, address) = start(&[EXEMPT, HERE, &next_hop], &[]).await;
    daemon.logged("mail is deferred until it can").await;
    let (mut client, _) = connect("127.0.0.10", address).await;
    client.talk(&TO_DATA[..2]).await;
    client.talk(&[("RCPT TO:<user@here.test>", "451 4.4.1 "), ("RSET", "250")]).await;
    let _relay = Relay::at(place).await;
    client.talk(&TO_DATA[1..]).await;
    client.talk(&[("From: a@good.test\r\n\r\nbody\r\n.", "250 2.0.0 queued")]).await;
}

/// One that takes the connection and says nothing.
#[tokio::test]
async fn a_relay_that_is_silent_at_the_start_holds_up_neither_start_nor_end() {
    let relay = Relay::start().await;
    relay.rules.lock().unwrap().push(("EHLO".to_owned(), "(silence)".to_owned()));
    let next_hop = format!("relay.next_hop=smtp://{}", relay.address);
    let lines = [EXEMPT, HERE, &next_hop, "relay.connect_timeout=500ms"];
    let (mut daemon, _) = start(&lines, &[]).await;
    daemon.signal("TERM");
    assert_eq!(daemon.ended(SOON).await.code(), Some(0));

    let mut relay = Relay::start().await;
    relay.rules.lock().unwrap().push(("EHLO".to_owned(), "(silence)".to_owned()));
    let next_hop = format!("relay.next_hop=smtp://{}", relay.address);
    let mut starting = launch(&[EXEMPT, HERE, &next_hop, "relay.connect_timeout=1m"], &[]);
    while relay.seen.recv().await.expect("the relay runs") != "EHLO gate.test" {}
    starting.signal("TERM");
    assert_eq!(starting.ended(SOON).await.code(), Some(0), "{}", starting.log());
}

#[tokio::test]
async fn a_client_has_its_share_of_connections_and_all_together_theirs() {
    let limits = ["limits.connections=3", "limits.connections_per_client=2", EXEMPT];
    let (_daemon, address) = start(&limits, &[]).await;
    let (first, greeting) = connect("127.0.0.10", address).await;
    assert!(greeting.starts_with("220 gate.test "));
    let (_second, _) = connect("127.0.0.10", address).await;
    let (mut third, refusal) = connect("127.0.0.10", address).await;
    assert_eq!(refusal, "421 4.7.0 gate.test too many connections from your address, try again later");
    assert!(third.is_closed().await);
    let (other, greeting) = connect("127.0.0.11", address).await;
    assert!(greeting.starts_with("220 "));
    let (_fifth, refusal) = connect("127.0.0.12", address).await;
    assert_eq!(refusal, "421 4.7.0 gate.test too many connections, try again later");
    drop((first, other));
    let began = Instant::now();
    while !connect("127.0.0.10", address).await.1.starts_with("220 ") {
        assert!(began.elapsed() < SOON, "the place isn't given back");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn idle_connections_cost_little_memory() {
    let (daemon, address) = start(&[EXEMPT, "limits.connections_per_client=1000"], &[]).await;
    let before = daemon.memory();
    let mut clients = Vec::new();
    for _ in 0..400 {
        let (mut client, _) = connect("127.0.0.10", address).await;
        client.talk(&TO_DATA[..2]).await;
        clients.push(client);
    }
    let after = daemon.memory();
    println!("{before} KiB idle, {after} KiB with 400 open transactions");
    assert!(before < 64 << 10, "{before} KiB idle");
    assert!(after - before < 400 * 16, "{} KiB for 400 connections", after - before);
}

/// Fields of contract 9.
const FIELDS: [&str; 17] = [
    "id",
    "verdict",
    "mode",
    "identity",
    "rule",
    "rung",
    "reason",
    "domain",
    "client",
    "ptr",
    "helo",
    "mail_from",
    "rcpt",
    "from",
    "reply_to",
    "duration",
    "dns_queries",
];

/// Accepted, refused for its envelope, refused for its header, and one with words that want to be more than words.
async fn four_transactions(address: std::net::SocketAddr) {
    let (mut client, _) = connect("127.0.0.10", address).await;
    client.talk(&TO_DATA).await;
    client.talk(&[("From: a@good.test\r\nReply-To: b@good.test\r\n\r\n.", "250")]).await;
    client
        .talk(&[
            ("MAIL FROM:<a@nomx.test>", "250"),
            ("RCPT TO:<user@here.test>", "550 5.1.8"),
            ("RSET", "250"),
        ])
        .await;
    client.talk(&TO_DATA[1..]).await;
    client.talk(&[("From: a@good.test\r\nReply-To: c@collect.test\r\n\r\n.", "550 5.7.1")]).await;
    client.talk(&[("EHLO a\x1b[31m", "250"), ("EHLO x\u{202e}y", "250")]).await;
    client
        .talk(&[("EHLO verdict=accept", "250"), ("MAIL FROM:<\"a verdict=accept\\\"\"@good.test>", "250")])
        .await;
    client.talk(&TO_DATA[2..]).await;
    let hostile = "From: \"x\x1b[2J\u{202e}\" <\"a\u{202e} verdict=reject\"@nomx.test>\r\nReply-To: a@good.test\r\n \tb@good.test";
    client.talk(&[(&format!("{hostile}\r\n\r\n."), "550")]).await;
}

#[tokio::test]
async fn the_log_as_json_has_one_decision_a_transaction_with_every_field() {
    let zone = Server::start("127.0.0.1:0".parse().unwrap(), Zone::sample()).await.unwrap();
    let dns = format!("dns.servers={}", zone.address());
    let lines =
        ["log.format=json", "policy.reply_to.exists=reject", &dns, "dns.private_addresses=accept", HERE];
    let (daemon, address) = start(&lines, &[]).await;
    four_transactions(address).await;
    let log = daemon.settled("\"target\":\"rmxd::decision\"", 4).await;
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let decisions: Vec<&Value> = events.iter().filter(|event| event["target"] == "rmxd::decision").collect();
    let told: Vec<_> =
        decisions.iter().map(|it| (it["verdict"].as_str().unwrap(), it["reason"].as_str())).collect();
    let malformed = ("reject", Some("malformed_header"));
    assert_eq!(
        told,
        [("accept", None), ("reject", Some("no_mx")), ("reject", Some("no_mx")), malformed],
        "{log}"
    );
    for field in FIELDS {
        assert!(decisions.iter().any(|event| !event[field].is_null()), "no {field}\n{log}");
    }
    let ids: std::collections::HashSet<_> =
        decisions.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 4);
    let expected = [
        ("client", "127.0.0.10"),
        ("ptr", "mail.good.test"),
        ("mail_from", "<a@good.test>"),
        ("identity", "reply_to"),
        ("reply_to", "c@collect.test"),
        ("domain", "collect.test"),
        ("rule", "exists"),
        ("rcpt", "user@here.test"),
    ];
    for (field, value) in expected {
        assert_eq!(decisions[2][field], value, "{field}");
    }
    assert!(decisions[2]["evidence"].as_str().unwrap().contains("MX collect.test"), "{log}");
}

/// The senders of today, through the daemon: what they get, and how the log and Authentication-Results say why.
#[tokio::test]
async fn a_client_that_is_no_exchanger_passes_by_its_name_or_by_spf_and_each_verdict_says_by_which() {
    let zone = Server::start("127.0.0.1:0".parse().unwrap(), Zone::sample()).await.unwrap();
    let dns = format!("dns.servers={}", zone.address());
    let ladder = [
        "policy.mail_from.matches=reject",
        "policy.from.matches=off",
        "policy.matches_by=mx,ptr,spf",
        "log.format=json",
    ];
    let lines = [&ladder[..], &[&dns, "dns.private_addresses=accept", HERE]].concat();
    let (daemon, address) = start(&lines, &[]).await;
    let rows = [
        ("127.0.0.10", "good.test", "250", "mx"),
        ("127.0.0.31", "out.test", "250", "ptr"),
        ("127.0.0.41", "bigmail.test", "250", "spf"),
        ("127.0.0.42", "bigmail.test", "550 5.7.1 <a@bigmail.test>: ", "not_an_exchanger"),
        ("127.0.0.43", "spf-broken.test", "451 4.4.3 <a@spf-broken.test>: ", "dns_error"),
    ];
    for (from, domain, expected, _) in rows {
        let (mut client, _) = connect(from, address).await;
        let mail = format!("MAIL FROM:<a@{domain}>");
        client
            .talk(&[("EHLO mail.good.test", "250"), (&mail, "250"), ("RCPT TO:<user@here.test>", expected)])
            .await;
        if expected == "250" {
            let message = format!("From: a@{domain}\r\n\r\n.");
            client.talk(&[("DATA", "354"), (&message, "250")]).await;
        }
    }
    let log = daemon.settled("\"target\":\"rmxd::decision\"", rows.len()).await;
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let decisions: Vec<Value> = events.filter(|event| event["target"] == "rmxd::decision").collect();
    assert_eq!(decisions.len(), rows.len(), "{log}");
    for (event, (_, domain, _, why)) in decisions.iter().zip(rows) {
        let told = [&event["identity"], &event["rule"], &event["domain"]];
        assert_eq!(told, ["mail_from", "matches", domain], "{event}");
        assert!(event["rung"] == why || event["reason"] == why, "{event}");
    }
    let delivered: Vec<String> =
        daemon.home().messages().into_iter().map(|message| String::from_utf8(message).unwrap()).collect();
    assert_eq!(delivered.len(), 3);
    for (_, domain, _, rung) in &rows[..3] {
        let result = format!("x-reverse-mx=pass ({rung}) smtp.mailfrom={domain} policy.rule=matches");
        let unfolded =
            |message: &String| message.replace("\r\n\t", " ").replace("\r\n ", " ").replace('\n', "");
        assert!(
            delivered.iter().any(|message| unfolded(message).contains(&result)),
            "{result}\n{delivered:?}"
        );
    }
}

#[tokio::test]
async fn the_log_as_text_keeps_a_decision_to_one_line_whatever_the_client_says() {
    let zone = Server::start("127.0.0.1:0".parse().unwrap(), Zone::sample()).await.unwrap();
    let dns = format!("dns.servers={}", zone.address());
    let lines = ["policy.reply_to.exists=reject", &dns, "dns.private_addresses=accept", HERE];
    let (daemon, address) = start(&lines, &[]).await;
    four_transactions(address).await;
    let log = daemon.settled(" rmxd::decision: ", 4).await;
    let decisions: Vec<&str> = log.lines().filter(|line| line.contains(" rmxd::decision: ")).collect();
    assert_eq!(decisions.len(), 4, "{log}");
    assert!(!log.contains(['\x1b', '\r', '\u{202e}']), "{log:?}");
    let last = decisions[3];
    assert_eq!(last.matches(" verdict=").count() - last.matches("a verdict=").count(), 1, "{last}");
    assert!(last.contains(" helo=\"verdict=accept\" "), "{last}");
    for line in log.lines() {
        assert!(line.split(' ').next().unwrap().ends_with('Z'), "a line without its time: {line}");
    }
}
