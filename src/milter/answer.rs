//! What rmxd answers to an event.

use crate::milter::letter;
use crate::milter::negotiation::Terms;
use crate::milter::packet;
use crate::smtp::reply::{Enhanced, Reply};

/// Longest line of a reply with its codes, its percent signs doubled: libmilter takes no longer text.
const MAX_REPLY: usize = 980;

/// The last answer to an event, or an edit before the last answer to [`crate::milter::Event::EndOfMessage`].
///
/// Edits need what [`Terms`] say (`can_...`). A field's value is what stands behind the colon and the space, with CRLF or
/// LF at its folds. `index` counts from 1 among the fields of that name, in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    Continue,
    /// The reply to the client as one line; [`Answer::TemporaryFailure`] if it isn't a 4xx or 5xx.
    Refuse(&'a Reply),
    /// The MTA's own 451, for trouble of rmxd's own.
    TemporaryFailure,
    /// A field behind all others.
    AddHeader {
        name: &'a str,
        value: &'a [u8],
    },
    /// A field behind `position` others; 0 = before all.
    InsertHeader {
        position: u32,
        name: &'a str,
        value: &'a [u8],
    },
    ChangeHeader {
        index: u32,
        name: &'a str,
        value: &'a [u8],
    },
    DeleteHeader {
        index: u32,
        name: &'a str,
    },
}

impl Answer<'_> {
    /// Appends the packet.
    pub fn write_to(&self, terms: &Terms, out: &mut Vec<u8>) {
        match *self {
            Self::Continue => packet::write(out, letter::CONTINUE, |_| ()),
            Self::Refuse(reply) if (400..600).contains(&reply.code()) => {
                packet::write(out, letter::REPLY_CODE, |out| push_reply(out, reply));
            }
            Self::Refuse(_) | Self::TemporaryFailure => packet::write(out, letter::TEMPORARY_FAILURE, |_| ()),
            Self::AddHeader { name, value } => {
                packet::write(out, letter::ADD_HEADER, |out| push_field(out, terms, name, value));
            }
            Self::InsertHeader { position, name, value } => {
                packet::write(out, letter::INSERT_HEADER, |out| {
                    out.extend_from_slice(&position.to_be_bytes());
                    push_field(out, terms, name, value);
                })
            }
            Self::ChangeHeader { index, name, value } => packet::write(out, letter::CHANGE_HEADER, |out| {
                out.extend_from_slice(&index.to_be_bytes());
                push_field(out, terms, name, value);
            }),
            Self::DeleteHeader { index, name } => packet::write(out, letter::CHANGE_HEADER, |out| {
                out.extend_from_slice(&index.to_be_bytes());
                push_string(out, name.as_bytes());
                out.push(0);
            }),
        }
    }
}

/// One line of printable ASCII, then NUL. Sendmail takes the text for a format, so percent signs are doubled; where they
/// don't fit they become `?`, so that the end of the text, with the id, is not cut off.
fn push_reply(out: &mut Vec<u8>, reply: &Reply) {
    let class = reply.code() / 100;
    // Postfix takes no reply with an enhanced code of another class, nor a text that looks like one
    let Enhanced(_, subject, detail) = match reply.enhanced() {
        Some(enhanced) if u16::from(enhanced.0) == class => enhanced,
        _ => Enhanced(0, 0, 0),
    };
    let start = out.len();
    out.extend_from_slice(format!("{} {class}.{subject}.{detail} ", reply.code()).as_bytes());
    let text = reply.text().as_bytes();
    let room = MAX_REPLY.saturating_sub(out.len() - start);
    let percents = text.iter().filter(|octet| **octet == b'%').count();
    let percent: &[u8] = if text.len() + percents <= room { b"%%" } else { b"?" };
    for octet in text.iter().take(room) {
        match octet {
            b'%' => out.extend_from_slice(percent),
            b' '..=b'~' => out.push(*octet),
            b'\n' => out.push(b' '),
            _ => out.push(b'?'),
        }
    }
    out.push(0);
}

/// Name and value, with LF at the folds as the MTA has it.
fn push_field(out: &mut Vec<u8>, terms: &Terms, name: &str, value: &[u8]) {
    push_string(out, name.as_bytes());
    if terms.keeps_leading_space() {
        out.push(b' ');
    }
    push_string(out, value);
}

/// Without CR, and with `?` for NUL: both would end the string or a line elsewhere than here.
fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(
        text.iter().filter(|octet| **octet != b'\r').map(|octet| if *octet == 0 { b'?' } else { *octet }),
    );
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::milter::negotiation::Wants;
    use crate::milter::packet::Packet;

    fn terms(offer: [u32; 3]) -> Terms {
        Terms::read(&offer.map(u32::to_be_bytes).concat()).unwrap().agree(Wants { body: true }).unwrap()
    }

    fn written(answer: Answer<'_>, offer: [u32; 3]) -> (u8, Vec<u8>) {
        let mut out = Vec::new();
        answer.write_to(&terms(offer), &mut out);
        let (packet, taken) = Packet::first(&out).unwrap().unwrap();
        assert_eq!(taken, out.len());
        (packet.letter, packet.data.to_vec())
    }

    const NEW: [u32; 3] = [6, 0x1ff, 0x1f_ffff];
    const OLD: [u32; 3] = [2, 0x3f, 0x7f];

    #[test]
    fn answers_have_their_letters() {
        let (name, value) = ("X-A", &b"one;\r\n\ttwo"[..]);
        let rows: [(Answer<'_>, [u32; 3], u8, &[u8]); 10] = [
            (Answer::Continue, NEW, b'c', b""),
            (Answer::TemporaryFailure, NEW, b't', b""),
            (Answer::AddHeader { name, value }, NEW, b'h', b"X-A\0 one;\n\ttwo\0"),
            (Answer::AddHeader { name, value }, OLD, b'h', b"X-A\0one;\n\ttwo\0"),
            (Answer::InsertHeader { position: 0, name, value }, NEW, b'i', b"\0\0\0\0X-A\0 one;\n\ttwo\0"),
            (
                Answer::InsertHeader { position: 258, name, value },
                OLD,
                b'i',
                b"\0\0\x01\x02X-A\0one;\n\ttwo\0",
            ),
            (Answer::ChangeHeader { index: 2, name, value: b"b\nc" }, NEW, b'm', b"\0\0\0\x02X-A\0 b\nc\0"),
            (Answer::DeleteHeader { index: 3, name }, NEW, b'm', b"\0\0\0\x03X-A\0\0"),
            (Answer::DeleteHeader { index: 3, name }, OLD, b'm', b"\0\0\0\x03X-A\0\0"),
            (Answer::AddHeader { name, value: b"a\0b\rc" }, OLD, b'h', b"X-A\0a?bc\0"),
        ];
        for (answer, offer, letter, data) in rows {
            let (found, octets) = written(answer, offer);
            assert_eq!(found, letter, "{answer:?}");
            assert_eq!(octets.escape_ascii().to_string(), data.escape_ascii().to_string(), "{answer:?}");
        }
    }

    #[test]
    fn a_refusal_is_one_line_of_ascii_with_doubled_percent_signs() {
        let no = |text: &str| Reply::new(550, Enhanced(5, 1, 8), text.to_owned());
        let rows: [(Reply, u8, &str); 13] = [
            (no("<a@x.test>: no (id 4KXN7Q2M)"), b'y', "550 5.1.8 <a@x.test>: no (id 4KXN7Q2M)\\x00"),
            (no("100% of a%20b"), b'y', "550 5.1.8 100%% of a%%20b\\x00"),
            (no("%%"), b'y', "550 5.1.8 %%%%\\x00"),
            (no("one\ntwo"), b'y', "550 5.1.8 one two\\x00"),
            (no("a\r\n250 ok\0b\x1b\u{e9}"), b'y', "550 5.1.8 a? 250 ok?b???\\x00"),
            (no(""), b'y', "550 5.1.8 \\x00"),
            (Reply::new(450, Enhanced(4, 7, 1), "later"), b'y', "450 4.7.1 later\\x00"),
            (Reply::new(550, Enhanced(4, 7, 1), "odd"), b'y', "550 5.0.0 odd\\x00"),
            (Reply::plain(550, "no code"), b'y', "550 5.0.0 no code\\x00"),
            (Reply::plain(550, "4.1.1 other"), b'y', "550 5.0.0 4.1.1 other\\x00"),
            (Reply::plain(250, "ok"), b't', ""),
            (Reply::plain(354, "go on"), b't', ""),
            (Reply::plain(600, "what"), b't', ""),
        ];
        for (reply, letter, expected) in rows {
            let (found, data) = written(Answer::Refuse(&reply), NEW);
            assert_eq!((found, data.escape_ascii().to_string().as_str()), (letter, expected), "{reply:?}");
        }
    }

    #[test]
    fn a_refusal_has_at_most_980_octets_and_its_id_stays() {
        let id = " (id 4KXN7Q2M)";
        for (text, whole) in [("x", false), ("%", false), ("a%", true), ("\u{e9}%\n", true)] {
            let reply = Reply::new(550, Enhanced(5, 1, 8), text.repeat(2000)).ending_with(id);
            for reply in [&reply, &Reply::new(550, Enhanced(5, 1, 8), text.repeat(2000))] {
                let (_, data) = written(Answer::Refuse(reply), NEW);
                let line = data.strip_suffix(b"\0").unwrap();
                assert!(line.len() <= 980 && line.iter().all(|octet| matches!(octet, b' '..=b'~')));
                let doubled = String::from_utf8(line.to_vec()).unwrap().replace("%%", "");
                assert!(!doubled.contains('%'), "{doubled}");
            }
            let (_, data) = written(Answer::Refuse(&reply), NEW);
            assert!(data.ends_with(b" (id 4KXN7Q2M)\0") || text.contains('\n'), "{}", data.escape_ascii());
            assert!(whole || !data.contains(&b'%'), "{}", data.escape_ascii());
        }
        for (percents, octets) in [(485, 980), (486, 496), (970, 980), (971, 980)] {
            let (_, data) =
                written(Answer::Refuse(&Reply::new(550, Enhanced(5, 1, 8), "%".repeat(percents))), NEW);
            let is_doubled = data.contains(&b'%');
            assert_eq!((data.len() - 1, is_doubled), (octets, percents == 485), "{percents} percent signs");
        }
    }
}
