//! Who is calling: what a trusted proxy or gateway announces is what is judged, and what a stranger announces is not.
//!
//! `matches` of MAIL FROM is `reject` here, so the reply tells whose address was looked at: the exchanger of good.test
//! stands on 127.0.0.10, the test's own connections come from elsewhere.

use std::net::{IpAddr, Ipv4Addr};

use super::start;
use crate::support::client::Client;
use crate::support::daemon::Daemon;
use crate::support::zone::Zone;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));
const MESSAGE: &[u8] = b"From: a@good.test\r\n\r\nhello\r\n";

fn strict(trusted: &str) -> String {
    format!("[policy.mail_from]\nmatches = \"reject\"\nmatches_by = [\"mx\"]\n[trusted]\n{trusted}\n")
}

/// MAIL and RCPT; the code of the second is the verdict.
async fn verdict(client: &mut Client) -> u16 {
    assert_eq!(client.command("EHLO mail.good.test").await.code, 250);
    assert_eq!(client.command("MAIL FROM:<a@good.test>").await.code, 250);
    client.command("RCPT TO:<user@here.test>").await.code
}

/// After this header; what answers is the banner.
async fn behind(header: &[u8], daemon: &Daemon) -> (u16, Client) {
    let mut client = Client::connect(HERE, daemon.address()).await;
    client.send(header).await;
    (client.reply().await.code, client)
}

#[tokio::test]
async fn a_trusted_proxy_is_believed() {
    let zone = Zone::start();
    let daemon = start(&zone, &strict("proxy = [\"127.0.0.77\"]")).await;
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x0a\x7f\0\0\x01\x10\xe1\0\x19";
    let rows: [(&[u8], u16); 4] = [
        (b"PROXY TCP4 127.0.0.10 127.0.0.1 4321 25\r\n", 250),
        (v2, 250),
        (b"PROXY TCP4 127.0.0.11 127.0.0.1 4321 25\r\n", 550),
        (b"PROXY UNKNOWN\r\n", 550),
    ];
    for (header, expected) in rows {
        let (banner, mut client) = behind(header, &daemon).await;
        assert_eq!((banner, verdict(&mut client).await), (220, expected), "{}", header.escape_ascii());
    }
    let (_, mut client) = behind(b"PROXY TCP6 ::ffff:127.0.0.10 ::1 4321 25\r\n", &daemon).await;
    client.command("EHLO mail.good.test").await;
    assert_eq!(client.deliver("a@good.test", "user@here.test", MESSAGE).await.code, 250);
    let message = String::from_utf8(daemon.home().messages().remove(0)).unwrap();
    assert!(message.contains("[127.0.0.10]") && !message.contains("127.0.0.77"), "{message}");
}

#[tokio::test]
async fn a_stranger_with_a_proxy_header_is_a_client_with_a_bad_command() {
    let zone = Zone::start();
    let daemon = start(&zone, &strict("proxy = [\"192.0.2.0/24\"]")).await;
    let (banner, mut client) = behind(b"PROXY TCP4 127.0.0.10 127.0.0.1 4321 25\r\n", &daemon).await;
    assert_eq!((banner, client.reply().await.code), (220, 500));
    assert_eq!(verdict(&mut client).await, 550);
}

#[tokio::test]
async fn a_trusted_gateway_speaks_for_its_client_and_a_stranger_for_nobody() {
    let zone = Zone::start();
    for (trusted, offered, answered, judged) in
        [("127.0.0.77", true, 220, 250), ("192.0.2.7", false, 502, 550)]
    {
        let daemon = start(&zone, &strict(&format!("xclient = [\"{trusted}\"]"))).await;
        let mut client = Client::connect(HERE, daemon.address()).await;
        assert_eq!(client.reply().await.code, 220);
        let hello = client.command("EHLO gateway.test").await;
        assert_eq!(hello.text.contains("XCLIENT NAME ADDR PORT PROTO HELO"), offered, "{}", hello.text);
        let announced =
            client.command("XCLIENT NAME=forged.test ADDR=127.0.0.10 PORT=4321 HELO=mail.good.test").await;
        assert_eq!(announced.code, answered, "{}", announced.text);
        assert_eq!(verdict(&mut client).await, judged, "trusted: {trusted}");
        if offered {
            assert_eq!(client.command("RSET").await.code, 250);
            assert_eq!(client.command("XCLIENT ADDR=127.0.0.11").await.code, 502, "not the client itself");
            assert_eq!(client.deliver("a@good.test", "user@here.test", MESSAGE).await.code, 250);
            let message = String::from_utf8(daemon.home().messages().remove(0)).unwrap();
            assert!(message.contains("[127.0.0.10]") && !message.contains("forged.test"), "{message}");
        }
    }
}

#[tokio::test]
async fn an_exempt_client_is_exempt_behind_a_proxy_and_the_proxy_is_not_its_alias() {
    let zone = Zone::start();
    let more = format!("[exempt]\nclients = [\"192.0.2.7\"]\n{}", strict("proxy = [\"127.0.0.0/8\"]"));
    let daemon = start(&zone, &more).await;
    for (client, expected) in [("192.0.2.7", 250), ("192.0.2.8", 550)] {
        let header = format!("PROXY TCP4 {client} 127.0.0.1 4321 25\r\n");
        let (_, mut connection) = behind(header.as_bytes(), &daemon).await;
        assert_eq!(verdict(&mut connection).await, expected, "{client}");
    }
}
