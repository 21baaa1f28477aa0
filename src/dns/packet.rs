//! A question as it is sent, and whether a message that comes back is its answer. Pure.
//!
//! Over UDP an answer repeats the id and the question octet by octet: the id and the letters' cases (0x20) are random,
//! so that only a host that has seen the question can forge its answer (RFC 5452 4). Over TCP the case doesn't matter.
//! A message without a question section passes only as an error. The rest of the answer is not read here.

/// Octets before the question (RFC 1035 4.1.1).
const HEADER: usize = 12;
/// Type and class behind the name.
const TYPE_AND_CLASS: usize = 4;
/// The longest name on the wire.
const NAME: usize = 255;
/// An OPT record (RFC 6891 6.1.2) without options: what we can take is 1232 octets, which no path fragments.
const EDNS: [u8; 11] = [0, 0, 41, 0x04, 0xD0, 0, 0, 0, 0, 0, 0];
/// QR, OPCODE, TC and RD, in the third octet of the header.
const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
/// AD, in the fourth.
const AUTHENTIC: u8 = 0x20;

/// What a question asks for besides its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// It has an OPT record.
    pub(super) edns: bool,
    /// It has AD set: we want to know whether DNSSEC proves the answer (RFC 6840 5.7).
    pub(super) authentic: bool,
}

/// A question, ready to be sent.
#[derive(Debug)]
pub(super) struct Packet {
    octets: Vec<u8>,
    /// Where the question ends.
    end: usize,
}

/// How a datagram relates to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reception {
    /// Its answer.
    Answer,
    /// Its answer is longer than a datagram, or doesn't repeat the letters' cases: TCP is the way to have it.
    OverTcp,
    /// No answer to this question.
    Unrelated,
}

impl Packet {
    /// Asks for records of this type, with recursion. `random` gives the id and the cases. A name has at most 255 octets.
    pub(super) fn new<'a>(
        labels: impl Iterator<Item = &'a [u8]>,
        rtype: u16,
        form: Form,
        random: impl Fn() -> u64,
    ) -> Self {
        let mut octets = Vec::with_capacity(HEADER + NAME + TYPE_AND_CLASS + EDNS.len());
        let [high, low, ..] = random().to_be_bytes();
        let authentic = if form.authentic { AUTHENTIC } else { 0 };
        // one question, no answers, no authorities, perhaps an additional record
        let counts = [0, 1, 0, 0, 0, 0, 0, u8::from(form.edns)];
        octets.extend_from_slice(&[high, low, RECURSION_DESIRED, authentic]);
        octets.extend_from_slice(&counts);
        let mut cases = Cases { random, bits: 0, left: 0 };
        for label in labels {
            octets.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
            octets.extend(label.iter().map(|octet| cases.apply(*octet)));
        }
        octets.push(0);
        octets.extend_from_slice(&rtype.to_be_bytes());
        octets.extend_from_slice(&[0, 1]); // class IN
        let end = octets.len();
        if form.edns {
            octets.extend_from_slice(&EDNS);
        }
        Self { octets, end }
    }

    /// What is sent.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The same for TCP: with its length in front (RFC 1035 4.2.2), and with this id.
    pub(super) fn framed(&self, id: u16) -> Vec<u8> {
        let length = u16::try_from(self.octets.len()).unwrap_or(u16::MAX);
        let mut frame = Vec::with_capacity(2 + self.octets.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&id.to_be_bytes());
        frame.extend(self.octets.iter().skip(2));
        frame
    }

    /// Whether a datagram from the server is the answer.
    pub(super) fn receive(&self, datagram: &[u8]) -> Reception {
        let Some(id) = self.octets.get(..2) else {
            return Reception::Unrelated;
        };
        if !datagram.starts_with(id) {
            return Reception::Unrelated;
        }
        match self.compare(datagram) {
            QuestionMatch::Another => Reception::Unrelated,
            QuestionMatch::Error => Reception::Answer,
            QuestionMatch::Exact if datagram.get(2).is_some_and(|flags| flags & TRUNCATED == 0) => {
                Reception::Answer
            }
            QuestionMatch::Exact | QuestionMatch::OtherCase => Reception::OverTcp,
        }
    }

    /// Whether a message that came over TCP, with the right id, is the answer.
    pub(super) fn is_answered_by(&self, message: &[u8]) -> bool {
        self.compare(message) != QuestionMatch::Another
    }

    /// How the question of a response compares with this one. A server that couldn't read the question can't repeat it;
    /// `message` sees to it that such a response says no more than that.
    fn compare(&self, message: &[u8]) -> QuestionMatch {
        let Some(&[_, _, flags, _, asked_high, asked_low, ..]) = message.first_chunk::<HEADER>() else {
            return QuestionMatch::Another;
        };
        if flags & RESPONSE == 0 || flags & OPCODE != 0 {
            return QuestionMatch::Another;
        }
        let questions = u16::from_be_bytes([asked_high, asked_low]);
        if questions == 0 || message.len() == HEADER {
            return QuestionMatch::Error;
        }
        let (Some(theirs), Some(ours)) = (message.get(HEADER..self.end), self.octets.get(HEADER..self.end))
        else {
            return QuestionMatch::Another;
        };
        // What follows the question is for the reader of the answer; a name can't be a prefix of another.
        if questions != 1 || !theirs.eq_ignore_ascii_case(ours) {
            QuestionMatch::Another
        } else if theirs == ours {
            QuestionMatch::Exact
        } else {
            QuestionMatch::OtherCase
        }
    }
}

/// How a message's question compares with the one that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QuestionMatch {
    Exact,
    OtherCase,
    /// It has none, so it can be an error only.
    Error,
    Another,
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

    const USUAL: Form = Form { edns: true, authentic: false };

    fn packet(name: &str, numbers: &[u64]) -> Packet {
        let next = Cell::new(0);
        let random = || {
            let at = next.replace(next.get() + 1);
            numbers[at % numbers.len()]
        };
        Packet::new(name.split('.').map(str::as_bytes), 15, USUAL, random)
    }

    #[test]
    fn a_question_has_a_random_id_random_cases_and_edns() {
        let asked = packet("ab-c.test", &[0xBEEF_0000_0000_0000, 0b010_1101]);
        let mut expected = b"\xBE\xEF\x01\x00\0\x01\0\0\0\0\0\x01\x04Ab-C\x04TeSt\0\0\x0F\0\x01".to_vec();
        expected.extend_from_slice(&EDNS);
        assert_eq!(asked.octets().escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    #[test]
    fn a_question_may_ask_for_ad_and_have_no_edns_and_over_tcp_its_length_stands_first() {
        let form = Form { edns: false, authentic: true };
        let asked = Packet::new([&b"ab"[..]].into_iter(), 15, form, || 0);
        let octets = b"\0\0\x01\x20\0\x01\0\0\0\0\0\0\x02ab\0\0\x0F\0\x01";
        assert_eq!(asked.octets().escape_ascii().to_string(), octets.escape_ascii().to_string());
        let framed = [&[0, 20, 0xBE, 0xEF][..], &octets[2..]].concat();
        assert_eq!(asked.framed(0xBEEF).escape_ascii().to_string(), framed.escape_ascii().to_string());
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
        let rows: [(Change<'_>, Reception); 14] = [
            (&|_| {}, Reception::Answer),
            (&|datagram| datagram.extend_from_slice(b"records"), Reception::Answer),
            (&|datagram| datagram[2] |= TRUNCATED, Reception::OverTcp),
            (&|datagram| datagram[13] ^= 0x20, Reception::OverTcp),
            (&|datagram| datagram[13] = b'x', Reception::Unrelated),
            (&|datagram| datagram[0] ^= 1, Reception::Unrelated),
            (&|datagram| datagram[2] &= !RESPONSE, Reception::Unrelated),
            (&|datagram| datagram[2] |= 4 << 3, Reception::Unrelated), // NOTIFY
            (&|datagram| datagram[5] = 2, Reception::Unrelated),
            (&|datagram| datagram[5] = 0, Reception::Answer), // an error at most
            (&|datagram| datagram[22] = 1, Reception::Unrelated), // another type
            (&|datagram| datagram.truncate(20), Reception::Unrelated),
            (&|datagram| datagram.truncate(11), Reception::Unrelated),
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
