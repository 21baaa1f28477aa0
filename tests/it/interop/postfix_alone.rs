//! The Postfix of the tests itself, with nothing in front: what the other tests rest on.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::mail;
use super::postfix::Postfix;
use crate::support::client::Client;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn postfix_believes_xclient_and_stores_every_octet() {
    let Some(postfix) = Postfix::start() else { return };
    let mut client = Client::greeted(HERE, postfix.address(), "gate.relay.test").await;
    let taken =
        client.command("XCLIENT NAME=mail.good.test ADDR=127.0.0.10 PORT=40001 HELO=mail.good.test").await;
    assert_eq!(taken.code, 220, "{}", taken.text);
    assert_eq!(client.command("EHLO mail.good.test").await.code, 250);

    let message = mail::message(1, 200_000);
    let reply = client.deliver("a@good.test", "user+tag@relay.test", &message).await;
    assert_eq!(reply.code, 250, "{}", reply.text);

    let files = postfix.wait_for_messages("user", 1, SOON).await;
    let stored = fs::read(&files[0]).unwrap();
    mail::assert_arrived(&stored, &message, "the message");
    let (trace, _) = mail::split_trace(&stored);
    assert!(String::from_utf8_lossy(trace).contains("X-Original-To: user+tag@relay.test\n"));
    postfix.logged("client=mail.good.test[127.0.0.10]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_refuses_who_is_unknown_and_relays_nothing() {
    let Some(postfix) = Postfix::start() else { return };
    let mut client = Client::greeted(HERE, postfix.address(), "gate.relay.test").await;
    for (recipient, expected) in [("nobody@relay.test", "550 5.1.1 "), ("user@elsewhere.test", "554 5.7.1 ")]
    {
        let reply = client.deliver("a@good.test", recipient, b"").await;
        assert!(reply.text.starts_with(expected), "{recipient}: {}", reply.text);
        assert_eq!(client.command("RSET").await.code, 250);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_comes_back_on_its_port_and_counts_its_connections() {
    let Some(mut postfix) = Postfix::start() else { return };
    let address = postfix.address();
    assert_eq!(postfix.connections().await, 0);
    drop(Client::greeted(HERE, address, "one.test").await);

    postfix.stop();
    let refused = tokio::net::TcpStream::connect(address).await;
    assert!(refused.is_err(), "a stopped Postfix took a connection");
    postfix.start_again();

    let mut client = Client::greeted(HERE, address, "two.test").await;
    let reply = client.deliver("a@good.test", "other@relay.test", &mail::message(2, 0)).await;
    assert_eq!(reply.code, 250, "{}", reply.text);
    postfix.wait_for_messages("other", 1, SOON).await;
    postfix.wait_for_empty_queue().await;
    assert_eq!(postfix.connections().await, 2);
}
