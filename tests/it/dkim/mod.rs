//! The rung `dkim` through the daemon: what a signature lets in, and that nothing is delivered which the body refuses.

pub(crate) mod opendkim;
mod owner;
pub(crate) mod signer;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rmxd::zone::{Server, Zone};

use crate::dkim::signer::Signer;
use crate::support::client::{Client, Reply, on_the_wire};
use crate::support::daemon::{Daemon, configuration};
use crate::support::process::{SOON, free_address, rmxd, run};
use crate::support::relay::Relay;

/// No exchanger of anybody.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 99));
const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const HEADER: &str = "From: Ann <ann@good.test>\r\nTo: user@here.test\r\nSubject: one  two\r\n";
const POLICY: &str = "[policy.from]\nmatches = \"reject\"\nmatches_by = [\"mx\", \"dkim\"]";
const REFUSED: &str =
    "550 5.7.1 <ann@good.test>: good.test does not name your address among its mail exchangers";

/// A place to sign for: the daemon and its DNS.
struct Site {
    daemon: Daemon,
    address: SocketAddr,
    _dns: Server,
}

impl Site {
    async fn new(more: &str) -> Self {
        Self::with_zone(more, "").await
    }

    async fn with_zone(more: &str, records: &str) -> Self {
        let zone = Zone::parse(&format!("{}{records}", zone()), None).unwrap();
        let dns = Server::start("127.0.0.1:0".parse().unwrap(), zone).await.unwrap();
        let address = free_address();
        let more = if more.contains("[relay]") { more } else { &format!("{}{more}", relay("maildir:mail")) };
        let text = configuration("gate.test", &[address], dns.address(), more);
        Self { daemon: Daemon::start(&text, &[]).await, address, _dns: dns }
    }

    async fn client(&self) -> Client {
        Client::greeted(STRANGER, self.address, "mail.good.test").await
    }

    async fn send(&self, message: &str) -> Reply {
        self.client().await.deliver("bounces@good.test", "user@here.test", message.as_bytes()).await
    }

    /// In chunks of so many octets.
    async fn send_chunks(&self, message: &str, size: usize) -> Reply {
        let mut client = self.client().await;
        for line in ["MAIL FROM:<bounces@good.test>", "RCPT TO:<user@here.test>"] {
            assert_eq!(client.command(line).await.code, 250);
        }
        let mut chunks = message.as_bytes().chunks(size).peekable();
        while let Some(chunk) = chunks.next() {
            let last = if chunks.peek().is_none() { " LAST" } else { "" };
            client.send(format!("BDAT {}{last}\r\n", chunk.len()).as_bytes()).await;
            client.send(chunk).await;
            let reply = client.reply().await;
            if chunks.peek().is_none() {
                return reply;
            }
            assert_eq!(reply.code, 250, "{}", reply.text);
        }
        unreachable!("a message has octets")
    }

    /// Its end: how many messages are in the Maildir.
    async fn delivered(self) -> usize {
        self.daemon.terminate().await.messages().len()
    }
}

fn relay(next_hop: &str) -> String {
    format!("[relay]\nnext_hop = \"{next_hop}\"\ndomains = [\"here.test\"]\n")
}

fn good() -> Signer {
    Signer::new("good.test", 1)
}

fn zone() -> String {
    let mut zone = String::from("$ORIGIN test.\n$TTL 60\n");
    for domain in ["good", "news.good", "other"] {
        zone.push_str(&format!("{domain} MX 10 mail.good\n"));
    }
    zone.push_str("mail.good A 127.0.0.10\n");
    for signer in [good(), Signer::new("news.good.test", 2), Signer::new("other.test", 3)] {
        zone.push_str(&format!("sel._domainkey.{}. TXT \"{}\"\n", signer.domain(), signer.record()));
    }
    zone.push_str("revoked._domainkey.good TXT \"v=DKIM1; k=ed25519; p=\"\n");
    zone.push_str(&format!("testing._domainkey.good TXT \"t=y; k=ed25519; {}\"\n", key_of(&good())));
    zone.push_str("broken._domainkey.good TXT \"x\"\n;! servfail broken._domainkey.good\n");
    zone
}

fn key_of(signer: &Signer) -> String {
    signer.record().replace("v=DKIM1; k=ed25519; ", "")
}

fn without_id(reply: &Reply) -> &str {
    reply.text.split(" (id ").next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_for_the_author_passes_however_it_comes() {
    let site = Site::new(POLICY).await;
    let bodies = [
        "Hello\r\n",
        "",
        "\r\n\r\n",
        ".\r\n..two\r\n\r\n.\r\n\r\n",
        "tail\r\n\r\n\r\n",
        &"x y\r\n".repeat(20_000),
    ];
    for body in bodies {
        let message = good().sign(HEADER, body);
        let reply = site.send(&message).await;
        assert_eq!(reply.code, 250, "{} for {:.40?}", reply.text, body);
        for size in [7_000, 1_000_000] {
            let reply = site.send_chunks(&message, size).await;
            assert_eq!(reply.code, 250, "{} for {:.40?} in chunks", reply.text, body);
        }
    }
    assert_eq!(site.send_chunks(&good().sign(HEADER, ".a\r\n.\r\n"), 1).await.code, 250);
    let news = Signer::new("news.good.test", 2);
    assert_eq!(site.send(&news.sign(HEADER, "Hello\r\n")).await.code, 250, "of the same organisation");
    let log = site.daemon.logged("rung=dkim").await;
    for part in ["verdict=accept", "identity=from", "rule=matches", "rung=dkim", "from=ann@good.test"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    let messages = site.daemon.terminate().await.messages();
    assert_eq!(messages.len(), 3 * 6 + 2);
    for message in messages {
        let text = String::from_utf8(message).unwrap();
        let results = text.replace("\n\t", " ");
        let pending = "x-reverse-mx=none (dkim_pending) header.from=good.test policy.rule=matches";
        assert!(results.contains(pending), "{results}");
        assert!(!text.contains("(dkim)"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_for_the_author_is_refused_and_not_delivered() {
    let site = Site::new(POLICY).await;
    let body = "Hello\r\nyou\r\n";
    let signed = good().sign(HEADER, body);
    let rows = [
        ("no signature", format!("{HEADER}\r\n{body}")),
        ("another body", signed.replace("you", "YOU")),
        ("a longer body", format!("{signed}more\r\n")),
        ("another subject", signed.replace("one  two", "three")),
        ("one field more of a signed name", signed.replace("  two\r\n", "  two\r\nSubject: x\r\n")),
        ("another's signature", Signer::new("other.test", 3).sign(HEADER, body)),
        ("another's key", Signer::new("good.test", 3).sign(HEADER, body)),
        ("a part of the body", good().sign_with(HEADER, body, "sel", "l=7;")),
        ("nothing of the body", good().sign_with(HEADER, body, "sel", "l=0;")),
        ("an expired signature", good().sign_with(HEADER, body, "sel", "t=1; x=1500000000;")),
        ("a revoked key", good().sign_with(HEADER, body, "revoked", "")),
        ("a key in test mode", good().sign_with(HEADER, body, "testing", "")),
        ("no such key", good().sign_with(HEADER, body, "absent", "")),
    ];
    for (what, message) in &rows {
        for reply in [site.send(message).await, site.send_chunks(message, 100).await] {
            assert_eq!(without_id(&reply), REFUSED, "{what}");
        }
    }
    let whole = format!("l={};", body.len());
    assert_eq!(site.send(&good().sign_with(HEADER, body, "sel", &whole)).await.code, 250, "all of the body");
    let broken = site.send(&good().sign_with(HEADER, body, "broken", "")).await;
    assert!(
        broken.text.starts_with("451 4.4.3 <ann@good.test>: good.test can't be looked up now"),
        "{broken:?}"
    );
    let spoiled = good().sign_with(HEADER, body, "broken", "").replace("you", "YOU");
    assert_eq!(
        without_id(&site.send(&spoiled).await),
        REFUSED,
        "whatever the key is, this is not what it signed"
    );
    assert_eq!(site.delivered().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_gets_the_dot_only_for_what_passes() {
    let mut next = Relay::start().await;
    let hop = format!("{}{POLICY}", relay(&format!("smtp://{}", next.address)));
    let site = Site::new(&hop).await;
    let signed = good().sign(HEADER, &"Hello\r\n.you\r\n".repeat(50_000));
    for (message, code, end) in [(signed.replacen("you", "YOU", 1), 550, "(close)"), (signed, 250, ".")] {
        for chunks in [false, true] {
            let reply =
                if chunks { site.send_chunks(&message, 150_000).await } else { site.send(&message).await };
            assert_eq!(reply.code, code);
            // before the next message: its connection to the relay is another, and their lines would mix
            while next.seen.recv().await.unwrap() != "DATA" {}
            let mut lines = Vec::new();
            while !lines.last().is_some_and(|line| line == "." || line == "(close)") {
                lines.push(next.seen.recv().await.unwrap());
            }
            assert_eq!(lines.last().unwrap(), end);
            assert!(lines.len() > 1_000, "the message was on its way: {}", lines.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipelined_message_behind_a_refused_one_is_judged_by_itself() {
    let site = Site::new(POLICY).await;
    let signed = good().sign(HEADER, "Hello\r\n");
    let mut client = site.client().await;
    for (message, code) in [(signed.replace("Hello", "Hullo"), 550), (signed.clone(), 250)] {
        client.send(b"MAIL FROM:<bounces@good.test>\r\nRCPT TO:<user@here.test>\r\nDATA\r\n").await;
        for expected in [250, 250, 354] {
            assert_eq!(client.reply().await.code, expected);
        }
        client.send(&[on_the_wire(message.as_bytes()), b"NOOP\r\n".to_vec()].concat()).await;
        assert_eq!((client.reply().await.code, client.reply().await.code), (code, 250));
    }
    drop(client);
    assert_eq!(site.delivered().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_author_needs_a_signature_of_his_own() {
    let site = Site::new(POLICY).await;
    let header = HEADER.replace("Ann <ann@good.test>", "ann@good.test, bob@other.test");
    let one = good().sign(&header, "Hello\r\n");
    assert!(site.send(&one).await.text.starts_with("550 5.7.1 <bob@other.test>"));
    let both = Signer::new("other.test", 3).sign(&header, "Hello\r\n");
    let both = format!("{}\r\n{one}", both.split("\r\nFrom:").next().unwrap());
    assert_eq!(site.send(&both).await.code, 250);
    assert!(site.send(&both.replace("Hello", "Hullo")).await.text.starts_with("550 5.7.1 <ann@good.test>"));
    assert_eq!(site.delivered().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchanger_needs_no_signature_and_other_policies_take_the_result_as_they_do() {
    let spoiled = good().sign(HEADER, "Hello\r\n").replace("Hello", "Hullo");
    let rows = [
        (POLICY.replace("reject", "defer"), 450, "verdict=defer"),
        (POLICY.replace("reject", "tag"), 250, "verdict=accept"),
        (format!("[policy]\nmode = \"monitor\"\n{POLICY}"), 250, "accepted, would have been rejected"),
        (format!("[exempt]\ndomains = [\"good.test\"]\n{POLICY}"), 250, "verdict=accept"),
    ];
    for (policy, code, logged) in rows {
        let site = Site::new(&policy).await;
        let mut client = Client::greeted(EXCHANGER, site.address, "mail.good.test").await;
        let from_exchanger = client.deliver("bounces@good.test", "user@here.test", spoiled.as_bytes()).await;
        assert_eq!(from_exchanger.code, 250, "{policy}");
        assert_eq!(site.send(&spoiled).await.code, code, "{policy}");
        site.daemon.logged(logged).await;
        drop(client);
        assert_eq!(site.delivered().await, if code == 250 { 2 } else { 1 }, "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_becomes_of_a_signed_message() {
    let site = Site::new(POLICY).await;
    let signed = good().sign(HEADER, "Hello\r\n.you\r\n");
    let rows = [
        (signed.replace("\r\n", "\n"), 0, "matches of ann@good.test: pass (dkim) [reject]\n"),
        (
            signed.replace("you", "YOU"),
            1,
            "matches of ann@good.test: fail (not_an_exchanger) [reject]  <-- decides\n",
        ),
    ];
    let file = site.daemon.home().path().join("message.eml");
    for (message, code, line) in rows {
        std::fs::write(&file, message).unwrap();
        let mut command = rmxd(&["check"]);
        command.args(["--client", "127.0.0.99", "--mail-from", "bounces@good.test", "--config"]);
        command.arg(site.daemon.home().file()).arg("--message").arg(&file);
        let run = run(&mut command, Vec::new(), SOON).await;
        let text = String::from_utf8_lossy(&run.stdout);
        assert_eq!(run.status.code(), Some(code), "{text}");
        assert!(
            text.contains(line) && text.contains("TXT sel._domainkey.good.test: \"v=DKIM1; k=ed25519; p="),
            "{text}"
        );
    }
}
