//! SMTP smuggling: octets that one server takes for the end of a message and the next one doesn't, or the other way
//! round, so that what the first carries as text is an envelope to the second.
//!
//! Each case hides a second envelope behind a sequence that looks like CRLF . CRLF and sends it through rmxd to a Postfix
//! that is as easily fooled as its settings allow; that it can be fooled is shown first. Each case bears a tag in both
//! parts, so that what arrives can be counted: one message, or none where rmxd said no.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::gate;
use super::postfix::Postfix;
use crate::support::client::Client;
use crate::support::zone::Zone;

/// The address of mail.good.test, which is the exchanger of good.test.
const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const SOON: Duration = Duration::from_secs(60);
/// Sessions at one time.
const SIDE_BY_SIDE: usize = 12;

/// What some server might take for a line end.
const ENDS: [&[u8]; 9] =
    [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\n\r\n", b"\r\n\0", b"\0\r\n", b"\r\n\r"];
const DOTS: [&[u8]; 2] = [b".", b".."];
const END_OF_DATA: &[u8] = b"\r\n.\r\n";

/// Bare LF is a line end, and commands need not wait for replies: the settings before the attack was known.
const GULLIBLE: &str =
    "smtpd_tls_security_level = none\nsmtpd_forbid_bare_newline = no\nsmtpd_forbid_unauth_pipelining = no\n";

/// Where the sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Body,
    Header,
    /// Right behind DATA.
    FirstLine,
    /// In a message sent with BDAT, cut within the sequence.
    Chunks,
    /// In the command that gives the sender.
    Command,
    /// In the body, each octet of the sequence in a packet of its own.
    Packets,
}

/// One session.
#[derive(Debug, Clone)]
struct Case {
    tag: String,
    place: Place,
    sequence: Vec<u8>,
    normalize: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_look_alike_of_the_end_of_data_lets_a_second_envelope_through() {
    let Some(postfix) = Postfix::start_with(|_| GULLIBLE.to_owned()) else { return };
    assert_can_be_fooled(&postfix).await;
    let zone = Zone::start();
    let strict = gate::start(&zone, &postfix, "[policy]\nmalformed = \"tag\"\n").await;
    let lenient = "[policy]\nmalformed = \"tag\"\n[limits]\nbare_newline = \"normalize\"\n";
    let lenient = gate::start(&zone, &postfix, lenient).await;

    let cases = cases();
    let said = play(&cases, strict.address(), lenient.address()).await;
    postfix.wait_for_empty_queue().await;
    let arrived = arrived(&postfix, &cases);

    let mut wrong = Vec::new();
    for case in &cases {
        let (count, said) = (arrived[&case.tag], &said[&case.tag]);
        let expected = usize::from(case.may_pass());
        let agree = count == usize::from(said.contains("250 2.0.0 Ok: queued as "))
            && said.contains("\n521 ") == (count == 0);
        if count != expected || !agree {
            wrong.push(format!("{count} of {expected} arrived, said {said:?}: {case:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    // the one that was smuggled to show that it can be
    assert_eq!(postfix.mailbox("other").len(), 1, "a second envelope came through");
    let passed = arrived.values().sum::<usize>();
    assert!(passed > 40 && cases.len() - passed > 500, "{passed} of {} arrived", cases.len());
}

/// Without rmxd, the oldest sequence of all works; otherwise this test would show nothing.
async fn assert_can_be_fooled(postfix: &Postfix) {
    let case =
        Case { tag: "control.".into(), place: Place::Body, sequence: b"\n.\n".to_vec(), normalize: false };
    case.play(postfix.address()).await;
    postfix.wait_for_messages("other", 1, SOON).await;
    postfix.wait_for_messages("user", 1, SOON).await;
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |place, sequence: &[u8], normalize| {
        let tag = format!("case-{}.", cases.len());
        cases.push(Case { tag, place, sequence: sequence.to_vec(), normalize });
    };
    for normalize in [false, true] {
        for before in ENDS {
            add(Place::Command, before, normalize);
            add(Place::FirstLine, &[before, b".\r\n"].concat(), normalize);
            for (dots, after) in DOTS.iter().flat_map(|dots| ENDS.map(|after| (*dots, after))) {
                let sequence = [before, dots, after].concat();
                for place in [Place::Body, Place::Header, Place::Chunks] {
                    add(place, &sequence, normalize);
                }
                if before == b"\r\n" {
                    add(Place::Packets, &sequence, normalize);
                    add(Place::FirstLine, &[dots, after].concat(), normalize);
                }
            }
        }
    }
    cases.retain(|case| !case.is_end());
    cases
}

impl Case {
    /// Whether rmxd lets the message through, as one: no octet of it is a fault.
    fn may_pass(&self) -> bool {
        self.fault().is_none()
    }

    /// Whether the sequence holds the true end of data: then what follows is a client's next command in earnest.
    fn is_end(&self) -> bool {
        let octets = self.in_place();
        let end = octets.windows(END_OF_DATA.len()).position(|window| window == END_OF_DATA);
        let in_data = ![Place::Chunks, Place::Command].contains(&self.place);
        in_data && end.is_some_and(|end| self.fault().is_none_or(|fault| fault > end))
    }

    /// The sequence between the octets around it.
    fn in_place(&self) -> Vec<u8> {
        let before: &[u8] = if self.place == Place::FirstLine { b"\r\n" } else { b"e" };
        [before, &self.sequence, b"M"].concat()
    }

    /// Where the first octet is that has no place in a message or command.
    fn fault(&self) -> Option<usize> {
        let octets = self.in_place();
        let behind_crs = |at: usize| octets[at..].iter().find(|octet| **octet != b'\r');
        (1..octets.len()).find(|&at| match octets[at] {
            b'\r' if self.normalize => behind_crs(at) != Some(&b'\n'),
            b'\r' => octets[at + 1] != b'\n',
            b'\n' => !self.normalize && octets[at - 1] != b'\r',
            octet => octet == 0,
        })
    }

    /// What follows the sequence: the envelope that must not count.
    fn hidden(&self) -> String {
        format!(
            "MAIL FROM:<evil@good.test>\r\nRCPT TO:<other@relay.test>\r\nDATA\r\n\
             From: evil@good.test\r\nX-Tag: {}\r\n\r\nsmuggled\r\n",
            self.tag
        )
    }

    /// What goes before it in the message.
    fn shown(&self) -> String {
        match self.place {
            Place::FirstLine => String::new(),
            Place::Header => format!("From: a@good.test\r\nX-Tag: {}\r\nSubject: s", self.tag),
            _ => format!("From: a@good.test\r\nX-Tag: {}\r\n\r\nbefore", self.tag),
        }
    }

    /// Plays it; all that the server says from MAIL on.
    async fn play(&self, server: SocketAddr) -> String {
        let mut client = Client::greeted(EXCHANGER, server, "mail.good.test").await;
        let (shown, hidden) = (self.shown(), self.hidden());
        if self.place == Place::Command {
            let mail =
                [b"MAIL FROM:<a@good.test>", self.sequence.as_slice(), b"MAIL FROM:<evil@good.test>\r\n"];
            client.send(&mail.concat()).await;
            let data = format!("RCPT TO:<user@relay.test>\r\nDATA\r\n{shown}\r\n.\r\nQUIT\r\n");
            client.send(data.as_bytes()).await;
            return format!("\n{}", client.rest().await);
        }
        for command in ["MAIL FROM:<a@good.test>", "RCPT TO:<user@relay.test>"] {
            let reply = client.command(command).await;
            assert_eq!(reply.code, 250, "{} {self:?}", reply.text);
        }
        if self.place == Place::Chunks {
            let message = [shown.as_bytes(), &self.sequence, hidden.as_bytes()].concat();
            let (first, second) = message.split_at(shown.len() + self.sequence.len() / 2);
            let first = [format!("BDAT {}\r\n", first.len()).as_bytes(), first].concat();
            let second = [format!("BDAT {} LAST\r\n", second.len()).as_bytes(), second, b"QUIT\r\n"].concat();
            client.send(&[first, second].concat()).await;
            return format!("\n{}", client.rest().await);
        }
        assert_eq!(client.command("DATA").await.code, 354);
        client.send(shown.as_bytes()).await;
        if self.place == Place::Packets {
            for octet in &self.sequence {
                sleep(Duration::from_millis(3)).await;
                client.send(&[*octet]).await;
            }
            sleep(Duration::from_millis(3)).await;
        } else {
            client.send(&self.sequence).await;
        }
        client.send(format!("{hidden}.\r\nQUIT\r\n").as_bytes()).await;
        format!("\n{}", client.rest().await)
    }
}

/// Plays all cases; what was said in each, by tag.
async fn play(cases: &[Case], strict: SocketAddr, lenient: SocketAddr) -> BTreeMap<String, String> {
    let places = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let mut sessions = JoinSet::new();
    for case in cases.iter().cloned() {
        let places = Arc::clone(&places);
        sessions.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            let said = case.play(if case.normalize { lenient } else { strict }).await;
            (case.tag, said)
        });
    }
    sessions.join_all().await.into_iter().collect()
}

/// How many messages bear each tag; none may bear the hidden sender.
fn arrived(postfix: &Postfix, cases: &[Case]) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> = cases.iter().map(|case| (case.tag.clone(), 0)).collect();
    let files = ["user", "other"].map(|user| postfix.mailbox(user)).concat();
    for file in files {
        let text = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
        let tag = text.split("X-Tag: ").nth(1).and_then(|rest| rest.split_inclusive('.').next());
        let tag = tag.unwrap_or_else(|| panic!("only a part of a message arrived: {text:?}"));
        if tag == "control." {
            continue;
        }
        assert!(text.starts_with("Return-Path: <a@good.test>\n"), "{text}");
        *counts.get_mut(tag).unwrap() += 1;
    }
    counts
}
