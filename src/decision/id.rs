//! Transaction ids: short enough to be read out on the telephone, unique for as long as logs are kept.
//!
//! The number of an id is a counter times 16, plus the node that gave it (contract 8): the id alone says which node of a
//! fleet has the decision, and two nodes never give the same one.

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
/// The numbers of one count: one for each node.
const NODES: u64 = 16;
/// Of a count: counts wrap around at 2^36; in milliseconds that is two years and two months.
const COUNT_MASK: u64 = MASK / NODES;

/// A node of a fleet: 1 to 15, or 0 without a fleet (`cluster.node`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(u8);

impl Node {
    /// The largest number of a node.
    pub const MAX: u8 = 15;

    /// `None` above 15.
    #[must_use]
    pub fn new(number: u8) -> Option<Self> {
        (number <= Self::MAX).then_some(Self(number))
    }

    #[cfg(test)]
    pub(crate) const fn of_a_test(number: u8) -> Self {
        Self(number)
    }

    /// Every node that a fleet can have.
    pub fn of_a_fleet() -> impl Iterator<Item = Self> {
        (1..=Self::MAX).map(Self)
    }

    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// The node in a number that is a counter times 16, plus the node.
    #[must_use]
    pub fn of_number(number: u64) -> Self {
        Self(u8::try_from(number % NODES).unwrap_or_default())
    }

    /// The smallest number of this node above the last one.
    #[must_use]
    pub fn next_number(self, last: u64) -> u64 {
        let same_count = last - last % NODES + u64::from(self.0);
        if same_count > last { same_count } else { same_count.saturating_add(NODES) }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

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

    /// The id that a node gives at this count, which wraps around at 2^36.
    #[must_use]
    pub fn of(counter: u64, node: Node) -> Self {
        Self::nth(counter.wrapping_mul(NODES) | u64::from(node.0))
    }

    /// The node that gave it.
    #[must_use]
    pub fn node(self) -> Node {
        Node::of_number(self.number())
    }

    /// `, node 3`; empty for a gate that is alone.
    pub(super) fn of_node(self) -> String {
        if self.node() == Node::default() { String::new() } else { format!(", node {}", self.node()) }
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

    /// The smallest count from `start` on that is after this id's. Counts wrap around at 2^36: one that is more than half
    /// of that ahead counts as before, and then the result is `start`.
    #[must_use]
    pub fn count_after(self, start: u64) -> u64 {
        let ahead = (self.number() / NODES + 1).wrapping_sub(start) & COUNT_MASK;
        if ahead <= COUNT_MASK / 2 { start.saturating_add(ahead) } else { start }
    }

    /// Whether this id was given before the other by the same node, as far as counts show it: they wrap around, and one that
    /// is more than half of that ahead counts as before. Ids of two nodes have no order: each counts for itself.
    #[must_use]
    pub fn is_before(self, other: Self) -> bool {
        let ahead = other.number().wrapping_sub(self.number()) & MASK;
        self.node() == other.node() && self != other && ahead <= MASK / 2
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
    fn an_id_names_the_node_that_gave_it() {
        let counters = [0, 1, 1_764_000_000_000, COUNT_MASK, COUNT_MASK + 1];
        let nodes = || (0..=Node::MAX).filter_map(Node::new);
        for (counter, node) in
            counters.into_iter().flat_map(|counter| nodes().map(move |node| (counter, node)))
        {
            let id = Id::of(counter, node);
            assert_eq!((id.node(), id.number() / NODES), (node, counter & COUNT_MASK), "{counter} {node}");
        }
        let one_count: HashSet<Id> = nodes().map(|node| Id::of(7, node)).collect();
        assert_eq!((one_count.len(), Node::new(16)), (16, None));
        assert_eq!(Id::of(COUNT_MASK + 1, Node(3)), Id::of(0, Node(3)), "counters wrap around");
    }

    #[test]
    fn numbers_of_a_node_are_sixteen_apart() {
        let node = Node(3);
        let next = [0, 2, 3, 18, 19, 31, 32].map(|last| node.next_number(last));
        assert_eq!(next, [3, 3, 19, 19, 35, 35, 35]);
        assert!(next.iter().all(|number| Node::of_number(*number) == node));
    }

    #[test]
    fn counts_continue_after_an_id_even_when_they_wrap_around() {
        let now = 1_764_000_000_000;
        let rows = [
            (now, now, now + 1),
            (now + 5, now, now + 6),
            (now - 1, now, now),
            (now - 5, now, now),
            (COUNT_MASK, COUNT_MASK - 3, COUNT_MASK + 1),
            (2, COUNT_MASK, COUNT_MASK + 4),
            (COUNT_MASK, COUNT_MASK + 4, COUNT_MASK + 4),
        ];
        for (last, start, expected) in rows {
            for node in [Node(0), Node(Node::MAX)] {
                assert_eq!(Id::of(last, node).count_after(start), expected, "{last} {start} {node}");
            }
        }
    }

    #[test]
    fn an_id_is_before_those_that_were_given_later() {
        let rows = [
            (1, 2, true),
            (2, 1, false),
            (1, 1, false),
            (COUNT_MASK, 3, true),
            (3, COUNT_MASK, false),
            (0, COUNT_MASK / 2, true),
            (0, COUNT_MASK / 2 + 2, false),
        ];
        for (one, other, expected) in rows {
            for node in (0..=Node::MAX).map(Node) {
                let (one, other) = (Id::of(one, node), Id::of(other, node));
                assert_eq!(one.is_before(other), expected, "{one} {other} {node}");
            }
        }
    }

    #[test]
    fn ids_of_two_nodes_have_no_order() {
        let (one, other) = (Id::of(7, Node(1)), Id::of(9, Node(2)));
        assert!(!one.is_before(other) && !other.is_before(one));
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
