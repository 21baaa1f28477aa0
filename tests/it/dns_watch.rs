//! What the daemon says of its DNS servers, and how it does without them: a zone server that lies, falls silent and recovers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rmxd::zone::{Server, Zone};
use tokio::time::{Instant, sleep};

use crate::admin::http::Request;
use crate::support::client::Client;
use crate::support::daemon::{Daemon, configuration};
use crate::support::process::{SOON, free_address};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 29));
const TIMEOUT: Duration = Duration::from_secs(1);
/// Half of a time-out.
const AT_ONCE: Duration = Duration::from_millis(500);

async fn server(zone: Zone) -> Server {
    Server::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), zone).await.unwrap()
}

/// A daemon that asks this server, and its `listen.admin`.
async fn daemon(dns: &Server) -> (Daemon, SocketAddr) {
    let admin = free_address();
    let text = configuration("gate.test", &[free_address()], dns.address(), "");
    let set = ["--set", "dns.timeout=1s", "--set", &format!("listen.admin={admin}")];
    (Daemon::start(&text, &set).await, admin)
}

/// What a sender is answered whose domain nobody has asked for before, and after how long.
async fn verdict(address: SocketAddr, domain: &str) -> (u16, Duration) {
    let mut client = Client::greeted(CLIENT, address, "mail.good.test").await;
    client.command(&format!("MAIL FROM:<a@{domain}>")).await;
    let began = Instant::now();
    let reply = client.command("RCPT TO:<user@here.test>").await;
    (reply.code, began.elapsed())
}

fn lines<'a>(log: &'a str, what: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(what)).collect()
}

/// Waits until the daemon has looked at its server and has logged what it found: it is ready then.
async fn looked_at(admin: SocketAddr) {
    let began = Instant::now();
    loop {
        let ready = Request::get("/readyz").send(admin).await.json();
        if ready["dns"]["ok"] == true {
            return;
        }
        assert!(began.elapsed() < SOON, "{ready}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolver_that_answers_for_names_that_can_not_exist_is_warned_of_once_with_what_to_do() {
    let lies = "$TTL 300\n$ORIGIN invalid.\n@ SOA ns root 1 1 1 1 1\n@ NS ns\n* A 10.0.0.1\n";
    let dns = server(Zone::parse(lies, None).unwrap()).await;
    let (mut daemon, admin) = daemon(&dns).await;
    daemon.logged("answers for names that can't exist").await;
    let other =
        configuration("gate.test", &[daemon.address()], dns.address(), "[dns.cache]\nmemory = \"8MiB\"");
    daemon.home().configure(&other);
    daemon.reload().await;
    looked_at(admin).await;
    let log = daemon.whole_log().await;
    let told = lines(&log, " rmxd::dns: ");
    assert_eq!(told.len(), 1, "{log}");
    for part in [
        " WARN rmxd::dns: DNS server ",
        &dns.address().to_string(),
        ".invalid A -> 10.0.0.1): spoofed senders will pass; use a resolver of your own (unbound)",
    ] {
        assert!(told[0].contains(part), "{part}: {}", told[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_server_without_fault_nothing_is_said() {
    // one refuses what it doesn't serve, one says that there is nothing else, one knows the root
    let nothing = "$TTL 300\n$ORIGIN .\n@ SOA ns. root. 1 1 1 1 1\n@ NS ns.mine.test.\n";
    let root = "$TTL 300\n$ORIGIN .\n@ SOA ns. root. 1 1 1 1 1\n@ NS a.root-servers.net.\ncom TXT x\n";
    for zone in [Zone::sample(), Zone::parse(nothing, None).unwrap(), Zone::parse(root, None).unwrap()] {
        let dns = server(zone).await;
        let (daemon, admin) = daemon(&dns).await;
        looked_at(admin).await;
        let log = daemon.whole_log().await;
        assert!(!log.contains(" WARN ") && !log.contains(" rmxd::dns: "), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_dns_is_down_nobody_waits_for_it_and_when_it_is_up_again_mail_passes() {
    let dns = server(Zone::sample()).await;
    let (daemon, _admin) = daemon(&dns).await;
    let address = daemon.address();
    assert_eq!(verdict(address, "nowhere1.test").await.0, 550);
    dns.replace(Zone::parse(";! silent .\n", None).unwrap());
    let (code, took) = verdict(address, "nowhere2.test").await;
    assert_eq!(code, 451);
    assert!(took >= AT_ONCE, "the first waits: {took:?}");
    for number in 3..6 {
        verdict(address, &format!("nowhere{number}.test")).await;
    }
    daemon.logged(" WARN rmxd::dns: no DNS server answers").await;
    for number in 10..15 {
        let (code, took) = verdict(address, &format!("nowhere{number}.test")).await;
        assert_eq!(code, 451);
        assert!(took < AT_ONCE, "{number}: {took:?}");
    }
    assert_eq!(verdict(address, "nowhere1.test").await.0, 550, "what is known still counts");

    dns.replace(Zone::sample());
    daemon.logged(" INFO rmxd::dns: DNS answers again").await;
    let (code, took) = verdict(address, "nowhere20.test").await;
    assert_eq!(code, 550);
    assert!(took < TIMEOUT, "{took:?}");
    let log = daemon.whole_log().await;
    assert_eq!(lines(&log, " WARN rmxd::dns: ").len(), 1, "{log}");
    assert_eq!(lines(&log, " INFO rmxd::dns: DNS answers again").len(), 1, "{log}");
}
