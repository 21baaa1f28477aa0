//! STARTTLS and AUTH at a Postfix: the verdict is the same under TLS, and whoever has logged in is exempt.

use std::net::{IpAddr, SocketAddr};

use rmxd::tls::Stream;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::delivered::RECEIVED;
use super::site::{OURS, Site, USER, names, treasury, without_id};
use super::{EXCHANGER, STRANGER};
use crate::interop::starttls::tls_of_postfix;
use crate::support::client::Client;
use crate::support::readme;

/// `\0ann\0secret` and `\0ann\0wrong`.
const RIGHT: &str = "AUTH PLAIN AGFubgBzZWNyZXQ=";
const WRONG: &str = "AUTH PLAIN AGFubgB3cm9uZw==";
const UNKNOWN: &str = "a@nowhere.test";
const REFUSED: &str = "550 5.1.8 <a@nowhere.test>: nowhere.test does not exist";
const FROM: &str = "From: a@nowhere.test";
const FORGED: &str = "Authentication-Results: gate.relay.test; dkim=pass";
const FOREIGN: &str = "Authentication-Results:mx.other.test;  spf=pass";

/// A server of Dovecot's authentication protocol (version 1.1) that knows one user; ends with the test.
async fn auth_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    address
}

async fn answer(stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    let hello = "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t0\nDONE\n";
    stream.write_all(hello.as_bytes()).await.unwrap();
    let mut line = String::new();
    while stream.read_line(&mut line).await.is_ok_and(|octets| octets > 0) {
        if let Some(request) = line.strip_prefix("AUTH\t") {
            let id = request.split('\t').next().unwrap();
            let is_right = request.trim_end().ends_with(RIGHT.rsplit(' ').next().unwrap());
            let word = if is_right { "OK" } else { "FAIL" };
            stream.write_all(format!("{word}\t{id}\tuser=ann\n").as_bytes()).await.unwrap();
        }
        line.clear();
    }
}

fn auth_of_postfix(server: SocketAddr) -> String {
    format!("smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = inet:{server}\n")
}

fn message(fields: &[&str]) -> String {
    format!("{}\r\n\r\nHello\r\n", fields.join("\r\n"))
}

/// The session under TLS, greeted again by another name.
async fn start_tls(client: Client, name: &str) -> Client<Stream<TcpStream>> {
    let mut client = client.into_tls().await;
    let hello = client.command(&format!("EHLO {name}")).await;
    assert!(hello.code == 250 && !hello.text.contains("STARTTLS"), "{}", hello.text);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn under_tls_the_verdict_is_the_same_and_the_later_helo_counts() {
    let more = |folder: &std::path::Path| tls_of_postfix(folder, "may");
    let Some(mut site) = Site::start_with(names("").await, str::to_owned, more) else { return };
    let rmxd = site.rmxd("[policy.helo]\nexists = \"tag\"\n").await;
    let signed = treasury().sign("From: service@treasury.test\r\nTo: user@relay.test\r\n", "Hello\r\n");
    let mut client = start_tls(site.client(STRANGER).await, "host.null-mx.test").await;
    let rejected = "550 5.7.1 <service@treasury.test>: treasury.test asks to reject ";
    for (sender, message, expected) in [
        (UNKNOWN, &message(&[FROM]), REFUSED),
        ("b@treasury.test", &signed, "250 2.0.0 Ok"),
        ("b@treasury.test", &signed.replace("Hello", "HELLO"), rejected),
        (
            "a@good.test",
            &message(&["From: b@nowhere.test"]),
            "550 5.7.1 <b@nowhere.test>: nowhere.test does not exist",
        ),
    ] {
        let reply = client.deliver(sender, USER, message.as_bytes()).await;
        assert!(without_id(&reply.text).starts_with(expected), "{}", reply.text);
        if !reply.is_positive() {
            assert_eq!(client.command("RSET").await.code, 250);
        }
    }
    let delivered = site.arrived().await;
    let ours = delivered.field(&format!("Authentication-Results: {OURS}")).unwrap();
    assert!(
        ours.contains("smtp.helo=host.null-mx.test") && !ours.contains("smtp.helo=mail.good.test"),
        "{ours}"
    );
    let log = rmxd.logged("outcome=passed").await;
    assert!(log.contains("helo=host.null-mx.test"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_milter_a_user_who_has_logged_in_is_exempt_and_has_no_results_of_ours() {
    let auth = auth_server().await;
    let more = |folder: &std::path::Path| tls_of_postfix(folder, "may") + &auth_of_postfix(auth);
    let Some(mut site) = Site::start_with(names("").await, str::to_owned, more) else { return };
    let rmxd = site.rmxd("").await;
    let sent = message(&[FORGED, FROM, FOREIGN, FORGED, "X-Odd:none"]);
    let left = [RECEIVED, FROM, FOREIGN, "X-Odd:none"];

    let mut client = site.client(STRANGER).await;
    let reply = client.deliver(UNKNOWN, USER, sent.as_bytes()).await;
    assert_eq!(without_id(&reply.text), REFUSED, "before the login");
    assert_eq!(client.command("RSET").await.code, 250);
    assert_eq!(client.command(WRONG).await.code, 535);
    let reply = client.deliver(UNKNOWN, USER, sent.as_bytes()).await;
    assert_eq!(without_id(&reply.text), REFUSED, "with a wrong password");
    assert_eq!(client.command("RSET").await.code, 250);
    assert_eq!(client.command(RIGHT).await.code, 235);
    let broken = treasury().sign("From: service@treasury.test\r\n", "Hello\r\n").replace("Hello", "HELLO");
    for sender in [UNKNOWN, "a@broken.test", ""] {
        let reply = client.deliver(sender, USER, sent.as_bytes()).await;
        assert_eq!(reply.code, 250, "{sender}: {}", reply.text);
        site.arrived().await.assert_fields(&left, sender);
    }
    let reply = client.deliver("b@treasury.test", USER, broken.as_bytes()).await;
    assert_eq!(reply.code, 250, "{}", reply.text);
    assert!(site.arrived().await.field(&format!("Authentication-Results: {OURS}")).is_none());

    // By TLS, which ends the login before it.
    let mut client = start_tls(site.client(STRANGER).await, "laptop.nowhere.test").await;
    assert_eq!(client.command(RIGHT).await.code, 235);
    let reply = client.deliver(UNKNOWN, USER, sent.as_bytes()).await;
    assert_eq!(reply.code, 250, "{}", reply.text);
    site.arrived().await.assert_fields(&left, "by TLS");

    // The next client is another one.
    assert_eq!(site.send(STRANGER, UNKNOWN, &sent).await, REFUSED);
    let log = rmxd.settled("outcome=passed", 5).await;
    assert_eq!(log.matches("outcome=refused").count(), 3, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_policy_service_a_user_who_has_logged_in_is_exempt() {
    let auth = auth_server().await;
    // Without it Postfix asks for those who have logged in, too.
    let guide = readme::block("main.cf policy");
    let permit = "  permit_sasl_authenticated\n";
    assert!(guide.contains(permit), "{guide}");
    let lines = guide.replace(permit, "") + &auth_of_postfix(auth) + "smtpd_tls_security_level = none\n";
    let Some(mut site) = Site::start_as(names("").await, |_| lines) else { return };
    let _rmxd = site.rmxd_as("toml policy", "").await;
    let sent = message(&[FORGED, FROM, FOREIGN]);
    let refused = "550 5.1.8 <a@nowhere.test>: Sender address rejected: nowhere.test does not exist";
    let send = async |from: IpAddr, login: Option<(&str, u16)>| {
        let mut client = site.client(from).await;
        if let Some((line, code)) = login {
            assert_eq!(client.command(line).await.code, code);
        }
        without_id(&client.deliver(UNKNOWN, USER, sent.as_bytes()).await.text)
    };
    assert_eq!(send(EXCHANGER, None).await, refused);
    assert_eq!(send(STRANGER, Some((WRONG, 535))).await, refused);
    assert!(send(STRANGER, Some((RIGHT, 235))).await.starts_with("250 "));
    assert_eq!(send(STRANGER, None).await, refused);
    site.arrived().await.assert_fields(&[RECEIVED, FORGED, FROM, FOREIGN], "no header at this door");
}
