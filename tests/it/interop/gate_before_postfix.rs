//! rmxd in front of Postfix, spoken to by swaks, smtp-source and the tests' own client.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Output};
use std::time::Duration;

use super::gate;
use super::mail;
use super::postfix::Postfix;
use crate::support::client::{Client, Reply, on_the_wire};
use crate::support::daemon::Daemon;
use crate::support::process;
use crate::support::zone::Zone;

/// The address of mail.good.test, which is the exchanger of good.test.
const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn mail_from_a_valid_sender_arrives_unchanged_and_postfix_names_the_real_client() {
    let Some((gate, postfix, _zone)) = set_up().await else { return };
    let message = mail::message(1, 50_000);
    let Some(said) = swaks(&gate, "a@good.test", &message).await else { return };
    assert!(said.status.success(), "{}", text(&said));

    let files = postfix.wait_for_messages("user", 1, SOON).await;
    let stored = fs::read(&files[0]).unwrap();
    mail::assert_arrived(&stored, &message, "the message of swaks");
    let (trace, _) = mail::split_trace(&stored);
    let trace = String::from_utf8_lossy(trace);
    for expected in ["Received: from mail.good.test", "127.0.0.10", "by gate.relay.test", "x-reverse-mx=pass"]
    {
        assert!(trace.contains(expected), "no {expected:?} in {trace}");
    }
    assert!(trace.contains("Authentication-Results: gate.relay.test;"), "{trace}");
    postfix.logged("client=mail.good.test[127.0.0.10]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoofed_sender_is_refused_and_postfix_never_sees_a_connection() {
    let Some((gate, mut postfix, _zone)) = set_up().await else { return };
    let before = postfix.connections().await;
    for (sender, expected) in [
        ("a@nowhere.test", "550 5.1.8 <a@nowhere.test>: nowhere.test does not exist (id "),
        ("a@nomx.test", "550 5.1.8 <a@nomx.test>: nomx.test has no MX record (id "),
        ("a@broken.test", "451 4.4.3 <a@broken.test>: broken.test can't be looked up now (id "),
    ] {
        let Some(said) = swaks(&gate, sender, &mail::message(1, 100)).await else { return };
        assert!(!said.status.success(), "{}", text(&said));
        assert!(text(&said).contains(expected), "{}", text(&said));
        let id = id_in(&text(&said)).unwrap().to_owned();
        gate.logged(&id).await;
    }
    assert_eq!(postfix.connections().await, before);
    assert!(postfix.mailbox("user").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoofed_header_is_refused_and_postfix_takes_no_message() {
    let Some((gate, postfix, _zone)) = set_up().await else { return };
    let message = b"From: <ceo@bank-login.test>\r\nSubject: urgent\r\n\r\nplease pay\r\n";
    let Some(said) = swaks(&gate, "a@good.test", message).await else { return };
    assert!(!said.status.success(), "{}", text(&said));
    assert!(
        text(&said).contains("550 5.7.1 <ceo@bank-login.test>: bank-login.test does not exist (id "),
        "{}",
        text(&said)
    );
    postfix.wait_for_empty_queue().await;
    assert!(postfix.mailbox("user").is_empty());
    assert!(!postfix.log().contains("message-id="), "{}", postfix.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn smtp_source_delivers_in_parallel_sessions() {
    let Some(program) = process::program("smtp-source") else { return };
    let Some((gate, postfix, _zone)) = set_up().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("message");
    let message = b"From: <a@good.test>\r\nSubject: many\r\n\r\n.\r\n..dots\r\n.\r\nlast\r\n\r\n".to_vec();
    let lines = mail::as_stored(&message);
    fs::write(&file, lines.strip_suffix(b"\n").unwrap()).unwrap(); // the empty line at the end is its own

    let mut command = Command::new(program);
    command.args([
        "-4",
        "-m",
        "40",
        "-s",
        "8",
        "-M",
        "mail.good.test",
        "-f",
        "a@good.test",
        "-t",
        "user@relay.test",
    ]);
    let said =
        process::run(command.arg("-F").arg(&file).arg(gate.address().to_string()), Vec::new(), SOON * 3)
            .await;
    assert!(said.status.success(), "{}", text(&said));

    let files = postfix.wait_for_messages("user", 40, SOON).await;
    postfix.wait_for_empty_queue().await;
    assert_eq!(postfix.mailbox("user").len(), 40);
    for file in files {
        mail::assert_arrived(&fs::read(file).unwrap(), &message, "a message of smtp-source");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_refusal_of_an_unknown_recipient_reaches_the_client_and_the_others_get_the_mail() {
    let Some((gate, postfix, _zone)) = set_up().await else { return };
    let mut client = Client::greeted(EXCHANGER, gate.address(), "mail.good.test").await;
    assert_eq!(client.command("MAIL FROM:<a@good.test>").await.code, 250);
    let refused = client.command("RCPT TO:<nobody@relay.test>").await;
    assert!(refused.text.starts_with("550 5.1.1 "), "{}", refused.text);
    assert!(refused.text.contains("User unknown"), "{}", refused.text);
    assert_eq!(client.command("RCPT TO:<other@relay.test>").await.code, 250);
    assert_eq!(client.command("DATA").await.code, 354);
    let message = mail::message(3, 1_000);
    client.send(&on_the_wire(&message)).await;
    let taken = client.reply().await;
    assert_eq!(taken.code, 250, "{}", taken.text);
    let files = postfix.wait_for_messages("other", 1, SOON).await;
    mail::assert_arrived(&fs::read(&files[0]).unwrap(), &message, "the message");
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_stopped_in_mid_session_gives_4xx_and_the_retry_arrives_once() {
    let Some((gate, mut postfix, _zone)) = set_up().await else { return };
    for (number, stop) in [Stop::BeforeMail, Stop::AfterRcpt, Stop::InTheMessage].into_iter().enumerate() {
        let message = mail::message(number, 400_000);
        let interrupted = deliver_while_stopping(&gate, &mut postfix, stop, &message).await;
        assert!(interrupted.is_transient(), "{stop:?}: {}", interrupted.text);
        postfix.start_again();
        assert_eq!(
            postfix.mailbox("user").len(),
            number,
            "{stop:?}: a message that was answered 4xx arrived"
        );

        let mut client = Client::greeted(EXCHANGER, gate.address(), "mail.good.test").await;
        let reply = client.deliver("a@good.test", "user@relay.test", &message).await;
        assert_eq!(reply.code, 250, "{stop:?}: {}", reply.text);
        let files = postfix.wait_for_messages("user", number + 1, SOON).await;
        postfix.wait_for_empty_queue().await;
        assert_eq!(postfix.mailbox("user").len(), number + 1, "{stop:?}");
        let subject = format!("Subject: number {number}\n");
        let stored: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        let ours = |stored: &&Vec<u8>| stored.windows(subject.len()).any(|part| part == subject.as_bytes());
        mail::assert_arrived(stored.iter().find(ours).unwrap(), &message, "the retry");
    }
    gate.terminate().await;
}

/// When Postfix is stopped in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    BeforeMail,
    AfterRcpt,
    InTheMessage,
}

/// One transaction with Postfix stopped on the way; the first reply that isn't positive, or else the last.
async fn deliver_while_stopping(gate: &Daemon, postfix: &mut Postfix, stop: Stop, message: &[u8]) -> Reply {
    let mut client = Client::greeted(EXCHANGER, gate.address(), "mail.good.test").await;
    if stop == Stop::BeforeMail {
        postfix.stop();
        return client.deliver("a@good.test", "user@relay.test", message).await;
    }
    assert_eq!(client.command("MAIL FROM:<a@good.test>").await.code, 250);
    let reply = client.command("RCPT TO:<user@relay.test>").await;
    assert_eq!(reply.code, 250, "{}", reply.text);
    if stop == Stop::AfterRcpt {
        postfix.stop();
    }
    let data = client.command("DATA").await;
    if !data.is_positive() {
        return data;
    }
    let wire = on_the_wire(message);
    let (first, second) = wire.split_at(wire.len() / 2);
    client.send(first).await;
    if stop == Stop::InTheMessage {
        postfix.stop();
    }
    client.send(second).await;
    client.reply().await
}

/// The three servers; none when Postfix can't be had.
async fn set_up() -> Option<(Daemon, Postfix, Zone)> {
    let postfix = Postfix::start()?;
    let zone = Zone::start();
    let gate = gate::start(&zone, &postfix, "").await;
    Some((gate, postfix, zone))
}

/// Sends one message to user@relay.test from the exchanger of good.test; none when swaks is not installed.
async fn swaks(gate: &Daemon, sender: &str, message: &[u8]) -> Option<Output> {
    let mut command = Command::new(process::program("swaks")?);
    let port = gate.address().port().to_string();
    command.args(["--server", "127.0.0.1", "--port", &port, "--local-interface", &EXCHANGER.to_string()]);
    command.args([
        "--helo",
        "mail.good.test",
        "--from",
        sender,
        "--to",
        "user@relay.test",
        "--timeout",
        "60",
    ]);
    command.args(["--no-data-fixup", "--data", "-"]);
    // as it is to be sent, but for the CRLF after the final dot, which swaks adds
    let wire = on_the_wire(message);
    let wire = wire.strip_suffix(b"\r\n").unwrap_or(&wire).to_vec();
    Some(process::run(&mut command, wire, SOON * 3).await)
}

fn text(said: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
}

/// The id in a refusal: "(id 4KXN7Q2M)".
fn id_in(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("(id ")?;
    rest.split(')').next().filter(|id| !id.is_empty())
}
