//! The mail server's side of `rmxd load` and `rmxd demo` beside the recorded Postfix: the same octets, and answers awaited
//! where Postfix waited.

use std::net::SocketAddr;
use std::time::Duration;

use rmxd::milter::{self, Packet, Terms};
use rmxd::tools::mta::{Action, Answer, Event, Filter, Final, Milter, Policy, Request, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::{Connection, connections, files, octet, unescape};

const PATIENCE: Duration = Duration::from_secs(5);

fn packet_octets(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(octet).collect()
}

fn milter_streams() -> Vec<Connection> {
    files("milter").iter().flat_map(|(name, text)| connections(name, text, packet_octets)).collect()
}

fn stream(name: &str) -> Connection {
    milter_streams().into_iter().find(|connection| connection.name == name).unwrap()
}

fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).unwrap()
}

/// The recorded packets of one connection, read and written again: macros in another order and with others among them. How
/// many events they are.
pub(crate) fn written_again(connection: &Connection) -> usize {
    let mut packets = connection.packets.iter().peekable();
    let mut offer = Vec::new();
    Filter::write_offer(&mut offer);
    let recorded = packets.next().unwrap();
    // with milter_protocol = 2 the offer is another one
    assert!(recorded.octets == offer || connection.name.starts_with("version_2"), "{}", connection.name);
    let Some(answer) = packets.next() else { return 0 };
    let data = Packet::first(&answer.octets).unwrap().unwrap().0;
    let filter = Filter::read(data).unwrap();
    let terms = Terms::read(data.data).unwrap();
    let mut macros: Vec<u8> = Vec::new();
    let mut events = 0;
    while let Some(recorded) = packets.next() {
        if !recorded.from_postfix {
            continue;
        }
        let (packet, _) = Packet::first(&recorded.octets).unwrap().unwrap();
        let read = milter::Event::parse(packet).unwrap();
        if let milter::Event::Macros(_) = read {
            macros.clone_from(&recorded.octets);
            continue;
        }
        let known =
            match milter::Event::parse(Packet::first(&macros).ok().flatten().map_or(packet, |it| it.0)) {
                Ok(milter::Event::Macros(pairs)) => {
                    pairs.iter().map(|(name, value)| (text(name), text(value))).collect()
                }
                _ => Vec::new(),
            };
        let known: Vec<(&str, &str)> =
            [("{other}", "x")].into_iter().chain(known.into_iter().rev()).collect();
        let (mut parameters, mut field) = (Vec::new(), Vec::new());
        let event = match read {
            milter::Event::Connect { name, client: milter::Client::Host { address, port } } => {
                Event::Connect { name: text(name), client: SocketAddr::new(address, port) }
            }
            milter::Event::Helo(argument) => Event::Helo(text(argument)),
            milter::Event::Mail(path) => {
                parameters.extend(path.parameters().map(text));
                Event::Mail { path: text(path.argument), parameters: &parameters }
            }
            milter::Event::Rcpt(path) => {
                parameters.extend(path.parameters().map(text));
                Event::Rcpt { path: text(path.argument), parameters: &parameters }
            }
            milter::Event::Data => Event::Data,
            milter::Event::Header(header) => {
                if !terms.keeps_leading_space() {
                    field.push(b' ');
                }
                field.extend_from_slice(header.value);
                Event::Header { name: header.name, value: &field }
            }
            milter::Event::EndOfHeader => Event::EndOfHeader,
            milter::Event::Body(octets) => Event::Body(octets),
            milter::Event::EndOfMessage(b"") => Event::EndOfMessage,
            milter::Event::Abort => Event::Abort,
            milter::Event::Quit => Event::Quit,
            // clients without an address, and commands that Postfix doesn't know
            _ => {
                macros.clear();
                continue;
            }
        };
        let mut out = Vec::new();
        let is_answered = event.write_to(&filter, &known, &mut out);
        let expected = [macros.as_slice(), &recorded.octets].concat();
        assert_eq!(
            out.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "{}",
            connection.name
        );
        let next_is_answer = packets.peek().is_some_and(|next| !next.from_postfix);
        if packets.peek().is_some() || !is_answered {
            assert_eq!(is_answered, next_is_answer, "{} {event:?}", connection.name);
        }
        macros.clear();
        events += 1;
    }
    events
}

#[test]
fn every_recorded_event_is_written_as_postfix_wrote_it() {
    let streams = milter_streams();
    let events: usize = streams.iter().map(written_again).sum();
    assert!(streams.len() > 80 && events > 900, "{} streams, {events} events", streams.len());
}

#[test]
fn every_recorded_answer_is_read() {
    let mut answers = 0;
    for connection in milter_streams() {
        for recorded in connection.of(false).skip(1) {
            let (packet, _) = Packet::first(&recorded.octets).unwrap().unwrap();
            let read = Answer::parse(packet);
            // Postfix takes no such reply either, and no line feed alone
            let is_refused = connection.name.starts_with("reply_250");
            assert_eq!(read.is_err(), is_refused && packet.letter == b'y', "{} {read:?}", connection.name);
            answers += 1;
        }
    }
    assert!(answers > 500, "{answers}");
}

/// The filter of a recorded stream: it checks what comes, octet by octet, and answers as it did.
async fn play(connection: Connection, mut filter: DuplexStream) {
    for packet in connection.packets {
        if packet.from_postfix {
            let mut octets = vec![0; packet.octets.len()];
            tokio::time::timeout(PATIENCE, filter.read_exact(&mut octets)).await.unwrap().unwrap();
            let (found, expected) =
                (octets.escape_ascii().to_string(), packet.octets.escape_ascii().to_string());
            assert_eq!(found, expected, "{}", connection.name);
        } else {
            filter.write_all(&packet.octets).await.unwrap();
        }
    }
    assert_eq!(filter.read(&mut [0]).await.unwrap(), 0, "{}: more than Postfix sent", connection.name);
}

const MESSAGE: [(&str, &str); 5] = [
    ("From", " Ann <ann@good.test>"),
    ("To", " user@relay.test"),
    ("Subject", " hello"),
    ("Date", " Sat, 28 Nov 2026 12:00:00 +0000"),
    ("Message-Id", " <1@good.test>"),
];
const BODY: &[u8] = b"line one\r\n.dot\r\n";

async fn open(stream: DuplexStream, daemon: u16, client: &str, helo: &str) -> Milter<DuplexStream> {
    let server = Server {
        hostname: "mx.relay.test".to_owned(),
        address: SocketAddr::from(([127, 0, 0, 1], daemon)),
        next_hop: "[127.0.0.1]:26070".to_owned(),
    };
    let mut milter = Milter::negotiate(stream, server, PATIENCE).await.unwrap();
    milter.connect(client.parse().unwrap(), None).await.unwrap();
    milter.helo(helo).await.unwrap();
    milter
}

async fn content(milter: &mut Milter<DuplexStream>, fields: &[(&str, &str)], body: &[u8]) -> Final {
    milter.data().await.unwrap();
    for (name, value) in fields {
        milter.header(name.as_bytes(), value.as_bytes()).await.unwrap();
    }
    let answer = milter.end_of_header().await.unwrap();
    if let Some(Final::Reply(_)) = answer {
        return answer.unwrap();
    }
    milter.body(body).await.unwrap();
    milter.end_of_message().await.unwrap().1
}

#[tokio::test]
async fn a_session_is_what_postfix_made_of_it() {
    let start = |name: &str| {
        let (ours, theirs) = duplex(1 << 20);
        (ours, tokio::spawn(play(stream(name), theirs)))
    };
    let good = ("ann@good.test", "user@relay.test");

    let (stream, filter) = start("accepted 1");
    let mut milter = open(stream, 2600, "127.0.0.1:45782", "mail.good.test").await;
    assert_eq!(milter.mail(good.0, None, "4jcH2G6Vqsz1VcKG").await, Ok(Some(Final::Continue)));
    milter.rcpt(good.1).await.unwrap();
    assert_eq!(content(&mut milter, &MESSAGE, BODY).await, Final::Continue);
    milter.quit().await.unwrap();
    drop(milter);
    filter.await.unwrap();

    let (stream, filter) = start("several_messages 1");
    let mut milter = open(stream, 2600, "127.0.0.1:43538", "mail.good.test").await;
    let mut codes = Vec::new();
    for (sender, queue) in
        [("ann", "4jcH2R1mDmz1VcKW"), ("bob", "4jcH2R1p2mz1VcKX"), ("eve", "4jcH2R1pqvz1VcKW")]
    {
        milter.mail(&format!("{sender}@good.test"), None, queue).await.unwrap();
        milter.rcpt(good.1).await.unwrap();
        codes.push(match content(&mut milter, &MESSAGE, BODY).await {
            Final::Reply(reply) => reply.code(),
            _ => 250,
        });
    }
    assert_eq!(codes, [250, 550, 250]);
    milter.quit().await.unwrap();
    drop(milter);
    filter.await.unwrap();

    let (stream, filter) = start("several_recipients 1");
    let mut milter = open(stream, 2600, "127.0.0.1:45800", "mail.good.test").await;
    milter.mail(good.0, None, "4jcH2H37RGz1VcKK").await.unwrap();
    for recipient in ["user", "two", "three"] {
        milter.rcpt(&format!("{recipient}@relay.test")).await.unwrap();
    }
    content(&mut milter, &MESSAGE, BODY).await;
    milter.quit().await.unwrap();
    drop(milter);
    filter.await.unwrap();

    let (stream, filter) = start("refused_at_eoh 1");
    let mut milter = open(stream, 2600, "127.0.0.1:43594", "mail.good.test").await;
    milter.mail(good.0, None, "4jcH2T2wtjz1VcKZ").await.unwrap();
    milter.rcpt(good.1).await.unwrap();
    assert!(matches!(content(&mut milter, &MESSAGE, BODY).await, Final::Reply(reply) if reply.code() == 550));
    milter.quit().await.unwrap();
    drop(milter);
    filter.await.unwrap();

    // with as few answers as possible, and macros of the filter's choice
    let (stream, filter) = start("rmxd_way_authenticated 1");
    let mut milter = open(stream, 2602, "127.0.0.1:39444", "laptop.relay.test").await;
    milter.mail("ann@relay.test", Some("ann"), "4jcH2m6jR1z1VcKm").await.unwrap();
    milter.rcpt("x@elsewhere.test").await.unwrap();
    content(&mut milter, &MESSAGE, BODY).await;
    milter.quit().await.unwrap();
    drop(milter);
    filter.await.unwrap();
}

#[tokio::test]
async fn a_request_has_the_lines_of_postfix() {
    let text = &files("policy").into_iter().find(|(name, _)| name == "several_messages").unwrap().1;
    let lines = |text: &str| [unescape(text), vec![b'\n']].concat();
    let recorded = connections("several_messages", text, lines).remove(0);
    let (ours, mut theirs) = duplex(1 << 16);
    let mut policy = Policy::new(ours, PATIENCE);
    for (sender, port, instance) in [
        ("ann@good.test", 42742, "614a.6b0b07ad.80c0f.0"),
        ("bob@good.test", 42742, "614a.6b0b07ad.82394.1"),
        ("ann@good.test", 42750, "614a.6b0b07ad.82f41.0"),
    ] {
        let request = Request {
            state: "RCPT",
            protocol: "ESMTP",
            client: SocketAddr::from(([127, 0, 0, 1], port)),
            client_name: "unknown",
            server: "127.0.0.1:2611".parse().unwrap(),
            helo: "mail.good.test",
            sender,
            recipient: "user@relay.test",
            queue_id: "",
            instance,
            login: "",
        };
        theirs.write_all(b"action=DUNNO\n\n").await.unwrap();
        assert_eq!(policy.ask(&request).await, Ok(Action::Dunno));
    }
    drop(policy);
    let mut sent = Vec::new();
    theirs.read_to_end(&mut sent).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&sent), String::from_utf8_lossy(&recorded.input()));
}

#[test]
fn every_recorded_action_is_read() {
    for (name, text) in files("policy") {
        let lines = |text: &str| [unescape(text), vec![b'\n']].concat();
        for connection in connections(&name, &text, lines) {
            let answers: Vec<u8> = connection.of(false).flat_map(|line| line.octets.clone()).collect();
            let mut rest = answers.as_slice();
            while let Ok(Some((_action, length))) = Action::first(rest) {
                rest = &rest[length..];
            }
            assert!(rest.is_empty() || name == "no_action", "{name}: {}", rest.escape_ascii());
        }
    }
}
