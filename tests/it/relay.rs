//! Relay and client at fault, end to end: a client on TCP, a door before the sample zones, a relay that errs.
//!
//! Whatever goes wrong, a client that was told 250 has one message at the relay, and one that was told anything else has
//! none; when it comes again, in the same session, it has one.

mod faulty;
mod log;
mod shares;

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use rmxd::zone::{Server, Zone};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::support;
use crate::support::client::Client;
use faulty::{Fault, Relay, Step};

/// More than any socket holds.
const LARGE: usize = 16 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_at_fault_gives_4xx_and_the_retry_arrives_once() {
    let small = message(1);
    let large = message(LARGE);
    // the fault, what is sent, and the beginnings of the replies to RCPT, DATA and the message
    let rows = [
        (Fault::HangsAt(Step::Connect), &small, vec!["451 4.4.1 "]),
        (Fault::HangsAt(Step::Mail), &small, vec!["451 4.4.2 "]),
        (Fault::HangsAt(Step::Rcpt), &small, vec!["451 4.4.2 "]),
        (Fault::HangsAt(Step::Data), &small, vec!["250 ", "354 ", "451 4.4.2 "]),
        (Fault::HangsAt(Step::End), &small, vec!["250 ", "354 ", "451 4.4.2 "]),
        (Fault::ClosesAt(Step::Connect), &small, vec!["451 4.4.2 "]),
        (Fault::ClosesAt(Step::Mail), &small, vec!["451 4.4.2 "]),
        (Fault::ClosesAt(Step::Rcpt), &small, vec!["451 4.4.2 "]),
        (Fault::ClosesAt(Step::Data), &small, vec!["250 ", "354 ", "451 4.4.2 "]),
        (Fault::ClosesBeforeBody, &small, vec!["250 ", "354 ", "451 4.4.2 "]),
        (Fault::ClosesBeforeBody, &large, vec!["250 ", "354 ", "451 4.4.2 "]),
        (Fault::ClosesWithinBody, &large, vec!["250 ", "354 ", "451 4.4.2 "]),
        (Fault::ClosesAt(Step::End), &small, vec!["250 ", "354 ", "451 4.4.2 "]),
        (Fault::StopsReading, &large, vec!["250 ", "354 ", "451 4.4.2 "]),
        (Fault::SaysAt(Step::Connect, "SSH-2.0-OpenSSH_9.2p1"), &small, vec!["451 4.4.2 "]),
        (Fault::SaysAt(Step::Mail, "HTTP/1.1 400 Bad Request"), &small, vec!["451 4.4.2 "]),
        (Fault::SaysAt(Step::Data, "\x1b[2J\x07"), &small, vec!["250 ", "354 ", "451 4.4.2 "]),
        (Fault::SaysAt(Step::End, "all is well"), &small, vec!["250 ", "354 ", "451 4.4.2 "]),
        (Fault::SaysAt(Step::End, "250-queued\r\n550 or not"), &small, vec!["250 ", "354 ", "451 4.4.2 "]),
        (Fault::FloodsAt(Step::Connect), &small, vec!["451 4.4.2 "]),
        (Fault::FloodsAt(Step::Rcpt), &small, vec!["451 4.4.2 "]),
        (Fault::FloodsAt(Step::End), &small, vec!["250 ", "354 ", "451 4.4.2 "]),
        (Fault::SaysAt(Step::Mail, "450 4.7.1 later"), &small, vec!["450 4.7.1 later"]),
        (Fault::SaysAt(Step::End, "452 4.3.1 full"), &small, vec!["250 ", "354 ", "452 4.3.1 full"]),
        (Fault::SaysAt(Step::End, "421 4.3.2 bye"), &small, vec!["250 ", "354 ", "451 4.4.2 "]),
        (Fault::StrayReplyAfterData, &small, vec!["250 ", "354 ", "451 4.4.2 "]),
    ];
    let zone = Server::start("127.0.0.1:0".parse().unwrap(), Zone::sample()).await.unwrap();
    for pipelining in [true, false] {
        let dns = zone.address();
        let all = rows
            .iter()
            .map(|(fault, message, expected)| err_once(dns, *fault, pipelining, message, expected));
        join_all(all).await;
    }
}

/// One transaction with a relay at fault, and another one.
async fn err_once(dns: SocketAddr, fault: Fault, pipelining: bool, message: &str, expected: &[&str]) {
    let relay = Relay::start(fault, pipelining).await;
    let mut client = client_of(dns, relay.address).await;
    let replies = deliver(&mut client, &["user@here.test"], message).await;
    assert_eq!(replies.len(), expected.len(), "{fault:?}: {replies:?}");
    let as_expected = |(reply, begin): (&String, &&str)| reply.starts_with(begin);
    assert!(replies.iter().zip(expected).all(as_expected), "{fault:?}: {replies:?}");
    assert_eq!(relay.accepted(), Vec::<String>::new(), "{fault:?}");

    assert!(client.command("RSET").await.code == 250);
    let replies = deliver(&mut client, &["user@here.test"], message).await;
    let last = replies.last().unwrap();
    assert!(last.starts_with("250 2.0.0 queued"), "{fault:?}: {replies:?}");
    let accepted = relay.accepted();
    assert_eq!(accepted.len(), 1, "{fault:?}");
    assert!(accepted[0].ends_with(message), "{fault:?}: the message is not what was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_refuses_the_connection_gives_451() {
    let zone = Server::start("127.0.0.1:0".parse().unwrap(), Zone::sample()).await.unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut client = client_of(zone.address(), nobody).await;
    let replies = deliver(&mut client, &["user@here.test"], &message(1)).await;
    assert!(replies[0].starts_with("451 4.4.1 "), "{replies:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_recipient_of_three_that_is_deferred_does_not_touch_the_others() {
    let zone = Server::start("127.0.0.1:0".parse().unwrap(), Zone::sample()).await.unwrap();
    for pipelining in [true, false] {
        let relay = Relay::start(Fault::DefersRecipient("b@here.test"), pipelining).await;
        let mut client = client_of(zone.address(), relay.address).await;
        for order in [
            ["a@here.test", "b@here.test", "c@here.test"],
            ["b@here.test", "a@here.test", "c@here.test"],
            ["a@here.test", "c@here.test", "b@here.test"],
        ] {
            let replies = deliver(&mut client, &order, &message(1)).await;
            for (recipient, reply) in order.iter().zip(&replies) {
                let expected = if recipient.starts_with('b') { "450 4.2.0 greylisted" } else { "250 " };
                assert!(reply.starts_with(expected), "{recipient}: {reply}");
            }
            assert!(replies[4].starts_with("250 2.0.0 queued"), "{replies:?}");
            let to: Vec<String> = relay.recipients();
            assert_eq!(to, order.into_iter().filter(|it| !it.starts_with('b')).collect::<Vec<_>>());
        }
        assert_eq!(relay.accepted().len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_the_whole_message_once() {
    let zone = Server::start("127.0.0.1:0".parse().unwrap(), Zone::sample()).await.unwrap();
    let relay = Relay::start(Fault::ReadsSlowly, true).await;
    let mut client = client_of(zone.address(), relay.address).await;
    let message = message(LARGE);
    let began = Instant::now();
    let replies = deliver(&mut client, &["user@here.test"], &message).await;
    assert!(replies[2].starts_with("250 2.0.0 queued"), "{replies:?}");
    assert!(began.elapsed() > RELAY_TIMEOUT, "{:?}: not slow", began.elapsed());
    let accepted = relay.accepted();
    assert!(accepted.len() == 1 && accepted[0].ends_with(&message));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_off_delivers_nothing() {
    let zone = Server::start("127.0.0.1:0".parse().unwrap(), Zone::sample()).await.unwrap();
    let large = message(LARGE);
    let half = large.get(..LARGE / 2).unwrap();
    let header = "From: A <a@good.test>\r\nSubject: x\r\n";
    for how in [Leave::Close, Leave::Reset, Leave::HalfClose] {
        for said in ["", header, "From: A <a@good.test>\r\n\r\nbody\r\n", half, "From: a@good.test\r\n\r\n."]
        {
            let relay = Relay::start(Fault::None, true).await;
            let mut client = client_of(zone.address(), relay.address).await;
            talk_to_data(&mut client, &["user@here.test"]).await;
            // a client that resets its connection may be cut off while it still sends
            client.send(said.as_bytes()).await;
            leave(client, how).await;
            relay.all_closed().await;
            assert_eq!(relay.accepted(), Vec::<String>::new(), "{how:?} after {} octets", said.len());
            assert_eq!(relay.dots(), 0, "{how:?} after {} octets", said.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_the_last_reply_has_delivered_once() {
    let zone = Server::start("127.0.0.1:0".parse().unwrap(), Zone::sample()).await.unwrap();
    for how in [Leave::Close, Leave::HalfClose] {
        let relay = Relay::start(Fault::AnswersLate, true).await;
        let mut client = client_of(zone.address(), relay.address).await;
        talk_to_data(&mut client, &["user@here.test"]).await;
        client.send(format!("{}.\r\n", message(1)).as_bytes()).await;
        relay.until("the dot", |relay| relay.dots() == 1).await;
        if let Leave::HalfClose = how {
            client.shut_down().await.unwrap();
            assert!(client.reply().await.text.starts_with("250 2.0.0 queued"), "it can still hear");
        }
        leave(client, how).await;
        relay.all_closed().await;
        assert_eq!((relay.accepted().len(), relay.dots()), (1, 1), "{how:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_delivers_once_and_the_relay_hears_it_as_it_speaks() {
    let zone = Server::start("127.0.0.1:0".parse().unwrap(), Zone::sample()).await.unwrap();
    let relay = Relay::start(Fault::None, true).await;
    let mut client = client_of(zone.address(), relay.address).await;
    talk_to_data(&mut client, &["user@here.test"]).await;
    let message = message(1);
    let (first, last) = message.split_at(message.len() - 4);
    for octet in first.as_bytes() {
        client.send(&[*octet]).await;
        sleep(Duration::from_millis(5)).await;
    }
    relay.until("all but the end", |relay| relay.heard_of_message().ends_with("\r\nbo")).await;
    client.send(format!("{last}.\r\n").as_bytes()).await;
    assert!(client.reply().await.text.starts_with("250 2.0.0 queued"));
    assert!(relay.accepted().len() == 1 && relay.accepted()[0].ends_with(&message));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_take_turns_share_a_connection_and_nothing_else() {
    let zone = Server::start("127.0.0.1:0".parse().unwrap(), Zone::sample()).await.unwrap();
    let relay = Relay::start(Fault::None, true).await;
    let door = door_of(zone.address(), relay.address).await;
    for turn in 0..5 {
        // one that gives up at each stage, then one that delivers
        let mut first = connect(door).await;
        first.talk(&[("MAIL FROM:<other@good.test>", "250"), ("RCPT TO:<other@here.test>", "250")]).await;
        match turn {
            0 => drop(first),
            1 => assert_eq!(first.command("RSET").await.code, 250),
            2 => assert_eq!(first.command("EHLO mail.good.test").await.code, 250),
            3 => assert_eq!(first.command("QUIT").await.code, 221),
            _ => {
                assert_eq!(first.command("DATA").await.code, 354);
                first.send(b"From: a@nowhere.test\r\n\r\nspoofed\r\n.\r\n").await;
                assert!(first.reply().await.text.starts_with("550 5.7.1 "));
            }
        }
        let mut second = connect(door).await;
        let replies = deliver(&mut second, &["user@here.test"], &message(1)).await;
        assert!(replies[2].starts_with("250 2.0.0 queued"), "turn {turn}: {replies:?}");
        assert_eq!(relay.recipients(), ["user@here.test"], "turn {turn}");
        assert_eq!(relay.sender(), "a@good.test", "turn {turn}");
        assert_eq!(relay.accepted().len(), turn + 1);
    }
    // the first client of turn 0 just went, and took its connection with it
    assert!(relay.connections() <= 2, "{}", relay.connections());
}

/// What rmxd gives the relay for each answer.
const RELAY_TIMEOUT: Duration = Duration::from_millis(1500);

/// Header and body; the body is of about that many octets, in lines.
fn message(octets: usize) -> String {
    let line = "..0123456789abcdef0123456789abcdef0123456789abcdef\r\n";
    let body = line.repeat(octets / line.len());
    format!("From: A <a@good.test>\r\nSubject: x\r\n\r\n{body}body\r\n")
}

/// A door before this relay that serves until the test ends.
async fn door_of(dns: SocketAddr, relay: SocketAddr) -> SocketAddr {
    let settings = support::settings([
        format!("relay.next_hop=smtp://{relay}").as_str(),
        &format!("relay.reply_timeout={}ms", RELAY_TIMEOUT.as_millis()),
        "relay.connect_timeout=1s",
    ]);
    let door = support::door(&settings, dns);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, client)) = listener.accept().await {
            let door = door.clone();
            tokio::spawn(async move { door.serve(stream, client, CancellationToken::new()).await });
        }
    });
    address
}

async fn client_of(dns: SocketAddr, relay: SocketAddr) -> Client {
    connect(door_of(dns, relay).await).await
}

/// How a client goes.
#[derive(Debug, Clone, Copy)]
enum Leave {
    Close,
    Reset,
    HalfClose,
}

/// From the exchanger of good.test, greeted.
async fn connect(door: SocketAddr) -> Client {
    Client::greeted([127, 0, 0, 10].into(), door, "mail.good.test").await
}

async fn talk_to_data(client: &mut Client, recipients: &[&str]) {
    client.talk(&[("MAIL FROM:<a@good.test>", "250")]).await;
    for recipient in recipients {
        client.talk(&[(&format!("RCPT TO:<{recipient}>"), "250")]).await;
    }
    client.talk(&[("DATA", "354")]).await;
}

/// The replies to each RCPT, to DATA, and to the message, as far as it gets.
async fn deliver(client: &mut Client, recipients: &[&str], message: &str) -> Vec<String> {
    client.talk(&[("MAIL FROM:<a@good.test>", "250")]).await;
    let mut replies = Vec::new();
    for recipient in recipients {
        replies.push(client.command(&format!("RCPT TO:<{recipient}>")).await.text);
    }
    if replies.iter().any(|reply| reply.starts_with('2')) {
        replies.push(client.command("DATA").await.text);
        client.send(format!("{message}.\r\n")).await;
        replies.push(client.reply().await.text);
    }
    replies
}

async fn leave(mut client: Client, how: Leave) {
    match how {
        Leave::Close => {}
        Leave::Reset => client.stream().set_zero_linger().unwrap(),
        Leave::HalfClose => {
            client.shut_down().await.unwrap();
            // rmxd closes too
            client.rest().await;
        }
    }
}
