//! The ends of lines and messages, found strictly and in this module alone.
//!
//! A line ends at CRLF, a message at CRLF . CRLF (RFC 5321 2.3.8, 4.1.1.4). A bare CR, a bare LF or a NUL is a fault:
//! SMTP smuggling needs two servers that read one of them differently. Line ends are normalised only for exempt clients
//! and where the operator sets it: then a bare LF becomes CRLF, and CRs before a CRLF are dropped. The end of a message
//! is the same either way.
//!
//! Neither reader holds octets: undecided ones stay in the caller's buffer, so that any cut of the input into reads
//! gives the same result. Messages stay dot-stuffed (RFC 5321 4.5.2) from end to end.

/// The treatment of line ends that aren't CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareNewline {
    Reject,
    /// LF, and CRs in front of CRLF, become CRLF, but are never part of the end of data. Other CRs are a fault.
    Normalize,
}

/// An octet that has no place in SMTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    BareCr,
    BareLf,
    Nul,
}

impl Fault {
    /// For replies and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BareCr => "bare CR",
            Self::BareLf => "bare LF",
            Self::Nul => "NUL",
        }
    }
}

/// The result of [`CommandReader::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandStep {
    /// A line of `length` octets; with its line end it takes `consumed`.
    Line {
        /// Octets of the line without its end.
        length: usize,
        /// Octets to take off the buffer.
        consumed: usize,
    },
    /// The end of a line that was too long; no part of it is a command.
    TooLong {
        /// Octets to take off the buffer.
        consumed: usize,
    },
    /// No line yet.
    More {
        /// Octets of a line that is already too long, to be thrown away.
        discard: usize,
    },
    /// The connection must be ended.
    Fault(Fault),
}

/// Finds command lines.
#[derive(Debug)]
pub struct CommandReader {
    limit: usize,
    bare_newline: BareNewline,
    too_long: bool,
}

impl CommandReader {
    /// `limit` is the longest line in octets with its CRLF (RFC 5321 4.5.3.1.4 asks for at least 512).
    #[must_use]
    pub fn new(limit: usize, bare_newline: BareNewline) -> Self {
        Self { limit, bare_newline, too_long: false }
    }

    /// Takes effect with the next line.
    pub fn set_bare_newline(&mut self, bare_newline: BareNewline) {
        self.bare_newline = bare_newline;
    }

    /// Reads the front of the buffer. The caller removes the octets that the step names before the next call.
    pub fn next(&mut self, buffer: &[u8]) -> CommandStep {
        let (length, consumed) = match line_end(buffer, self.bare_newline) {
            LineEnd::Crlf { at, crs } => (at, at + crs + 1),
            LineEnd::Lf(at) => (at, at + 1),
            LineEnd::Fault(fault, _) => return CommandStep::Fault(fault),
            LineEnd::None { crs } => {
                if buffer.len() <= self.limit && !self.too_long {
                    return CommandStep::More { discard: 0 };
                }
                self.too_long = true;
                return CommandStep::More { discard: buffer.len() - crs.min(1) };
            }
        };
        if std::mem::take(&mut self.too_long) || length + 2 > self.limit {
            return CommandStep::TooLong { consumed };
        }
        CommandStep::Line { length, consumed }
    }
}

enum LineEnd {
    /// `crs` CRs (one, unless line ends are normalised) and an LF, from offset `at`.
    Crlf { at: usize, crs: usize },
    /// LF alone at this offset, which is to be normalised.
    Lf(usize),
    /// A fault at this offset, before any line end.
    Fault(Fault, usize),
    /// Neither; the buffer ends with `crs` CRs, which may be the start of a line end.
    None { crs: usize },
}

fn line_end(buffer: &[u8], bare_newline: BareNewline) -> LineEnd {
    let Some(at) = memchr::memchr3(b'\r', b'\n', 0, buffer) else {
        return LineEnd::None { crs: 0 };
    };
    let normalize = bare_newline == BareNewline::Normalize;
    let rest = buffer.get(at..).unwrap_or_default();
    let most = if normalize { rest.len() } else { 1 };
    let crs = rest.iter().take(most).take_while(|octet| **octet == b'\r').count();
    match (crs, rest.get(crs)) {
        (0, Some(b'\n')) if normalize => LineEnd::Lf(at),
        (0, Some(b'\n')) => LineEnd::Fault(Fault::BareLf, at),
        (0, _) => LineEnd::Fault(Fault::Nul, at),
        (_, Some(b'\n')) => LineEnd::Crlf { at, crs },
        (_, None) => LineEnd::None { crs },
        (_, Some(_)) => LineEnd::Fault(Fault::BareCr, at),
    }
}

/// The next step after the octets of [`DataReader::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataEvent {
    /// Call again with the rest of the buffer: it may hold more.
    Again,
    /// More input is needed.
    More,
    End,
    /// The connection must be ended, and the message thrown away.
    Fault(Fault),
}

/// A piece of a message: `content` octets at the front of the buffer, then `insert`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataStep {
    /// Octets at the front of the buffer that belong to the message, still dot-stuffed.
    pub content: usize,
    /// Octets to add behind them, for normalised line ends.
    pub insert: &'static [u8],
    /// Octets to take off the buffer.
    pub consumed: usize,
    pub event: DataEvent,
}

/// Finds the end of a message.
#[derive(Debug)]
pub struct DataReader {
    place: LineState,
    bare_newline: BareNewline,
    stuffing: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineState {
    /// At the start of a line, behind CRLF or DATA.
    LineStart,
    /// At the start of a line after a normalised LF: the client added no dot here, and the message can't end here.
    MadeLineStart,
    /// Within a line.
    Text,
}

impl DataReader {
    /// At the start of a message, right after the CRLF of DATA (RFC 5321 4.1.1.4: that CRLF counts).
    #[must_use]
    pub fn new(bare_newline: BareNewline) -> Self {
        Self { place: LineState::LineStart, bare_newline, stuffing: 0 }
    }

    /// Dots that transparency added, among the octets so far; RFC 1870 5 doesn't count them.
    #[must_use]
    pub fn stuffing(&self) -> u64 {
        self.stuffing
    }

    /// Reads the front of the buffer. The caller removes `consumed` octets before the next call.
    pub fn next(&mut self, buffer: &[u8]) -> DataStep {
        let mut at = 0;
        loop {
            let rest = buffer.get(at..).unwrap_or_default();
            if let (LineState::LineStart | LineState::MadeLineStart, Some(b'.')) = (self.place, rest.first())
            {
                match self.line_of_dot(at, rest) {
                    Some(step) => return step,
                    None => at += 1,
                }
                self.place = LineState::Text;
                continue;
            }
            match line_end(rest, self.bare_newline) {
                LineEnd::Crlf { at: length, crs: 1 } => {
                    at += length + 2;
                    self.place = LineState::LineStart;
                }
                // a client that adds CRs to lines that already have one ends its message behind such a line
                LineEnd::Crlf { at: length, crs } => {
                    self.place = LineState::LineStart;
                    return step(at + length, b"\r\n", at + length + crs + 1, DataEvent::Again);
                }
                LineEnd::None { crs } => {
                    let content = buffer.len() - crs;
                    if content > at {
                        self.place = LineState::Text;
                    }
                    // of several CRs only the last can be part of a line end
                    return step(content, b"", buffer.len() - crs.min(1), DataEvent::More);
                }
                LineEnd::Lf(length) => {
                    self.place = LineState::MadeLineStart;
                    return step(at + length, b"\r\n", at + length + 1, DataEvent::Again);
                }
                LineEnd::Fault(fault, length) => {
                    return step(at + length, b"", at + length, DataEvent::Fault(fault));
                }
            }
        }
    }

    /// A line that starts with a dot: `None` for an ordinary dot, which the client has stuffed.
    fn line_of_dot(&mut self, at: usize, rest: &[u8]) -> Option<DataStep> {
        if self.place == LineState::MadeLineStart {
            // The dot is content; behind our CRLF it must be stuffed, or it could end the message.
            self.place = LineState::Text;
            return Some(step(at, b".", at, DataEvent::Again));
        }
        match (rest.get(1), rest.get(2)) {
            (Some(b'\r'), Some(b'\n')) => Some(step(at, b"", at + 3, DataEvent::End)),
            (None, _) | (Some(b'\r'), None) => Some(step(at, b"", at, DataEvent::More)),
            (Some(b'\r'), Some(b'\r')) if self.bare_newline == BareNewline::Normalize => {
                // CRLF . CR CR: no end of data. The dot was stuffed, and the first CR goes.
                self.place = LineState::Text;
                Some(step(at, b"", at + 2, DataEvent::Again))
            }
            (Some(b'\n'), _) if self.bare_newline == BareNewline::Normalize => {
                // CRLF . LF: an empty line after unstuffing. Passing the dot on would make an end of data of it.
                self.place = LineState::MadeLineStart;
                Some(step(at, b"\r\n", at + 2, DataEvent::Again))
            }
            _ => {
                self.stuffing += 1;
                None
            }
        }
    }
}

fn step(content: usize, insert: &'static [u8], consumed: usize, event: DataEvent) -> DataStep {
    DataStep { content, insert, consumed, event }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The result of a sequence of reads, and the fault that ended it.
    #[derive(Debug, PartialEq, Eq, Clone, Default)]
    struct Seen {
        items: Vec<Vec<u8>>,
        ended: bool,
        fault: Option<Fault>,
        stuffing: u64,
    }

    fn commands(parts: &[&[u8]], limit: usize, mode: BareNewline) -> Seen {
        let (mut reader, mut buffer, mut seen) =
            (CommandReader::new(limit, mode), Vec::new(), Seen::default());
        for part in parts {
            buffer.extend_from_slice(part);
            loop {
                match reader.next(&buffer) {
                    CommandStep::Line { length, consumed } => {
                        seen.items.push(buffer[..length].to_vec());
                        buffer.drain(..consumed);
                    }
                    CommandStep::TooLong { consumed } => {
                        seen.items.push(b"TOO LONG".to_vec());
                        buffer.drain(..consumed);
                    }
                    CommandStep::More { discard } => {
                        buffer.drain(..discard);
                        assert!(buffer.len() <= limit, "{} octets are held", buffer.len());
                        break;
                    }
                    CommandStep::Fault(fault) => {
                        seen.fault = Some(fault);
                        return seen;
                    }
                }
            }
        }
        seen
    }

    fn message(parts: &[&[u8]], mode: BareNewline) -> (Seen, Vec<u8>) {
        let (mut reader, mut buffer, mut seen) = (DataReader::new(mode), Vec::new(), Seen::default());
        let mut content = Vec::new();
        for part in parts {
            buffer.extend_from_slice(part);
            loop {
                if seen.ended {
                    break;
                }
                let found = reader.next(&buffer);
                content.extend_from_slice(&buffer[..found.content]);
                content.extend_from_slice(found.insert);
                buffer.drain(..found.consumed);
                match found.event {
                    DataEvent::Again => {}
                    DataEvent::More => break,
                    DataEvent::End => seen.ended = true,
                    DataEvent::Fault(fault) => {
                        seen.fault = Some(fault);
                        return (seen, Vec::new());
                    }
                }
            }
        }
        seen.items.push(content);
        seen.stuffing = reader.stuffing();
        (seen, buffer)
    }

    #[test]
    fn commands_end_at_crlf_only() {
        let rows: [(&[u8], &[&[u8]], Option<Fault>); 7] = [
            (b"NOOP\r\nQUIT\r\n", &[b"NOOP", b"QUIT"], None),
            (b"NOOP\r", &[], None),
            (b"NOOP\nQUIT\r\n", &[], Some(Fault::BareLf)),
            (b"NO\rOP\r\n", &[], Some(Fault::BareCr)),
            (b"NOOP\r\r\n", &[], Some(Fault::BareCr)),
            (b"NO\0OP\r\n", &[], Some(Fault::Nul)),
            (b"\r\n", &[b""], None),
        ];
        for (input, lines, fault) in rows {
            let seen = commands(&[input], 512, BareNewline::Reject);
            assert_eq!(
                (seen.items, seen.fault),
                (lines.iter().map(|line| line.to_vec()).collect(), fault),
                "{input:?}"
            );
        }
        let lenient = commands(&[b"NOOP\nRSET\r\r\nQUIT\r\n"], 512, BareNewline::Normalize);
        assert_eq!(lenient.items, [b"NOOP".to_vec(), b"RSET".to_vec(), b"QUIT".to_vec()]);
        assert_eq!(commands(&[b"NO\r\rOP\r\n"], 512, BareNewline::Normalize).fault, Some(Fault::BareCr));
    }

    #[test]
    fn a_line_too_long_is_one_error_and_its_tail_is_no_command() {
        let long = [b"NOOP ".to_vec(), vec![b'a'; 70_000], b"\r\nQUIT\r\n".to_vec()].concat();
        for size in [1, 1000, long.len()] {
            let pieces: Vec<&[u8]> = long.chunks(size).collect();
            assert_eq!(
                commands(&pieces, 512, BareNewline::Reject).items,
                [b"TOO LONG".to_vec(), b"QUIT".to_vec()],
                "in pieces of {size}"
            );
        }
        let exact = [vec![b'a'; 510], b"\r\n".to_vec()].concat();
        assert_eq!(commands(&[&exact], 512, BareNewline::Reject).items, [vec![b'a'; 510]]);
        let over = [vec![b'a'; 511], b"\r\n".to_vec()].concat();
        assert_eq!(commands(&[&over], 512, BareNewline::Reject).items, [b"TOO LONG".to_vec()]);
    }

    #[test]
    fn a_message_ends_at_crlf_dot_crlf_only() {
        let rows: [(&[u8], Option<&[u8]>, Option<Fault>); 12] = [
            (b"hi\r\n.\r\nQUIT\r\n", Some(b"hi\r\n"), None),
            (b".\r\n", Some(b""), None),
            (b"..\r\n.\r\n", Some(b"..\r\n"), None),
            (b"a.\r\n.\r\n", Some(b"a.\r\n"), None),
            (b"a\r\n.b\r\n.\r\n", Some(b"a\r\n.b\r\n"), None),
            (b"a\n.\n", None, Some(Fault::BareLf)),
            (b"a\n.\r\n", None, Some(Fault::BareLf)),
            (b"a\r\n.\n", None, Some(Fault::BareLf)),
            (b"a\r\n.\r", None, None),
            (b"a\r\n.\r\r\n", None, Some(Fault::BareCr)),
            (b"a\r.\r\n", None, Some(Fault::BareCr)),
            (b"a\0\r\n.\r\n", None, Some(Fault::Nul)),
        ];
        for (input, content, fault) in rows {
            let (seen, _) = message(&[input], BareNewline::Reject);
            assert_eq!(seen.fault, fault, "{input:?}");
            assert_eq!(seen.ended, content.is_some(), "{input:?}");
            if let Some(content) = content {
                assert_eq!(seen.items, [content.to_vec()], "{input:?}");
            }
        }
    }

    #[test]
    fn normalised_line_ends_never_end_a_message() {
        let rows: [(&[u8], &[u8]); 10] = [
            (b"a\r\r\nb\r\r\r\n.\r\n", b"a\r\nb\r\n"),
            (b"a\r\r\n..b\r\r\n.\r\n", b"a\r\n..b\r\n"),
            (b"a\r\n.\r\r\nb\r\n.\r\n", b"a\r\n\r\nb\r\n"),
            (b"a\n.\r\r\nb\r\n.\r\n", b"a\r\n..\r\nb\r\n"),
            (b"a\r\n.\r\r\n.\r\n", b"a\r\n\r\n"),
            (b"a\nb\r\n.\r\n", b"a\r\nb\r\n"),
            (b"a\n.\nb\r\n.\r\n", b"a\r\n..\r\nb\r\n"),
            (b"a\n.\r\nb\r\n.\r\n", b"a\r\n..\r\nb\r\n"),
            (b"a\r\n.\nb\r\n.\r\n", b"a\r\n\r\nb\r\n"),
            (b"\n.\n\r\n.\r\n", b"\r\n..\r\n\r\n"),
        ];
        for (input, content) in rows {
            let (seen, _) = message(&[input], BareNewline::Normalize);
            assert!(seen.ended && seen.fault.is_none(), "{input:?}");
            assert_eq!(seen.items, [content.to_vec()], "{input:?}");
            let stuffed = usize::from(input.windows(4).any(|part| part == b"\n..b"));
            assert_eq!(seen.stuffing, stuffed as u64, "{input:?}");
        }
        assert_eq!(message(&[b"a\rb\r\n.\r\n"], BareNewline::Normalize).0.fault, Some(Fault::BareCr));
    }

    #[test]
    fn stuffed_dots_are_counted() {
        let mut reader = DataReader::new(BareNewline::Reject);
        reader.next(b"..one\r\n...two\r\nx.\r\n");
        assert_eq!(reader.stuffing(), 2);
    }

    /// All inputs of up to six octets that matter.
    fn short_inputs() -> impl Iterator<Item = Vec<u8>> {
        const OCTETS: [u8; 5] = *b".\r\na\0";
        let input = |length: u32, number: usize| -> Vec<u8> {
            (0..length).map(|place| OCTETS[number / 5_usize.pow(place) % 5]).collect()
        };
        (0..=6).flat_map(move |length| (0..5_usize.pow(length)).map(move |number| input(length, number)))
    }

    /// Where the first octet is that has no place in a message.
    fn first_fault(input: &[u8], mode: BareNewline) -> Option<usize> {
        (0..input.len()).find(|&at| match input[at] {
            b'\r' => {
                let next = match mode {
                    BareNewline::Reject => input.get(at + 1),
                    BareNewline::Normalize => input[at..].iter().find(|octet| **octet != b'\r'),
                };
                next.is_some_and(|next| *next != b'\n')
            }
            b'\n' => mode == BareNewline::Reject && (at == 0 || input[at - 1] != b'\r'),
            octet => octet == 0,
        })
    }

    #[test]
    fn every_short_message_ends_at_crlf_dot_crlf_or_at_its_first_fault_in_every_split() {
        for input in short_inputs() {
            // the CRLF of DATA counts (RFC 5321 4.1.1.4)
            let framed = [b"\r\n", input.as_slice()].concat();
            let end = framed.windows(5).position(|window| window == b"\r\n.\r\n").map(|at| at + 3);
            for mode in [BareNewline::Reject, BareNewline::Normalize] {
                let fault = first_fault(&input, mode);
                let end = end.filter(|end| fault.is_none_or(|fault| fault >= *end));
                let (seen, rest) = message(&[&input], mode);
                assert_eq!(
                    (seen.ended, seen.fault.is_some()),
                    (end.is_some(), end.is_none() && fault.is_some()),
                    "{input:?}"
                );
                if let Some(end) = end {
                    assert_eq!(rest, input[end..], "{input:?}");
                }
                let whole = (seen, rest);
                assert_eq!(message(&input.chunks(1).collect::<Vec<_>>(), mode), whole, "{input:?}");
                for cut in 1..input.len() {
                    assert_eq!(
                        message(&[&input[..cut], &input[cut..]], mode),
                        whole,
                        "{input:?} cut at {cut}"
                    );
                }
            }
        }
    }

    /// Octets that matter, many of them.
    fn octets() -> impl Strategy<Value = Vec<u8>> {
        let octet =
            prop_oneof![3 => Just(b'.'), 3 => Just(b'\r'), 4 => Just(b'\n'), 1 => Just(0u8), 4 => Just(b'a')];
        let crlf = Just(b"\r\n".to_vec());
        prop::collection::vec(prop_oneof![2 => octet.prop_map(|byte| vec![byte]), 3 => crlf], 0..40)
            .prop_map(|parts| parts.concat())
    }

    #[test]
    fn carriage_returns_that_never_end_are_not_held() {
        let mut reader = DataReader::new(BareNewline::Normalize);
        let step = reader.next(&[b'\r'; 10_000]);
        assert_eq!((step.content, step.consumed), (0, 9_999));
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same(input in octets(), cuts in prop::collection::vec(0usize..60, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
            cuts.sort_unstable();
            let bounds: Vec<usize> = [vec![0], cuts, vec![input.len()]].concat();
            let parts: Vec<&[u8]> = bounds.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
            for mode in [BareNewline::Reject, BareNewline::Normalize] {
                let whole = message(&[&input], mode);
                let split = message(&parts, mode);
                prop_assert_eq!(&whole.0.fault, &split.0.fault);
                prop_assert_eq!(whole.0.ended, split.0.ended);
                if whole.0.fault.is_none() {
                    prop_assert_eq!(&whole.0.items, &split.0.items);
                }
                prop_assert_eq!(commands(&[&input], 12, mode), commands(&parts, 12, mode));
            }
        }

        #[test]
        fn what_passes_is_strict_and_holds_no_end_of_data(input in octets()) {
            for mode in [BareNewline::Reject, BareNewline::Normalize] {
                let (seen, _) = message(&[&input], mode);
                let Some(content) = seen.items.first() else { continue };
                let framed = [b"\r\n", content.as_slice(), b".\r\n"].concat();
                if seen.ended {
                    let end = framed.windows(5).position(|window| window == b"\r\n.\r\n");
                    prop_assert_eq!(end.map(|at| at + 5), Some(framed.len()));
                    prop_assert_eq!(line_faults(&framed), 0);
                }
            }
        }
    }

    fn line_faults(octets: &[u8]) -> usize {
        let pairs = octets.windows(2).filter(|pair| (pair[0] == b'\r') != (pair[1] == b'\n')).count();
        pairs + octets.iter().filter(|byte| **byte == 0).count()
    }
}
