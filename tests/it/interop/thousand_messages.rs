//! A thousand messages over fifty connections, from nothing at all to 20 MiB: each arrives once and unchanged, and
//! rmxd's memory stays small.
//!
//! About 130 MiB in total, most of it in few messages. Each has its own recipient tag, so that even one without any
//! octet is known again.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::gate;
use super::mail;
use super::postfix::Postfix;
use crate::support::client::Client;
use crate::support::zone::Zone;

const MESSAGES: usize = 1_000;
const CONNECTIONS: usize = 50;
const MIB: usize = 1 << 20;
/// For all of them, there and through Postfix's queue.
const LIMIT: Duration = Duration::from_secs(300);
/// Resident, in KiB.
const MEMORY: u64 = 64 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_over_fifty_connections_all_arrive_unchanged_in_64_mib() {
    let Some(postfix) = Postfix::start() else { return };
    let zone = Zone::start();
    // a message without any octet has no From: either
    let gate = gate::start(&zone, &postfix, "[policy]\nmalformed = \"tag\"").await;

    timeout(LIMIT, send_all(gate.address())).await.expect("sent in time");
    let files = postfix.wait_for_messages("user", MESSAGES, LIMIT).await;
    let mut seen = HashSet::new();
    for file in files {
        let stored = fs::read(file).unwrap();
        let number = number_of(&stored);
        assert!(seen.insert(number), "message {number} arrived twice");
        mail::assert_arrived(&stored, &message(number), &format!("message {number}"));
    }
    postfix.wait_for_empty_queue().await;
    assert_eq!((seen.len(), postfix.mailbox("user").len()), (MESSAGES, MESSAGES));
    let peak = gate.peak_memory();
    eprintln!("rmxd's peak of resident memory: {peak} KiB");
    assert!(peak < MEMORY, "rmxd took {peak} KiB");
    gate.terminate().await;
}

/// The messages, dealt out to the connections like cards.
async fn send_all(address: SocketAddr) {
    let mut connections = JoinSet::new();
    for first in 0..CONNECTIONS {
        connections.spawn(async move {
            let client = IpAddr::V4(Ipv4Addr::new(127, 0, 50, u8::try_from(first + 1).unwrap()));
            let mut client = Client::greeted(client, address, "mail.good.test").await;
            for number in (first..MESSAGES).step_by(CONNECTIONS) {
                let recipient = format!("user+{number}@relay.test");
                let reply = client.deliver("a@good.test", &recipient, &message(number)).await;
                assert_eq!(reply.code, 250, "message {number}: {}", reply.text);
            }
            assert_eq!(client.command("QUIT").await.code, 221);
        });
    }
    while let Some(ended) = connections.join_next().await {
        ended.expect("a connection's messages were taken");
    }
}

/// The message with that number; the sizes are mixed within each connection.
fn message(number: usize) -> Vec<u8> {
    let size = match number {
        0..3 => 20 * MIB,
        3..10 => 5 * MIB,
        10..40 => MIB + number,
        40..140 => 100_000 + number,
        140..160 => return Vec::new(),
        160..220 => 0,
        _ => number * 31 % 9_000,
    };
    mail::message(number, size)
}

/// The recipient's tag in the field that Postfix's delivery agent adds.
fn number_of(stored: &[u8]) -> usize {
    let (trace, _) = mail::split_trace(stored);
    let trace = String::from_utf8_lossy(trace);
    let line =
        trace.lines().find_map(|line| line.strip_prefix("X-Original-To: user+")).expect("X-Original-To");
    line.split('@').next().unwrap().parse().expect("a number")
}
