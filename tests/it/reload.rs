//! SIGHUP: new connections see the new configuration, open ones end as they began, a broken one changes nothing, and
//! no message is lost or doubled, however often and whatever the load.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::interop::mail;
use crate::support::client::Client;
use crate::support::daemon::{Daemon, Home, configuration};
use crate::support::process::{SOON, eventually, free_address, refused};
use crate::support::zone::Zone;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SENDER: &str = "a@good.test";

#[tokio::test(flavor = "multi_thread")]
async fn new_connections_see_the_new_settings_and_open_ones_end_as_they_began() {
    let (zone, address) = (Zone::start(), free_address());
    let two = |relay: &str| format!("[limits]\nconnections_per_client = 2\n[relay]\ndomains = [\"{relay}\"]");
    let text = configuration("old.test", &[address], zone.address(), &two("old.test"));
    let mut daemon = Daemon::start(&text, &[]).await;
    let mut old = Client::greeted(CLIENT, address, "mail.good.test").await;
    assert_eq!(old.command(&format!("MAIL FROM:<{SENDER}>")).await.code, 250);

    daemon.home().configure(&configuration("new.test", &[address], zone.address(), &two("new.test")));
    let log = daemon.reload().await;
    assert!(log.contains("reloaded hostname=new.test"), "{log}");
    let mut new = Client::connect(CLIENT, address).await;
    assert!(new.reply().await.text.starts_with("220 new.test "));
    let mut third = Client::connect(CLIENT, address).await;
    assert_eq!(third.reply().await.code, 421, "connections from before the reload count");

    new.command("EHLO mail.good.test").await;
    new.command(&format!("MAIL FROM:<{SENDER}>")).await;
    for (client, other, own) in [(&mut old, "new.test", "old.test"), (&mut new, "old.test", "new.test")] {
        for (domain, code) in [(other, 550), (own, 250)] {
            let reply = client.command(&format!("RCPT TO:<user@{domain}>")).await;
            assert_eq!(reply.code, code, "{domain}: {}", reply.text);
        }
    }
    for client in [&mut old, &mut new] {
        assert_eq!(client.command("DATA").await.code, 354);
        client.send(b"From: a@good.test\r\n\r\n.\r\n").await;
        assert_eq!(client.reply().await.code, 250);
    }
    assert!(old.command("NOOP").await.text.starts_with("250 "));
    let mut by: Vec<String> = daemon.terminate().await.messages().iter().map(|stored| by(stored)).collect();
    by.sort();
    assert_eq!(by, ["new.test", "old.test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_had_is_said_and_changes_nothing() {
    let (zone, address) = (Zone::start(), free_address());
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let text =
        |name: &str, listen: &[SocketAddr], more: &str| configuration(name, listen, zone.address(), more);
    let mut daemon = Daemon::start(&text("old.test", &[address], ""), &[]).await;
    let free = free_address();
    let rows: [(String, Vec<String>); 6] = [
        ("hostname = [".into(), vec!["ERROR rmxd::cli::serve: FILE:1:13: ".into()]),
        (
            text("new.test", &[address], "[limits]\nerrors = 0\nerors = 1"),
            vec![
                "ERROR rmxd::cli::serve: FILE:15:1: limits.errors: ".into(),
                "ERROR rmxd::cli::serve: FILE:16:1: limits.erors: no such key".into(),
            ],
        ),
        (
            text("new.test", &[free, address, taken.1], ""),
            vec![format!("ERROR rmxd::cli::serve: listen.smtp: {}: Address already in use", taken.1)],
        ),
        (text("new.test", &[], ""), vec!["ERROR rmxd::cli::serve: listen.smtp is empty".into()]),
        (
            text("new.test", &[address], "[relay]\nnext_hop = \"maildir:rmxd.toml\""),
            vec!["ERROR rmxd::cli::serve: relay.next_hop: ".into()],
        ),
        (text("old.test", &[address], ""), vec![" INFO rmxd::cli::serve: reloaded hostname=old.test".into()]),
    ];
    let file = daemon.home().file().display().to_string();
    let last = rows.len() - 1;
    for (at, (text, expected)) in rows.into_iter().enumerate() {
        daemon.home().configure(&text);
        let log = daemon.reload().await.replace(&file, "FILE");
        for expected in &expected {
            assert!(log.contains(expected), "{expected}: {log}");
        }
        assert_eq!(log.contains("ERROR rmxd::cli::serve: not reloaded, "), at < last, "{log}");
        assert!(TcpStream::connect(free).await.is_err(), "{expected:?}: half of it was taken on");
        let greeting = Client::connect(CLIENT, address).await.reply().await;
        assert!(greeting.text.starts_with("220 old.test "), "{expected:?}: {}", greeting.text);
    }
    std::fs::remove_file(daemon.home().file()).unwrap();
    let log = daemon.reload().await;
    assert!(log.contains("can't be read: No such file"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_come_and_go_and_the_log_level_changes() {
    let zone = Zone::start();
    let (first, second) = (free_address(), free_address());
    let text = |listen: &[SocketAddr], level: &str| {
        configuration("gate.test", listen, zone.address(), &format!("[log]\nlevel = \"{level}\""))
    };
    let mut daemon = Daemon::start(&text(&[first], "info"), &[]).await;
    let mut open = Client::greeted(CLIENT, first, "open.test").await;

    daemon.home().configure(&text(&[first, second], "info"));
    let log = daemon.reload().await;
    assert!(log.contains(&format!(": listening address={second}\n")), "{log}");
    for address in [first, second] {
        Client::greeted(CLIENT, address, "a.test").await;
    }
    daemon.home().configure(&text(&[second], "error"));
    daemon.signal("HUP");
    daemon.logged(&format!("not listening any more address={first}")).await;
    refused(first).await;
    assert_eq!(open.command("NOOP").await.code, 250);
    Client::greeted(CLIENT, second, "a.test").await;

    // at level error a reload is silent; to listen again on the first address shows that it is over
    daemon.home().configure(&text(&[first], "error"));
    daemon.signal("HUP");
    refused(second).await;
    Client::greeted(CLIENT, first, "a.test").await;
    // an error comes behind all that was logged before
    daemon.home().configure("broken");
    daemon.reload().await;
    assert!(!daemon.log().contains(&format!("not listening any more address={second}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_at_an_address_that_is_given_up_is_served_still() {
    const WAITING: usize = 500;
    let zone = Zone::start();
    let (given_up, kept) = (free_address(), free_address());
    let text = |listen: &[SocketAddr]| {
        configuration("gate.test", listen, zone.address(), "[limits]\nconnections_per_client = 1000")
    };
    let daemon = Daemon::start(&text(&[given_up, kept]), &[]).await;
    daemon.home().configure(&text(&[kept]));
    daemon.signal("STOP");
    let mut waiting = Vec::new();
    for _ in 0..WAITING {
        waiting.push(Client::connect(CLIENT, given_up).await);
    }
    daemon.signal("HUP");
    daemon.signal("CONT");
    for client in &mut waiting {
        assert_eq!(client.reply().await.code, 220);
    }
    refused(given_up).await;
    for mut client in waiting {
        assert_eq!(client.command("QUIT").await.code, 221);
    }
    daemon.terminate().await;
}

/// Connections at one time, each of an address of its own.
const SENDERS: u8 = 6;
const RELOADS: usize = 100;
/// Messages of one connection.
const EACH: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_or_doubled_over_a_hundred_reloads_under_load() {
    let zone = Zone::start();
    let (address, other) = (free_address(), free_address());
    let text = |number: usize| {
        // every setting of a kind of its own: relay, DNS, limits, listeners
        let listen = if number.is_multiple_of(3) { vec![address, other] } else { vec![address] };
        let more =
            format!("[limits]\nerrors = {}\n[dns.cache]\nmemory = \"{}MiB\"", 5 + number % 7, 8 + number % 2);
        configuration(&format!("gate{number}.test"), &listen, zone.address(), &more)
    };
    let mut daemon = Daemon::start(&text(0), &[]).await;
    let load = Arc::new(Load { address, numbers: AtomicUsize::new(0), ending: CancellationToken::new() });
    let mut senders = JoinSet::new();
    for number in 1..=SENDERS {
        senders.spawn(Arc::clone(&load).send_until_the_end(IpAddr::V4(Ipv4Addr::new(127, 0, 60, number))));
    }

    for number in 1..=RELOADS {
        let broken = number.is_multiple_of(10);
        daemon.home().configure(&if broken {
            format!("{}\nnonsense = 1\n", text(number))
        } else {
            text(number)
        });
        let log = daemon.reload().await;
        assert_eq!(log.contains("nonsense: no such key"), broken, "{log}");
        assert_eq!(log.contains(&format!("reloaded hostname=gate{number}.test")), !broken, "{log}");
    }
    // and on each connection once more after the last
    let later = load.numbers.load(Ordering::Relaxed) + EACH * usize::from(SENDERS);
    let more = || (load.numbers.load(Ordering::Relaxed) >= later).then_some(());
    eventually("mail after the last reload", SOON, more).await;
    load.ending.cancel();
    let home = daemon.terminate().await;
    let mut acknowledged = BTreeMap::new();
    while let Some(sent) = senders.join_next().await {
        acknowledged.extend(sent.expect("no connection was dropped"));
    }
    let hosts: BTreeSet<&String> = acknowledged.values().collect();
    eprintln!(
        "{} messages by {} configurations, {} given",
        acknowledged.len(),
        hosts.len(),
        load.numbers.load(Ordering::Relaxed)
    );
    assert!(hosts.len() > RELOADS / 4, "too little load to show anything: {hosts:?}");
    assert_arrived_once(&home, &acknowledged);
}

/// Every message that was acknowledged is there once, by the configuration that its connection began with; of the
/// others, none is there twice.
fn assert_arrived_once(home: &Home, acknowledged: &BTreeMap<usize, String>) {
    let mut stored: HashMap<usize, String> = HashMap::new();
    for message in home.messages() {
        let number = number(&message);
        mail::assert_arrived(&message, &sent(number), &format!("message {number}"));
        assert!(stored.insert(number, by(&message)).is_none(), "message {number} arrived twice");
    }
    for (number, host) in acknowledged {
        assert_eq!(stored.get(number), Some(host), "message {number}, which got 250");
    }
}

struct Load {
    address: SocketAddr,
    numbers: AtomicUsize,
    /// SIGTERM is about to be sent.
    ending: CancellationToken,
}

impl Load {
    /// Sends messages over one connection after the other, until the daemon says that it ends. Gives the numbers of
    /// those that were acknowledged, each with the host that greeted.
    async fn send_until_the_end(self: Arc<Self>, from: IpAddr) -> Vec<(usize, String)> {
        let mut acknowledged = Vec::new();
        while let Some((mut client, host)) = self.connect(from).await {
            for _ in 0..EACH {
                let number = self.numbers.fetch_add(1, Ordering::Relaxed);
                let reply = client.deliver(SENDER, "user@relay.test", &sent(number)).await;
                match reply.code {
                    250 => acknowledged.push((number, host.clone())),
                    421 if self.ending.is_cancelled() => return acknowledged,
                    _ => panic!("message {number}: {}", reply.text),
                }
            }
            let quit = client.command("QUIT").await;
            assert!(quit.code == 221 || quit.code == 421 && self.ending.is_cancelled(), "{}", quit.text);
        }
        acknowledged
    }

    /// A connection, greeted, and who greeted; `None` when the daemon ends.
    async fn connect(&self, from: IpAddr) -> Option<(Client, String)> {
        let ended = |why: String| {
            assert!(self.ending.is_cancelled(), "{why}");
            None
        };
        let mut client = match Client::try_connect(from, self.address).await {
            Ok(client) => client,
            Err(error) => return ended(error.to_string()),
        };
        let greeting = match client.reply_or_end().await {
            Ok(greeting) => greeting.text,
            Err(so_far) => return ended(format!("greeting {so_far:?}")),
        };
        let Some(host) = greeting.strip_prefix("220 ").and_then(|rest| rest.split(' ').next()) else {
            return ended(greeting);
        };
        let hello = client.command("EHLO mail.good.test").await;
        if hello.code != 250 {
            return ended(hello.text);
        }
        Some((client, host.to_owned()))
    }
}

/// Of mixed sizes, some larger than a read.
fn sent(number: usize) -> Vec<u8> {
    mail::message(number, if number.is_multiple_of(50) { 200_000 } else { number * 31 % 5_000 })
}

fn number(stored: &[u8]) -> usize {
    let text = String::from_utf8_lossy(stored);
    let line = text.lines().find_map(|line| line.strip_prefix("Subject: number ")).expect("Subject");
    line.parse().expect("a number")
}

/// The host that the first Received field names as the receiver.
fn by(stored: &[u8]) -> String {
    let text = String::from_utf8_lossy(stored);
    let (_, rest) = text.split_once("by ").expect("by");
    rest.split_whitespace().next().unwrap().to_owned()
}
