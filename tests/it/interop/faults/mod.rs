//! Trouble with rmxd beside a real Postfix, at the milter door and at the policy door: no mail of a good sender is
//! refused for good, and none comes twice.

mod crowded;
mod killed;
mod panics;
mod reloaded;
mod restarted;
mod stopped;
mod tap;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::beside_postfix::{EXCHANGER, Site};
use crate::support::client::{Client, Reply, on_the_wire};

const GOOD: &str = "a@good.test";
/// Its domain doesn't exist.
const BAD: &str = "a@nowhere.test";

/// A message that is known by its number.
fn message(number: usize, author: &str) -> String {
    format!("From: {author}\r\nSubject: number {number}.\r\n\r\n{}", "Hello\r\n".repeat(200))
}

/// One session of SMTP with one message; the reply that decides: the first that isn't positive, or the last.
async fn session(postfix: SocketAddr, sender: &str, message: &str) -> Reply {
    let mut client = Client::connect(EXCHANGER, postfix).await;
    let greeting = client.reply().await;
    if !greeting.is_positive() {
        return greeting;
    }
    let hello = client.command("EHLO mail.good.test").await;
    if !hello.is_positive() {
        return hello;
    }
    let reply = client.deliver(sender, "user@relay.test", message.as_bytes()).await;
    if reply.is_positive() {
        assert_eq!(client.command("QUIT").await.code, 221);
    }
    reply
}

/// Message `number` of the good sender.
async fn good(site: &Site, number: usize) -> Reply {
    session(site.postfix.address(), GOOD, &message(number, GOOD)).await
}

async fn bad(site: &Site) -> Reply {
    session(site.postfix.address(), BAD, &message(0, BAD)).await
}

/// rmxd judges: the good sender's message `number` is taken, and the bad one's is refused.
async fn is_well(site: &Site, number: usize) {
    let reply = good(site, number).await;
    assert_eq!(reply.code, 250, "{}", reply.text);
    let reply = bad(site).await;
    assert!(reply.text.starts_with("550 5.1.8 "), "{}", reply.text);
}

/// A greeted client in the middle of message `number`.
async fn in_the_middle(site: &Site, number: usize) -> Client {
    let mut client = site.client(EXCHANGER).await;
    let dialogue =
        [("MAIL FROM:<a@good.test>", "250"), ("RCPT TO:<user@relay.test>", "250"), ("DATA", "354")];
    client.talk(&dialogue).await;
    client.send(format!("From: {GOOD}\r\nSubject: number {number}.\r\n\r\nhalf of it\r\n")).await;
    client
}

/// The end of a message that is half sent.
async fn other_half(client: &mut Client) -> Reply {
    client.send(on_the_wire(b"the other half\r\n")).await;
    client.reply().await
}

/// Messages 1 to `count` are in the mailbox of the user, each of them once, and nothing else is or will be.
async fn each_came_once(site: &Site, count: usize) {
    site.postfix.wait_for_empty_queue().await;
    let mut numbers = BTreeMap::new();
    for text in site.delivered(count).await {
        let (_, rest) = text.split_once("Subject: number ").unwrap();
        let number: usize = rest.split_once('.').unwrap().0.parse().unwrap();
        *numbers.entry(number).or_insert(0) += 1;
    }
    let expected: BTreeMap<usize, i32> = (1..=count).map(|number| (number, 1)).collect();
    assert_eq!(numbers, expected);
}
