//! The milter protocol.

use std::sync::Arc;
use std::time::Duration;

use rmxd::dns::Clock;
use rmxd::door::MilterDoor;
use rmxd::door::milter::{Results, Settings};
use rmxd::gate::Gate;
use rmxd::metrics::Metrics;
use rmxd::milter::{Answer, Event, Packet, Terms, Wants};
use rmxd::smtp::address::DomainName;
use rmxd::smtp::reply::{Enhanced, Reply};

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::sync::CancellationToken;

use crate::support::zone::Zone;
use crate::support::{gate, settings};

use super::{Connection, connections, files, octet, unescape, with_one_octet_changed};

/// Streams in which the filter didn't answer the last event that wanted an answer.
const UNANSWERED: [&str; 5] =
    ["closes_accept 1", "closes_reject 1", "filter_closes 1", "filter_closes_between 1", "silent_tempfail 1"];
/// Answers before the last one to an event: edits, PROGRESS, QUARANTINE.
const NOT_LAST: &[u8] = b"+-2behimpq";

fn all() -> Vec<Connection> {
    let streams: Vec<_> =
        files("milter").iter().flat_map(|(name, text)| connections(name, text, octets)).collect();
    assert!(streams.len() > 80, "{}", streams.len());
    streams
}

fn octets(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(octet).collect()
}

/// The events, and then the error or the octets that are left, as texts.
fn read(input: &[u8], size: usize) -> Vec<String> {
    let (mut buffer, mut seen) = (Vec::new(), Vec::new());
    for piece in input.chunks(size) {
        buffer.extend_from_slice(piece);
        loop {
            let (packet, taken) = match Packet::first(&buffer) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
            };
            match Event::parse(packet) {
                Ok(event) => seen.push(shown(&event)),
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
            }
            buffer.drain(..taken);
        }
    }
    if !buffer.is_empty() {
        seen.push(format!("{} octets left", buffer.len()));
    }
    seen
}

/// The name of the event in the recorder's words, and what is in it.
fn shown(event: &Event<'_>) -> String {
    let name = match event {
        Event::Negotiate(_) => "OPTNEG",
        Event::Macros(macros) => {
            let pairs = macros
                .iter()
                .map(|(name, value)| format!(" {}={}", name.escape_ascii(), value.escape_ascii()));
            return format!("MACRO {}{}", macros.stage.escape_ascii(), pairs.collect::<String>());
        }
        Event::Connect { .. } => "CONNECT",
        Event::Helo(_) => "HELO",
        Event::Mail(_) => "MAIL",
        Event::Rcpt(_) => "RCPT",
        Event::Data => "DATA",
        Event::Header(_) => "HEADER",
        Event::EndOfHeader => "EOH",
        Event::Body(octets) => return format!("BODY {}", octets.escape_ascii()),
        Event::EndOfMessage(_) => "BODYEOB",
        Event::Abort => "ABORT",
        Event::Quit => "QUIT",
        Event::QuitNewConnection => "QUIT_NC",
        Event::Unknown(_) => "UNKNOWN",
    };
    format!("{name} {event:?}")
}

#[test]
fn a_stream_gives_the_same_events_however_it_is_cut() {
    for connection in all() {
        let input = connection.input();
        let whole = read(&input, input.len());
        assert_eq!(read(&input, 1), whole, "{} octet by octet", connection.name);
        assert_eq!(read(&input, 7), whole, "{} by 7", connection.name);
        let names: Vec<&str> = whole.iter().map(|event| event.split(' ').next().unwrap()).collect();
        let recorded: Vec<&str> = connection.of(true).map(|packet| packet.called.as_str()).collect();
        assert_eq!(names, recorded, "{}: {whole:?}", connection.name);
    }
}

#[test]
fn a_packet_without_its_end_is_an_error_or_less_of_the_same() {
    for connection in all() {
        for packet in connection.of(true) {
            let (packet, _) = Packet::first(&packet.octets).unwrap().unwrap();
            let whole = packet.data.len();
            for length in (0..whole).filter(|length| *length < 600 || length + 600 > whole) {
                let cut = Event::parse(Packet { data: &packet.data[..length], ..packet });
                if matches!(packet.letter, b'C' | b'H' | b'L' | b'O') {
                    let error = cut.expect_err(&connection.name).to_string();
                    assert!(error.contains("without its end") || error.contains("too few"), "{error}");
                }
            }
        }
    }
}

#[test]
fn an_octet_that_is_changed_does_no_harm() {
    for connection in all().iter().step_by(9) {
        let input = connection.input();
        let whole = read(&input, input.len());
        let (mut errors, mut changes) = (0, 0);
        for changed in with_one_octet_changed(&input[..input.len().min(1500)]) {
            let seen = read(&changed, changed.len());
            assert_ne!(seen, whole, "{}", connection.name);
            changes += 1;
            errors += usize::from(seen.len() < whole.len());
        }
        assert!(errors > 0 && errors < changes, "{}: {errors} of {changes}", connection.name);
    }
}

#[test]
fn answers_come_where_postfix_waited_for_them() {
    for connection in all() {
        let mut terms = None;
        let (mut expected, mut answered) = (0, 0);
        for recorded in &connection.packets {
            let (packet, _) = Packet::first(&recorded.octets).unwrap().unwrap();
            if recorded.from_postfix {
                let event = Event::parse(packet).unwrap();
                expected += usize::from(match &terms {
                    Some(terms) => event.expects_answer(terms),
                    None => matches!(event, Event::Negotiate(_)),
                });
                continue;
            }
            if packet.letter == b'O' {
                terms = Terms::read(packet.data);
            }
            answered += usize::from(!NOT_LAST.contains(&packet.letter));
        }
        let silent = usize::from(UNANSWERED.contains(&connection.name.as_str()));
        assert_eq!(expected, answered + silent, "{}", connection.name);
    }
}

#[test]
fn what_rmxd_asks_for_is_what_postfix_offers() {
    for connection in all() {
        let offer = &connection.of(true).next().unwrap().octets;
        let Ok(Event::Negotiate(offer)) = Event::parse(Packet::first(offer).unwrap().unwrap().0) else {
            panic!("{}", connection.name)
        };
        let mut out = Vec::new();
        offer.agree(Wants { body: true }).unwrap().write_to(&mut out);
        let numbers = |octets: &[u8]| -> Vec<u32> {
            octets[5..17].chunks(4).map(|four| u32::from_be_bytes(four.try_into().unwrap())).collect()
        };
        let (offered, asked) = (numbers(&connection.of(true).next().unwrap().octets), numbers(&out));
        assert_eq!(offered[0], asked[0], "{}: the version", connection.name);
        assert!(asked[1] & !offered[1] == 0 && asked[2] & !offered[2] == 0, "{}", connection.name);
        let newest = offered[0] == 6;
        assert_eq!(asked[1..], if newest { [0x111, 0x18_2180] } else { [0x111, 0] }, "{}", connection.name);
    }
}

/// Edits and refusals that Postfix carried out as they should be.
#[test]
fn answers_are_written_as_in_the_streams() {
    let name = "Authentication-Results";
    let results = b"mx.relay.test;\r\n\tx-reverse-mx=pass (mx) smtp.mailfrom=good.test;\r\n\tiprev=pass policy.iprev=127.0.0.1";
    let no_mx = "<ann@spoof.test>: spoof.test has no MX record (id 4KXN7Q2M)";
    let greylisted = "<ann@good.test>: good.test is greylisted, try again in 300 seconds (id 4KXN7Q2M)";
    let refused = Reply::new(550, Enhanced(5, 1, 8), no_mx);
    let deferred = Reply::new(450, Enhanced(4, 7, 1), greylisted);
    let rows = [
        ("rmxd_way", "CHGHEADER index=3", Answer::DeleteHeader { index: 3, name }),
        ("rmxd_way", "CHGHEADER index=2", Answer::DeleteHeader { index: 2, name }),
        ("rmxd_way", "INSHEADER index=0", Answer::InsertHeader { position: 0, name, value: results }),
        ("rmxd_way", "CONTINUE", Answer::Continue),
        ("several_recipients", "REPLYCODE '550 5.1.8", Answer::Refuse(&refused)),
        ("several_recipients", "REPLYCODE '450 4.7.1", Answer::Refuse(&deferred)),
        ("tempfail_at_mail", "TEMPFAIL", Answer::TemporaryFailure),
    ];
    let files = files("milter");
    for (file, comment, answer) in rows {
        let (_, text) = files.iter().find(|(name, _)| name == file).unwrap();
        let mut lines = text.lines().skip_while(|line| !line.starts_with(&format!("# 1: {comment}")));
        let recorded = lines.nth(1).and_then(|line| line.strip_prefix("< 1 ")).unwrap();
        let negotiated = text.lines().find_map(|line| line.strip_prefix("< 1 ")).unwrap();
        let mut out = Vec::new();
        answer.write_to(&Terms::read(&octets(negotiated)[5..]).unwrap(), &mut out);
        assert_eq!(
            out.escape_ascii().to_string(),
            octets(recorded).escape_ascii().to_string(),
            "{file} {comment}"
        );
    }
}

/// A field without a space behind the colon, where that space isn't negotiated; a line that Postfix breaks for the next
/// hop.
const NOT_AS_SENT: [&str; 2] = ["folded", "header_too_long"];

#[test]
fn a_header_that_is_put_together_from_events_is_the_one_that_is_delivered() {
    let mut compared = Vec::new();
    for (name, text) in files("milter") {
        if text.matches("\n# delivered:\n").count() != 1 {
            continue;
        }
        let delivered: Vec<u8> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# D: "))
            .flat_map(|line| [&unescape(line)[..], b"\r\n"].concat())
            .collect();
        for connection in connections(&name, &text, octets) {
            let (mut terms, mut block, mut edits, mut messages) = (None, Vec::new(), false, 0);
            for recorded in &connection.packets {
                let (packet, _) = Packet::first(&recorded.octets).unwrap().unwrap();
                match (recorded.from_postfix, packet.letter) {
                    (false, b'O') => terms = Terms::read(packet.data),
                    (false, letter) => edits |= b"himb".contains(&letter),
                    (true, b'L') => {
                        let Ok(Event::Header(header)) = Event::parse(packet) else { panic!("{name}") };
                        header.write_to(terms.as_ref().unwrap(), &mut block);
                    }
                    (true, b'E') => messages += 1,
                    (true, _) => {}
                }
            }
            if block.is_empty() || edits || messages > 1 {
                continue;
            }
            let is_there = delivered.windows(block.len()).any(|window| window == block);
            assert_eq!(is_there, !NOT_AS_SENT.contains(&name.as_str()), "{name}");
            compared.push(name.clone());
        }
    }
    assert!(compared.len() > 20 && compared.iter().any(|name| name == "folded_leadspc"), "{compared:?}");
}

fn door(gate: &Arc<Gate>) -> MilterDoor {
    MilterDoor {
        settings: Settings { results: Results::Add },
        hostname: DomainName::parse("mx.relay.test").unwrap(),
        header_block: 256 * 1024,
        gate: Arc::clone(gate),
        metrics: Metrics::default(),
    }
}

/// The letters of a door's answers to what Postfix sent on one connection, with the codes of refusals.
async fn letters(gate: &Arc<Gate>, input: &[u8], size: usize) -> Vec<String> {
    let (ours, theirs) = duplex(1024);
    let door = door(gate);
    let served = tokio::spawn(async move { door.serve(theirs, CancellationToken::new()).await });
    let (mut reading, mut writing) = tokio::io::split(ours);
    let input = input.to_vec();
    let sent = tokio::spawn(async move {
        for piece in input.chunks(size) {
            // the door leaves with QUIT, and whatever comes behind that is lost
            if writing.write_all(piece).await.is_err() {
                return;
            }
        }
        writing.shutdown().await.ok();
    });
    let mut octets = Vec::new();
    tokio::time::timeout(Duration::from_secs(30), reading.read_to_end(&mut octets)).await.unwrap().unwrap();
    sent.await.unwrap();
    served.await.unwrap();
    let (mut found, mut rest) = (Vec::new(), octets.as_slice());
    while let Some((packet, length)) = Packet::first(rest).unwrap() {
        rest = &rest[length..];
        let code = if packet.letter == b'y' {
            String::from_utf8_lossy(&packet.data[..3]).into_owned()
        } else {
            String::new()
        };
        found.push(format!("{}{code}", char::from(packet.letter)));
    }
    assert!(rest.is_empty());
    found
}

/// How many answers an input wants under the terms of the door, and how many messages come to their end.
fn wanted(input: &[u8]) -> (usize, usize) {
    let (mut rest, mut terms, mut answers, mut messages) = (input, None, 0, 0);
    while let Ok(Some((packet, length))) = Packet::first(rest) {
        rest = &rest[length..];
        let event = Event::parse(packet).unwrap();
        match &event {
            Event::Negotiate(offer) => {
                terms = Some(offer.agree(Wants { body: true }).unwrap());
                answers += 1;
            }
            Event::Quit => break,
            event => answers += usize::from(event.expects_answer(terms.as_ref().unwrap())),
        }
        messages += usize::from(matches!(event, Event::EndOfMessage(_)));
    }
    (answers, messages)
}

/// An octet that an answer of the door begins with.
const ANSWERS: [&str; 6] = ["O", "c", "t", "m", "i", "h"];

#[tokio::test(flavor = "multi_thread")]
async fn the_door_answers_each_event_of_a_stream_once() {
    let zone = Zone::start();
    let base = ["policy.from.exists=off", "policy.from.matches=dmarc", "policy.ptr.exists=off"];
    let mut refused_before = 0; // for headers that are always refused
    for exists in ["off", "reject"] {
        let exists = format!("policy.mail_from.exists={exists}");
        let settings = settings(base.into_iter().chain([exists.as_str()]));
        let gate = gate(&settings, zone.address(), Clock::running());
        let (mut continued, mut refused, mut edited) = (0, 0, 0);
        for connection in all() {
            let input = connection.input();
            let whole = letters(&gate, &input, input.len()).await;
            assert_eq!(letters(&gate, &input, 7).await, whole, "{} by 7", connection.name);
            assert_eq!(letters(&gate, &input, 1).await, whole, "{} octet by octet", connection.name);
            let edits = whole.iter().filter(|letter| matches!(letter.as_str(), "i" | "h" | "m")).count();
            let (answers, messages) = wanted(&input);
            assert_eq!(whole.len() - edits, answers, "{}: {whole:?}", connection.name);
            for letter in &whole {
                let is_refusal = letter.starts_with("y4") || letter.starts_with("y5");
                assert!(is_refusal || ANSWERS.contains(&letter.as_str()), "{}: {letter}", connection.name);
                refused += usize::from(is_refusal);
                continued += usize::from(letter == "c");
            }
            assert!(edits == 0 || messages > 0, "{}: {whole:?}", connection.name);
            edited += usize::from(edits > 0);
        }
        assert!(continued > 300 && edited > 20, "{exists}: {continued} {edited}");
        assert!(refused > refused_before, "{exists}: {refused} after {refused_before}");
        refused_before = refused;
    }
}
