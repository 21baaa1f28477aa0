//! Entries side by side, each in two lists, oldest first: that of its kind and that of its network.
//!
//! Lists are linked by places in one vector, since trees or a queue for each network would take several times the memory,
//! and what is bounded here is memory. A place out of range reads as nothing.

use crate::store::greylist::memory::State;
use crate::store::greylist::triple::Key;

/// Where an entry is.
pub(super) type EntryIndex = u32;
/// The end of a list.
const NONE: EntryIndex = EntryIndex::MAX;

/// Which of its two lists.
#[derive(Debug, Clone, Copy)]
pub(super) enum Chain {
    /// Of all that wait, or of all that passed.
    Kind = 0,
    /// Of those of one network that wait.
    Network = 1,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) state: State,
    links: [Link; 2],
}

#[derive(Debug, Clone, Copy)]
struct Link {
    before: EntryIndex,
    after: EntryIndex,
}

/// The two ends of a list.
#[derive(Debug)]
pub(super) struct List {
    first: EntryIndex,
    last: EntryIndex,
    length: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, last: NONE, length: 0 }
    }
}

impl List {
    pub(super) fn len(&self) -> usize {
        self.length as usize
    }

    /// The oldest.
    pub(super) fn first(&self) -> Option<EntryIndex> {
        (self.first != NONE).then_some(self.first)
    }
}

/// All entries.
#[derive(Debug, Default)]
pub(super) struct Arena {
    entries: Vec<Entry>,
    free: Vec<EntryIndex>,
}

impl Arena {
    pub(super) fn get(&self, place: EntryIndex) -> Option<&Entry> {
        self.entries.get(place as usize)
    }

    pub(super) fn reserve(&mut self, more: usize) {
        self.entries.reserve_exact(more);
    }

    /// Puts an entry somewhere, into no list yet.
    pub(super) fn add(&mut self, key: Key, state: State) -> EntryIndex {
        let entry = Entry { key, state, links: [Link { before: NONE, after: NONE }; 2] };
        let freed = self.free.pop();
        if let Some((place, old)) =
            freed.and_then(|place| Some((place, self.entries.get_mut(place as usize)?)))
        {
            *old = entry;
            return place;
        }
        self.entries.push(entry);
        // The bounds of the greylist are far below.
        EntryIndex::try_from(self.entries.len() - 1).unwrap_or(NONE)
    }

    /// Its place is for another one; it is in no list any more.
    pub(super) fn free(&mut self, place: EntryIndex) {
        self.free.push(place);
    }

    /// As the newest of a list.
    pub(super) fn append(&mut self, chain: Chain, list: &mut List, place: EntryIndex) {
        let before = std::mem::replace(&mut list.last, place);
        list.length += 1;
        match self.link(chain, before) {
            Some(link) => link.after = place,
            None => list.first = place,
        }
        if let Some(link) = self.link(chain, place) {
            *link = Link { before, after: NONE };
        }
    }

    pub(super) fn unlink(&mut self, chain: Chain, list: &mut List, place: EntryIndex) {
        let Some(Link { before, after }) = self.link(chain, place).copied() else { return };
        match self.link(chain, before) {
            Some(link) => link.after = after,
            None => list.first = after,
        }
        match self.link(chain, after) {
            Some(link) => link.before = before,
            None => list.last = before,
        }
        list.length = list.length.saturating_sub(1);
    }

    fn link(&mut self, chain: Chain, place: EntryIndex) -> Option<&mut Link> {
        let [kind, network] = &mut self.entries.get_mut(place as usize)?.links;
        Some(match chain {
            Chain::Kind => kind,
            Chain::Network => network,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of a list from its first, checked backwards as well.
    fn keys(arena: &Arena, list: &List) -> Vec<u8> {
        let walk = |from: EntryIndex, next: fn(&Link) -> EntryIndex| {
            let mut keys = Vec::new();
            let mut place = from;
            while let Some(entry) = arena.get(place) {
                keys.push(entry.key[0]);
                place = next(&entry.links[Chain::Kind as usize]);
            }
            keys
        };
        let keys = walk(list.first, |link| link.after);
        let mut backwards = walk(list.last, |link| link.before);
        backwards.reverse();
        assert_eq!((&keys, keys.len()), (&backwards, list.len()));
        keys
    }

    #[test]
    fn a_list_keeps_its_order_whatever_leaves_it() {
        let (mut arena, mut list) = (Arena::default(), List::default());
        let places: Vec<EntryIndex> = (0..5)
            .map(|number| {
                let place = arena.add([number; 16], State::Passed { last: 0 });
                arena.append(Chain::Kind, &mut list, place);
                place
            })
            .collect();
        assert_eq!(keys(&arena, &list), [0, 1, 2, 3, 4]);
        let steps: [(usize, &[u8]); 5] =
            [(2, &[0, 1, 3, 4]), (0, &[1, 3, 4]), (4, &[1, 3]), (3, &[1]), (1, &[])];
        for (at, left) in steps {
            arena.unlink(Chain::Kind, &mut list, places[at]);
            arena.free(places[at]);
            assert_eq!(keys(&arena, &list), left);
        }
        assert_eq!(list.first(), None);
        let again = arena.add([9; 16], State::Passed { last: 0 });
        arena.append(Chain::Kind, &mut list, again);
        assert_eq!((keys(&arena, &list), arena.entries.len()), (vec![9], 5), "places are used again");
    }
}
