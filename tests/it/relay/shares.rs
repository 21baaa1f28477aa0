//! The connections to the relay as `rmxd serve` shares them out: among clients, and over a reload.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use super::faulty::{Fault, Relay};
use crate::interop::mail;
use crate::support::client::Client;
use crate::support::daemon::{Daemon, configuration};
use crate::support::process::{self, SOON, free_address};
use crate::support::zone::Zone;

const SLOW: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 40));
const THIRD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 41));

fn text(listen: SocketAddr, zone: &Zone, relay: &Relay, most: usize, wait: &str) -> String {
    let relay = format!(
        "[relay]\nnext_hop = \"smtp://{}\"\ndomains = [\"here.test\"]\nmax_connections = {most}\n\
         connect_timeout = \"{wait}\"\n",
        relay.address
    );
    configuration("gate.test", &[listen], zone.address(), &relay)
}

/// A session amid a message of which nothing more comes; or the reply to RCPT, when it gets no further.
async fn stall(from: IpAddr, address: SocketAddr) -> Result<Client, String> {
    let mut client = Client::greeted(from, address, "mail.good.test").await;
    assert_eq!(client.command("MAIL FROM:<a@good.test>").await.code, 250);
    let reply = client.command("RCPT TO:<user@here.test>").await;
    if reply.code != 250 {
        return Err(reply.text);
    }
    assert_eq!(client.command("DATA").await.code, 354);
    client.send(b"From: a@good.test\r\n\r\nand then").await;
    Ok(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_client_with_many_slow_transactions_anothers_mail_goes_through_at_once() {
    const PATIENCE: Duration = Duration::from_secs(5);
    let (zone, address, relay) = (Zone::start(), free_address(), Relay::start(Fault::None, true).await);
    let _daemon = Daemon::start(&text(address, &zone, &relay, 10, "5s"), &[]).await;
    let begun: Vec<_> = (0..20).map(|_| tokio::spawn(stall(SLOW, address))).collect();
    // five and the probe's
    let share = || (relay.connections() == 6).then_some(());
    process::eventually("as many connections as one client gets", SOON, share).await;

    let mut other = Client::greeted(OTHER, address, "mail.good.test").await;
    for number in 0..3 {
        let began = Instant::now();
        let reply = other.deliver("a@good.test", "user@here.test", &mail::message(number, 1000)).await;
        assert_eq!(reply.code, 250, "{}", reply.text);
        assert!(began.elapsed() < PATIENCE, "{:?}: it stood in line", began.elapsed());
    }
    let (mut slow, mut refused) = (Vec::new(), 0);
    for session in begun {
        match session.await.unwrap() {
            Ok(client) => slow.push(client),
            Err(reply) => {
                assert!(reply.starts_with("451 4.3.2 "), "{reply}");
                refused += 1;
            }
        }
    }
    assert_eq!((slow.len(), refused), (5, 15), "half of ten is one client's share");
    assert_eq!(relay.accepted().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_reload_what_old_sessions_hold_counts_against_the_new_limit() {
    let (zone, address, relay) = (Zone::start(), free_address(), Relay::start(Fault::None, true).await);
    // so that none is taken back
    let at_any_rate = "limits.data_rate=1B";
    let mut daemon = Daemon::start(&text(address, &zone, &relay, 4, "1s"), &["--set", at_any_rate]).await;
    let old = (stall(SLOW, address).await.unwrap(), stall(OTHER, address).await.unwrap());

    daemon.home().configure(&text(address, &zone, &relay, 3, "900ms"));
    daemon.reload().await;
    let new = stall(THIRD, address).await.unwrap();
    let busy = stall(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 42)), address).await.err();
    assert!(busy.as_ref().is_some_and(|reply| reply.starts_with("451 4.3.2 ")), "{busy:?}");

    // another relay: what is held of the first one is not its business
    let another = Relay::start(Fault::None, true).await;
    daemon.home().configure(&text(address, &zone, &another, 3, "1s"));
    daemon.reload().await;
    let others = (stall(SLOW, address).await.unwrap(), stall(OTHER, address).await.unwrap());
    assert_eq!(another.connections(), 3, "one was the probe's");
    drop((old, new, others));
}

/// Where a client that never goes on holds its connection to the relay.
#[derive(Debug, Clone, Copy)]
enum Stuck {
    Recipient,
    Header,
    Body,
    Chunk,
}

/// A client that holds a connection to the relay and sends an octet now and then; its last reply.
async fn dribble(from: IpAddr, address: SocketAddr, at: Stuck) -> String {
    let mut client = Client::greeted(from, address, "mail.good.test").await;
    for line in ["MAIL FROM:<a@good.test>", "RCPT TO:<user@here.test>"] {
        let reply = client.command(line).await;
        if reply.code != 250 {
            return reply.text;
        }
    }
    match at {
        Stuck::Recipient => {}
        Stuck::Header => {
            assert_eq!(client.command("DATA").await.code, 354);
            client.send(b"From: a@good").await;
        }
        Stuck::Body => {
            assert_eq!(client.command("DATA").await.code, 354);
            client.send(b"From: a@good.test\r\n\r\nand then ").await;
        }
        Stuck::Chunk => {
            client.send(b"BDAT 24\r\nFrom: a@good.test\r\n\r\nx\r\n").await;
            assert_eq!(client.reply().await.code, 250);
        }
    }
    loop {
        tokio::select! {
            reply = client.reply() => return reply.text,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        if !matches!(at, Stuck::Chunk) {
            client.send(b"x").await;
        }
    }
}

/// The bar of the issue: a hundred clients of a hundred networks have all connections to the relay and come again at once
/// when they lose one.
#[tokio::test(flavor = "multi_thread")]
async fn a_newcomers_mail_is_through_in_five_seconds_beside_a_hundred_slow_clients() {
    let (zone, address, relay) = (Zone::start(), free_address(), Relay::start(Fault::None, true).await);
    let daemon = Daemon::start(&text(address, &zone, &relay, 100, "10s"), &[]).await;
    let slow: Vec<_> = (0..100_u8)
        .map(|number| {
            let from = IpAddr::V4(Ipv4Addr::new(127, 7, number, 1));
            let at = [Stuck::Recipient, Stuck::Header, Stuck::Body, Stuck::Chunk][usize::from(number) % 4];
            tokio::spawn(async move {
                loop {
                    let last = dribble(from, address, at).await;
                    assert!(last.starts_with("421 4.4.2 ") || last.starts_with("451 4.3.2 "), "{last}");
                }
            })
        })
        .collect();
    let all = || (relay.connections() >= 101).then_some(());
    process::eventually("all connections in use", SOON, all).await;
    for number in 0..5 {
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10 + number));
        let began = Instant::now();
        let mut client = Client::greeted(from, address, "mail.good.test").await;
        let reply =
            client.deliver("a@good.test", "user@here.test", &mail::message(number.into(), 1000)).await;
        assert_eq!(reply.code, 250, "{}", reply.text);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        println!("newcomer {number}: {:?}", began.elapsed());
    }
    assert_eq!((relay.accepted().len(), relay.dots()), (5, 5), "no dot of one that was ended");
    for client in &slow {
        assert!(!client.is_finished(), "its last reply was another");
        client.abort();
    }
    let slow = "too slow while others wait for the relay";
    let log = daemon.logged(slow).await;
    let line = log.lines().find(|line| line.contains(slow)).expect("a line");
    assert!(line.contains("client=127.7.") && line.contains("octets a second"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_is_ended_only_when_another_waits_and_the_relay_gets_no_dot() {
    let (zone, address) = (Zone::start(), free_address());
    let relay = Relay::start(Fault::None, true).await;
    let _daemon = Daemon::start(&text(address, &zone, &relay, 1, "3s"), &[]).await;
    let slow = tokio::spawn(dribble(SLOW, address, Stuck::Body));
    let held = || (relay.connections() >= 2).then_some(());
    process::eventually("the connection in use", SOON, held).await;
    // alone it may take its time, longer than another waits for a connection
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!slow.is_finished());
    let mut other = Client::greeted(OTHER, address, "mail.good.test").await;
    let reply = other.deliver("a@good.test", "user@here.test", &mail::message(1, 1000)).await;
    assert_eq!(reply.code, 250, "{}", reply.text);
    let last = slow.await.unwrap();
    let expected = "421 4.4.2 gate.test data came too slowly while others wait, closing connection (id ";
    assert!(last.starts_with(expected), "{last}");
    assert_eq!(relay.dots(), 1);
}
