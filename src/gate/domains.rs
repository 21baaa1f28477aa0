//! A set of domains with and without their sub-domains, made for a million of them: their names one behind the other
//! in one block of memory, and a hash table of places in it.
//!
//! A name costs its octets and 14 to 16 more. A map of strings would cost three times as much, and a sorted list would take
//! twenty steps for each name above the one that is looked for. How many labels the listed names have is known, so that
//! a name of 127 labels costs no more look-ups than any other.

use std::fmt;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;

use crate::smtp::address::DomainName;
use crate::smtp::pattern::DomainPattern;

/// Bits of a slot that say where the name is; the rest is a piece of its hash. More than any memory.
const PLACE_BITS: u32 = 40;
const PLACE: u64 = (1 << PLACE_BITS) - 1;
/// Marks in front of a name: whether its sub-domains are meant too.
const EXACT: u8 = 0;
const WIDE: u8 = 1;

/// Domains; which of them covers a name is not told.
#[derive(Clone, Default)]
pub struct Domains {
    names: Names,
    slots: Slots,
    /// Numbers of labels that listed names have: bit 3 for `mail.good.test`.
    exact_depths: u128,
    wide_depths: u128,
}

impl Domains {
    /// Whether one of them covers this name.
    #[must_use]
    pub fn cover(&self, name: &DomainName) -> bool {
        if self.names.count == 0 {
            return false;
        }
        let name = name.as_str();
        if has(self.exact_depths | self.wide_depths, depth(name)) && self.find(name).is_some() {
            return true;
        }
        // From the right, and no further than there is something to be found.
        let deepest = u128::BITS - self.wide_depths.leading_zeros();
        let dots = memchr::memrchr_iter(b'.', name.as_bytes());
        (1..deepest).zip(dots).any(|(depth, dot)| {
            let above = || name.get(dot + 1..).and_then(|above| self.find(above));
            has(self.wide_depths, depth) && above() == Some(WIDE)
        })
    }

    /// Makes room for so many more.
    pub fn reserve(&mut self, more: usize) {
        let slots = slots_for(self.names.count + more);
        if slots > self.slots.0.len() {
            self.slots = Slots::new(slots, &self.names);
        }
    }

    /// Adds one; what was listed with its sub-domains stays so.
    pub fn insert(&mut self, pattern: &DomainPattern) {
        let (name, mark) = (pattern.name().as_str(), if pattern.is_wide() { WIDE } else { EXACT });
        let depths = if pattern.is_wide() { &mut self.wide_depths } else { &mut self.exact_depths };
        *depths |= bit(depth(name));
        if let Some(place) = self.slots.find(name, &self.names) {
            self.names.add_mark(place, mark);
            return;
        }
        if slots_for(self.names.count + 1) > self.slots.0.len() {
            self.reserve(self.names.count + 1);
        }
        let place = self.names.push(name, mark);
        self.slots.put(name, place);
    }

    /// Gives back the memory that was there for more, if that is worth the work.
    pub fn shrink(&mut self) {
        self.names.octets.shrink_to_fit();
        let needed = slots_for(self.names.count);
        if needed < self.slots.0.len() / 8 * 7 {
            self.slots = Slots::new(needed, &self.names);
        }
    }

    /// The mark of a listed name.
    fn find(&self, name: &str) -> Option<u8> {
        self.names.mark(self.slots.find(name, &self.names)?)
    }
}

/// One behind the other: the length of a name, its mark and its octets.
#[derive(Clone, Default)]
struct Names {
    octets: Vec<u8>,
    count: usize,
}

impl Names {
    /// Gives the place of the new name.
    fn push(&mut self, name: &str, mark: u8) -> usize {
        let place = self.octets.len();
        // A name has 253 octets at most.
        self.octets.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        self.octets.push(mark);
        self.octets.extend_from_slice(name.as_bytes());
        self.count += 1;
        place
    }

    fn at(&self, place: usize) -> Option<&[u8]> {
        let length = usize::from(*self.octets.get(place)?);
        self.octets.get(place + 2..place + 2 + length)
    }

    fn mark(&self, place: usize) -> Option<u8> {
        self.octets.get(place + 1).copied()
    }

    fn add_mark(&mut self, place: usize, mark: u8) {
        if let Some(known) = self.octets.get_mut(place + 1) {
            *known |= mark;
        }
    }

    /// With their places, in the order in which they came.
    fn iter(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let place = next;
            let name = std::str::from_utf8(self.at(place)?).ok()?;
            next += 2 + name.len();
            Some((place, name))
        })
    }
}

/// A hash table with open addressing: 0, or a piece of the hash and the place of a name, from 1. Never more than two
/// thirds are taken.
#[derive(Clone, Default)]
struct Slots(Vec<u64>, RandomState);

impl Slots {
    /// So many slots, with these names in them.
    fn new(count: usize, names: &Names) -> Self {
        let mut slots = Self(vec![0; count], RandomState::default());
        names.iter().for_each(|(place, name)| slots.put(name, place));
        slots
    }

    /// For a name that isn't there yet.
    fn put(&mut self, name: &str, place: usize) {
        let hash = self.1.hash_one(name);
        let mut at = self.home(hash);
        while self.0.get(at).is_some_and(|slot| *slot != 0) {
            at = self.behind(at);
        }
        if let (Some(slot), Ok(place)) = (self.0.get_mut(at), u64::try_from(place)) {
            *slot = (hash_piece(hash) << PLACE_BITS) | ((place + 1) & PLACE);
        }
    }

    /// The place of a name.
    fn find(&self, name: &str, names: &Names) -> Option<usize> {
        let hash = self.1.hash_one(name);
        let mut at = self.home(hash);
        loop {
            let slot = *self.0.get(at)?;
            let place = place_of(slot)?;
            if slot >> PLACE_BITS == hash_piece(hash) && names.at(place) == Some(name.as_bytes()) {
                return Some(place);
            }
            at = self.behind(at);
        }
    }

    /// The first slot for a hash: its upper bits, scaled to the number of slots.
    fn home(&self, hash: u64) -> usize {
        let slots = u128::try_from(self.0.len()).unwrap_or_default();
        usize::try_from((u128::from(hash) * slots) >> 64).unwrap_or_default()
    }

    fn behind(&self, at: usize) -> usize {
        if at + 1 < self.0.len() { at + 1 } else { 0 }
    }
}

/// Half as many again, and some for a small table.
fn slots_for(names: usize) -> usize {
    names + names / 2 + 3
}

/// From its lower bits, as the upper ones say where the slot is.
fn hash_piece(hash: u64) -> u64 {
    hash & (u64::MAX >> PLACE_BITS)
}

/// `None` for a slot that is free.
fn place_of(slot: u64) -> Option<usize> {
    usize::try_from((slot & PLACE).checked_sub(1)?).ok()
}

/// How many labels a name has; 127 at most.
fn depth(name: &str) -> u32 {
    u32::try_from(memchr::memchr_iter(b'.', name.as_bytes()).count() + 1).unwrap_or(u32::MAX)
}

fn bit(depth: u32) -> u128 {
    1_u128.checked_shl(depth).unwrap_or_default()
}

fn has(depths: u128, depth: u32) -> bool {
    depths & bit(depth) != 0
}

impl FromIterator<DomainPattern> for Domains {
    fn from_iter<I: IntoIterator<Item = DomainPattern>>(patterns: I) -> Self {
        let mut domains = Self::default();
        patterns.into_iter().for_each(|pattern| domains.insert(&pattern));
        domains.shrink();
        domains
    }
}

impl fmt::Debug for Domains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domains({} names)", self.names.count)
    }
}

impl PartialEq for Domains {
    /// Whether they list the same, in whatever order.
    fn eq(&self, other: &Self) -> bool {
        let known = |(_, name)| other.find(name).is_some_and(|mark| self.find(name) == Some(mark));
        self.names.count == other.names.count && self.names.iter().all(known)
    }
}

impl Eq for Domains {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn domains(texts: &[&str]) -> Domains {
        texts.iter().map(|text| DomainPattern::parse(text).unwrap()).collect()
    }

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[test]
    fn a_name_is_covered_as_its_patterns_say() {
        let set = domains(&["partner.example", ".wide.example", "a.b.wide2.example", ".test"]);
        let rows = [
            ("partner.example", true),
            ("mail.partner.example", false),
            ("wide.example", true),
            ("mail.wide.example", true),
            ("a.b.c.wide.example", true),
            ("narrowide.example", false),
            ("a.b.wide2.example", true),
            ("c.a.b.wide2.example", false),
            ("wide2.example", false),
            ("example", false),
            ("test", true),
            ("deep.down.test", true),
        ];
        for (text, expected) in rows {
            assert_eq!(set.cover(&name(text)), expected, "{text}");
        }
        assert!(!Domains::default().cover(&name("partner.example")));
    }

    #[test]
    fn a_name_that_is_there_twice_counts_once_and_the_wider_meaning_holds() {
        for texts in [[".a.test", "a.test"], ["a.test", ".a.test"]] {
            let set = domains(&texts);
            assert_eq!(set.names.count, 1);
            assert!(set.cover(&name("b.a.test")), "{texts:?}");
            assert_eq!(set, domains(&[".a.test"]));
        }
        assert_ne!(domains(&["a.test"]), domains(&[".a.test"]));
        assert_ne!(domains(&["a.test"]), domains(&["b.test"]));
        assert_eq!(domains(&["a.test", "b.test"]), domains(&["b.test", "a.test"]));
    }

    #[test]
    fn the_longest_names_and_the_most_labels_fit() {
        let deep = format!("{}a", "a.".repeat(126));
        let long = [&"l".repeat(63), &"m".repeat(63), &"n".repeat(63), &"o".repeat(61)]
            .map(String::as_str)
            .join(".");
        let set = domains(&[&deep, &format!(".{long}")]);
        assert!(set.cover(&name(&deep)) && set.cover(&name(&long)));
        assert!(!set.cover(&name(deep.strip_prefix("a.").unwrap())));
    }

    #[test]
    fn ten_thousand_names_are_all_found_and_no_others_and_take_little_memory() {
        let mut set = Domains::default();
        for number in 0..10_000 {
            set.insert(&DomainPattern::parse(&format!("name{number}.example")).unwrap());
        }
        set.shrink();
        for number in 0..10_000 {
            assert!(set.cover(&name(&format!("name{number}.example"))), "{number}");
            assert!(!set.cover(&name(&format!("other{number}.example"))), "{number}");
        }
        let octets: usize = (0..10_000).map(|number| format!("name{number}.example").len()).sum();
        let held = set.names.octets.capacity() + size_of::<u64>() * set.slots.0.capacity();
        assert!(held <= octets + 16 * 10_000, "{held}");
    }

    fn text() -> impl Strategy<Value = String> {
        prop::collection::vec(prop_oneof!["a", "b", "ab"], 1..4).prop_map(|labels| labels.join("."))
    }

    proptest! {
        #[test]
        fn it_covers_what_one_of_its_patterns_covers(
            list in prop::collection::vec((any::<bool>(), text()), 0..12),
            asked in text(),
        ) {
            let patterns = list.iter().map(|(wide, text)| format!("{}{text}", if *wide { "." } else { "" }));
            let patterns: Vec<_> = patterns.map(|text| DomainPattern::parse(&text).unwrap()).collect();
            let set: Domains = patterns.iter().cloned().collect();
            let asked = name(&asked);
            prop_assert_eq!(set.cover(&asked), patterns.iter().any(|pattern| pattern.covers(&asked)));
        }
    }
}
