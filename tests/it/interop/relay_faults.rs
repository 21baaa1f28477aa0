//! A real Postfix that fails in the middle: no 250 without a message, and never two of one.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::gate;
use super::mail;
use super::postfix::Postfix;
use crate::support::client::{Client, on_the_wire};
use crate::support::daemon::Daemon;
use crate::support::process;
use crate::support::zone::Zone;

const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const SOON: Duration = Duration::from_secs(20);
/// More than the sockets on the way hold.
const LARGE: usize = 20 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_postfix_process_that_dies_within_or_after_the_body_gives_4xx_and_the_retry_arrives_once() {
    let Some((gate, postfix, _zone)) = set_up(Postfix::start()).await else { return };
    for (number, after_the_body) in [false, true].into_iter().enumerate() {
        let message = mail::message(number, 100_000);
        let wire = on_the_wire(&message);
        let mut client = Client::greeted(EXCHANGER, gate.address(), "mail.good.test").await;
        let smtpd = talk_to_data(&mut client, &postfix, number).await;
        // how far the octets have come when it dies is left to chance: the reply is the same
        if after_the_body {
            // all of it, with the dot, is on its way to a process that will not answer any more
            process::signal(smtpd, "STOP");
            client.send(&wire).await;
            sleep(Duration::from_millis(500)).await;
            process::signal(smtpd, "KILL");
        } else {
            client.send(wire.get(..50_000).unwrap()).await;
            sleep(Duration::from_millis(200)).await;
            process::signal(smtpd, "KILL");
            client.send(wire.get(50_000..).unwrap()).await;
        }
        let reply = client.reply().await;
        assert!(reply.text.starts_with("451 4.4.2 "), "{}", reply.text);
        postfix.wait_for_empty_queue().await;
        assert_eq!(postfix.mailbox("user").len(), number, "a message that was answered 451 arrived");

        let reply = client.deliver("a@good.test", "user@relay.test", &message).await;
        assert_eq!(reply.code, 250, "{}", reply.text);
        postfix.wait_for_messages("user", number + 1, SOON).await;
        postfix.wait_for_empty_queue().await;
        assert_eq!(postfix.mailbox("user").len(), number + 1);
        assert_eq!(stored(&postfix, number, &message), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_recipient_of_three_that_postfix_defers_does_not_touch_the_others() {
    let main_cf = |_: &std::path::Path| {
        "smtpd_tls_security_level = none\nsmtpd_recipient_restrictions = \
         check_recipient_access inline:{ { other@relay.test = 450 4.2.0 not now } }\n"
            .to_owned()
    };
    let Some((gate, postfix, _zone)) = set_up(Postfix::start_with(main_cf)).await else { return };
    let mut client = Client::greeted(EXCHANGER, gate.address(), "mail.good.test").await;
    for (number, place) in [0, 1, 2].into_iter().enumerate() {
        let mut recipients = vec!["user@relay.test", "user+two@relay.test"];
        recipients.insert(place, "other@relay.test");
        assert_eq!(client.command("MAIL FROM:<a@good.test>").await.code, 250);
        for recipient in recipients {
            let reply = client.command(&format!("RCPT TO:<{recipient}>")).await;
            let deferred = recipient.starts_with("other");
            assert_eq!(reply.code, if deferred { 450 } else { 250 }, "{}", reply.text);
            assert_eq!(reply.text.contains("not now"), deferred, "{}", reply.text);
        }
        assert_eq!(client.command("DATA").await.code, 354);
        let message = mail::message(number, 1_000);
        client.send(&on_the_wire(&message)).await;
        let reply = client.reply().await;
        assert_eq!(reply.code, 250, "{}", reply.text);
        postfix.wait_for_messages("user", 2 * (number + 1), SOON).await;
        postfix.wait_for_empty_queue().await;
        assert_eq!(stored(&postfix, number, &message), 2, "one for each recipient that was taken");
    }
    assert!(postfix.mailbox("other").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postfix_that_reads_nothing_for_seconds_gets_the_whole_message_once() {
    let Some((gate, postfix, _zone)) = set_up(Postfix::start()).await else { return };
    let message = mail::message(0, LARGE);
    let mut client = Client::greeted(EXCHANGER, gate.address(), "mail.good.test").await;
    let smtpd = talk_to_data(&mut client, &postfix, 0).await;
    process::signal(smtpd, "STOP");
    let began = Instant::now();
    let wire = on_the_wire(&message);
    let pause = async {
        sleep(Duration::from_secs(4)).await;
        process::signal(smtpd, "CONT");
    };
    let ((), ()) = tokio::join!(client.send(&wire), pause);
    let reply = client.reply().await;
    assert_eq!(reply.code, 250, "{}", reply.text);
    assert!(began.elapsed() >= Duration::from_secs(4));
    postfix.wait_for_messages("user", 1, SOON).await;
    postfix.wait_for_empty_queue().await;
    assert_eq!((postfix.mailbox("user").len(), stored(&postfix, 0, &message)), (1, 1));
}

async fn set_up(postfix: Option<Postfix>) -> Option<(Daemon, Postfix, Zone)> {
    let postfix = postfix?;
    let zone = Zone::start();
    let gate = gate::start_with(&zone, &postfix, "", &["relay.reply_timeout=30s"]).await;
    Some((gate, postfix, zone))
}

/// Opens a transaction up to 354; which process of Postfix has it. Each one before it was logged twice: it was tried
/// again.
async fn talk_to_data(client: &mut Client, postfix: &Postfix, number: usize) -> u32 {
    assert_eq!(client.command("MAIL FROM:<a@good.test>").await.code, 250);
    let reply = client.command("RCPT TO:<user@relay.test>").await;
    assert_eq!(reply.code, 250, "{}", reply.text);
    assert_eq!(client.command("DATA").await.code, 354);
    let ask = || {
        let log = postfix.log();
        let mut lines = log.lines().filter(|line| line.contains("client=mail.good.test[127.0.0.10]"));
        let line = lines.nth(2 * number)?;
        line.split("/smtpd[").nth(1)?.split(']').next()?.parse().ok()
    };
    process::eventually("a line with the process of the transaction", SOON, ask).await
}

/// How many files of user@relay.test hold this message; each that bears its subject must be all of it.
fn stored(postfix: &Postfix, number: usize, message: &[u8]) -> usize {
    let subject = format!("Subject: number {number}\n");
    let files = postfix.mailbox("user").into_iter().map(|file| fs::read(file).unwrap());
    let ours: Vec<Vec<u8>> = files
        .filter(|stored| {
            let (head, _) = stored.split_at(stored.len().min(4_000));
            head.windows(subject.len()).any(|part| part == subject.as_bytes())
        })
        .collect();
    ours.iter().for_each(|stored| mail::assert_arrived(stored, message, "the message"));
    ours.len()
}
