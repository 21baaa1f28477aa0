//! `rmxd tail` beside real daemons: decisions as they come, its filters, a restart, a reader that leaves.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rmxd::zone::{self, Zone};
use serde_json::Value;
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::daemon::{Daemon, Home, configuration};
use crate::support::process::{self, Run, SOON, free_address, rmxd};

const GOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const BAD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 12));
/// From a reply to its line.
const PROMPT: Duration = Duration::from_secs(2);

struct Site {
    daemon: Daemon,
    smtp: SocketAddr,
    _zone: zone::Server,
}

impl Site {
    async fn start(more: &str) -> Self {
        let zone =
            zone::Server::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Zone::sample()).await.unwrap();
        let (admin, smtp) = (free_address(), free_address());
        let more = format!("[relay]\ndomains = [\"here.test\"]\n{more}");
        let text = configuration("gate.test", &[smtp], zone.address(), &more);
        let text = text.replace("admin = \"\"", &format!("admin = \"{admin}\""));
        let text = text.replace("path = \"\"", "path = \"decisions\"");
        Self { daemon: Daemon::start(&text, &[]).await, smtp, _zone: zone }
    }

    /// The code of the last reply.
    async fn deliver(&self, from: IpAddr, sender: &str) -> u16 {
        let mut client = Client::greeted(from, self.smtp, "mail.good.test").await;
        client.deliver(sender, "user@here.test", b"From: a@good.test\r\n\r\nHello\r\n").await.code
    }

    fn tail(&self, arguments: &[&str]) -> Tail {
        Tail::start(self.daemon.home(), arguments)
    }
}

/// A running `rmxd tail`. Dropping it kills it.
struct Tail {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Tail {
    fn start(home: &Home, arguments: &[&str]) -> Self {
        let mut command = rmxd(&["tail", "--config"]);
        command.arg(home.file()).args(arguments).env("TZ", "XYZ-5:30");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, out, err }
    }

    /// The next line, which must come in time.
    fn next(&self, time: Duration) -> String {
        self.out.recv_timeout(time).unwrap_or_else(|error| panic!("no line within {time:?}: {error}"))
    }

    fn complaint(&self) -> String {
        self.err.recv_timeout(SOON).expect("a line on standard error")
    }

    fn assert_nothing_more(&self) {
        let more = self.out.recv_timeout(Duration::from_millis(2_500));
        assert_eq!(more, Err(RecvTimeoutError::Timeout));
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_come_as_they_are_made_behind_the_last_ones() {
    let site = Site::start("").await;
    for number in 0..4 {
        assert_eq!(site.deliver(BAD, &format!("a{number}@nomx.test")).await, 550);
    }
    let tail = site.tail(&["-n", "2"]);
    assert_eq!(tail.complaint(), "times in XYZ, UTC+05:30");
    for number in [2, 3] {
        let line = tail.next(SOON);
        assert!(line.contains(&format!(" <a{number}@nomx.test> -> user@here.test no_mx ")), "{line}");
    }
    let told = site.deliver(BAD, "new@nomx.test").await;
    let since = Instant::now();
    let line = tail.next(PROMPT);
    assert!(since.elapsed() < PROMPT);
    assert_eq!(told, 550);
    assert!(
        line.contains(" reject refused ") && line.contains(" smtp   127.0.0.12 <new@nomx.test> "),
        "{line}"
    );
    assert!(line.ends_with("no_mx (mail_from exists nomx.test)"), "{line}");
    // the clock of the zone
    let mut clock = line.split([':', ' ']).map(|part| part.parse::<u64>().unwrap_or_default());
    let (hour, minute) = (clock.next().unwrap(), clock.next().unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 60;
    let late = (now + 330 + 1440 - (hour * 60 + minute)) % 1440;
    assert!(late < 3, "{line}");
    assert_eq!(site.deliver(GOOD, "a@good.test").await, 250);
    assert!(tail.next(PROMPT).contains(" accept delivered "));
    tail.assert_nothing_more();
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_json() {
    let site = Site::start("").await;
    let tails: Vec<Tail> = [
        ["--verdict", "accept", "--json"].as_slice(),
        &["--domain", "nomx.test", "--json"],
        &["--outcome", "delivered", "--json"],
        &["--door", "policy", "--json"],
    ]
    .into_iter()
    .map(|arguments| site.tail(arguments))
    .collect();
    assert_eq!(site.deliver(BAD, "before@nomx.test").await, 550);
    let none = site.tail(&["-n", "0"]);
    none.complaint();
    for (from, sender, code) in [(BAD, "a@nomx.test", 550), (GOOD, "a@good.test", 250)] {
        assert_eq!(site.deliver(from, sender).await, code);
    }
    let sender = |tail: &Tail| {
        let record: Value = serde_json::from_str(&tail.next(SOON)).unwrap();
        assert!(record["at"].as_str().unwrap().ends_with('Z'), "{record}");
        record["mail_from"].as_str().unwrap().to_owned()
    };
    let (good, bad, before) = ("<a@good.test>", "<a@nomx.test>", "<before@nomx.test>");
    for sender in [bad, good] {
        assert!(none.next(SOON).contains(sender));
    }
    for (tail, expected) in tails.iter().zip([[good].as_slice(), &[before, bad], &[good], &[]]) {
        let found: Vec<String> = expected.iter().map(|_| sender(tail)).collect();
        assert_eq!(found, expected);
    }
    // the slowest of them has been asked for longer than the others
    tails.iter().for_each(|tail| assert_eq!(tail.out.try_recv().ok(), None));
    for (arguments, allowed) in [
        (["--verdict", "maybe"], "[possible values: accept, defer, reject]"),
        (["--door", "lmtp"], "[possible values: smtp, milter, policy]"),
        (["--outcome", "lost"], "[possible values: delivered, refused, relay_refused, "),
        (["--domain", "a b"], "rmxd: --domain: \"a b\" is not a domain name"),
    ] {
        let mut command = rmxd(&["tail", "--config"]);
        let run = Run::of(command.arg(site.daemon.home().file()).args(arguments));
        assert_eq!(run.code, Some(64), "{run:?}");
        assert!(run.err.contains(allowed), "{run:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_told_once_and_costs_no_line() {
    let site = Site::start("").await;
    assert_eq!(site.deliver(BAD, "a@nomx.test").await, 550);
    let tail = site.tail(&[]);
    assert!(tail.next(SOON).contains("<a@nomx.test>"));
    tail.complaint();
    let Site { daemon, smtp, _zone } = site;
    let home = daemon.terminate().await;
    let away = tail.complaint();
    assert!(away.starts_with("rmxd: no answer of the daemon at 127.0.0.1:"), "{away}");
    assert!(away.ends_with(": connection refused: it doesn't run; waiting for it"), "{away}");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let site = Site { daemon: Daemon::spawn(home.serve(), home).await, smtp, _zone };
    assert_eq!(site.deliver(BAD, "b@nomx.test").await, 550);
    assert_eq!(tail.complaint(), "rmxd: the daemon answers again");
    assert!(tail.next(SOON).contains("<b@nomx.test>"), "not the first again");
    tail.assert_nothing_more();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_its_reader_and_with_a_signal() {
    let site = Site::start("").await;
    assert_eq!(site.deliver(BAD, "a@nomx.test").await, 550);
    let mut command = rmxd(&["tail", "--config"]);
    command.arg(site.daemon.home().file()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains("<a@nomx.test>"), "{line}");
    // nothing comes any more, so that no write fails
    drop(out);
    assert!(process::ended(&mut child, SOON).await.success());

    let mut tail = site.tail(&[]);
    tail.next(SOON);
    process::signal(tail.child.id(), "INT");
    assert!(!process::ended(&mut tail.child, SOON).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_or_a_history_it_ends_and_says_why() {
    let site = Site::start("").await;
    let admin = free_address();
    let run = |arguments: &[&str]| {
        let mut command = rmxd(&["tail", "--config"]);
        Run::of(command.arg(site.daemon.home().file()).args(arguments))
    };
    let refused = run(&["--set", &format!("listen.admin={admin}")]);
    assert_eq!(refused.code, Some(75), "{refused:?}");
    assert!(refused.err.ends_with("(listen.admin): connection refused: it doesn't run\n"), "{refused:?}");
    let nowhere = run(&["--set", "listen.admin="]);
    assert_eq!(nowhere.code, Some(78), "{nowhere:?}");

    let home = site.daemon.terminate().await;
    let text = std::fs::read_to_string(home.file()).unwrap();
    home.configure(&text.replace("path = \"decisions\"", "path = \"\""));
    let daemon = Daemon::spawn(home.serve(), home).await;
    let mut command = rmxd(&["tail", "--config"]);
    let run = Run::of(command.arg(daemon.home().file()));
    assert_eq!(run.code, Some(78), "{run:?}");
    assert_eq!(run.err, "rmxd: history.path is empty, so no decisions are kept\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stands_still_costs_the_daemon_no_memory_and_no_mail() {
    let site = Site::start("").await;
    let mut command = rmxd(&["tail", "--json", "--config"]);
    command.arg(site.daemon.home().file()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let deliver = async |count: u32| {
        for number in 0..count {
            assert_eq!(site.deliver(BAD, &format!("{number}@nomx.test")).await, 550);
        }
    };
    deliver(200).await;
    // until it has asked for them, and its pipe is full
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let before = site.daemon.memory();
    deliver(400).await;
    let after = site.daemon.memory();
    assert!(after < before + (16 << 10), "{before} KiB, then {after} KiB");
    child.kill().unwrap();
    child.wait().unwrap();
}
