//! The negotiation: what the MTA offers, and what rmxd asks for.

use crate::milter::flags::{action, protocol};
use crate::milter::letter;
use crate::milter::packet;

/// The oldest version; Sendmail had it from 8.12 on.
const OLDEST: u32 = 2;
/// The newest version, since Sendmail 8.14.
const NEWEST: u32 = 6;

/// The macros that rmxd reads, by stage (`SMFIM_` in `mfdef.h`): the queue id, the user who logged in, and TLS. Empty lists
/// are for Sendmail: Postfix 3.7 takes them for none and sends its own, before each field of the header that of EOH, `i`.
const MACRO_LISTS: [(u32, &str); 7] = [
    (0, ""),                       // CONNECT
    (1, "{tls_version} {cipher}"), // HELO
    (2, "i {auth_authen}"),        // MAIL
    (3, "i"),                      // RCPT
    (4, "i"),                      // DATA
    (5, "i"),                      // EOM
    (6, ""),                       // EOH
];

/// What rmxd needs of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants {
    /// The body, for DKIM signatures.
    pub body: bool,
}

/// An offer of the MTA, or what was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    version: u32,
    actions: u32,
    protocol: u32,
    /// INSHEADER is known: Sendmail has it since 8.13, as QUARANTINE.
    inserts: bool,
}

/// The MTA is older than the protocol's version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("protocol version {0} is older than {OLDEST}")]
pub struct TooOld(pub u32);

impl Terms {
    /// Reads the data of OPTNEG; the filter's own has macro lists behind. `None` if there are fewer than 12 octets.
    #[must_use]
    pub fn read(data: &[u8]) -> Option<Self> {
        let (version, data) = data.split_first_chunk()?;
        let (actions, data) = data.split_first_chunk()?;
        let (protocol, _) = data.split_first_chunk()?;
        let [version, actions, protocol] =
            [version, actions, protocol].map(|octets| u32::from_be_bytes(*octets));
        Some(Self {
            version,
            actions,
            protocol,
            inserts: version > OLDEST || actions & action::QUARANTINE != 0,
        })
    }

    /// What rmxd asks for, of what this offer has (contract 7.2). CONNECT is answered: otherwise Postfix holds it back
    /// until MAIL. DATA is answered: otherwise each message waits for the delayed ACK where the filter is behind TCP.
    ///
    /// # Errors
    /// The MTA is too old.
    pub fn agree(&self, wants: Wants) -> Result<Self, TooOld> {
        if self.version < OLDEST {
            return Err(TooOld(self.version));
        }
        let actions = action::ADD_HEADERS | action::CHANGE_HEADERS | action::SET_MACRO_LISTS;
        let body = if wants.body { protocol::NO_REPLY_BODY } else { protocol::NO_BODY };
        let protocol = protocol::LEADING_SPACE
            | protocol::NO_REPLY_HEADER
            | protocol::NO_REPLY_HELO
            | protocol::NO_UNKNOWN
            | body;
        Ok(Self {
            version: self.version.min(NEWEST),
            actions: self.actions & actions,
            protocol: self.protocol & protocol,
            inserts: self.inserts,
        })
    }

    /// Appends the answer to OPTNEG; these are the terms that were agreed on.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        packet::write(out, letter::NEGOTIATE, |out| {
            for number in [self.version, self.actions, self.protocol] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            if self.actions & action::SET_MACRO_LISTS == 0 {
                return;
            }
            for (stage, list) in MACRO_LISTS {
                out.extend_from_slice(&stage.to_be_bytes());
                out.extend_from_slice(list.as_bytes());
                out.push(0);
            }
        });
    }

    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether the MTA adds fields to the header.
    #[must_use]
    pub fn can_add_headers(&self) -> bool {
        self.actions & action::ADD_HEADERS != 0
    }

    /// Whether it adds them anywhere, not only at the end.
    #[must_use]
    pub fn can_insert_headers(&self) -> bool {
        self.can_add_headers() && self.inserts
    }

    /// Whether the MTA changes and deletes fields of the header.
    #[must_use]
    pub fn can_change_headers(&self) -> bool {
        self.actions & action::CHANGE_HEADERS != 0
    }

    /// Whether values of fields are with the space behind the colon, in events and answers.
    #[must_use]
    pub fn keeps_leading_space(&self) -> bool {
        self.has(protocol::LEADING_SPACE)
    }

    /// Whether one of these flags of [`protocol`] holds.
    pub(super) fn has(&self, flag: u32) -> bool {
        self.protocol & flag != 0
    }

    /// Whether the MTA sends the body.
    #[must_use]
    pub fn sends_body(&self) -> bool {
        !self.has(protocol::NO_BODY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::milter::packet::Packet;

    const POSTFIX: [u32; 3] = [6, 0x1ff, 0x1f_ffff];

    fn terms([version, actions, protocol]: [u32; 3]) -> Terms {
        Terms::read(&[version, actions, protocol].map(u32::to_be_bytes).concat()).unwrap()
    }

    #[test]
    fn only_what_is_offered_and_of_use_is_asked_for() {
        // offer, body wanted, answer
        let rows: [([u32; 3], bool, Result<[u32; 3], TooOld>); 12] = [
            (POSTFIX, true, Ok([6, 0x111, 0x18_2180])),
            (POSTFIX, false, Ok([6, 0x111, 0x10_2190])),
            // Postfix with milter_protocol = 4, 3 and 2
            ([4, 0x1ff, 0x37f], true, Ok([4, 0x111, 0x100])),
            ([3, 0x1ff, 0x17f], true, Ok([3, 0x111, 0x100])),
            ([2, 0x1ff, 0x7f], true, Ok([2, 0x111, 0])),
            ([2, 0x1ff, 0x7f], false, Ok([2, 0x111, 0x10])),
            // Sendmail: 8.12, 8.13, 8.18 with larger packets
            ([2, 0x1f, 0x7f], true, Ok([2, 0x11, 0])),
            ([2, 0x3f, 0x7f], true, Ok([2, 0x11, 0])),
            ([6, 0x1ff, 0x301f_ffff], true, Ok([6, 0x111, 0x18_2180])),
            ([7, u32::MAX, u32::MAX], true, Ok([6, 0x111, 0x18_2180])),
            ([6, 0, 0], true, Ok([6, 0, 0])),
            ([1, 0x1ff, 0x7f], true, Err(TooOld(1))),
        ];
        for (offer, body, expected) in rows {
            let agreed = terms(offer).agree(Wants { body });
            let numbers = agreed.map(|agreed| [agreed.version, agreed.actions, agreed.protocol]);
            assert_eq!(numbers, expected, "{offer:x?} {body}");
        }
        assert_eq!(TooOld(1).to_string(), "protocol version 1 is older than 2");
    }

    #[test]
    fn terms_say_what_can_be_edited_and_what_comes() {
        // add, insert, change, leading space, body
        let rows: [([u32; 3], bool, [bool; 5]); 6] = [
            (POSTFIX, true, [true, true, true, true, true]),
            (POSTFIX, false, [true, true, true, true, false]),
            ([2, 0x3f, 0x7f], true, [true, true, true, false, true]),
            ([2, 0x1f, 0x7f], true, [true, false, true, false, true]),
            ([6, 0x1ee, 0x1f_ffff], true, [false, false, false, true, true]),
            ([6, 0x1ff, 0], false, [true, true, true, false, true]),
        ];
        for (offer, body, expected) in rows {
            let terms = terms(offer).agree(Wants { body }).unwrap();
            let found = [
                terms.can_add_headers(),
                terms.can_insert_headers(),
                terms.can_change_headers(),
                terms.keeps_leading_space(),
                terms.sends_body(),
            ];
            assert_eq!(found, expected, "{offer:x?} {body}");
        }
    }

    #[test]
    fn macro_lists_are_sent_where_they_are_offered() {
        let mut out = Vec::new();
        terms(POSTFIX).agree(Wants { body: true }).unwrap().write_to(&mut out);
        let (packet, taken) = Packet::first(&out).unwrap().unwrap();
        assert_eq!((packet.letter, taken), (b'O', out.len()));
        let expected = b"\0\0\0\x06\0\0\x01\x11\0\x18\x21\x80\0\0\0\0\0\0\0\0\x01{tls_version} {cipher}\0\
            \0\0\0\x02i {auth_authen}\0\0\0\0\x03i\0\0\0\0\x04i\0\0\0\0\x05i\0\0\0\0\x06\0";
        assert_eq!(packet.data.escape_ascii().to_string(), expected.escape_ascii().to_string());

        let mut out = Vec::new();
        terms([2, 0x3f, 0x7f]).agree(Wants { body: true }).unwrap().write_to(&mut out);
        assert_eq!(out, b"\0\0\0\x0dO\0\0\0\x02\0\0\0\x11\0\0\0\0");
    }
}
