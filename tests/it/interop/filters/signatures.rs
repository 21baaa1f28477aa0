//! Signatures decide when Postfix has the whole message: what the owner of the From: domain asks for, and when Postfix
//! sends the body.

use super::STRANGER;
use super::site::{OURS, Site, USER, names, treasury, without_id};
use crate::dkim::signer::Signer;
use crate::support::client::on_the_wire;

/// Of the same organisation: a broken signature is no sign of a list on the way.
const SENDER: &str = "b@treasury.test";
const HEADER: &str = "From: service@treasury.test\r\nTo: user@relay.test\r\nSubject: one  two\r\n";
const REJECTED: &str = "550 5.7.1 <service@treasury.test>: treasury.test asks to reject mail that neither its SPF nor \
    its DKIM vouches for";

fn bodies() -> [String; 6] {
    [
        "Hello\r\n".to_owned(),
        String::new(),
        "\r\n\r\n".to_owned(),
        ".\r\n..two\r\n\r\n.\r\n \r\n\r\n".to_owned(),
        "x".repeat(200_000) + "\r\n",
        "seventy octets in a line, as in mail that people write to each other .\r\n".repeat(70_000),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aligned_signature_passes_and_a_broken_body_is_refused_at_the_end() {
    let Some(mut site) = Site::start(names("").await, str::to_owned) else { return };
    let rmxd = site.rmxd("").await;
    let mut passed = 0;
    for body in bodies() {
        let what = format!("{} octets", body.len());
        let signed = treasury().sign(HEADER, &body);
        let reply = site.send(STRANGER, SENDER, &signed).await;
        assert!(reply.starts_with("250 2.0.0 "), "{what}: {reply}");
        passed += 1;
        let message = site.arrived().await;
        let results = message.field(&format!("Authentication-Results: {OURS};")).unwrap();
        for part in [
            "; dkim=pass header.d=treasury.test header.s=sel;",
            "; dmarc=pass (reject) header.from=treasury.test;",
        ] {
            assert!(results.contains(part), "{what}: {results}");
        }
        assert_eq!(message.body(), body.replace("\r\n", "\n"), "{what}");
        // One line more, at the very end.
        let reply = site.send(STRANGER, SENDER, format!("{signed}x\r\n")).await;
        assert_eq!(reply, REJECTED, "{what}");
    }
    for (what, message) in [
        ("another's signature", Signer::new("good.test", 3).sign(HEADER, "x\r\n")),
        ("no such key", treasury().sign_with(HEADER, "x\r\n", "absent", "")),
        ("another header", treasury().sign(HEADER, "x\r\n").replace("one  two", "one three")),
        ("no signature", format!("{HEADER}\r\nx\r\n")),
    ] {
        assert_eq!(site.send(STRANGER, SENDER, message).await, REJECTED, "{what}");
    }
    let log = rmxd.settled("outcome=refused", 6 + 4).await;
    assert_eq!(log.matches("reason=dmarc_reject").count(), 10, "{log}");
    assert_eq!(log.matches("outcome=passed").count(), passed, "{log}");
    assert_eq!(site.postfix.mailbox("user").len(), passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_messages_of_a_session_have_verdicts_of_their_own() {
    let Some(mut site) = Site::start(names("").await, str::to_owned) else { return };
    let _rmxd = site.rmxd("").await;
    let signed = treasury().sign(HEADER, "Hello\r\n");
    let broken = signed.replace("Hello", "HELLO");
    let mut client = site.client(STRANGER).await;
    for (message, expected) in
        [(&signed, "250 "), (&broken, REJECTED), (&signed, "250 "), (&broken, REJECTED)]
    {
        let reply = client.deliver(SENDER, USER, message.as_bytes()).await;
        assert!(without_id(&reply.text).starts_with(expected), "{}", reply.text);
    }
    // Given up within the body, and one that comes slowly.
    for line in ["MAIL FROM:<b@treasury.test>", "RCPT TO:<user@relay.test>"] {
        assert_eq!(client.command(line).await.code, 250);
    }
    assert_eq!(client.command("DATA").await.code, 354);
    for octets in on_the_wire(signed.as_bytes()).chunks(40) {
        client.send(octets).await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(client.reply().await.code, 250);
    // In chunks (RFC 3030).
    for (message, expected) in [(&signed, "250 "), (&broken, REJECTED)] {
        for line in ["MAIL FROM:<b@treasury.test>", "RCPT TO:<user@relay.test>"] {
            assert_eq!(client.command(line).await.code, 250);
        }
        let (first, last) = message.split_at(message.len() - 3);
        client.send(format!("BDAT {}\r\n{first}", first.len())).await;
        assert_eq!(client.reply().await.code, 250);
        client.send(format!("BDAT {} LAST\r\n{last}", last.len())).await;
        let reply = client.reply().await;
        assert!(without_id(&reply.text).starts_with(expected), "{}", reply.text);
    }
    for _message in 0..4 {
        assert_eq!(site.arrived().await.body(), "Hello\n");
    }
}

/// Octets of the message as the log has them: of the header alone where nothing needs the body.
#[tokio::test(flavor = "multi_thread")]
async fn postfix_sends_the_body_only_where_a_signature_can_count() {
    let body = "0123456789012345678901234567890123456789\r\n".repeat(1000);
    let message = format!("From: a@good.test\r\nTo: user@relay.test\r\n\r\n{body}");
    let without_dkim =
        "[policy.from]\nmatches = \"reject\"\nmatches_by = [\"mx\", \"network\", \"ptr\", \"spf\"]\n";
    for (policy, sends_body) in [("", true), (without_dkim, false)] {
        let Some(mut site) = Site::start(names("").await, str::to_owned) else { return };
        let rmxd = site.rmxd(policy).await;
        assert!(site.send(super::EXCHANGER, "a@good.test", &message).await.starts_with("250 "));
        assert_eq!(site.arrived().await.body(), body.replace("\r\n", "\n"));
        let log = rmxd.logged("outcome=passed").await;
        let line = log.lines().find(|line| line.contains("outcome=passed")).unwrap();
        let octets: usize =
            line.split_once(" octets=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(octets > body.len(), sends_body, "{line}");
        assert!(sends_body || octets < 100, "{line}");
    }
}
