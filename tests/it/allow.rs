//! `rmxd allow` and its API beside real daemons: a refused sender is let in through each door, and refused again; what keeps
//! permits; who may make them; and what they don't let in. `verdicts/permits.table` has how far each kind reaches.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rmxd::tools::mta::{Action, Final, Milter, Policy, Request as Asked, Server};
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::admin::http::{Answer, Request};
use crate::support::client::Client;
use crate::support::daemon::{Daemon, Home, configuration};
use crate::support::process::{Run, SOON, free_address, rmxd};
use crate::support::zone::Zone;

/// The client of nomx.test, and one of another network.
const BAD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 12));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 9, 11));
const SENDER: &str = "a@nomx.test";
const USER: &str = "user@here.test";
const TOKEN: &str = "s3cret";
/// A permit is in effect within this time.
const AT_ONCE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Smtp,
    Milter,
    Policy,
}

/// Where a daemon listens.
struct Site {
    smtp: SocketAddr,
    milter: SocketAddr,
    policy: SocketAddr,
    admin: SocketAddr,
    zone: Zone,
}

impl Site {
    fn new() -> Self {
        let [smtp, milter, policy, admin] = [(); 4].map(|()| free_address());
        Self { smtp, milter, policy, admin, zone: Zone::start() }
    }

    fn text(&self, more: &str) -> String {
        let Self { smtp, milter, policy, admin, zone } = self;
        let more = format!("[relay]\ndomains = [\"here.test\"]\n{more}");
        let text = configuration("gate.test", &[*smtp], zone.address(), &more);
        let listen = format!("[listen]\nmilter = [\"{milter}\"]\npolicy = [\"{policy}\"]\n");
        let text =
            text.replace("[listen]\n", &listen).replace("admin = \"\"", &format!("admin = \"{admin}\""));
        text.replace("path = \"\"", "path = \"decisions\"")
    }

    /// With the token.
    async fn start(&self, more: &str) -> Daemon {
        Daemon::start(&self.text(&format!("[admin]\ntoken = \"{TOKEN}\"\n{more}")), &[]).await
    }

    /// One message through a door; the reply, empty where it was taken.
    async fn send(&self, door: Door, from: IpAddr, sender: &str, header_from: &str) -> String {
        let (helo, client) = ("mail.good.test", SocketAddr::new(from, 4711));
        match door {
            Door::Smtp => {
                let mut client = Client::greeted(from, self.smtp, helo).await;
                let message = format!("From: {header_from}\r\n\r\nHello\r\n");
                let reply = client.deliver(sender, USER, message.as_bytes()).await;
                if reply.code == 250 { String::new() } else { reply.text }
            }
            Door::Milter => {
                let stream = TcpStream::connect(self.milter).await.unwrap();
                let server = Server {
                    hostname: "mx.here.test".to_owned(),
                    address: self.smtp,
                    next_hop: "local".to_owned(),
                };
                let mut milter = Milter::negotiate(stream, server, PATIENCE).await.unwrap();
                milter.connect(client, None).await.unwrap();
                milter.helo(helo).await.unwrap();
                let refused = |answer: Option<Final>| match answer {
                    None | Some(Final::Continue) => None,
                    Some(Final::Reply(reply)) => Some(reply.to_string()),
                    Some(other) => panic!("{other:?}"),
                };
                if let Some(reply) = refused(milter.mail(sender, None, "4jcH2G6Vqsz1VcKG").await.unwrap()) {
                    return reply;
                }
                if let Some(reply) = refused(milter.rcpt(USER).await.unwrap()) {
                    return reply;
                }
                milter.data().await.unwrap();
                milter.header(b"From", format!(" {header_from}").as_bytes()).await.unwrap();
                if let Some(reply) = refused(milter.end_of_header().await.unwrap()) {
                    return reply;
                }
                milter.body(b"Hello\r\n").await.unwrap();
                refused(Some(milter.end_of_message().await.unwrap().1)).unwrap_or_default()
            }
            Door::Policy => {
                let stream = TcpStream::connect(self.policy).await.unwrap();
                let instance = format!("{:?}", Instant::now());
                let request = Asked {
                    state: "RCPT",
                    protocol: "ESMTP",
                    client,
                    client_name: "unknown",
                    server: self.smtp,
                    helo,
                    sender,
                    recipient: USER,
                    queue_id: "",
                    instance: &instance,
                    login: "",
                };
                match Policy::new(stream, PATIENCE).ask(&request).await.unwrap() {
                    Action::Dunno => String::new(),
                    Action::Reply(reply) | Action::DeferIfPermit(reply) => reply.to_string(),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// By SMTP, from the sender of the tests.
    async fn refused(&self) -> String {
        let reply = self.send(Door::Smtp, BAD, SENDER, SENDER).await;
        assert!(reply.starts_with("550 5.1.8 "), "{reply}");
        id(&reply)
    }

    async fn accepted(&self) {
        let reply = self.send(Door::Smtp, BAD, SENDER, SENDER).await;
        assert_eq!(reply, "");
    }

    async fn post(&self, body: Value) -> Answer {
        let request =
            Request::new("POST", "/api/v1/permits").with("authorization", &format!("Bearer {TOKEN}"));
        request.with_body("application/json", body.to_string()).send(self.admin).await
    }

    async fn permits(&self) -> Value {
        let request = Request::get("/api/v1/permits").with("authorization", &format!("Bearer {TOKEN}"));
        request.send(self.admin).await.json()
    }

    async fn get(&self, target: &str) -> Answer {
        Request::get(target).with("authorization", &format!("Bearer {TOKEN}")).send(self.admin).await
    }
}

/// The id at the end of a reply.
fn id(reply: &str) -> String {
    let (_, end) = reply.split_once("(id ").unwrap_or_else(|| panic!("{reply}"));
    end.get(..8).unwrap().to_owned()
}

/// `rmxd COMMAND` with the daemon's configuration, in a time zone without a file.
fn run(home: &Home, command: &str, arguments: &[&str]) -> Run {
    let mut run = rmxd(&[command, "--config"]);
    run.arg(home.file()).args(arguments).current_dir(home.path()).env("TZ", "XYZ-5:30");
    Run::of(&mut run)
}

fn allow(home: &Home, arguments: &[&str]) -> Run {
    run(home, "allow", arguments)
}

/// The number of a permit that a command has made.
fn made(run: &Run) -> u64 {
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    let (_, rest) = run.out.split_once("Permit ").unwrap_or_else(|| panic!("{run:?}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn through_each_door_a_refused_sender_is_let_in_at_once_until_the_permit_ends_or_is_removed() {
    let site = Site::new();
    let daemon = site.start("").await;
    for (nth, door) in [Door::Smtp, Door::Milter, Door::Policy].into_iter().enumerate() {
        let refused = site.send(door, BAD, SENDER, SENDER).await;
        assert!(refused.starts_with("550 5.1.8 "), "{door:?}: {refused}");
        let run = allow(daemon.home(), &[&id(&refused), "--for", "4s", "--note", "until tonight"]);
        let since = Instant::now();
        let number = made(&run);
        let expected = format!("Permit {number} lets in mail of nomx.test from 127.0.0.0/24, until ");
        assert!(run.out.starts_with(&expected), "{run:?}");
        assert!(run.out.contains(" XYZ.\nTake it back with: rmxd allow --remove "), "{run:?}");
        assert_eq!(site.send(door, BAD, SENDER, SENDER).await, "", "{door:?}");
        assert!(since.elapsed() < AT_ONCE, "{door:?}: {:?}", since.elapsed());
        // another client of the network, and none of another
        assert_eq!(site.send(door, Ipv4Addr::new(127, 0, 0, 77).into(), SENDER, SENDER).await, "");
        let forged = site.send(door, ELSEWHERE, SENDER, SENDER).await;
        assert!(forged.starts_with("550 5.1.8 "), "{door:?}: {forged}");

        daemon.logged_times("a permit has ended", nth + 1).await;
        let after = site.send(door, BAD, SENDER, SENDER).await;
        assert!(after.starts_with("550 5.1.8 "), "{door:?}: {after}");
        let number = made(&allow(daemon.home(), &[&id(&after).to_ascii_lowercase(), "--for", "forever"]));
        assert_eq!(site.send(door, BAD, SENDER, SENDER).await, "", "{door:?}");
        let run = allow(daemon.home(), &["--remove", &number.to_string()]);
        assert_eq!((run.code, run.out), (Some(0), format!("Permit {number} is removed.\n")));
        let after = site.send(door, BAD, SENDER, SENDER).await;
        assert!(after.starts_with("550 5.1.8 "), "{door:?}: {after}");
    }
    let log = daemon.whole_log().await;
    for what in ["a permit was made", "a permit has ended", "a permit was removed"] {
        let line = log.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {log}"));
        for part in ["INFO rmxd::store::permits: ", " permit=", " client=127.0.0.0/24", " domain=nomx.test"] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
    assert!(log.contains(" note=\"until tonight\"") && log.contains(" decision="), "{log}");
    assert_eq!(site.permits().await["permits"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_connection_is_under_the_permits_of_each_message() {
    let site = Site::new();
    let daemon = site.start("[policy.helo]\nexists = \"reject\"\n[policy.ptr]\nexists = \"reject\"").await;
    let mut client = Client::greeted(BAD, site.smtp, "silly.test").await;
    let message = format!("From: {SENDER}\r\n\r\nHello\r\n");
    let code = async |client: &mut Client| {
        let code = client.deliver(SENDER, USER, message.as_bytes()).await.code;
        client.command("RSET").await;
        code
    };
    assert_eq!(code(&mut client).await, 550);
    let number = made(&allow(daemon.home(), &["--client", "127.0.0.12"])).to_string();
    assert_eq!(code(&mut client).await, 250);
    let mut other = Client::greeted(BAD, site.smtp, "silly.test").await;
    assert_eq!(code(&mut other).await, 250);
    assert_eq!(allow(daemon.home(), &["--remove", &number]).code, Some(0));
    for client in [&mut client, &mut other] {
        let reply = client.deliver("a@good.test", USER, b"From: a@good.test\r\n\r\nHello\r\n").await;
        assert!(reply.text.starts_with("550 5.7.1 silly.test "), "HELO is judged now: {}", reply.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_a_kill_and_a_reload_keep_permits() {
    for more in ["", "[policy.reply_to]\nexists = \"reject\""] {
        let site = Site::new();
        let mut daemon = site.start(more).await;
        let file = daemon.home().path().join("rmxd-state");
        assert_eq!(file.exists(), more.is_empty(), "without a greylist the first permit makes it");
        let first = site.refused().await;
        assert_eq!(made(&allow(daemon.home(), &[&first, "--note", "a \"note\""])), 1);
        daemon.signal("KILL");
        assert!(!daemon.ended(SOON).await.success());
        let home = daemon.into_home();
        let mut daemon = Daemon::spawn(home.serve(), home).await;
        site.accepted().await;
        daemon.logged("permits are in effect").await;
        let kept = site.permits().await;
        crate::schema::assert_conforms("allow", &kept);
        let permit = &kept["permits"][0];
        let expected =
            [("client", json!("127.0.0.0/24")), ("domain", json!("nomx.test")), ("recipient", json!(null))];
        let more_expected = [("number", json!(1)), ("note", json!("a \"note\"")), ("decision", json!(first))];
        for (name, value) in expected.into_iter().chain(more_expected) {
            assert_eq!(permit[name], value, "{permit}");
        }
        assert_eq!((&kept["most"], &kept["on_disk"]), (&json!(10_000), &json!(true)));
        let seconds = |name: &str| {
            let at = humantime::parse_rfc3339(permit[name].as_str().unwrap()).unwrap();
            at.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
        };
        assert_eq!(seconds("until") - seconds("created"), 24 * 3600, "{permit}");

        // the greylist comes and goes by reloads, in the same file
        for more in ["[policy.reply_to]\nexists = \"reject\"", ""] {
            daemon.home().configure(&site.text(&format!("[admin]\ntoken = \"{TOKEN}\"\n{more}")));
            let log = daemon.reload().await;
            assert!(log.contains("serve: reloaded"), "{log}");
            site.accepted().await;
        }
        assert_eq!(made(&allow(daemon.home(), &["--domain", "a.test"])), 2);
        let home = daemon.terminate().await;
        let daemon = Daemon::spawn(home.serve(), home).await;
        site.accepted().await;
        assert_eq!(allow(daemon.home(), &["--remove", "1"]).code, Some(0));
        site.refused().await;
        let home = daemon.terminate().await;
        let daemon = Daemon::spawn(home.serve(), home).await;
        site.refused().await;
        assert_eq!(made(&allow(daemon.home(), &["--domain", "b.test"])), 3, "no number is given twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_shows_in_explain_check_log_history_metrics_and_status() {
    let site = Site::new();
    let daemon = site.start("[log]\nformat = \"json\"").await;
    let refused = site.refused().await;
    let before = run(daemon.home(), "explain", &[&refused]);
    assert!(!before.out.contains("permit"), "{before:?}");
    let run_json = allow(daemon.home(), &[&refused, "--for", "2h", "--json"]);
    let permit = run_json.json();
    crate::schema::assert_conforms("allow", &permit);
    assert_eq!((&permit["number"], &permit["on_disk"]), (&json!(1), &json!(true)));
    let until = permit["until"].as_str().unwrap().to_owned();
    let end = humantime::parse_rfc3339(&until).unwrap() + Duration::from_secs(5 * 3600 + 1800);
    let local = humantime::format_rfc3339_seconds(end).to_string();
    let local = local.trim_end_matches('Z').replace('T', " ");
    site.accepted().await;
    let log = daemon.settled("\"permit\":1,", 2).await;
    let event: Value = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .find(|event: &Value| event["target"] == "rmxd::decision" && event["permit"] == 1)
        .unwrap_or_else(|| panic!("{log}"));
    crate::schema::assert_conforms("log", &event);
    let accepted = event["id"].as_str().unwrap();
    let shown = run(daemon.home(), "explain", &[accepted]);
    assert!(shown.out.contains(&format!("permit:    let in by permit 1, until {local}.")), "{shown:?}");
    assert!(shown.out.contains("from: not looked at, a permit lets in the message\n"), "{shown:?}");
    let shown = run(daemon.home(), "explain", &[accepted, "--json"]).json();
    crate::schema::assert_conforms("explain", &shown);
    assert_eq!((&shown["permit"], &shown["permit_until"]), (&json!(1), &json!(until)));
    let history = run(daemon.home(), "history", &["--json"]).json();
    crate::schema::assert_conforms("history", &history);
    let numbers: Vec<&Value> = history.as_array().unwrap().iter().map(|record| &record["permit"]).collect();
    assert_eq!(numbers, [&json!(1), &Value::Null]);

    // the command reads the state file, the API has the daemon's permits
    let arguments =
        ["--client", "127.0.0.12", "--mail-from", SENDER, "--from", SENDER, "--helo", "mail.good.test"];
    let checked = run(daemon.home(), "check", &arguments);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.out.contains(&format!("permit:  let in by permit 1, until {local}.")), "{checked:?}");
    let target = format!("/api/v1/check?client=127.0.0.12&mail_from={SENDER}&from={SENDER}");
    assert_eq!(site.get(&target).await.json()["permit"], 1);
    let target = format!("/api/v1/check?client=127.0.9.11&mail_from={SENDER}&from={SENDER}");
    assert_eq!(site.get(&target).await.json()["verdict"], "reject");

    let metrics = site.get("/metrics").await;
    for line in ["rmxd_permits 1", "rmxd_exempt_total{by=\"permit\"} 1"] {
        assert!(metrics.text().lines().any(|found| found == line), "{line}: {}", metrics.text());
    }
    let status = run(daemon.home(), "status", &["--json"]).json();
    crate::schema::assert_conforms("status", &status);
    let expected = json!({ "count": 1, "on_disk": true, "next_end": until, "shared": null });
    assert_eq!(status["daemon"]["permits"], expected);
    let status = run(daemon.home(), "status", &[]);
    assert!(status.out.contains("permits     1 in effect; the next ends "), "{status:?}");
    let list = allow(daemon.home(), &["--list"]);
    let line = "1     mail of nomx.test from 127.0.0.0/24, until ";
    assert!(list.out.starts_with(line) && list.out.ends_with(&format!(" XYZ ({refused})\n")), "{list:?}");
    let removed = allow(daemon.home(), &["--remove", "1", "--json"]).json();
    crate::schema::assert_conforms("allow", &removed);
    assert_eq!(allow(daemon.home(), &["--list"]).out, "No permits are in effect.\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visible_sender_and_what_is_always_refused_are_refused_in_spite_of_a_permit() {
    let site = Site::new();
    let daemon = site.start("[limits]\nmessage = \"64KiB\"\n").await;
    made(&allow(daemon.home(), &["--domain", "nomx.test"]));
    let forged = site.send(Door::Smtp, BAD, SENDER, "a@bank-login.test").await;
    assert!(forged.starts_with("550 5.7.1 <a@bank-login.test>"), "{forged}");
    assert!(site.send(Door::Milter, BAD, SENDER, "a@bank-login.test").await.starts_with("550 5.7.1 "));
    made(&allow(daemon.home(), &["--client", "127.0.0.12"]));
    assert_eq!(site.send(Door::Smtp, BAD, SENDER, "a@bank-login.test").await, "");

    let mut client = Client::greeted(BAD, site.smtp, "mail.good.test").await;
    client
        .talk(&[
            ("MAIL FROM:<a b@nomx.test>", "501 "),
            ("MAIL FROM:<a@nomx.test> SIZE=1000000", "552 "),
            ("MAIL FROM:<a@nomx.test>", "250 "),
            ("RCPT TO:<user@elsewhere.test>", "550 5.7.1 "),
        ])
        .await;
    let received = "Received: from a by b; Sat, 28 Nov 2026 12:00:00 +0000\r\n".repeat(101);
    client.command("RSET").await;
    let looped = client.deliver(SENDER, USER, format!("{received}From: {SENDER}\r\n\r\n").as_bytes()).await;
    assert_eq!(looped.code, 554, "{}", looped.text);
    // the line ends of a permitted client are as of every client
    client
        .talk(&[("MAIL FROM:<a@nomx.test>", "250 "), ("RCPT TO:<user@here.test>", "250 "), ("DATA", "354 ")])
        .await;
    client.send(format!("From: {SENDER}\r\n\r\nbare\nnewline\r\n.\r\n")).await;
    assert_eq!(client.reply().await.code, 521);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_permits_are_the_most_and_are_looked_up_at_once() {
    let site = Site::new();
    let daemon = site.start("").await;
    made(&allow(daemon.home(), &["--client", "192.0.2.0/24", "--domain", "nomx.test"]));
    let home = daemon.terminate().await;
    let mut file = Connection::open(home.path().join("rmxd-state")).unwrap();
    let transaction = file.transaction().unwrap();
    for number in 2..=10_000 {
        let client = format!("10.{}.{}.0/24", number / 256, number % 256);
        let sql =
            "INSERT INTO permits (number, client, domain, note, created) VALUES (?1, ?2, 'nomx.test', '', 0)";
        transaction.execute(sql, params![number, client]).unwrap();
    }
    transaction.commit().unwrap();
    drop(file);
    let daemon = Daemon::spawn(home.serve(), home).await;
    let refused = site.refused().await;
    let run = allow(daemon.home(), &[&refused]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(
        run.err.starts_with("rmxd: 10000 permits are in effect, the most that there can be; remove one"),
        "{run:?}"
    );
    let answer = site.post(json!({ "client": "127.0.0.12" })).await;
    assert_eq!(answer.status, 409, "{answer:?}");
    assert_eq!(allow(daemon.home(), &["--list"]).out.lines().count(), 10_000);
    assert_eq!(allow(daemon.home(), &["--remove", "9999"]).code, Some(0));
    assert_eq!(made(&allow(daemon.home(), &[&refused])), 10_001);
    site.accepted().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_token_makes_and_removes_permits_and_nothing_stands_for_it() {
    let site = Site::new();
    let daemon = site.start("").await;
    let body = json!({ "client": "127.0.0.12" }).to_string();
    let post = || Request::new("POST", "/api/v1/permits").with_body("application/json", body.clone());
    let bearer = format!("Bearer {TOKEN}");
    let cookie = format!("token={TOKEN}; admin.token={TOKEN}; Authorization=Bearer {TOKEN}");
    let form = || {
        let form = Request::new("POST", "/api/v1/permits").with("authorization", &bearer);
        form.with_body("application/x-www-form-urlencoded", "client=127.0.0.12")
    };
    let rows = [
        ("no token", post(), 401),
        ("a cookie", post().with("cookie", &cookie), 401),
        ("an origin", post().with("origin", "http://127.0.0.1").with("cookie", &cookie), 401),
        ("a wrong token", post().with("authorization", "Bearer other"), 401),
        ("basic", post().with("authorization", &format!("Basic {TOKEN}")), 401),
        ("a form", form(), 415),
        ("a form as text", form().with("content-type", "text/plain"), 415),
        ("another site", post().with("authorization", &bearer).with("sec-fetch-site", "cross-site"), 403),
        ("a token in the query", Request::new("POST", &format!("/api/v1/permits?token={TOKEN}")), 401),
        ("preflight", Request::new("OPTIONS", "/api/v1/permits").with("origin", "http://evil.test"), 405),
        ("delete", Request::new("DELETE", "/api/v1/permits/1").with("cookie", &cookie), 401),
        ("put", Request::new("PUT", "/api/v1/permits").with("authorization", &bearer), 405),
    ];
    for (what, request, status) in rows {
        let answer = request.send(site.admin).await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{what}");
    }
    assert_eq!(site.permits().await["permits"], json!([]));
    assert_eq!(post().with("authorization", &bearer).send(site.admin).await.status, 201);
    let large = json!({ "client": "127.0.0.12", "note": "x".repeat(20_000) });
    assert_eq!(site.post(large).await.status, 413);
    let wrong = allow(daemon.home(), &["--client", "127.0.0.12", "--set", "admin.token=other"]);
    assert_eq!(wrong.code, Some(75), "{wrong:?}");
    assert!(wrong.err.contains("it has another admin.token than this configuration (401)"), "{wrong:?}");
    daemon.logged("a request to listen.admin has a wrong token").await;
    daemon.terminate().await;

    // no token is configured
    let site = Site::new();
    let daemon = Daemon::start(&site.text(""), &[]).await;
    let wanted = "set admin.token in the configuration, reload, and send Authorization: Bearer";
    for request in
        [post(), post().with("authorization", &bearer), Request::new("DELETE", "/api/v1/permits/1")]
    {
        let answer = request.send(site.admin).await;
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.text().contains(wanted), "{answer:?}");
    }
    assert_eq!(Request::get("/api/v1/permits").send(site.admin).await.status, 200);
    let run = allow(daemon.home(), &["--client", "127.0.0.12"]);
    assert_eq!(run.code, Some(78), "{run:?}");
    assert!(
        run.err.starts_with("rmxd: admin.token is empty, and permits are only made and removed with a token"),
        "{run:?}"
    );
    let list = allow(daemon.home(), &["--list"]);
    assert_eq!((list.code, list.out.as_str()), (Some(0), "No permits are in effect.\n"));
    site.refused().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_allowed_is_named_with_what_can_be_done() {
    let site = Site::new();
    let daemon = site.start("").await;
    assert_eq!(
        site.send(Door::Smtp, Ipv4Addr::new(127, 0, 0, 10).into(), "a@good.test", "a@good.test").await,
        ""
    );
    let accepted = daemon.logged("outcome=delivered").await;
    let (_, accepted) = accepted.split_once(" accepted id=").map(|(_, rest)| rest.split_at(0)).unwrap();
    let accepted = accepted.get(..8).unwrap().to_owned();
    let mut client = Client::greeted(BAD, site.smtp, "mail.good.test").await;
    let denied = client.deliver("a@good.test", "user@elsewhere.test", b"").await;
    let denied = id(&denied.text);
    client.command("RSET").await;
    let invalid = client.deliver("MAILER-DAEMON", USER, b"").await;
    let invalid = id(&invalid.text);
    client.command("RSET").await;
    client
        .talk(&[("MAIL FROM:<a@good.test>", "250 "), ("RCPT TO:<user@here.test>", "250 "), ("DATA", "354 ")])
        .await;
    client.send("From: a@good.test\r\n\r\nbare\nnewline\r\n.\r\n").await;
    let bare = id(&client.reply().await.text);
    let rows: &[(&[&str], i32, &str)] = &[
        (
            &[],
            64,
            "rmxd: what is to be let in? Give the ID of a refusal, or --client, --domain or --recipient;",
        ),
        (&["--for", "1h"], 64, "rmxd: what is to be let in? "),
        (&["4KXN7Q2M", "--client", "192.0.2.1"], 64, "error: the argument '[ID]' cannot be used with"),
        (
            &["4KXN7Q2M"],
            1,
            "rmxd: no decision 4KXN7Q2M is kept; say it by hand, with client, domain or recipient\n",
        ),
        (
            &["4KXN"],
            64,
            "rmxd: id: \"4KXN\" must be the eight letters and digits at the end of a reply, as in ",
        ),
        (&[&accepted], 1, " wasn't refused, so it needs no permit\n"),
        (
            &[&denied],
            1,
            " was refused for relaying_denied, which holds for every client: no permit changes that, see",
        ),
        (
            &[&bare],
            1,
            " was refused for bare_newline, and no permit changes that: exempt.clients does, for a client",
        ),
        (
            &[&invalid],
            1,
            " names no domain that a permit could be for; allow its client instead: client 127.0.0.0/24\n",
        ),
        (
            &["--client", "192.0.2.1/24"],
            64,
            "rmxd: client: \"192.0.2.1/24\" has bits set behind its prefix: \"192.",
        ),
        (&["--client", "mail.a.test"], 64, "rmxd: client: \"mail.a.test\" is not a network such as "),
        (&["--domain", "a..test"], 64, "rmxd: domain: \"a..test\" is not a domain such as \"example.com\""),
        (&["--recipient", "a b@c"], 64, "rmxd: recipient: \"a b@c\" is neither a local part such as "),
        (
            &["--domain", "a.test", "--for", "soon"],
            64,
            "rmxd: for: \"soon\" is not a time such as \"24h\" or \"7d\"",
        ),
        (
            &["--domain", "a.test", "--note", "a\nb"],
            64,
            "rmxd: note: allowed is one line of up to 200 characters\n",
        ),
        (&["--remove", "7"], 1, "rmxd: no permit \"7\" is in effect; GET /api/v1/permits lists all\n"),
        (&["--remove", "x"], 64, "error: invalid value 'x' for '--remove <NUMBER>'"),
    ];
    for (arguments, code, message) in rows {
        let run = allow(daemon.home(), arguments);
        assert_eq!((run.code, run.out.as_str()), (Some(*code), ""), "{arguments:?}: {run:?}");
        assert!(run.err.contains(message), "{arguments:?}: {run:?}");
    }
    for (body, what) in [
        (json!({}), "the body: says neither id, nor client, domain or recipient; at least one is needed"),
        (
            json!({ "id": accepted, "domain": "a.test" }),
            "id: stands alone; client, domain and recipient are the other",
        ),
        (json!({ "clients": "192.0.2.1" }), "the body: unknown field `clients`"),
        (
            json!([null, "192.0.2.1", null, null, null, null]),
            "the body: is an array; allowed is an object with id, or with client, domain, recipient; and with for and note",
        ),
        (json!("192.0.2.1"), "the body: is a string; allowed is an object"),
    ] {
        let answer = site.post(body).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(what) && !detail.contains("Wanted"), "{what}: {detail}");
    }
    let home = daemon.terminate().await;
    let run = allow(&home, &["--list"]);
    assert_eq!(run.code, Some(75), "{run:?}");
    assert!(run.err.contains("connection refused: it doesn't run"), "{run:?}");
    let run = allow(&home, &["--list", "--set", "listen.admin="]);
    assert_eq!(run.code, Some(78), "{run:?}");

    // without a history
    let daemon = Daemon::spawn(
        {
            let mut command = home.serve();
            command.args(["--set", "history.path="]);
            command
        },
        home,
    )
    .await;
    let refused = site.refused().await;
    let run = allow(daemon.home(), &[&refused]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.err.contains("history.path is empty, so no decisions are kept; say it by hand"), "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_of_the_header_and_one_without_a_domain_of_its_own_can_be_allowed_by_id() {
    let site = Site::new();
    let daemon =
        site.start("[policy.helo]\nexists = \"reject\"\n[policy.reply_to]\nexists = \"reject\"").await;
    let good: IpAddr = Ipv4Addr::new(127, 0, 0, 10).into();
    let send = async |helo: &str, sender: &str, header: &str| {
        let mut client = Client::greeted(good, site.smtp, helo).await;
        client.deliver(sender, USER, format!("{header}\r\n\r\nHello\r\n").as_bytes()).await.text
    };
    let (good_helo, good_from) = ("mail.good.test", "From: a@good.test");
    let rows = [
        (good_helo, "a@good.test", "From: a@bank-login.test".to_owned(), "from", "bank-login.test"),
        (
            good_helo,
            "a@good.test",
            format!("{good_from}\r\nReply-To: c@collect.test"),
            "reply_to",
            "collect.test",
        ),
        (good_helo, "a@good.test", "Subject: no sender".to_owned(), "mail_from", "good.test"),
        ("silly.test", "a@good.test", good_from.to_owned(), "helo", "good.test"),
        ("silly.test", "", good_from.to_owned(), "helo", "silly.test"),
    ];
    for (helo, sender, header, identity, domain) in rows {
        let refused = send(helo, sender, &header).await;
        assert!(refused.starts_with("550 "), "{domain}: {refused}");
        // what the page shows before
        let kept = site.get(&format!("/api/v1/decisions/{}", id(&refused))).await.json();
        let shown = kept["decisions"].get(0).unwrap_or(&kept)["permit_for"].clone();
        assert_eq!(shown, json!({ "identity": identity, "domain": domain }), "{kept}");
        let run = allow(daemon.home(), &[&id(&refused)]);
        let number = made(&run).to_string();
        let expected = match identity {
            "from" => format!("the From: domain {domain} from 127.0.0.0/24, and no other identity"),
            "reply_to" => format!("the Reply-To: domain {domain} from 127.0.0.0/24, and no other identity"),
            _ => format!("mail of {domain} from 127.0.0.0/24"),
        };
        assert!(run.out.contains(&expected), "{run:?}");
        assert_eq!(site.permits().await["permits"][0]["identity"], identity);
        // its domain in MAIL FROM is no way past From:
        let forged = send(good_helo, &format!("a@{domain}"), "From: a@nowhere.test").await;
        assert_eq!(
            forged.starts_with("250 "),
            !matches!(identity, "from" | "reply_to"),
            "{domain}: {forged}"
        );
        let after = send(helo, sender, &header).await;
        assert!(after.starts_with("250 "), "{domain}: {after}");
        assert_eq!(allow(daemon.home(), &["--remove", &number]).code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_for_a_recipient_says_that_mail_is_refused_before_it() {
    let site = Site::new();
    let mut daemon = site.start("[policy]\nreject_at = \"mail\"").await;
    let hint = "policy.reject_at is \"mail\": MAIL is refused before any recipient is known, so this permit can't let in a \
                sender that is refused there.\n";
    let run = allow(daemon.home(), &["--recipient", "user"]);
    made(&run);
    assert!(run.out.ends_with(hint), "{run:?}");
    site.refused().await;
    let json = allow(daemon.home(), &["--recipient", "user", "--json"]).json();
    crate::schema::assert_conforms("allow", &json);
    assert_eq!(json["hint"], hint.trim_end());
    let run = allow(daemon.home(), &["--client", "192.0.2.1"]);
    assert!(!run.out.contains("reject_at"), "{run:?}");

    // a note as it is
    made(&allow(daemon.home(), &["--client", "192.0.2.2", "--note", r"a \ b"]));
    let log = daemon.logged(" client=192.0.2.2/32").await;
    assert!(log.contains(r#" note="a \\ b""#), "{log}");
    daemon.home().configure(&site.text(&format!("[admin]\ntoken = \"{TOKEN}\"")));
    daemon.reload().await;
    let run = allow(daemon.home(), &["--recipient", "user"]);
    assert!(!run.out.contains("reject_at"), "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_may_be_written_permits_are_in_memory_and_the_answer_says_so() {
    let site = Site::new();
    let home = Home::with(&site.text(&format!("[admin]\ntoken = \"{TOKEN}\"")));
    let mut command = home.serve();
    // nobody, root included, makes a file there
    command.env("STATE_DIRECTORY", "/sys").args(["--set", "history.path="]);
    let daemon = Daemon::spawn(command, home).await;
    let run = allow(daemon.home(), &["--client", "127.0.0.12"]);
    assert_eq!(made(&run), 1);
    assert!(
        run.out.ends_with("It is kept in memory only: a restart of rmxd forgets it; the log says why.\n"),
        "{run:?}"
    );
    site.accepted().await;
    let log = daemon.logged("the permits can't be written").await;
    assert!(log.contains("/sys/rmxd-state: "), "{log}");
    assert_eq!(site.permits().await["on_disk"], false);
    let status = self::run(daemon.home(), "status", &[]);
    assert!(status.out.contains("in memory only"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_stops_the_start_with_a_reason() {
    let site = Site::new();
    let daemon = site.start("[policy.reply_to]\nexists = \"reject\"").await;
    made(&allow(daemon.home(), &["--client", "192.0.2.0/24"]));
    let home = daemon.terminate().await;
    let file = home.path().join("rmxd-state");
    let connection = Connection::open(&file).unwrap();
    connection.execute("UPDATE permits SET client = 'nowhere'", []).unwrap();
    drop(connection);
    let mut daemon = Daemon::launch(home.serve(), home);
    assert_eq!(daemon.ended(SOON).await.code(), Some(78));
    let log = daemon.log();
    assert!(
        log.contains("permits: ") && log.contains("/rmxd-state: can't be read (permit 1: is not a network"),
        "{log}"
    );
    assert!(log.contains("): move it away, and rmxd begins a new one"), "{log}");
}
