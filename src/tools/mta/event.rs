//! The events of a session, as packets.

use std::net::SocketAddr;

use crate::milter::letter;
use crate::milter::packet;
use crate::tools::mta::filter::{Filter, Stage};

/// Largest piece of a body in octets (`MILTER_CHUNK_SIZE`).
pub const LARGEST_PIECE: usize = 65_535;

/// What Postfix reports to a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// `name` is the name of the client, or its address in brackets.
    Connect {
        name: &'a str,
        client: SocketAddr,
    },
    Helo(&'a str),
    /// The path as the client writes it, in angle brackets, and the parameters.
    Mail {
        path: &'a str,
        parameters: &'a [&'a str],
    },
    Rcpt {
        path: &'a str,
        parameters: &'a [&'a str],
    },
    Data,
    /// The value is all that stands behind the colon, with LF at the folds.
    Header {
        name: &'a [u8],
        value: &'a [u8],
    },
    EndOfHeader,
    /// At most 65535 octets.
    Body(&'a [u8]),
    EndOfMessage,
    /// The transaction is over.
    Abort,
    Quit,
}

impl Event<'_> {
    fn stage(&self) -> Option<Stage> {
        Some(match self {
            Self::Connect { .. } => Stage::Connect,
            Self::Helo(_) => Stage::Helo,
            Self::Mail { .. } => Stage::Mail,
            Self::Rcpt { .. } => Stage::Rcpt,
            Self::Data => Stage::Data,
            Self::Header { .. } => Stage::Header,
            Self::EndOfHeader => Stage::EndOfHeader,
            Self::Body(_) => Stage::Body,
            Self::EndOfMessage => Stage::EndOfMessage,
            Self::Abort | Self::Quit => return None,
        })
    }

    /// Appends the event as this filter wants it: the macros that it asks for, of those that are `known`, then the event.
    /// Returns whether Postfix waits for an answer.
    pub fn write_to(&self, filter: &Filter, known: &[(&str, &str)], out: &mut Vec<u8>) -> bool {
        let Some(stage) = self.stage() else {
            let letter = if *self == Self::Quit { letter::QUIT } else { letter::ABORT };
            packet::write(out, letter, |_| ());
            return false;
        };
        let is_left_out = matches!(self, Self::Body(_) | Self::Header { .. }) && !filter.wants(stage);
        if !filter.knows(stage) || is_left_out {
            return false;
        }
        filter.write_macros(stage, known, out);
        if filter.wants(stage) {
            packet::write(out, stage.letter(), |out| self.push(filter, out));
        }
        filter.answers(stage)
    }

    /// The data of the packet.
    fn push(&self, filter: &Filter, out: &mut Vec<u8>) {
        match *self {
            Self::Connect { name, client } => {
                push_string(name.as_bytes(), out);
                out.push(if client.is_ipv4() { b'4' } else { b'6' });
                out.extend_from_slice(&client.port().to_be_bytes());
                push_string(client.ip().to_string().as_bytes(), out);
            }
            Self::Helo(argument) => push_string(argument.as_bytes(), out),
            Self::Mail { path, parameters } | Self::Rcpt { path, parameters } => {
                push_string(path.as_bytes(), out);
                parameters.iter().for_each(|parameter| push_string(parameter.as_bytes(), out));
            }
            Self::Header { name, value } => {
                push_string(name, out);
                let is_kept = filter.keeps_leading_space();
                let bare = if is_kept { None } else { value.strip_prefix(b" ") };
                push_string(bare.unwrap_or(value), out);
            }
            Self::Body(octets) => out.extend_from_slice(octets),
            Self::Data | Self::EndOfHeader | Self::EndOfMessage | Self::Abort | Self::Quit => {}
        }
    }
}

fn push_string(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(text);
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::milter::{self, Client, Packet, Terms};

    fn agreed(protocol: u32) -> (Filter, Terms) {
        let data = [6, 0x1ff, protocol].map(u32::to_be_bytes).concat();
        let filter = Filter::read(Packet { letter: b'O', data: &data }).unwrap();
        (filter, Terms::read(&data).unwrap())
    }

    #[test]
    fn rmxd_reads_what_is_written() {
        let client = "127.0.0.10:4711".parse().unwrap();
        let (filter, terms) = agreed(0x10_0000);
        let shown = |event: Event<'_>| {
            let mut out = Vec::new();
            let is_answered = event.write_to(&filter, &[("i", "4F1")], &mut out);
            let (mut rest, mut last) = (out.as_slice(), String::new());
            while let Some((packet, length)) = Packet::first(rest).unwrap() {
                rest = &rest[length..];
                let read = milter::Event::parse(packet).unwrap();
                assert_eq!(
                    rest.is_empty() && read.expects_answer(&terms),
                    is_answered && rest.is_empty(),
                    "{read:?}"
                );
                last = match read {
                    milter::Event::Connect { name, client: Client::Host { address, port } } => {
                        format!("connect {} {address} {port}", name.escape_ascii())
                    }
                    milter::Event::Helo(argument) => format!("helo {}", argument.escape_ascii()),
                    milter::Event::Mail(path) => {
                        let parameters = path.parameters().map(|it| format!(" {}", it.escape_ascii()));
                        format!("mail {}{}", path.reverse().unwrap(), parameters.collect::<String>())
                    }
                    milter::Event::Rcpt(path) => format!("rcpt {}", path.forward().unwrap()),
                    milter::Event::Header(field) => {
                        let mut block = Vec::new();
                        field.write_to(&terms, &mut block);
                        block.escape_ascii().to_string()
                    }
                    milter::Event::Body(octets) => format!("body {}", octets.escape_ascii()),
                    other => format!("{other:?}"),
                };
            }
            last
        };
        let rows: [(Event<'_>, &str); 11] = [
            (Event::Connect { name: "[127.0.0.10]", client }, "connect [127.0.0.10] 127.0.0.10 4711"),
            (Event::Helo("mail.good.test"), "helo mail.good.test"),
            (
                Event::Mail { path: "<a@good.test>", parameters: &["SIZE=9", "BODY=8BITMIME"] },
                "mail a@good.test SIZE=9 BODY=8BITMIME",
            ),
            (Event::Rcpt { path: "<u@here.test>", parameters: &[] }, "rcpt u@here.test"),
            (Event::Data, "Data"),
            (Event::Header { name: b"Subject", value: b" a\n\tb" }, "Subject: a\\r\\n\\tb\\r\\n"),
            (Event::EndOfHeader, "EndOfHeader"),
            (Event::Body(b"a\r\n"), "body a\\r\\n"),
            (Event::EndOfMessage, "EndOfMessage([])"),
            (Event::Abort, "Abort"),
            (Event::Quit, "Quit"),
        ];
        for (event, expected) in rows {
            assert_eq!(shown(event), expected);
        }
    }

    #[test]
    fn an_event_that_is_not_wanted_leaves_its_macros_but_for_header_and_body() {
        let (filter, _) = agreed(0x200 | 0x20 | 0x10 | 0x1);
        let written = |event: Event<'_>| {
            let mut out = Vec::new();
            assert!(!event.write_to(&filter, &[("i", "4")], &mut out), "{event:?}");
            out.escape_ascii().to_string()
        };
        assert_eq!(written(Event::Data), "\\x00\\x00\\x00\\x06DTi\\x004\\x00");
        assert_eq!(written(Event::Body(b"x")), "");
        assert_eq!(written(Event::Header { name: b"X", value: b"" }), "");
    }
}
