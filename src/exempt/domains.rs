//! A set of domains, with or without their sub-domains, for up to a million entries: all names in one block of memory, and
//! a hash table of offsets into it.
//!
//! A name takes its octets and 9 to 16 more. A map of strings would take three times as much, and a sorted list twenty
//! steps for each parent domain of a name. The set knows the numbers of labels of its names, so that a name of 127 labels
//! needs no more lookups than any other.

use std::fmt;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use crate::smtp::address::DomainName;
use crate::smtp::pattern::DomainPattern;

/// The mark in front of a name: whether its sub-domains are included.
const EXACT: u8 = 0;
const WIDE: u8 = 1;

#[derive(Clone, Default)]
pub struct Domains {
    names: Names,
    offsets: HashTable<Offset>,
    hasher: RandomState,
    /// The numbers of labels of the listed names as bits: bit 3 for `mail.good.test`.
    exact_depths: u128,
    wide_depths: u128,
}

impl Domains {
    /// Whether an entry covers this name.
    #[must_use]
    pub fn cover(&self, name: &DomainName) -> bool {
        if self.names.count == 0 {
            return false;
        }
        let name = name.as_str();
        if has(self.exact_depths | self.wide_depths, depth(name)) && self.find(name).is_some() {
            return true;
        }
        // From the right, and no deeper than the deepest entry.
        let deepest = u128::BITS - self.wide_depths.leading_zeros();
        let dots = memchr::memrchr_iter(b'.', name.as_bytes());
        (1..deepest).zip(dots).any(|(depth, dot)| {
            let mark = || name.get(dot + 1..).and_then(|parent| self.find(parent));
            has(self.wide_depths, depth) && mark() == Some(WIDE)
        })
    }

    /// Reserves memory for more entries.
    pub fn reserve(&mut self, more: usize) {
        let Self { names, offsets, hasher, .. } = self;
        offsets.reserve(more, |offset| hasher.hash_one(names.at(*offset)));
    }

    /// Adds an entry. An entry with sub-domains goes before the same name without.
    pub fn insert(&mut self, pattern: &DomainPattern) {
        let (name, mark) = (pattern.name().as_str(), if pattern.is_wide() { WIDE } else { EXACT });
        let depths = if pattern.is_wide() { &mut self.wide_depths } else { &mut self.exact_depths };
        *depths |= bit(depth(name));
        if let Some(offset) = self.offset(name) {
            self.names.add_mark(offset, mark);
            return;
        }
        let Self { names, offsets, hasher, .. } = self;
        let offset = names.push(name, mark);
        offsets.insert_unique(hasher.hash_one(name.as_bytes()), offset, |offset| {
            hasher.hash_one(names.at(*offset))
        });
    }

    /// Frees the reserved memory that isn't used.
    pub fn shrink(&mut self) {
        let Self { names, offsets, hasher, .. } = self;
        names.octets.shrink_to_fit();
        offsets.shrink_to_fit(|offset| hasher.hash_one(names.at(*offset)));
    }

    /// The mark of a listed name.
    fn find(&self, name: &str) -> Option<u8> {
        self.names.mark(self.offset(name)?)
    }

    fn offset(&self, name: &str) -> Option<Offset> {
        let name = name.as_bytes();
        self.offsets.find(self.hasher.hash_one(name), |offset| self.names.at(*offset) == name).copied()
    }
}

/// The offset of a name. 40 bits are enough for any memory, and save three octets per name.
#[derive(Clone, Copy)]
struct Offset([u8; 5]);

impl Offset {
    fn new(at: usize) -> Self {
        let [a, b, c, d, e, ..] = (at as u64).to_le_bytes();
        Self([a, b, c, d, e])
    }

    fn at(self) -> usize {
        let Self([a, b, c, d, e]) = self;
        usize::try_from(u64::from_le_bytes([a, b, c, d, e, 0, 0, 0])).unwrap_or(usize::MAX)
    }
}

/// The names in a row, each as its length, its mark and its octets.
#[derive(Clone, Default)]
struct Names {
    octets: Vec<u8>,
    count: usize,
}

impl Names {
    /// Returns the offset of the new name.
    fn push(&mut self, name: &str, mark: u8) -> Offset {
        let offset = Offset::new(self.octets.len());
        // A name has 253 octets at most.
        self.octets.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        self.octets.push(mark);
        self.octets.extend_from_slice(name.as_bytes());
        self.count += 1;
        offset
    }

    /// The name at an offset; empty if there is none.
    fn at(&self, offset: Offset) -> &[u8] {
        let offset = offset.at();
        let length = self.octets.get(offset).copied().map_or(0, usize::from);
        self.octets.get(offset..).and_then(|rest| rest.get(2..2 + length)).unwrap_or_default()
    }

    fn mark(&self, offset: Offset) -> Option<u8> {
        self.octets.get(offset.at()..)?.get(1).copied()
    }

    fn add_mark(&mut self, offset: Offset, mark: u8) {
        if let Some(known) = self.octets.get_mut(offset.at()..).and_then(|rest| rest.get_mut(1)) {
            *known |= mark;
        }
    }

    /// In the order of insertion.
    fn iter(&self) -> impl Iterator<Item = &str> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let name =
                std::str::from_utf8(self.at(Offset::new(next))).ok().filter(|name| !name.is_empty())?;
            next += 2 + name.len();
            Some(name)
        })
    }
}

/// The number of labels of a name, at most 127.
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
    /// Whether they have the same entries, in any order.
    fn eq(&self, other: &Self) -> bool {
        let known = |name| other.find(name).is_some_and(|mark| self.find(name) == Some(mark));
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
    fn a_name_is_covered_by_its_own_or_a_parents_entry() {
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
    fn a_repeated_name_counts_once_and_the_wider_entry_holds() {
        for texts in [[".a.test", "a.test"], ["a.test", ".a.test"]] {
            let set = domains(&texts);
            assert_eq!(set.names.count, 1);
            assert!(set.cover(&name("b.a.test")), "{texts:?}");
            assert_eq!(set, domains(&[".a.test"]));
        }
        assert_ne!(domains(&["a.test"]), domains(&[".a.test"]));
        assert_ne!(domains(&["a.test"]), domains(&["b.test"]));
        assert_eq!(domains(&["a.test", "b.test"]), domains(&["b.test", "a.test"]));
        assert_ne!(domains(&["a.test", "b.test"]), domains(&["a.test", "c.test"]));
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
        let held = set.names.octets.capacity() + set.offsets.allocation_size();
        assert!(held <= octets + 16 * 10_000, "{held}");
    }

    fn text() -> impl Strategy<Value = String> {
        prop::collection::vec(prop_oneof!["a", "b", "ab"], 1..4).prop_map(|labels| labels.join("."))
    }

    proptest! {
        #[test]
        fn it_covers_a_name_exactly_if_one_of_its_patterns_does(
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
