//! Transaction ids: short enough to be read out on the telephone, unique for as long as logs are kept.

use std::fmt;

/// Base 32 without letters that look like digits (Crockford's).
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 8 characters of 5 bits.
const BITS: u32 = 40;
const MASK: u64 = (1 << BITS) - 1;
/// Odd, so that multiplication modulo 2^40 is invertible: successive ids look different.
const SPREAD: u64 = 0x9E_3779_B97F | 1;
/// The inverse of `SPREAD`.
const UNSPREAD: u64 = inverse(SPREAD);

/// The id of one transaction, in the reply, the log and (as Received `id`) the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id([u8; 8]);

impl Id {
    /// The id of the lower 40 bits of this number. Successive numbers have different-looking ids.
    #[must_use]
    pub fn nth(number: u64) -> Self {
        let mut rest = number.wrapping_mul(SPREAD) & MASK;
        let mut text = [b'0'; 8];
        for place in text.iter_mut().rev() {
            let digit = usize::try_from(rest % 32).unwrap_or_default();
            *place = ALPHABET.get(digit).copied().unwrap_or(b'0');
            rest /= 32;
        }
        Self(text)
    }

    /// The inverse of [`Id::nth`].
    #[must_use]
    pub fn number(self) -> u64 {
        let spread = self.0.iter().fold(0, |number, character| number * 32 + digit(*character).unwrap_or(0));
        spread.wrapping_mul(UNSPREAD) & MASK
    }

    /// Parses an id in any case, even one noted on the telephone: `O` is 0, `I` and `L` are 1.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 8];
        if text.len() != id.len() {
            return None;
        }
        for (place, character) in id.iter_mut().zip(text.bytes()) {
            *place = match character.to_ascii_uppercase() {
                b'O' => b'0',
                b'I' | b'L' => b'1',
                other => other,
            };
            digit(*place)?;
        }
        Some(Self(id))
    }

    /// The smallest number from `start` on that is after this id's number. Numbers wrap around at 2^40: a number more than
    /// half of that ahead counts as before, and then the result is `start`.
    #[must_use]
    pub fn number_after(self, start: u64) -> u64 {
        let ahead = (self.number() + 1).wrapping_sub(start) & MASK;
        if ahead <= MASK / 2 { start.saturating_add(ahead) } else { start }
    }

    /// Whether this id was given before the other, as far as numbers show it: they wrap around, and a number more than half of
    /// that ahead counts as before.
    #[must_use]
    pub fn is_before(self, other: Self) -> bool {
        self != other && other.number().wrapping_sub(self.number()) & MASK <= MASK / 2
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn digit(character: u8) -> Option<u64> {
    ALPHABET.iter().zip(0..).find(|(letter, _)| **letter == character).map(|(_, digit)| digit)
}

/// The inverse of an odd number modulo 2^40. Each step doubles the number of correct bits, starting with three.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut bits = 3;
    while bits < BITS {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        bits *= 2;
    }
    inverse & MASK
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_distinct_of_eight_readable_characters_and_keep_their_number() {
        let first = 1_764_000_000_000_u64;
        let ids: HashSet<Id> = (first..first + 50_000).map(Id::nth).collect();
        assert_eq!(ids.len(), 50_000);
        for number in [0, 1, MASK, first & MASK, (first + 1) & MASK] {
            let id = Id::nth(number);
            assert!(id.as_str().bytes().all(|byte| ALPHABET.contains(&byte)));
            assert_eq!((id.number(), Id::parse(id.as_str())), (number, Some(id)));
        }
    }

    #[test]
    fn numbers_continue_after_an_id_even_when_they_wrap_around() {
        let now = 1_764_000_000_000;
        let rows = [
            (now, now, now + 1),
            (now + 5, now, now + 6),
            (now - 1, now, now),
            (now - 5, now, now),
            (MASK, MASK - 3, MASK + 1),
            (2, MASK, MASK + 4),
            (MASK, MASK + 4, MASK + 4),
        ];
        for (last, start, expected) in rows {
            assert_eq!(Id::nth(last).number_after(start), expected, "{last} {start}");
        }
    }

    #[test]
    fn an_id_is_before_those_that_were_given_later() {
        for (one, other, expected) in
            [(1, 2, true), (2, 1, false), (1, 1, false), (MASK, 3, true), (3, MASK, false)]
        {
            assert_eq!(Id::nth(one).is_before(Id::nth(other)), expected, "{one} {other}");
        }
    }

    #[test]
    fn an_id_is_parsed_as_people_write_it() {
        let rows = [
            ("4KXN7Q2M", Some("4KXN7Q2M")),
            ("4kxn7q2m", Some("4KXN7Q2M")),
            ("oOiIlL00", Some("00111100")),
            ("4KXN7Q2", None),
            ("4KXN7Q2MM", None),
            ("4KXN-Q2M", None),
            ("4KXN7Q2U", None),
            ("4KXN7Qä", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(Id::parse(text).as_ref().map(Id::as_str), expected, "{text}");
        }
    }
}
