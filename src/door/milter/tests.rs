//! The milter door over a connection in memory, where no recorded stream of a mail server goes: limits, clients of which
//! nothing is known, the settings of results. The streams are in tests/it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;

use super::*;
use crate::daemon;
use crate::dns::Dns;
use crate::dns::test_server::TestServer;
use crate::door::bomb::panic_at;
use crate::door::tests::settings;
use crate::gate::Services;
use crate::milter::Packet;
use crate::tls::tests::logged;

const ZONE: &str = "
    good.test MX 10 mail.good.test
    mail.good.test A 127.0.0.10
    10.0.0.127.in-addr.arpa PTR mail.good.test";
const OFFER: &[u8] = b"O\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff";
const HOST: &[u8] = b"C[127.0.0.10]\x004\x12\x34127.0.0.10\0";
const FORGED: &[u8] = b"LAuthentication-Results\0 gate.test; spf=pass\0";
const AUTHOR: &[u8] = b"LFrom\0 a@good.test\0";

/// The packets that a door answers with, and how it ends.
async fn answers(lines: &[(&str, &str)], results: Results, events: &[&[u8]]) -> Vec<(char, String)> {
    let server = TestServer::start(ZONE).await;
    let settings = settings(lines, &server);
    let dns = Dns::new(settings.dns.clone()).unwrap();
    let door = MilterDoor {
        settings: Settings { results },
        hostname: settings.hostname.clone(),
        header_block: 400,
        gate: daemon::gate_with_services(dns, &settings, Services::default()),
        metrics: Metrics::default(),
    };
    let (mut ours, theirs) = duplex(64 * 1024);
    let served = tokio::spawn(async move { door.serve(theirs, CancellationToken::new()).await });
    for event in std::iter::once(&OFFER).chain(events) {
        let length = u32::try_from(event.len()).unwrap().to_be_bytes();
        ours.write_all(&[&length, *event].concat()).await.unwrap();
    }
    ours.shutdown().await.unwrap();
    let mut octets = Vec::new();
    timeout(Duration::from_secs(10), ours.read_to_end(&mut octets)).await.unwrap().unwrap();
    served.await.unwrap();
    let (mut found, mut rest) = (Vec::new(), octets.as_slice());
    while let Some((packet, length)) = Packet::first(rest).unwrap() {
        found.push((char::from(packet.letter), String::from_utf8_lossy(packet.data).into_owned()));
        rest = &rest[length..];
    }
    found
}

fn letters(answers: &[(char, String)]) -> String {
    answers.iter().map(|(letter, _)| letter).collect()
}

/// A message up to its header.
fn message(client: &'static [u8]) -> Vec<&'static [u8]> {
    vec![client, b"Hmail.good.test\0", b"M<a@good.test>\0", b"R<u@here.test>\0", b"T"]
}

#[tokio::test]
async fn results_in_our_name_are_added_removed_or_left_as_the_operator_says() {
    let rows = [(Results::Add, "Occcccmic"), (Results::Remove, "Occcccmc"), (Results::Keep, "Occcccc")];
    for (results, expected) in rows {
        let events = [message(HOST), vec![FORGED, AUTHOR, b"N", b"E"]].concat();
        let answers = answers(&[], results, &events).await;
        assert_eq!(letters(&answers), expected, "{results:?}: {answers:?}");
        let added = answers.iter().find(|(letter, _)| *letter == 'i');
        assert!(
            added.is_none_or(|(_, text)| text.contains("x-reverse-mx=pass (mx) header.from=good.test")),
            "{added:?}"
        );
    }
}

#[tokio::test]
async fn a_header_over_the_limit_is_refused_at_its_end_and_the_session_goes_on() {
    let long = [&b"LX-Long\0 "[..], &b"x".repeat(500), b"\0"].concat();
    let events = [
        message(HOST),
        vec![AUTHOR, &long, b"N", b"A"],
        message(HOST)[2..].to_vec(),
        vec![AUTHOR, b"N", b"E"],
    ];
    let answers = answers(&[], Results::Add, &events.concat()).await;
    assert_eq!(letters(&answers), "Occccyccccic", "{answers:?}");
    let (_, refused) = answers.iter().find(|(letter, _)| *letter == 'y').unwrap();
    assert!(refused.starts_with("552 5.3.4 the header is larger than 400 octets (id "), "{refused}");
}

#[tokio::test]
async fn the_version_of_tls_is_in_the_event_of_its_session_alone() {
    let (log, _guard) = logged(tracing::Level::INFO);
    let tls: &[u8] = b"DH{tls_version}\0TLSv1.3\0{cipher}\0TLS_AES_256_GCM_SHA384\0";
    let mut events = message(HOST);
    events.truncate(3);
    let plain = [events.clone(), vec![b"A"]].concat();
    events.insert(1, tls);
    let secured = [events, vec![b"A", b"K"]].concat();
    answers(&[], Results::Add, &[secured, plain].concat()).await;
    let log = log.text();
    let decisions: Vec<&str> = log.lines().filter(|line| line.contains("rmxd::decision")).collect();
    assert_eq!(decisions.len(), 2, "{log}");
    assert!(decisions[0].contains(" tls=TLSv1.3 ") && !decisions[1].contains("tls="), "{log}");
}

#[tokio::test]
async fn a_client_without_an_address_waits_unless_trouble_lets_it_in() {
    let unknown: &[u8] = b"Cunknown\0U";
    let rows: [(&[(&str, &str)], &str); 3] = [
        (&[], "Occy"),
        (&[("policy.on_dns_error", "accept")], "Occc"),
        (&[("policy.mode", "monitor")], "Occc"),
    ];
    for (lines, expected) in rows {
        let answers = answers(lines, Results::Add, &message(unknown)[..4]).await;
        assert_eq!(letters(&answers), expected, "{lines:?}: {answers:?}");
        let refused = answers.iter().find(|(letter, _)| *letter == 'y');
        assert!(
            refused.is_none_or(|(_, text)| text.starts_with("451 4.4.3 the client's address ")),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn users_and_this_machine_are_exempt_and_have_no_results() {
    let user: &[u8] = b"DM{auth_authen}\0ann\0i\x004F1234\0";
    let mut events = message(HOST);
    events[2] = b"M<a@nowhere.test>\0";
    events.insert(2, user);
    let header: [&[u8]; 3] = [b"LFrom\0 a@nowhere.test\0", b"N", b"E"];
    let answers_of = async |events: Vec<&[u8]>| answers(&[], Results::Add, &events).await;
    let of_user = answers_of([events.clone(), header.to_vec()].concat()).await;
    assert_eq!(letters(&of_user), "Occcccc", "{of_user:?}");
    events.remove(2);
    let of_stranger = answers_of(events.clone()).await;
    assert!(of_stranger.iter().any(|(_, text)| text.starts_with("550 5.1.8 ")), "{of_stranger:?}");
    events[0] = b"Clocalhost\0L\0\0/dev/null\0";
    let of_this_machine = answers_of([events, header.to_vec()].concat()).await;
    assert!(!letters(&of_this_machine).contains(['y', 't']), "{of_this_machine:?}");
}

#[tokio::test]
async fn what_breaks_the_protocol_is_closed_and_what_makes_no_sense_is_a_temporary_failure() {
    let rows: [(&[&[u8]], &str); 6] = [
        (&[b"?"], "O"),
        // What was judged was judged for the recipients before it.
        (
            &[HOST, b"M<a@good.test>\0", b"R<u@here.test>\0", b"T", AUTHOR, b"R<v@here.test>\0", b"N", b"E"],
            "Occccttt",
        ),
        (&[HOST, b"M<a@good.test>"], "Oc"),
        (&[HOST, b"R<u@here.test>\0"], "Oct"),
        (&[HOST, b"N"], "Oct"),
        (&[HOST, b"E"], "Oct"),
    ];
    for (events, expected) in rows {
        let answers = answers(&[], Results::Add, events).await;
        assert_eq!(letters(&answers), expected, "{events:?}: {answers:?}");
    }
}

#[tokio::test]
async fn a_panic_is_a_temporary_failure_without_edits_and_the_session_goes_on() {
    let end: [&[u8]; 4] = [FORGED, AUTHOR, b"N", b"E"];
    let events = [message(HOST), end.to_vec(), message(HOST)[2..].to_vec(), end.to_vec()].concat();
    let _guard = panic_at("outcome=\"passed\"");
    let answers = answers(&[], Results::Add, &events).await;
    assert_eq!(letters(&answers), "Occccctccccmic", "{answers:?}");
}

#[tokio::test]
async fn the_address_that_is_judged_is_the_one_that_the_mail_server_takes() {
    let invalid = "550 5.1.8 ";
    // Postfix takes what stands behind the first colon.
    let rows: [(&[u8], &[u8], &str); 5] = [
        (b"M<@[:ceo@nowhere.test (]:a@good.test ()>\0", b"R<u@here.test>\0", invalid),
        (b"M<@[:ceo@nowhere.test(]:()>\0", b"R<u@here.test>\0", invalid),
        (b"M<a@nowhere.test>\0", b"R<@[:u@here.test (]:postmaster@here.test ()>\0", invalid),
        (b"M<a@nowhere.test>\0", b"R<@(:u+):postmaster@here.test>\0", invalid),
        (b"M<a\xff@good.test>\0", b"R<u@here.test>\0", ""),
    ];
    for (mail, rcpt, expected) in rows {
        let answers = answers(&[], Results::Add, &[HOST, mail, rcpt]).await;
        let refused = answers.iter().find(|(letter, _)| *letter == 'y').map_or("", |(_, text)| text);
        assert_eq!(refused.is_empty(), expected.is_empty(), "{}: {refused}", mail.escape_ascii());
        assert!(refused.starts_with(expected), "{}: {refused}", mail.escape_ascii());
    }
}

#[tokio::test]
async fn a_login_is_for_one_message() {
    let user: &[u8] = b"DM{auth_authen}\0ann\0";
    let events: [&[u8]; 5] = [HOST, user, b"A", b"M<a@nowhere.test>\0", b"R<u@here.test>\0"];
    let answers = answers(&[], Results::Add, &events).await;
    assert_eq!(letters(&answers), "Occy", "{answers:?}");
}
