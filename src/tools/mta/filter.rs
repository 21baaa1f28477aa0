//! The negotiation with a filter: which events it wants, which it answers, and which macros it asks for.

use crate::milter::Packet;
use crate::milter::flags::protocol;
use crate::milter::{letter, packet};

/// What Postfix offers with `milter_protocol = 6`: the version, all actions, all of the protocol.
const OFFER: [u32; 3] = [6, 0x1ff, 0x1f_ffff];

/// A step of the SMTP session that has an event with macros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Connect,
    Helo,
    Mail,
    Rcpt,
    Data,
    /// Each field of the header.
    Header,
    EndOfHeader,
    /// Each piece of the body.
    Body,
    EndOfMessage,
}

impl Stage {
    /// Of the event, and in the packet of its macros.
    pub(super) fn letter(self) -> u8 {
        match self {
            Self::Connect => letter::CONNECT,
            Self::Helo => letter::HELO,
            Self::Mail => letter::MAIL,
            Self::Rcpt => letter::RCPT,
            Self::Data => letter::DATA,
            Self::Header => letter::HEADER,
            Self::EndOfHeader => letter::END_OF_HEADER,
            Self::Body => letter::BODY,
            Self::EndOfMessage => letter::END_OF_MESSAGE,
        }
    }

    /// The flags by which a filter goes without the event, and without answering it. The end of the message has neither.
    fn flags(self) -> (u32, u32) {
        match self {
            Self::Connect => (protocol::NO_CONNECT, protocol::NO_REPLY_CONNECT),
            Self::Helo => (protocol::NO_HELO, protocol::NO_REPLY_HELO),
            Self::Mail => (protocol::NO_MAIL, protocol::NO_REPLY_MAIL),
            Self::Rcpt => (protocol::NO_RCPT, protocol::NO_REPLY_RCPT),
            Self::Data => (protocol::NO_DATA, protocol::NO_REPLY_DATA),
            Self::Header => (protocol::NO_HEADERS, protocol::NO_REPLY_HEADER),
            Self::EndOfHeader => (protocol::NO_END_OF_HEADER, protocol::NO_REPLY_END_OF_HEADER),
            Self::Body => (protocol::NO_BODY, protocol::NO_REPLY_BODY),
            Self::EndOfMessage => (0, 0),
        }
    }

    /// The number of its list of macros (`SMFIM_` in `mfdef.h`): fields have that of the end of the header, pieces of the
    /// body that of the end of the message.
    fn list(self) -> usize {
        match self {
            Self::Connect => 0,
            Self::Helo => 1,
            Self::Mail => 2,
            Self::Rcpt => 3,
            Self::Data => 4,
            Self::Body | Self::EndOfMessage => 5,
            Self::Header | Self::EndOfHeader => 6,
        }
    }
}

/// The lists of macros, by number, where the filter asks for none of its own: Postfix's defaults (postconf(5)).
const MACROS: [&str; 7] = [
    "j {daemon_name} {daemon_addr} v _",
    "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}",
    "i {auth_type} {auth_authen} {auth_author} {mail_addr} {mail_host} {mail_mailer}",
    "i {rcpt_addr} {rcpt_host} {rcpt_mailer}",
    "i",
    "i",
    "i",
];

/// A filter, by its answer to the offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    version: u32,
    protocol: u32,
    macros: [Vec<String>; 7],
}

/// An answer to the offer that Postfix wouldn't take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    #[error("the filter doesn't answer the negotiation")]
    NotNegotiated,
    #[error("the filter asks for version {0}; 2 to 6 are offered")]
    Version(u32),
    #[error("the filter asks for macros of an unknown kind")]
    Macros,
}

impl Filter {
    /// Appends what Postfix sends first.
    pub fn write_offer(out: &mut Vec<u8>) {
        packet::write(out, letter::NEGOTIATE, |out| {
            OFFER.iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
        });
    }

    /// Reads the filter's answer to the offer.
    ///
    /// # Errors
    /// The packet is another, or asks for what isn't offered.
    pub fn read(packet: Packet<'_>) -> Result<Self, BadFilter> {
        let number = |data: &[u8], at: usize| {
            let octets = data.get(at..)?.first_chunk()?;
            Some(u32::from_be_bytes(*octets))
        };
        let data = packet.data;
        let (Some(version), Some(protocol)) = (number(data, 0), number(data, 8)) else {
            return Err(BadFilter::NotNegotiated);
        };
        if packet.letter != letter::NEGOTIATE {
            return Err(BadFilter::NotNegotiated);
        }
        if !(2..=6).contains(&version) {
            return Err(BadFilter::Version(version));
        }
        let words =
            |text: &str| text.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let mut macros = MACROS.map(words);
        let mut lists = data.get(12..).unwrap_or_default();
        while let Some(list) = number(lists, 0) {
            let rest = lists.get(4..).unwrap_or_default();
            let end = memchr::memchr(0, rest).ok_or(BadFilter::Macros)?;
            let text = rest.get(..end).and_then(|text| std::str::from_utf8(text).ok());
            let place = usize::try_from(list).ok().and_then(|list| macros.get_mut(list));
            let (place, text) = place.zip(text).ok_or(BadFilter::Macros)?;
            // Postfix takes an empty list for none.
            if !text.is_empty() {
                *place = words(text);
            }
            lists = rest.get(end + 1..).unwrap_or_default();
        }
        Ok(Self { version, protocol, macros })
    }

    /// Whether the event exists in the negotiated version: DATA from 4 on.
    pub(super) fn knows(&self, stage: Stage) -> bool {
        stage != Stage::Data || self.version >= 4
    }

    /// Whether the filter wants the event.
    #[must_use]
    pub fn wants(&self, stage: Stage) -> bool {
        self.knows(stage) && self.protocol & stage.flags().0 == 0
    }

    /// Whether the filter answers the event.
    #[must_use]
    pub fn answers(&self, stage: Stage) -> bool {
        self.wants(stage) && self.protocol & stage.flags().1 == 0
    }

    /// Whether values of fields have the space behind the colon.
    #[must_use]
    pub fn keeps_leading_space(&self) -> bool {
        self.protocol & protocol::LEADING_SPACE != 0
    }

    /// Appends the packet of macros before an event: those that the filter asks for, in its order, as far as they are in
    /// `known`. Names of more than one letter have braces around them. Postfix sends the packet without macros too, and
    /// where the event itself isn't wanted.
    pub(super) fn write_macros(&self, stage: Stage, known: &[(&str, &str)], out: &mut Vec<u8>) {
        packet::write(out, letter::MACRO, |out| {
            out.push(stage.letter());
            for name in self.macros.get(stage.list()).into_iter().flatten() {
                let Some((_, value)) = known.iter().find(|(other, _)| other == name) else { continue };
                for text in [name.as_str(), value] {
                    out.extend_from_slice(text.as_bytes());
                    out.push(0);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::milter::{Event, Terms, Wants};

    /// The answer of rmxd to Postfix's offer.
    fn rmxd(body: bool) -> Vec<u8> {
        let mut offer = Vec::new();
        Filter::write_offer(&mut offer);
        let (packet, taken) = Packet::first(&offer).unwrap().unwrap();
        assert_eq!(taken, offer.len());
        let Ok(Event::Negotiate(terms)) = Event::parse(packet) else { panic!("not an offer") };
        assert_eq!(Some(terms), Terms::read(&OFFER.map(u32::to_be_bytes).concat()));
        let mut answer = Vec::new();
        terms.agree(Wants { body }).unwrap().write_to(&mut answer);
        answer
    }

    fn filter(answer: &[u8]) -> Result<Filter, BadFilter> {
        Filter::read(Packet::first(answer).unwrap().unwrap().0)
    }

    const STAGES: [Stage; 9] = [
        Stage::Connect,
        Stage::Helo,
        Stage::Mail,
        Stage::Rcpt,
        Stage::Data,
        Stage::Header,
        Stage::EndOfHeader,
        Stage::Body,
        Stage::EndOfMessage,
    ];

    #[test]
    fn what_rmxd_asks_for_is_what_it_gets() {
        for (body, wanted) in [(true, "CHMRTLNBE"), (false, "CHMRTLNE")] {
            let filter = filter(&rmxd(body)).unwrap();
            let letters = |which: &dyn Fn(Stage) -> bool| -> String {
                STAGES
                    .into_iter()
                    .filter(|stage| which(*stage))
                    .map(|stage| char::from(stage.letter()))
                    .collect()
            };
            assert_eq!(letters(&|stage| filter.wants(stage)), wanted);
            assert_eq!(letters(&|stage| filter.answers(stage)), "CMRTNE");
            assert!(filter.keeps_leading_space());
            let known =
                [("{auth_authen}", "ann"), ("i", "4F1"), ("{tls_version}", "TLSv1.3"), ("j", "mx.test")];
            let macros = |stage| {
                let mut out = Vec::new();
                filter.write_macros(stage, &known, &mut out);
                out.escape_ascii().to_string()
            };
            assert_eq!(macros(Stage::Connect), "\\x00\\x00\\x00\\x0cDCj\\x00mx.test\\x00");
            assert_eq!(macros(Stage::Mail), "\\x00\\x00\\x00\\x1aDMi\\x004F1\\x00{auth_authen}\\x00ann\\x00");
            assert_eq!(macros(Stage::Header), "\\x00\\x00\\x00\\x08DLi\\x004F1\\x00");
            assert_eq!(macros(Stage::Body), "\\x00\\x00\\x00\\x08DBi\\x004F1\\x00");
        }
    }

    #[test]
    fn an_answer_that_postfix_would_not_take_is_an_error() {
        let rows: [(&[u8], BadFilter); 6] = [
            (b"\0\0\0\x01c", BadFilter::NotNegotiated),
            (b"\0\0\0\x0bO\0\0\0\x06\0\0\x01\xff\0\0", BadFilter::NotNegotiated),
            (b"\0\0\0\x0dO\0\0\0\x07\0\0\0\0\0\0\0\0", BadFilter::Version(7)),
            (b"\0\0\0\x0dO\0\0\0\x01\0\0\0\0\0\0\0\0", BadFilter::Version(1)),
            (b"\0\0\0\x13O\0\0\0\x06\0\0\0\0\0\0\0\0\0\0\0\x07i\0", BadFilter::Macros),
            (b"\0\0\0\x12O\0\0\0\x06\0\0\0\0\0\0\0\0\0\0\0\x01i", BadFilter::Macros),
        ];
        for (answer, error) in rows {
            assert_eq!(filter(answer), Err(error), "{}", answer.escape_ascii());
        }
    }

    #[test]
    fn version_2_has_no_event_for_data() {
        let filter = filter(b"\0\0\0\x0dO\0\0\0\x02\0\0\0\x3f\0\0\0\0").unwrap();
        assert!(!filter.wants(Stage::Data) && !filter.answers(Stage::Data) && !filter.knows(Stage::Data));
        assert!(STAGES.into_iter().filter(|stage| *stage != Stage::Data).all(|stage| filter.answers(stage)));
    }
}
