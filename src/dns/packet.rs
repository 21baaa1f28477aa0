//! A question as it travels over UDP, and whether what comes back is its answer. Pure.
//!
//! An answer is ours when it repeats the id and the question octet by octet: the id and the letters' cases (0x20) are
//! random, so that an answer can't be made by who hasn't seen the question (RFC 5452 4). What the answer says is not
//! read here.

/// Octets before the question (RFC 1035 4.1.1).
const HEADER: usize = 12;
/// Type and class behind the name.
const TYPE_AND_CLASS: usize = 4;
/// The longest name on the wire.
const NAME: usize = 255;
/// An OPT record (RFC 6891 6.1.2) without options: what we can take is 1232 octets, which no path fragments.
const EDNS: [u8; 11] = [0, 0, 41, 0x04, 0xD0, 0, 0, 0, 0, 0, 0];
/// QR, in the third octet of the header.
const RESPONSE: u8 = 0x80;
/// TC, there as well.
const TRUNCATED: u8 = 0x02;

/// A question, ready to be sent.
#[derive(Debug)]
pub(super) struct Packet {
    octets: Vec<u8>,
    /// Where the question ends.
    end: usize,
}

/// What a datagram is to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reception {
    /// Its answer.
    Answer,
    /// Its answer is longer than a datagram, or doesn't repeat the letters' cases: TCP is the way to have it.
    OverTcp,
    /// Nothing that was asked for.
    Foreign,
}

impl Packet {
    /// Asks for records of this type, with recursion. `random` gives the id and the cases. A name has at most 255 octets.
    pub(super) fn new<'a>(
        labels: impl Iterator<Item = &'a [u8]>,
        rtype: u16,
        random: impl Fn() -> u64,
    ) -> Self {
        let mut octets = Vec::with_capacity(HEADER + NAME + TYPE_AND_CLASS + EDNS.len());
        let [high, low, ..] = random().to_be_bytes();
        // RD; one question, no answers, no authorities, one additional record.
        octets.extend_from_slice(&[high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        let mut cases = Cases { random, bits: 0, left: 0 };
        for label in labels {
            octets.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
            octets.extend(label.iter().map(|octet| cases.apply(*octet)));
        }
        octets.push(0);
        octets.extend_from_slice(&rtype.to_be_bytes());
        octets.extend_from_slice(&[0, 1]); // class IN
        let end = octets.len();
        octets.extend_from_slice(&EDNS);
        Self { octets, end }
    }

    /// What is sent.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Whether a datagram from the server is the answer.
    pub(super) fn receive(&self, datagram: &[u8]) -> Reception {
        let (Some(header), Some(id)) = (datagram.get(..HEADER), self.octets.get(..2)) else {
            return Reception::Foreign;
        };
        let &[_, _, flags, _, asked_high, asked_low, ..] = header else {
            return Reception::Foreign;
        };
        if !header.starts_with(id) || flags & RESPONSE == 0 {
            return Reception::Foreign;
        }
        if [asked_high, asked_low] == [0, 0] && datagram.len() == HEADER {
            return Reception::Answer; // a server that could not even read the question says so with the header alone
        }
        let (Some(theirs), Some(ours)) = (datagram.get(HEADER..self.end), self.octets.get(HEADER..self.end))
        else {
            return Reception::Foreign;
        };
        // What behind the question follows is for the reader of the answer; a name can't be a prefix of another.
        if [asked_high, asked_low] != [0, 1] || !theirs.eq_ignore_ascii_case(ours) {
            Reception::Foreign
        } else if theirs != ours || flags & TRUNCATED != 0 {
            Reception::OverTcp
        } else {
            Reception::Answer
        }
    }
}

/// Gives letters a random case.
struct Cases<R> {
    random: R,
    bits: u64,
    left: u32,
}

impl<R: Fn() -> u64> Cases<R> {
    fn apply(&mut self, octet: u8) -> u8 {
        if !octet.is_ascii_alphabetic() {
            return octet;
        }
        if self.left == 0 {
            (self.bits, self.left) = ((self.random)(), u64::BITS);
        }
        let upper = self.bits & 1 == 1;
        (self.bits, self.left) = (self.bits >> 1, self.left - 1);
        if upper { octet.to_ascii_uppercase() } else { octet.to_ascii_lowercase() }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn packet(name: &str, numbers: &[u64]) -> Packet {
        let next = Cell::new(0);
        let random = || {
            let at = next.replace(next.get() + 1);
            numbers[at % numbers.len()]
        };
        Packet::new(name.split('.').map(str::as_bytes), 15, random)
    }

    #[test]
    fn a_question_has_a_random_id_random_cases_and_edns() {
        let asked = packet("ab-c.test", &[0xBEEF_0000_0000_0000, 0b010_1101]);
        let mut expected = b"\xBE\xEF\x01\x00\0\x01\0\0\0\0\0\x01\x04Ab-C\x04TeSt\0\0\x0F\0\x01".to_vec();
        expected.extend_from_slice(&EDNS);
        assert_eq!(asked.octets().escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    #[test]
    fn cases_of_the_longest_name_are_drawn_again_and_again() {
        let name = format!("{}a", "a.".repeat(126));
        let asked = packet(&name, &[0, u64::MAX]);
        let text = String::from_utf8_lossy(asked.octets()).into_owned();
        assert_eq!((text.matches('a').count(), text.matches('A').count()), (63, 64));
        assert_eq!(asked.octets().len(), HEADER + NAME + TYPE_AND_CLASS + EDNS.len());
    }

    #[test]
    fn only_what_repeats_id_and_question_is_the_answer() {
        type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
        let asked = packet("ab.test", &[0xBEEF_0000_0000_0000, 0b01]);
        let answer = |change: Change<'_>| {
            let mut datagram = asked.octets().to_vec();
            datagram[2] |= RESPONSE;
            change(&mut datagram);
            asked.receive(&datagram)
        };
        let rows: [(Change<'_>, Reception); 12] = [
            (&|_| {}, Reception::Answer),
            (&|datagram| datagram.extend_from_slice(b"records"), Reception::Answer),
            (&|datagram| datagram[2] |= TRUNCATED, Reception::OverTcp),
            (&|datagram| datagram[13] ^= 0x20, Reception::OverTcp),
            (&|datagram| datagram[13] = b'x', Reception::Foreign),
            (&|datagram| datagram[0] ^= 1, Reception::Foreign),
            (&|datagram| datagram[2] &= !RESPONSE, Reception::Foreign),
            (&|datagram| datagram[5] = 2, Reception::Foreign),
            (&|datagram| datagram[22] = 1, Reception::Foreign), // another type
            (&|datagram| datagram.truncate(20), Reception::Foreign),
            (&|datagram| datagram.truncate(11), Reception::Foreign),
            (
                &|datagram| {
                    datagram.truncate(HEADER);
                    datagram[3] = 1; // FORMERR
                    datagram[5] = 0;
                },
                Reception::Answer,
            ),
        ];
        for (at, (change, expected)) in rows.into_iter().enumerate() {
            assert_eq!(answer(change), expected, "row {at}");
        }
    }
}
