//! Packets: four octets of length in network order, a letter, and the letter's data. The length counts the letter.
//!
//! An incomplete packet stays in the caller's buffer, so that every split of the stream gives the same packets.

/// Longest packet in octets, without its length. Sendmail and Postfix send at most 64 KiB, unless more is negotiated.
pub const MAX_LENGTH: usize = 1024 * 1024;
/// Octets of the length.
const PREFIX: usize = 4;

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    pub letter: u8,
    pub data: &'a [u8],
}

/// A length that no packet can have; the stream can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLength {
    #[error("a packet of {0} octets is longer than {MAX_LENGTH}")]
    TooLong(u32),
    #[error("a packet without a letter")]
    Empty,
}

impl<'a> Packet<'a> {
    /// The packet at the front of the buffer, and how many octets it takes there. `None` where it is incomplete.
    ///
    /// # Errors
    /// The length is zero or more than [`MAX_LENGTH`]. It is checked before any data have come.
    pub fn first(buffer: &'a [u8]) -> Result<Option<(Self, usize)>, BadLength> {
        let Some((prefix, rest)) = buffer.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let announced = u32::from_be_bytes(*prefix);
        let length = match usize::try_from(announced) {
            Ok(0) => return Err(BadLength::Empty),
            Ok(length) if length <= MAX_LENGTH => length,
            _ => return Err(BadLength::TooLong(announced)),
        };
        let Some((letter, data)) = rest.get(..length).and_then(<[u8]>::split_first) else {
            return Ok(None);
        };
        Ok(Some((Self { letter: *letter, data }, PREFIX + length)))
    }

    /// Appends the packet as it is sent.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        write(out, self.letter, |out| out.extend_from_slice(self.data));
    }
}

/// Appends a packet whose data `write_data` appends.
pub(crate) fn write(out: &mut Vec<u8>, letter: u8, write_data: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    out.push(letter);
    write_data(out);
    let length = u32::try_from(out.len() - start - PREFIX).unwrap_or(u32::MAX);
    if let Some(prefix) = out.get_mut(start..start + PREFIX) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_found_when_it_is_whole() {
        let rows: [(&[u8], &str); 12] = [
            (b"", "incomplete"),
            (b"\0\0\0", "incomplete"),
            (b"\0\0\0\x01", "incomplete"),
            (b"\0\0\0\x01Q", "Q, 5 taken"),
            (b"\0\0\0\x01QC", "Q, 5 taken"),
            (b"\0\0\0\x05Hab", "incomplete"),
            (b"\0\0\0\x05Habc", "incomplete"),
            (b"\0\0\0\x05Habc\0\0\0", "Habc\\x00, 9 taken"),
            (b"\0\0\0\0", "a packet without a letter"),
            (b"\0\x10\0\0", "incomplete"),
            (b"\0\x10\0\x01", "a packet of 1048577 octets is longer than 1048576"),
            (b"HELO", "a packet of 1212501071 octets is longer than 1048576"),
        ];
        for (buffer, expected) in rows {
            let found = match Packet::first(buffer) {
                Ok(None) => "incomplete".to_owned(),
                Ok(Some((Packet { letter, data }, taken))) => {
                    format!("{}{}, {taken} taken", char::from(letter), data.escape_ascii())
                }
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "{}", buffer.escape_ascii());
        }
        let longest = [&b"\0\x10\0\0B"[..], &vec![b'x'; MAX_LENGTH - 1]].concat();
        let found = Packet::first(&longest).unwrap().map(|(packet, taken)| (packet.data.len(), taken));
        assert_eq!(found, Some((MAX_LENGTH - 1, MAX_LENGTH + 4)));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut out = b"before".to_vec();
        for packet in [Packet { letter: b'c', data: b"" }, Packet { letter: b'y', data: b"550 no\0" }] {
            let start = out.len();
            packet.write_to(&mut out);
            assert_eq!(Packet::first(&out[start..]), Ok(Some((packet, out.len() - start))));
        }
        assert!(out.starts_with(b"before\0\0\0\x01c\0\0\0\x08y550"), "{}", out.escape_ascii());
    }
}
