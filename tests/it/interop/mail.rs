//! Messages that are hard to carry, made from their number alone, and their comparison with what arrived.

/// Fields that the hops on the way put above the message.
const TRACE: [&str; 5] =
    ["return-path", "x-original-to", "delivered-to", "received", "authentication-results"];

/// A message with a body of about `size` octets; 0 gives a header without a body. `number` picks the octets.
pub(crate) fn message(number: usize, size: usize) -> Vec<u8> {
    let mut message = format!(
        "From: Sender <a@good.test>\r\nTo: <user@relay.test>\r\nSubject: number {number}\r\n \tfolded  \r\n\
         Date: Mon, 01 Jan 2024 12:00:00 +0000\r\nMessage-ID: <{number}@good.test>\r\nX-Odd:v\r\n\r\n"
    )
    .into_bytes();
    let end = message.len() + size;
    let mut random = Random(number as u64 + 1);
    while message.len() < end {
        let room = end - message.len();
        push_line(&mut message, &mut random, room);
    }
    message
}

/// What a Maildir holds of a message: LF instead of CRLF.
pub(crate) fn as_stored(message: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(message.len());
    for line in message.split_inclusive(|&octet| octet == b'\n') {
        stored.extend_from_slice(line.strip_suffix(b"\r\n").unwrap_or(line));
        stored.push(b'\n');
    }
    stored
}

/// A stored message, split after the trace fields on top of it.
pub(crate) fn split_trace(stored: &[u8]) -> (&[u8], &[u8]) {
    let mut length = 0;
    for line in stored.split_inclusive(|&octet| octet == b'\n') {
        let continues = line.starts_with(b" ") || line.starts_with(b"\t");
        let name = line.split(|&octet| octet == b':').next().unwrap_or_default();
        if !continues && !TRACE.iter().any(|trace| name.eq_ignore_ascii_case(trace.as_bytes())) {
            break;
        }
        length += line.len();
    }
    stored.split_at(length)
}

/// Panics unless what arrived is the message, byte for byte, below the trace fields. Says where they part.
pub(crate) fn assert_arrived(stored: &[u8], message: &[u8], what: &str) {
    let (_, arrived) = split_trace(stored);
    let expected = as_stored(message);
    if arrived == expected {
        return;
    }
    let place = arrived.iter().zip(&expected).take_while(|(one, other)| one == other).count();
    let around = |octets: &[u8]| {
        let piece = octets.get(place.saturating_sub(20)..(place + 40).min(octets.len())).unwrap_or_default();
        piece.escape_ascii().to_string()
    };
    panic!(
        "{what}: differs at octet {place} of {}, {} arrived: expected \"{}\", got \"{}\"",
        expected.len(),
        arrived.len(),
        around(&expected),
        around(arrived)
    );
}

/// One line of at most `room` octets or a little more: dots at the start, nothing, 8-bit octets, or far too long.
fn push_line(message: &mut Vec<u8>, random: &mut Random, room: usize) {
    let (start, longest): (&[u8], usize) = match random.below(10) {
        0 => (b".", 0),
        1 => (b"..", 0),
        2 => (b".dot", 40),
        3 => (b"", 0),
        4 => (b"From ", 60),
        5 => (b"", 2_500),
        6 => (b".", 20_000),
        _ => (b"", 78),
    };
    message.extend_from_slice(start);
    let length = random.below(longest + 1).min(room.saturating_sub(start.len() + 2));
    message.extend((0..length).map(|_| random.octet()));
    message.extend_from_slice(b"\r\n");
}

/// A small generator (xorshift64): the same numbers each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from((self.next() >> 16) % bound as u64).unwrap()
    }

    /// Anything but NUL, CR and LF.
    fn octet(&mut self) -> u8 {
        match u8::try_from(self.next() >> 56).unwrap() {
            0 | b'\r' | b'\n' => b'.',
            octet => octet,
        }
    }
}

#[test]
fn messages_hold_what_is_hard_to_carry_and_are_the_same_each_time() {
    let large = message(7, 300_000);
    assert_eq!(large, message(7, 300_000));
    assert_ne!(large, message(8, 300_000));
    let lines: Vec<&[u8]> = large.split_inclusive(|&octet| octet == b'\n').collect();
    assert!(lines.iter().all(|line| line.ends_with(b"\r\n")));
    for hard in [&b".\r\n"[..], b"..\r\n", b"\r\n"] {
        assert!(lines.contains(&hard), "no line {}", hard.escape_ascii());
    }
    assert!(lines.iter().any(|line| line.len() > 10_000), "no long line");
    assert!(large.iter().any(|octet| !octet.is_ascii()), "no 8-bit octet");
    assert!(!large.contains(&0));
    assert!(message(1, 0).ends_with(b"\r\n\r\n"));
}

#[test]
fn only_the_trace_fields_on_top_are_taken_off() {
    let stored =
        b"Return-Path: <a@good.test>\nReceived: from x\n\tby y\nFrom: a\nReceived: lower\n\nReceived: body\n";
    let (trace, rest) = split_trace(stored);
    assert_eq!(trace, b"Return-Path: <a@good.test>\nReceived: from x\n\tby y\n");
    assert_eq!(rest, b"From: a\nReceived: lower\n\nReceived: body\n");
}
