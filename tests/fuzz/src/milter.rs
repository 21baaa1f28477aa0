//! A milter connection: packets, events, the negotiation, and what is written back.
//!
//! Input: an octet for the cuts, then what the MTA sends.

use rmxd::milter::{Answer, BadLength, Event, Header, MAX_LENGTH, Packet, Terms, Wants};
use rmxd::smtp::reply::{Enhanced, Reply};

use super::wire::splits;

pub fn check(input: &[u8]) {
    let Some((seed, octets)) = input.split_first() else { return };
    let [whole, bytewise, cut] = splits(octets, *seed).map(|pieces| read(&pieces));
    assert_eq!(whole, bytewise, "octet by octet");
    assert_eq!(whole, cut, "cut");
    let mut terms = Terms::read(&[0; 12]).unwrap();
    for (letter, data) in &whole.packets {
        let packet = Packet { letter: *letter, data };
        match Event::parse(packet) {
            Ok(Event::Negotiate(offer)) => terms = agreed(offer, data).unwrap_or(terms),
            Ok(event) => assert_event(packet, &event, &terms),
            Err(error) => {
                assert!(error.to_string().bytes().all(|octet| matches!(octet, b' '..=b'~')), "{error}")
            }
        }
        assert_refusal(data, &terms);
    }
}

/// All packets, and the error or the octets that are left.
#[derive(Debug, PartialEq, Eq, Default)]
struct Read {
    packets: Vec<(u8, Vec<u8>)>,
    wrong: Option<BadLength>,
    left: Vec<u8>,
}

fn read(pieces: &[&[u8]]) -> Read {
    let mut read = Read::default();
    for piece in pieces {
        read.left.extend_from_slice(piece);
        loop {
            match Packet::first(&read.left) {
                Ok(Some((packet, taken))) => {
                    assert!(packet.data.len() < MAX_LENGTH && taken == packet.data.len() + 5);
                    let mut again = Vec::new();
                    packet.write_to(&mut again);
                    assert_eq!(again, read.left[..taken]);
                    read.packets.push((packet.letter, packet.data.to_vec()));
                    read.left.drain(..taken);
                }
                Ok(None) => break,
                Err(wrong) => {
                    let bad = matches!(read.left.first_chunk(), Some(&length) if {
                        let length = u32::from_be_bytes(length) as usize;
                        length == 0 || length > MAX_LENGTH
                    });
                    assert!(bad, "{wrong}");
                    return Read { wrong: Some(wrong), left: Vec::new(), ..read };
                }
            }
        }
    }
    read
}

/// Nothing is asked for that isn't offered, and the answer can be read.
fn agreed(offer: Terms, data: &[u8]) -> Option<Terms> {
    let number = |data: &[u8], at: usize| u32::from_be_bytes(data[4 * at..4 * at + 4].try_into().unwrap());
    let wants = Wants { body: data.last().is_some_and(|octet| octet & 1 == 0) };
    let Ok(terms) = offer.agree(wants) else {
        assert!(number(data, 0) < 2);
        return None;
    };
    let mut out = Vec::new();
    terms.write_to(&mut out);
    let (packet, taken) = Packet::first(&out).unwrap().unwrap();
    assert_eq!((packet.letter, taken), (b'O', out.len()));
    assert_eq!(number(packet.data, 0), number(data, 0).min(6));
    for at in [1, 2] {
        assert_eq!(number(packet.data, at) & !number(data, at), 0, "{:x?}", packet.data);
    }
    assert!(terms.sends_body() || !wants.body, "the body is wanted");
    let again = Terms::read(packet.data).unwrap();
    assert_eq!(again.keeps_leading_space(), terms.keeps_leading_space());
    Some(terms)
}

/// A second reading of an event: the strings of the packet are those of the event.
fn assert_event(packet: Packet<'_>, event: &Event<'_>, terms: &Terms) {
    let strings: Vec<&[u8]> = packet.data.split(|octet| *octet == 0).collect();
    match event {
        Event::Macros(macros) => {
            let flat: Vec<&[u8]> = macros.iter().flat_map(|(name, value)| [name, value]).collect();
            let text = &packet.data[1..];
            assert_eq!(flat, text.split(|octet| *octet == 0).take(flat.len()).collect::<Vec<_>>());
            assert!(macros.get("i").is_none_or(|value| flat.contains(&value)));
        }
        Event::Helo(argument) => {
            assert_eq!(strings, [argument, &b""[..]]);
            let shown = Event::helo_argument(argument);
            assert!(
                shown.len() <= 255 && shown.bytes().all(|octet| matches!(octet, b' '..=b'~')),
                "{shown:?}"
            );
        }
        Event::Mail(path) | Event::Rcpt(path) => {
            let ours: Vec<&[u8]> = std::iter::once(path.argument).chain(path.parameters()).collect();
            assert_eq!(strings[..strings.len() - 1], ours);
            if let Ok(path) = path.reverse() {
                assert!(!path.to_string().contains(|character: char| character.is_ascii_control()), "{path}");
            }
            if let Ok(path) = path.forward() {
                assert!(!path.to_string().contains(|character: char| character.is_ascii_control()), "{path}");
            }
        }
        Event::Header(header) => {
            assert_eq!(strings, [header.name, header.value, b""]);
            assert_field(header, terms);
        }
        Event::Body(octets) | Event::EndOfMessage(octets) => assert_eq!(*octets, packet.data),
        Event::Unknown(line) => assert_eq!(strings, [line, &b""[..]]),
        Event::Abort | Event::Quit | Event::QuitNewConnection => assert!(!event.expects_answer(terms)),
        Event::Connect { name, .. } => assert_eq!(strings[0], *name),
        Event::Negotiate(_) | Event::Data | Event::EndOfHeader => {}
    }
}

/// Each line ends with CRLF, and nothing but line ends differs.
fn assert_field(header: &Header<'_>, terms: &Terms) {
    let mut block = Vec::new();
    header.write_to(terms, &mut block);
    let colon: &[u8] = if terms.keeps_leading_space() { b":" } else { b": " };
    let without_line_ends = |text: &[u8]| -> Vec<u8> {
        text.iter().filter(|octet| !matches!(octet, b'\r' | b'\n')).copied().collect()
    };
    let whole = [header.name, colon, header.value].concat();
    assert_eq!(without_line_ends(&block), without_line_ends(&whole));
    let value = &block[header.name.len() + colon.len()..];
    assert!(value.ends_with(b"\r\n"));
    for (at, _) in value.iter().enumerate().filter(|(_, octet)| **octet == b'\n') {
        assert!(at > 0 && value[at - 1] == b'\r', "bare LF: {}", value.escape_ascii());
    }
}

/// A text of any octets becomes one line, and edits become their strings.
fn assert_refusal(text: &[u8], terms: &Terms) {
    let text = String::from_utf8_lossy(text);
    let code = [450, 451, 550, 554, 250][text.len() % 5];
    let reply = Reply::new(code, Enhanced(5, 7, 1), text.clone().into_owned());
    let mut out = Vec::new();
    Answer::Refuse(&reply).write_to(terms, &mut out);
    Answer::InsertHeader { position: 0, name: "X", value: text.as_bytes() }.write_to(terms, &mut out);
    let (refusal, taken) = Packet::first(&out).unwrap().unwrap();
    if code == 250 {
        assert_eq!((refusal.letter, refusal.data), (b't', &b""[..]));
    } else {
        let line = refusal.data.strip_suffix(b"\0").unwrap();
        assert!(refusal.letter == b'y' && line.len() <= 980);
        assert!(line.starts_with(format!("{code} {}.", code / 100).as_bytes()), "{}", line.escape_ascii());
        assert!(line.iter().all(|octet| matches!(octet, b' '..=b'~')), "{}", line.escape_ascii());
        assert!(!String::from_utf8_lossy(line).replace("%%", "").contains('%'), "{}", line.escape_ascii());
    }
    let (insert, rest) = Packet::first(&out[taken..]).unwrap().unwrap();
    assert_eq!((insert.letter, taken + rest), (b'i', out.len()));
    assert_eq!(insert.data.iter().skip(4).filter(|octet| **octet == 0).count(), 2);
    assert!(!insert.data.contains(&b'\r'));
}
