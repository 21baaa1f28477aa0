//! Policy delegation.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rmxd::delegation::{Answer, Reader, Request, State};
use rmxd::dns::Clock;
use rmxd::door::PolicyDoor;
use rmxd::gate::Gate;
use rmxd::metrics::Metrics;
use rmxd::smtp::reply::{Enhanced, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::zone::Zone;
use crate::support::{gate, settings};

use super::{Connection, connections, files, unescape, with_one_octet_changed};

/// Requests that the recorded server did not answer.
const UNANSWERED: [(&str, usize); 5] =
    [("no_answer 1", 1), ("no_answer 2", 1), ("no_answer_once 1", 1), ("silent 1", 1), ("silent 2", 1)];

fn all() -> Vec<Connection> {
    let line = |text: &str| [&unescape(text)[..], b"\n"].concat();
    let streams: Vec<_> =
        files("policy").iter().flat_map(|(name, text)| connections(name, text, line)).collect();
    assert!(streams.len() > 54, "{}", streams.len());
    streams
}

/// The requests, and then the error or the octets that are left, as texts.
fn read(input: &[u8], size: usize) -> Vec<String> {
    let (mut reader, mut buffer, mut seen) = (Reader::default(), Vec::new(), Vec::new());
    for piece in input.chunks(size) {
        buffer.extend_from_slice(piece);
        loop {
            match reader.next(&buffer) {
                Ok(Some((request, taken))) => {
                    seen.push(shown(&request));
                    buffer.drain(..taken);
                }
                Ok(None) => break,
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
            }
        }
    }
    if !buffer.is_empty() {
        seen.push(format!("{} octets left", buffer.len()));
    }
    seen
}

fn shown(request: &Request<'_>) -> String {
    format!("{request:?} {:?} {:?}", request.reverse_path(), request.forward_path())
}

#[test]
fn a_stream_gives_the_same_requests_however_it_is_cut() {
    for connection in all() {
        let input = connection.input();
        let whole = read(&input, input.len());
        assert_eq!(read(&input, 1), whole, "{} octet by octet", connection.name);
        assert_eq!(read(&input, 7), whole, "{} by 7", connection.name);
        let ends = connection.of(true).filter(|line| line.octets == b"\n").count();
        assert_eq!(whole.len(), ends, "{}: {whole:?}", connection.name);
        let answers = connection.of(false).filter(|line| line.octets == b"\n").count();
        let silent =
            UNANSWERED.iter().find(|(name, _)| *name == connection.name).map_or(0, |(_, count)| *count);
        assert_eq!(answers + silent, ends, "{}", connection.name);
    }
}

#[test]
fn a_request_has_the_values_of_its_lines() {
    for connection in all() {
        let input = connection.input();
        let (mut reader, mut rest, mut lines) = (Reader::default(), &input[..], connection.of(true));
        while let Some((request, taken)) = reader.next(rest).unwrap() {
            rest = &rest[taken..];
            let given: Vec<(String, String)> = lines
                .by_ref()
                .map(|line| String::from_utf8(line.octets.clone()).unwrap())
                .take_while(|line| line != "\n")
                .map(|line| {
                    line.trim_end_matches('\n').split_once('=').map(|(a, b)| (a.into(), b.into())).unwrap()
                })
                .collect();
            let value = |name: &str| given.iter().find(|(other, _)| other == name).unwrap().1.as_str();
            assert_eq!(request.protocol_name, value("protocol_name"));
            assert_eq!(request.helo_name, value("helo_name"));
            assert_eq!(request.sender, value("sender"));
            assert_eq!(request.recipient, value("recipient"));
            assert_eq!(request.client_address, value("client_address").parse::<IpAddr>().ok());
            assert_eq!(request.client_port.to_string(), value("client_port"));
            assert_eq!(request.sasl_username, value("sasl_username"));
            assert_eq!(request.instance, value("instance"));
            assert_eq!(request.queue_id, value("queue_id"));
            assert_eq!(request.encryption_protocol, value("encryption_protocol"));
            let state = match value("protocol_state") {
                "CONNECT" => State::Connect,
                "EHLO" => State::Helo,
                "MAIL" => State::Mail,
                "RCPT" => State::Rcpt,
                "DATA" => State::Data,
                "END-OF-MESSAGE" => State::EndOfMessage,
                "VRFY" | "ETRN" => State::Other,
                other => panic!("{other}"),
            };
            assert_eq!(request.state, state);
            assert!(request.reverse_path().is_ok(), "{}: {request:?}", connection.name);
            assert_eq!(request.forward_path().is_ok(), !request.recipient.is_empty(), "{}", connection.name);
        }
    }
}

#[test]
fn a_request_without_its_end_is_incomplete() {
    for connection in all() {
        let input = connection.input();
        let end = input.windows(2).position(|two| two == b"\n\n").unwrap() + 2;
        for length in 0..end {
            assert!(
                matches!(Reader::default().next(&input[..length]), Ok(None)),
                "{} {length}",
                connection.name
            );
        }
        assert!(matches!(Reader::default().next(&input[..end]), Ok(Some((_, taken))) if taken == end));
    }
}

#[test]
fn an_octet_that_is_changed_does_no_harm() {
    for connection in all().iter().step_by(9) {
        let input = connection.input();
        let whole = read(&input, input.len());
        let mut errors = 0;
        for changed in with_one_octet_changed(&input) {
            let seen = read(&changed, changed.len());
            errors += usize::from(
                seen.len() != whole.len() || seen.iter().any(|text| !text.starts_with("Request")),
            );
        }
        assert!(errors > 0, "{}", connection.name);
    }
}

/// Actions that Postfix carried out as they should be.
#[test]
fn answers_are_written_as_in_the_streams() {
    let refused = Reply::new(550, Enhanced(5, 1, 8), "good.test has no MX record (id 4KXN7Q2M)");
    let greylisted =
        Reply::new(450, Enhanced(4, 7, 1), "good.test is greylisted, try again in 300 seconds (id 4KXN7Q2M)");
    let rows = [
        ("accepted 1", Answer::Dunno),
        ("sender_restrictions 1", Answer::Refuse(&refused)),
        ("defer_if_permit_sender 1", Answer::Refuse(&greylisted)),
    ];
    let all = all();
    for (name, answer) in rows {
        let connection = all.iter().find(|connection| connection.name == name).unwrap();
        let recorded: Vec<u8> = connection.of(false).take(2).flat_map(|line| line.octets.clone()).collect();
        let mut out = Vec::new();
        answer.write_to(&mut out);
        assert_eq!(out.escape_ascii().to_string(), recorded.escape_ascii().to_string(), "{name}");
    }
}

/// The first words of a door's answers to what Postfix sent on one connection.
async fn answers(gate: &Arc<Gate>, input: &[u8], size: usize) -> Vec<String> {
    let current = watch::Sender::new(Arc::clone(gate));
    let door = PolicyDoor::new(current.subscribe(), Metrics::default());
    let (ours, theirs) = duplex(1024);
    let served = tokio::spawn(async move { door.serve(theirs, CancellationToken::new()).await });
    let (mut reading, mut writing) = tokio::io::split(ours);
    let input = input.to_vec();
    let sent = tokio::spawn(async move {
        for piece in input.chunks(size) {
            writing.write_all(piece).await.unwrap();
        }
        writing.shutdown().await.unwrap();
    });
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(30), reading.read_to_string(&mut text)).await.unwrap().unwrap();
    sent.await.unwrap();
    served.await.unwrap();
    let first_word = |answer: &str| answer.split(' ').next().unwrap_or_default().to_owned();
    assert!(text.is_empty() || text.ends_with("\n\n"), "{text}");
    text.split_terminator("\n\n").map(first_word).collect()
}

/// What the door should answer, by the lines of the requests alone.
fn expected(connection: &Connection, refuses_strangers: bool) -> Vec<String> {
    let input = connection.input();
    let text = String::from_utf8_lossy(&input);
    let requests = text.split_terminator("\n\n").map(|request| {
        let value = |name: &str| {
            let line = request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default()
        };
        let is_let_in = value("protocol_state") != "RCPT" || !value("sasl_username").is_empty();
        match value("client_address") {
            _ if is_let_in => "action=DUNNO".to_owned(),
            "unknown" => "action=DEFER_IF_PERMIT".to_owned(),
            // The exchanger of good.test has the address 127.0.0.10, and no stream is from there.
            _ if refuses_strangers && !value("sender").is_empty() => "action=550".to_owned(),
            _ => "action=DUNNO".to_owned(),
        }
    });
    requests.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_answers_each_request_of_a_stream() {
    let zone = Zone::start();
    let base = ["policy.mail_from.exists=off", "policy.ptr.exists=off", "policy.matches_by=mx"];
    for refuses_strangers in [false, true] {
        let action = if refuses_strangers { "reject" } else { "off" };
        let matches = format!("policy.mail_from.matches={action}");
        let settings = settings(base.into_iter().chain([matches.as_str()]));
        let gate = gate(&settings, zone.address(), Clock::running());
        for connection in all() {
            let (input, expected) = (connection.input(), expected(&connection, refuses_strangers));
            for size in [input.len(), 7, 1] {
                assert_eq!(answers(&gate, &input, size).await, expected, "{} by {size}", connection.name);
            }
        }
    }
}
