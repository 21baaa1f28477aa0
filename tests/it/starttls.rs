//! STARTTLS at the door (RFC 3207): over an in-memory pipe, with a Maildir behind and a client that is exempt from every
//! lookup.

use std::path::PathBuf;
use std::time::Duration;

use rmxd::door::SmtpDoor;
use rmxd::tls::{Handshakes, Stream};
use tempfile::TempDir;
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support;
use crate::support::client::Client;
use crate::support::log::Log;
use crate::support::pattern::Found;

struct Setup {
    folder: TempDir,
    door: SmtpDoor,
}

impl Setup {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let pair = rcgen::generate_simple_self_signed(["gate.test".to_owned()]).unwrap();
        std::fs::write(file("cert.pem"), pair.cert.pem()).unwrap();
        std::fs::write(file("key.pem"), pair.signing_key.serialize_pem()).unwrap();
        let settings = support::settings([
            format!("relay.next_hop=maildir:{}", file("mail")).as_str(),
            "exempt.clients=127.0.0.0/8",
            "limits.command_timeout=7s",
            &format!("tls.certificate={}", file("cert.pem")),
            &format!("tls.key={}", file("key.pem")),
        ]);
        let door = support::door(&settings, "127.0.0.1:9".parse().unwrap());
        door.relay.probe().await.unwrap(); // makes the Maildir
        Self { folder, door }
    }

    /// A client that has read the banner.
    async fn client(&self) -> Session {
        let (near, far) = duplex(64 * 1024);
        let door = self.door.clone();
        let served = tokio::spawn(async move {
            door.serve(far, "127.0.0.1:4321".parse().unwrap(), CancellationToken::new()).await;
        });
        let mut client = Session { smtp: Client::over(Stream::Plain(near)), served };
        assert_eq!(client.reply().await, ["220 gate.test ESMTP rmxd"]);
        client
    }

    fn handshakes(&self) -> Handshakes {
        self.door.tls.as_ref().unwrap().handshakes()
    }

    /// The messages that were delivered.
    fn messages(&self) -> Vec<String> {
        let folder: PathBuf = self.folder.path().join("mail/new");
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
    }
}

struct Session {
    smtp: Client<Stream<DuplexStream>>,
    served: JoinHandle<()>,
}

impl Session {
    async fn send(&mut self, text: &str) {
        self.smtp.send(text).await;
    }

    /// The lines of the next reply.
    async fn reply(&mut self) -> Vec<String> {
        self.smtp.reply().await.text.lines().map(str::to_owned).collect()
    }

    /// Sends a line; the code of the answer.
    async fn say(&mut self, line: &str) -> u16 {
        self.smtp.command(line).await.code
    }

    async fn start_tls(&mut self) {
        assert_eq!(self.say("STARTTLS").await, 220);
        self.handshake().await;
    }

    async fn handshake(&mut self) {
        self.smtp.stream().connect("gate.test", [127, 0, 0, 1].into()).await.unwrap();
    }

    /// What still comes up to the end of the connection, which the door has ended.
    async fn rest(self) -> String {
        let Self { mut smtp, served } = self;
        let rest = smtp.rest().await;
        drop(smtp); // the door lingers for a client that has not closed
        served.await.unwrap();
        rest
    }
}

const TRANSACTION: [(&str, u16); 3] =
    [("MAIL FROM:<u@good.test>", 250), ("RCPT TO:<v@here.test>", 250), ("DATA", 354)];

#[tokio::test]
async fn a_message_passes_by_tls_and_received_and_the_log_say_how() {
    let log = Log::default();
    let _guard = log.start();
    let setup = Setup::new().await;
    let mut client = setup.client().await;
    client.send("EHLO c.test\r\n").await;
    assert!(client.reply().await.contains(&"250-STARTTLS".to_owned()));
    client.start_tls().await;

    assert_eq!(client.say("MAIL FROM:<u@good.test>").await, 503, "the greeting before TLS is forgotten");
    client.send("EHLO c.test\r\n").await;
    let offer = client.reply().await;
    assert!(offer.iter().all(|line| !line.contains("STARTTLS")), "{offer:?}");
    assert_eq!(client.say("STARTTLS").await, 503);
    for (line, code) in TRANSACTION {
        assert_eq!(client.say(line).await, code, "{line}");
    }
    assert_eq!(client.say("From: <u@good.test>\r\n\r\nhi\r\n.").await, 250);
    assert_eq!(client.say("QUIT").await, 221);
    assert_eq!(client.rest().await, "");

    let [message] = &setup.messages()[..] else { panic!("{:?}", setup.messages()) };
    let expected = "(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)\n\tby gate.test with ESMTPS id ";
    assert!(message.contains(expected), "{message}");
    assert_eq!(setup.handshakes(), Handshakes { done: 1, failed: 0 });
    log.has("outcome=delivered tls=TLSv1.3", &Found::new()).unwrap();
}

#[tokio::test]
async fn without_tls_received_and_the_log_say_so() {
    let log = Log::default();
    let _guard = log.start();
    let setup = Setup::new().await;
    let mut client = setup.client().await;
    assert_eq!(client.say("EHLO c.test").await, 250);
    for (line, code) in TRANSACTION {
        assert_eq!(client.say(line).await, code, "{line}");
    }
    assert_eq!(client.say("From: <u@good.test>\r\n\r\nhi\r\n.").await, 250);
    let [message] = &setup.messages()[..] else { panic!("{:?}", setup.messages()) };
    assert!(message.contains("\tby gate.test with ESMTP id ") && !message.contains("TLS"), "{message}");
    log.has("outcome=delivered tls=null", &Found::new()).unwrap();
}

/// CVE-2011-0411: somebody on the way puts commands behind the client's STARTTLS.
#[tokio::test]
async fn what_comes_in_one_piece_with_starttls_is_never_obeyed() {
    for pipelined in ["MAIL FROM:<x@evil.test>\r\n", "RSET\r\n", "x", "\0", "\r\n"] {
        let setup = Setup::new().await;
        let mut client = setup.client().await;
        client.send(&format!("EHLO c.test\r\nSTARTTLS\r\n{pipelined}")).await;
        assert_eq!(client.reply().await[0], "250-gate.test");
        let refusal = client.reply().await;
        assert!(refusal[0].starts_with("554 5.5.1 nothing may follow STARTTLS"), "{pipelined:?} {refusal:?}");
        assert_eq!(client.rest().await, "", "{pipelined:?}");
        assert_eq!(setup.handshakes(), Handshakes { done: 0, failed: 0 });
    }
}

#[tokio::test]
async fn what_comes_in_plain_text_instead_of_a_handshake_ends_the_connection() {
    let hello = [&[0x16, 3, 1, 0, 5][..], b"hello"].concat();
    for instead in [&b"MAIL FROM:<x@evil.test>\r\nRCPT TO:<v@here.test>\r\n"[..], &[0; 300], &hello] {
        let setup = Setup::new().await;
        let mut client = setup.client().await;
        assert_eq!(client.say("EHLO c.test").await, 250);
        assert_eq!(client.say("STARTTLS").await, 220);
        client.smtp.send(instead).await;
        let rest = client.rest().await;
        assert!(rest.is_empty() || rest.starts_with('\x15'), "no SMTP but an alert of TLS: {rest:?}");
        assert_eq!(setup.handshakes(), Handshakes { done: 0, failed: 1 });
    }
}

#[tokio::test]
async fn a_transaction_that_was_open_before_the_handshake_is_gone() {
    let setup = Setup::new().await;
    let mut client = setup.client().await;
    for line in ["EHLO c.test", "MAIL FROM:<u@good.test>", "RCPT TO:<v@here.test>", "BDAT 5\r\nSub"] {
        assert_eq!(client.say(line).await, 250, "{line}");
    }
    client.start_tls().await;
    for (line, code) in [("RCPT TO:<v@here.test>", 503), ("EHLO c.test", 250), ("DATA", 503)] {
        assert_eq!(client.say(line).await, code, "{line}");
    }
    assert_eq!(client.say("BDAT 9 LAST\r\nject: x").await, 503);
    assert_eq!(client.say("QUIT").await, 221);
    client.rest().await;
    assert!(setup.messages().is_empty());
}

#[tokio::test]
async fn starttls_may_end_a_group_of_commands() {
    let setup = Setup::new().await;
    let mut client = setup.client().await;
    client.send("EHLO c.test\r\nNOOP\r\nSTARTTLS\r\n").await;
    for code in ["250", "250", "220"] {
        assert!(client.reply().await[0].starts_with(code));
    }
    client.handshake().await;
    client.send("EHLO c.test\r\nMAIL FROM:<u@good.test>\r\nNOOP\r\n").await;
    for code in ["250", "250", "250"] {
        assert!(client.reply().await[0].starts_with(code));
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_the_time_of_a_command() {
    let setup = Setup::new().await;
    let mut client = setup.client().await;
    assert_eq!(client.say("EHLO c.test").await, 250);
    assert_eq!(client.say("STARTTLS").await, 220);
    let began = Instant::now();
    // half of a ClientHello's record header, and never more
    client.smtp.send(&[0x16, 3]).await;
    assert_eq!(client.rest().await, "");
    let waited = began.elapsed();
    assert!((Duration::from_secs(7)..Duration::from_secs(8)).contains(&waited), "{waited:?}");
    assert_eq!(setup.handshakes(), Handshakes { done: 0, failed: 1 });
}
