//! Command lines, DATA and BDAT as octets, against a second, slow reading of the rules.
//!
//! Input: an octet of settings, one for the cuts, then what the client sends.

use rmxd::smtp::chunk::ChunkEncoder;
use rmxd::smtp::framing::{BareNewline, CommandReader, CommandStep, DataEvent, DataReader, Fault};
use rmxd::smtp::transparency::{stuffed, unstuffed};

use super::wire::{assert_message, splits};

const LIMITS: [usize; 4] = [4, 12, 64, 512];

pub fn check(input: &[u8]) {
    let Some(([settings, seed], octets)) = input.split_first_chunk() else { return };
    let mode = if settings & 1 == 0 { BareNewline::Reject } else { BareNewline::Normalize };
    let limit = LIMITS[usize::from(settings >> 1) % LIMITS.len()];
    let (lines, data, chunk) =
        (expected_lines(octets, limit, mode), expected_data(octets, mode), expected_chunk(octets, mode));
    for pieces in splits(octets, *seed) {
        assert_eq!(read_lines(&pieces, limit, mode), lines, "command lines of {pieces:?}");
        assert_eq!(read_data(&pieces, mode), data, "message of {pieces:?}");
        assert_eq!(read_chunk(&pieces, mode), chunk, "chunk of {pieces:?}");
    }
    if data.end == End::Dot {
        assert_message(&data.content);
        assert_passes_unchanged(&data.content, data.stuffing);
    }
    if let Ok((content, stuffing)) = &chunk {
        assert_message(content);
        assert_passes_unchanged(content, *stuffing);
    }
    let plain = unstuffed(octets);
    assert_eq!(unstuffed(&stuffed(&plain)), plain, "stuffing and unstuffing");
}

/// What passed once passes again as it is: a second server of the same kind sees the same one message.
fn assert_passes_unchanged(content: &[u8], stuffing: u64) {
    let framed = [content, b".\r\nQUIT\r\n"].concat();
    for mode in [BareNewline::Reject, BareNewline::Normalize] {
        let again = expected_data(&framed, mode);
        assert_eq!(
            (&again.content, again.end, again.rest.as_slice()),
            (&content.to_vec(), End::Dot, &b"QUIT\r\n"[..])
        );
        assert!(again.stuffing >= stuffing);
    }
    // the header block is unstuffed, judged and stuffed again: a line that needed no dot loses it, nothing else changes
    let plain = unstuffed(content);
    assert_message(&stuffed(&plain));
    assert_eq!(unstuffed(&stuffed(&plain)), plain);
}

/// Lines (`None` where one was too long), and the fault that ended them.
type Lines = (Vec<Option<Vec<u8>>>, Option<Fault>);

fn read_lines(pieces: &[&[u8]], limit: usize, mode: BareNewline) -> Lines {
    let (mut reader, mut buffer, mut lines) = (CommandReader::new(limit, mode), Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match reader.next(&buffer) {
                CommandStep::Line { length, consumed } => {
                    lines.push(Some(buffer[..length].to_vec()));
                    buffer.drain(..consumed);
                }
                CommandStep::TooLong { consumed } => {
                    lines.push(None);
                    buffer.drain(..consumed);
                }
                CommandStep::Fault(fault) => return (lines, Some(fault)),
                CommandStep::More { discard } => {
                    buffer.drain(..discard);
                    assert!(buffer.len() <= limit, "{} octets are held", buffer.len());
                    break;
                }
            }
        }
    }
    (lines, None)
}

fn expected_lines(octets: &[u8], limit: usize, mode: BareNewline) -> Lines {
    let (mut lines, mut rest) = (Vec::new(), octets);
    loop {
        let (line, after) = match line(rest, mode) {
            Line::Crlf(line, after) | Line::Crs(line, after) | Line::Lf(line, after) => (line, after),
            Line::Fault(_, fault) => return (lines, Some(fault)),
            Line::Open(_) => return (lines, None),
        };
        lines.push((line.len() + 2 <= limit).then(|| line.to_vec()));
        rest = after;
    }
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum End {
    Dot,
    Open,
    Fault(Fault),
}

#[derive(Debug, PartialEq, Eq)]
struct Data {
    content: Vec<u8>,
    end: End,
    /// What follows the end of data.
    rest: Vec<u8>,
    /// Not told where there is a fault: the message is thrown away.
    stuffing: u64,
}

fn read_data(pieces: &[&[u8]], mode: BareNewline) -> Data {
    let (mut reader, mut buffer, mut content, mut end) =
        (DataReader::new(mode), Vec::new(), Vec::new(), End::Open);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while end == End::Open {
            let step = reader.next(&buffer);
            content.extend_from_slice(&buffer[..step.content]);
            content.extend_from_slice(step.insert);
            buffer.drain(..step.consumed);
            match step.event {
                DataEvent::Again => {}
                DataEvent::End => end = End::Dot,
                DataEvent::Fault(fault) => end = End::Fault(fault),
                DataEvent::More => {
                    assert!(buffer.len() <= 2, "{} octets are held", buffer.len());
                    break;
                }
            }
        }
        if let End::Fault(_) = end {
            return Data { content, end, rest: Vec::new(), stuffing: 0 };
        }
    }
    let rest = if end == End::Dot { buffer } else { Vec::new() };
    Data { content, end, rest, stuffing: reader.stuffing() }
}

fn expected_data(octets: &[u8], mode: BareNewline) -> Data {
    let (mut content, mut stuffing, mut rest, mut made) = (Vec::new(), 0, octets, false);
    let done = |content, end, rest: &[u8], stuffing| Data { content, end, rest: rest.to_vec(), stuffing };
    loop {
        let found = line(rest, mode);
        let (Line::Crlf(text, _)
        | Line::Crs(text, _)
        | Line::Lf(text, _)
        | Line::Fault(text, _)
        | Line::Open(text)) = found;
        // the client never stuffed a dot behind a line end that it did not mean as one
        let dot: &[u8] = if made && text.starts_with(b".") { b"." } else { b"" };
        let counts = u64::from(!made && text.starts_with(b"."));
        match found {
            Line::Crlf(b".", after) if !made => return done(content, End::Dot, after, stuffing),
            Line::Crs(b".", after) | Line::Lf(b".", after) if !made => {
                content.extend_from_slice(b"\r\n");
                (rest, made) = (after, matches!(found, Line::Lf(..)));
            }
            // the dot went before it was known that no line ends there
            Line::Fault(b".", fault)
                if !made && rest.starts_with(b".\r\r") && mode == BareNewline::Normalize =>
            {
                return done(content, End::Fault(fault), b"", 0);
            }
            Line::Crlf(_, after) | Line::Crs(_, after) | Line::Lf(_, after) => {
                content.extend([dot, text, b"\r\n"].concat());
                (made, rest) = (matches!(found, Line::Lf(..)), after);
                stuffing += counts;
            }
            Line::Fault(_, fault) => {
                content.extend([dot, text].concat());
                return done(content, End::Fault(fault), b"", 0);
            }
            // a dot alone may yet become the end
            Line::Open(b".") if !made => return done(content, End::Open, b"", stuffing),
            Line::Open(_) => {
                content.extend([dot, text].concat());
                return done(content, End::Open, b"", stuffing + counts);
            }
        }
    }
}

type Chunk = Result<(Vec<u8>, u64), Fault>;

fn read_chunk(pieces: &[&[u8]], mode: BareNewline) -> Chunk {
    let (mut encoder, mut out) = (ChunkEncoder::new(mode), Vec::new());
    for piece in pieces {
        encoder.push(piece, &mut out)?;
    }
    encoder.finish(&mut out)?;
    Ok((out, encoder.stuffing()))
}

fn expected_chunk(octets: &[u8], mode: BareNewline) -> Chunk {
    let (mut content, mut stuffing, mut rest) = (Vec::new(), 0, octets);
    loop {
        let found = line(rest, mode);
        let text = match found {
            Line::Fault(_, fault) => return Err(fault),
            Line::Open(text) if text.len() < rest.len() => return Err(Fault::BareCr),
            Line::Open(b"") => return Ok((content, stuffing)),
            Line::Crlf(text, _) | Line::Crs(text, _) | Line::Lf(text, _) | Line::Open(text) => text,
        };
        if text.starts_with(b".") {
            content.push(b'.');
            stuffing += 1;
        }
        content.extend([text, b"\r\n"].concat());
        match found {
            Line::Crlf(_, after) | Line::Crs(_, after) | Line::Lf(_, after) => rest = after,
            _ => return Ok((content, stuffing)),
        }
    }
}

/// The first line of some octets, and what follows it.
enum Line<'a> {
    Crlf(&'a [u8], &'a [u8]),
    /// With several CRs, which are normalised.
    Crs(&'a [u8], &'a [u8]),
    /// Only where bare LF is allowed.
    Lf(&'a [u8], &'a [u8]),
    Fault(&'a [u8], Fault),
    /// Without a CR at the end that may become a line end.
    Open(&'a [u8]),
}

fn line(octets: &[u8], mode: BareNewline) -> Line<'_> {
    for (at, octet) in octets.iter().enumerate() {
        let text = &octets[..at];
        match (octet, octets.get(at + 1)) {
            (b'\r', Some(b'\n')) => return Line::Crlf(text, &octets[at + 2..]),
            (b'\r', Some(b'\r')) if mode == BareNewline::Normalize => {
                let crs = octets[at..].iter().take_while(|octet| **octet == b'\r').count();
                return match octets.get(at + crs) {
                    None => Line::Open(text),
                    Some(b'\n') => Line::Crs(text, &octets[at + crs + 1..]),
                    Some(_) => Line::Fault(text, Fault::BareCr),
                };
            }
            (b'\r', None) => return Line::Open(text),
            (b'\r', Some(_)) => return Line::Fault(text, Fault::BareCr),
            (b'\n', _) if mode == BareNewline::Normalize => return Line::Lf(text, &octets[at + 1..]),
            (b'\n', _) => return Line::Fault(text, Fault::BareLf),
            (0, _) => return Line::Fault(text, Fault::Nul),
            _ => {}
        }
    }
    Line::Open(octets)
}
