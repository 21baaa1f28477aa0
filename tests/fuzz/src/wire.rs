//! What the checks share: ways to cut an input into reads, and what octets that leave rmxd must look like.

/// The input in one piece, octet by octet, and cut at places that `seed` chooses.
pub fn splits(octets: &[u8], seed: u8) -> [Vec<&[u8]>; 3] {
    [vec![octets], octets.chunks(1).collect(), cut(octets, seed)]
}

fn cut(mut octets: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut state = u32::from(seed) * 2 + 1;
    while !octets.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = 1 + (state >> 24) as usize % (2 + usize::from(seed % 16));
        let (piece, rest) = octets.split_at(length.min(octets.len()));
        pieces.push(piece);
        octets = rest;
    }
    pieces
}

/// Every CR stands before an LF, every LF behind a CR, and there is no NUL.
pub fn assert_strict(octets: &[u8]) {
    for (at, octet) in octets.iter().enumerate() {
        match octet {
            b'\r' => assert_eq!(octets.get(at + 1), Some(&b'\n'), "bare CR: {}", octets.escape_ascii()),
            b'\n' => assert!(at > 0 && octets[at - 1] == b'\r', "bare LF: {}", octets.escape_ascii()),
            0 => panic!("NUL: {}", octets.escape_ascii()),
            _ => {}
        }
    }
}

/// A message on its way to the relay: strict, of whole lines, and no line of it is the end of data.
pub fn assert_message(stuffed: &[u8]) {
    assert_strict(stuffed);
    assert!(stuffed.is_empty() || stuffed.ends_with(b"\r\n"), "no whole lines: {}", stuffed.escape_ascii());
    let end = stuffed.split(|octet| *octet == b'\n').any(|line| line == b".\r");
    assert!(!end, "an end of data within: {}", stuffed.escape_ascii());
}

/// The codes of replies in wire form (RFC 5321 4.2): each line short, printable, and of the code of its reply.
pub fn reply_codes(wire: &[u8]) -> Vec<u16> {
    assert_strict(wire);
    let mut codes = Vec::new();
    let mut open = None;
    let Some(text) = wire.strip_suffix(b"\r\n") else {
        assert!(wire.is_empty(), "no whole line: {}", wire.escape_ascii());
        return codes;
    };
    for line in text.split(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(line.len() <= 510, "too long: {}", line.escape_ascii());
        assert!(line.iter().all(|octet| matches!(octet, b' '..=b'~')), "{}", line.escape_ascii());
        let line = std::str::from_utf8(line).unwrap();
        let code: u16 = line.get(..3).and_then(|code| code.parse().ok()).expect(line);
        assert!((200..600).contains(&code), "{line}");
        assert!(open.is_none_or(|first| first == code), "codes differ: {line}");
        match line.as_bytes().get(3) {
            Some(b'-') => open = Some(code),
            Some(b' ') => {
                open = None;
                codes.push(code);
            }
            other => panic!("{other:?} behind the code: {line}"),
        }
    }
    assert_eq!(open, None, "the last reply has no end");
    codes
}

/// Header fields that rmxd wrote: strict, folded lines behind the name, printable, within the hard limit (RFC 5322 2.1.1).
pub fn assert_fields(block: &[u8], names: &[&str]) {
    assert_strict(block);
    let text = std::str::from_utf8(block).unwrap();
    assert!(text.bytes().all(|octet| matches!(octet, b' '..=b'~' | b'\t' | b'\r' | b'\n')), "{text:?}");
    let mut names = names.iter();
    for line in text.split_terminator("\r\n") {
        assert!(!line.trim().is_empty() && line.len() <= 998, "{line:?} in {text:?}");
        if !line.starts_with('\t') {
            let name = names.next().unwrap_or_else(|| panic!("one field too many: {line:?} in {text:?}"));
            assert!(line.starts_with(&format!("{name}: ")), "{line:?} in {text:?}");
        }
    }
    assert!(names.next().is_none() && text.ends_with("\r\n"), "a field is missing: {text:?}");
}
