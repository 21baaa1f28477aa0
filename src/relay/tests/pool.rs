//! Connections that are used again: for which client, after which replies, for how long.

use std::time::Duration;

use tokio::time::{advance, pause, resume, sleep};

use crate::relay::pool::IDLE;
use crate::relay::tests::robot::{GOOD, Robot, Whim};
use crate::relay::tests::script::ScriptedRelay;
use crate::relay::tests::{
    IMPATIENCE, begin, begin_as, begin_with, client, deliver, deliver_as, permit, recipient, sender,
};
use crate::relay::{ClientIdentity, ClientInfo, ClientName, Envelope, Recipient};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nbody\r\n";
/// A whole transaction as the relay receives it.
const WHOLE: [&str; 4] = ["MAIL FROM:<a@good.test>", "RCPT TO:<u@relay.test>", "DATA", "Subject: x||body|"];
const QUEUED: &str = "END 250 2.0.0 queued";

fn another(address: &str, helo: &str) -> ClientInfo {
    ClientInfo { address: address.parse().unwrap(), helo: helo.into(), ..client() }
}

fn transactions(count: usize) -> Vec<&'static str> {
    WHOLE.repeat(count)
}

#[tokio::test]
async fn a_connection_that_names_no_client_serves_all_clients() {
    for keywords in ["8BITMIME", "PIPELINING 8BITMIME"] {
        let robot = Robot::start(keywords, GOOD).await;
        let relay = robot.relay();
        for port in 1..=5 {
            let client = another(&format!("192.0.2.7:{port}"), "a.test");
            assert_eq!(deliver_as(&relay.lease(), &client, &[MESSAGE]).await, QUEUED);
        }
        drop(relay);
        assert_eq!(robot.ended(0).await, [transactions(5), vec!["QUIT", "(end)"]].concat());
        assert_eq!(robot.connections(), 1);
    }
}

#[tokio::test]
async fn a_connection_that_names_a_client_serves_one_session_of_it() {
    const XCLIENT: &str = "XCLIENT PROTO=ESMTP HELO=helo.good.test NAME=mx.good.test ADDR=192.0.2.7";
    let robot = Robot::start("PIPELINING XCLIENT_NAME_ADDR_PROTO_HELO", GOOD).await;
    let relay = robot.relay();
    for _ in 0..2 {
        let lease = relay.lease();
        for _ in 0..3 {
            assert_eq!(deliver_as(&lease, &client(), &[MESSAGE]).await, QUEUED);
        }
    }
    for connection in 0..2 {
        let expected = [vec![XCLIENT, "EHLO helo.good.test"], transactions(3), vec!["QUIT", "(end)"]];
        assert_eq!(robot.ended(connection).await, expected.concat());
    }
    assert_eq!(robot.connections(), 2);
}

#[tokio::test]
async fn another_greeting_or_name_of_the_client_needs_a_new_connection() {
    let robot = Robot::start("XCLIENT_NAME_ADDR_PROTO_HELO", GOOD).await;
    let relay = robot.relay();
    let lease = relay.lease();
    let clients = [
        client(),
        ClientInfo { name: ClientName::Unknown, ..client() },
        ClientInfo { helo: "other.test".into(), ..client() },
        ClientInfo { esmtp: false, ..client() },
        client(),
    ];
    for client in &clients {
        assert_eq!(deliver_as(&lease, client, &[MESSAGE]).await, QUEUED);
    }
    assert_eq!(robot.connections(), clients.len());
    for (connection, expected) in
        [(0, "NAME=mx.good.test"), (1, "NAME=[UNAVAILABLE]"), (2, "HELO=other.test"), (3, "PROTO=SMTP")]
    {
        assert!(robot.ended(connection).await[0].contains(expected), "{:?}", robot.heard(connection));
    }
}

#[tokio::test]
async fn a_proxy_header_comes_first_and_its_connection_is_for_one_session() {
    let robot = Robot::start("PROXY PIPELINING", GOOD).await;
    let relay = robot.relay_with(|settings| settings.identity = ClientIdentity::ProxyV2);
    relay.probe().await.unwrap();
    for port in [1, 2] {
        let client = another(&format!("192.0.2.7:{port}"), "mx.test");
        let lease = relay.lease();
        for _ in 0..2 {
            assert_eq!(deliver_as(&lease, &client, &[MESSAGE]).await, QUEUED);
        }
    }
    assert_eq!(robot.ended(0).await, ["PROXY LOCAL", "QUIT", "(end)"]);
    for (connection, named) in [(1, "PROXY 192.0.2.7:1"), (2, "PROXY 192.0.2.7:2")] {
        let expected = [vec![named, "EHLO mx.test"], transactions(2), vec!["QUIT", "(end)"]];
        assert_eq!(robot.ended(connection).await, expected.concat());
    }
    assert_eq!(robot.connections(), 3);
}

#[tokio::test]
async fn xforward_names_the_client_anew_for_each_transaction() {
    for keywords in
        ["PIPELINING XFORWARD_NAME_ADDR_HELO_IDENT_SOURCE", "XFORWARD_NAME_ADDR_HELO_IDENT_SOURCE"]
    {
        for identity in [ClientIdentity::Auto, ClientIdentity::Xforward] {
            let robot = Robot::start(keywords, GOOD).await;
            let relay = robot.relay_with(|settings| settings.identity = identity);
            assert_eq!(deliver(&relay, &[MESSAGE]).await, QUEUED);
            let unknown = ClientInfo { name: ClientName::Unknown, ..another("192.0.2.8:1", "") };
            assert_eq!(deliver_as(&relay.lease(), &unknown, &[MESSAGE]).await, QUEUED);
            drop(relay);
            let expected = [
                vec![
                    "XFORWARD NAME=mx.good.test ADDR=192.0.2.7 HELO=helo.good.test IDENT=4KXN7Q2M SOURCE=REMOTE",
                ],
                transactions(1),
                vec![
                    "XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.8 HELO=[UNAVAILABLE] IDENT=4KXN7Q2M SOURCE=REMOTE",
                ],
                transactions(1),
                vec!["QUIT", "(end)"],
            ];
            assert_eq!(robot.ended(0).await, expected.concat());
            assert_eq!(robot.connections(), 1);
        }
    }
}

#[tokio::test]
async fn a_refused_xforward_fails_the_transaction_and_ends_the_connection() {
    for keywords in ["PIPELINING XFORWARD_ADDR", "XFORWARD_ADDR"] {
        let robot = Robot::start(keywords, |_, line| {
            line.starts_with("XFORWARD").then_some(Some("550 5.7.0 not you"))
        })
        .await;
        let relay = robot.relay();
        for connection in 0..2 {
            let reply = deliver(&relay, &[MESSAGE]).await;
            assert!(reply.starts_with("MAIL 451 4.4.1 "), "{reply}");
            assert!(!robot.ended(connection).await.contains(&"DATA".to_owned()));
        }
    }
}

#[tokio::test]
async fn a_transaction_fails_if_the_relay_lacks_the_configured_extension() {
    use ClientIdentity::{Auto, None as Nothing, ProxyV2, Xclient, Xforward};
    let rows = [
        (Xforward, false, "PIPELINING", true),
        (Xclient, false, "XFORWARD_ADDR", true),
        (Xforward, true, "XFORWARD_ADDR", true),
        (Auto, true, "XFORWARD_ADDR", true),
        (Nothing, true, "XFORWARD_ADDR", true),
        (ProxyV2, true, "PROXY XCLIENT_ADDR", true),
        (Auto, false, "PIPELINING", false),
    ];
    for (identity, required, keywords, final_) in rows {
        let robot = Robot::start(keywords, GOOD).await;
        let relay = robot.relay_with(|settings| {
            settings.identity = identity;
            settings.xclient_required = required;
        });
        let probed = relay.probe().await;
        assert_eq!(probed.is_err_and(|error| error.is_final()), final_, "{identity:?} {keywords}");
        let reply = deliver(&relay, &[MESSAGE]).await;
        let expected = if final_ { "MAIL 451 4.4.1 " } else { QUEUED };
        assert!(reply.starts_with(expected), "{identity:?} {keywords}: {reply}");
    }
}

#[tokio::test]
async fn an_abandoned_transaction_is_reset_before_the_next() {
    for keywords in ["PIPELINING 8BITMIME", "8BITMIME"] {
        let robot = Robot::start(keywords, GOOD).await;
        let relay = robot.relay();
        let reverse_path = &sender("secret@good.test");
        let client = client();
        let first = begin_with(&relay.lease(), Envelope::new(&client, reverse_path, "1")).await.unwrap();
        first.abandon().await;
        assert_eq!(deliver(&relay, &[MESSAGE]).await, QUEUED);
        drop(relay);
        let before = ["MAIL FROM:<secret@good.test>", "RCPT TO:<u@relay.test>", "RSET"];
        assert_eq!(robot.ended(0).await, [before.to_vec(), transactions(1), vec!["QUIT", "(end)"]].concat());
    }
}

#[tokio::test]
async fn without_the_250_to_rset_a_connection_is_not_used_again() {
    let whims: [Whim; 5] = [
        |_, line| (line == "RSET").then_some(Some("500 what")),
        |_, line| (line == "RSET").then_some(Some("251 nearly")),
        |_, line| (line == "RSET").then_some(Some("250 Ok|250 and more")),
        |_, line| (line == "RSET").then_some(Some("421 4.3.2 bye")),
        |_, line| (line == "RSET").then_some(None),
    ];
    for (number, whim) in whims.into_iter().enumerate() {
        let robot = Robot::start("PIPELINING", whim).await;
        let relay = robot.relay();
        begin(&relay).await.unwrap().abandon().await;
        assert_eq!(deliver(&relay, &[MESSAGE]).await, QUEUED, "whim {number}");
        drop(relay);
        assert_eq!(robot.ended(1).await, [transactions(1), vec!["QUIT", "(end)"]].concat(), "whim {number}");
        assert!(!robot.ended(0).await.contains(&"DATA".to_owned()), "whim {number}");
    }
}

#[tokio::test]
async fn after_a_refusal_a_connection_goes_on_only_with_the_same_client() {
    let whims: [Whim; 3] = [
        |at, line| (at == 0 && line.starts_with("MAIL")).then_some(Some("550 5.7.1 no")),
        |at, line| (at == 0 && line.starts_with("RCPT")).then_some(Some("550 5.1.1 unknown")),
        |at, line| (at == 0 && line.contains("body|")).then_some(Some("554 5.6.0 no")),
    ];
    for whim in whims {
        let robot = Robot::start("8BITMIME", whim).await;
        let relay = robot.relay();
        let refused = deliver(&relay, &[MESSAGE]).await;
        assert!(refused.contains(" 55"), "{refused}");
        assert_eq!(deliver(&relay, &[MESSAGE]).await, QUEUED);
        assert_eq!(robot.connections(), 2);

        let robot = Robot::start("XCLIENT_ADDR", |at, line| {
            (at == 0 && line.starts_with("RCPT TO:<w@")).then_some(Some("550 5.1.1 unknown"))
        })
        .await;
        let relay = robot.relay();
        let (lease, client) = (relay.lease(), client());
        let mut transaction = begin_as(&lease, &client).await.unwrap();
        let path = recipient("w@relay.test");
        assert_eq!(transaction.rcpt(permit(), Recipient::new(&path)).await.reply.code(), 550);
        transaction.abandon().await;
        assert_eq!(deliver_as(&lease, &client, &[MESSAGE]).await, QUEUED);
        assert_eq!(robot.connections(), 1);
    }
}

#[tokio::test]
async fn a_refused_mail_is_the_reply_to_the_group_and_a_recipient_accepted_after_it_ends_the_connection() {
    let rows: [(Whim, usize); 2] = [
        (
            |_, line| match line {
                "MAIL FROM:<bad@good.test>" => Some(Some("553 5.1.8 not from there")),
                "RCPT TO:<v@relay.test>" => Some(Some("503 5.5.1 MAIL first")),
                _ => None,
            },
            1,
        ),
        (|_, line| (line == "MAIL FROM:<bad@good.test>").then_some(Some("553 5.1.8 not from there")), 2),
    ];
    for (whim, connections) in rows {
        let robot = Robot::start("PIPELINING XCLIENT_ADDR", whim).await;
        let relay = robot.relay();
        let (lease, client, path) = (relay.lease(), client(), recipient("v@relay.test"));
        let reverse_path = &sender("bad@good.test");
        let envelope = Envelope::new(&client, reverse_path, "1");
        let refused = lease.begin(permit(), envelope, Recipient::new(&path)).await.unwrap_err();
        assert_eq!(refused.to_string(), "553 5.1.8 not from there");
        assert_eq!(deliver_as(&lease, &client, &[MESSAGE]).await, QUEUED);
        assert_eq!(robot.connections(), connections);
    }
}

#[tokio::test]
async fn a_connection_that_ended_is_replaced_before_the_reply_to_mail_and_never_after() {
    // the fault in the second transaction, the number of connections, the reply
    let rows: [(Whim, usize, &str); 6] = [
        (|at, line| (at == 0 && line == "MAIL FROM:<b@good.test>").then_some(None), 2, QUEUED),
        (
            |at, line| (at == 0 && line == "MAIL FROM:<b@good.test>").then_some(Some("421 4.4.2 timeout")),
            2,
            QUEUED,
        ),
        (|_, line| (line == "MAIL FROM:<b@good.test>").then_some(None), 2, "MAIL 451 4.4.2 "),
        (|_, line| (line == "RCPT TO:<v@relay.test>").then_some(None), 1, "RCPT 451 4.4.2 "),
        (|_, line| line.contains("second").then_some(None), 1, "END 451 4.4.2 "),
        (|_, line| line.contains("second").then_some(Some("421 4.3.2 bye")), 1, "END 451 4.4.2 "),
    ];
    for keywords in ["PIPELINING", "8BITMIME"] {
        for (number, (whim, connections, expected)) in rows.into_iter().enumerate() {
            let robot = Robot::start(keywords, whim).await;
            let relay = robot.relay();
            assert_eq!(deliver(&relay, &[MESSAGE]).await, QUEUED);
            let reply = second(&relay).await;
            assert!(reply.starts_with(expected), "row {number}, {keywords}: {reply}");
            assert_eq!(robot.connections(), connections, "row {number}, {keywords}");
        }
    }
}

/// Delivers a message from b@good.test to v@relay.test.
async fn second(relay: &crate::relay::Relay) -> String {
    let (client, reverse_path, path) = (client(), sender("b@good.test"), recipient("v@relay.test"));
    let envelope = Envelope::new(&client, &reverse_path, "2");
    let (mut transaction, reply) = match relay.lease().begin(permit(), envelope, Recipient::new(&path)).await
    {
        Ok(begun) => begun,
        Err(reply) => return format!("MAIL {reply}"),
    };
    if !reply.is_positive() {
        return format!("RCPT {reply}");
    }
    transaction.data().await.unwrap();
    transaction.write(b"second\r\n").await.unwrap();
    format!("END {}", transaction.finish(permit()).await)
}

#[tokio::test]
async fn a_connection_with_an_unexpected_reply_is_not_used_again() {
    // the relay sends the 421 after the reply to the message was read
    let script = "S 220 relay.test\nC EHLO gate.test\nS 250 relay.test\nC MAIL FROM:<a@good.test>\nS 250 Ok\n\
                  C RCPT TO:<u@relay.test>\nS 250 Ok\nC DATA\nS 354 go\nM Subject: x||body|.\nS 250 2.0.0 queued";
    let unasked = format!("{script}\nSTALL\nS 421 4.4.2 too long\nREST QUIT");
    let spoken = unasked.lines().count() - 1;
    let scripted = ScriptedRelay::play(&[unasked, format!("{script}\nREST QUIT")]).await;
    let relay = scripted.relay();
    assert_eq!(deliver(&relay, &[MESSAGE]).await, QUEUED);
    scripted.go_on();
    scripted.steps(spoken).await;
    assert_eq!(deliver(&relay, &[MESSAGE]).await, QUEUED);
    drop(relay);
    scripted.played().await;
}

#[tokio::test]
async fn idle_connections_are_closed_in_time() {
    for keywords in ["PIPELINING", "XCLIENT_ADDR"] {
        let robot = Robot::start(keywords, GOOD).await;
        let relay = robot.relay();
        let (lease, client) = (relay.lease(), client());
        assert_eq!(deliver_as(&lease, &client, &[MESSAGE]).await, QUEUED);
        pause();
        advance(IDLE - Duration::from_secs(1)).await;
        resume();
        assert_eq!(deliver_as(&lease, &client, &[MESSAGE]).await, QUEUED);
        assert_eq!((robot.connections(), robot.open()), (1, 1), "{keywords}");
        pause();
        advance(IDLE + Duration::from_secs(1)).await;
        resume();
        assert_eq!(robot.ended(0).await.last().map(String::as_str), Some("(end)"));
        assert_eq!(deliver_as(&lease, &client, &[MESSAGE]).await, QUEUED);
        assert_eq!(robot.connections(), 2);
    }
}

#[tokio::test]
async fn a_connection_is_not_used_for_ever() {
    let robot = Robot::start("PIPELINING", GOOD).await;
    let relay = robot.relay();
    for _ in 0..101 {
        assert_eq!(deliver(&relay, &[MESSAGE]).await, QUEUED);
    }
    assert_eq!(robot.ended(0).await.len(), 100 * WHOLE.len() + 2);
    assert_eq!(robot.connections(), 2);
    // nor for long, however often it is used
    for _ in 0..20 {
        pause();
        advance(Duration::from_secs(20)).await;
        resume();
        assert_eq!(deliver(&relay, &[MESSAGE]).await, QUEUED);
    }
    assert_eq!(robot.connections(), 3);
}

#[tokio::test]
async fn all_connections_together_are_bounded_and_an_idle_one_is_replaced() {
    let robot = Robot::start("PIPELINING XCLIENT_ADDR", GOOD).await;
    let relay = robot.relay_with(|settings| {
        settings.max_connections = 2;
        settings.connect_timeout = IMPATIENCE * 2;
    });
    let visits = [relay.lease(), relay.lease(), relay.lease()];
    let clients = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"].map(|address| another(address, "a.test"));
    assert_eq!(deliver_as(&visits[0], &clients[0], &[MESSAGE]).await, QUEUED);
    assert_eq!(deliver_as(&visits[1], &clients[1], &[MESSAGE]).await, QUEUED);
    assert_eq!(robot.open(), 2, "both wait for their clients");
    // the third replaces the connection that has been idle longest
    let third = begin_as(&visits[2], &clients[2]).await.unwrap();
    robot.ended(0).await;
    assert_eq!(robot.open(), 2);
    // the second still has its own
    let second = begin_as(&visits[1], &clients[1]).await.unwrap();
    assert_eq!(robot.connections(), 3);
    // now all are in use
    let reply = begin_as(&visits[0], &clients[0]).await.unwrap_err();
    assert!(reply.to_string().starts_with("451 4.3.2 "), "{reply}");
    assert!(relay.probe().await.is_ok(), "they show that the relay is there");
    assert_eq!(robot.connections(), 3);
    // a client that waits gets the place of a connection that ends
    let (first, ()) = tokio::join!(begin_as(&visits[0], &clients[0]), async {
        sleep(IMPATIENCE / 5).await;
        second.abandon().await;
    });
    robot.ended(1).await;
    assert_eq!(robot.open(), 2);
    first.unwrap().abandon().await;
    third.abandon().await;
}

#[tokio::test]
async fn a_dropped_lease_leaves_no_connection() {
    let robot = Robot::start("XCLIENT_ADDR", GOOD).await;
    let relay = robot.relay();
    let lease = relay.lease();
    let mut transaction = begin_as(&lease, &client()).await.unwrap();
    drop(lease);
    transaction.data().await.unwrap();
    assert_eq!(transaction.finish(permit()).await.reply.code(), 250);
    robot.ended(0).await;
}
