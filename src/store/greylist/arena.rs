//! All entries in one vector, each in two linked lists, oldest first: that of its kind and that of its network.
//!
//! The lists are linked by indices into the vector, since trees or a queue for each network would take several times the
//! memory, and the greylist has to stay small. `get` returns `None` for an index out of range.

use crate::store::greylist::state::State;
use crate::store::greylist::triple::Key;

/// Index into [`Arena::entries`].
pub(super) type EntryIndex = u32;
/// The end of a list.
const NONE: EntryIndex = EntryIndex::MAX;

/// One of the two lists of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) enum Chain {
    /// All waiting entries, or all passed ones.
    Kind = 0,
    /// The waiting entries of one network.
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

/// The ends of a list.
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

    /// The oldest entry.
    pub(super) fn first(&self) -> Option<EntryIndex> {
        (self.first != NONE).then_some(self.first)
    }
}

#[derive(Debug, Default)]
pub(super) struct Arena {
    entries: Vec<Entry>,
    free: Vec<EntryIndex>,
}

impl Arena {
    pub(super) fn get(&self, index: EntryIndex) -> Option<&Entry> {
        self.entries.get(index as usize)
    }

    pub(super) fn reserve(&mut self, more: usize) {
        self.entries.reserve_exact(more);
    }

    /// Stores an entry, without adding it to a list.
    pub(super) fn add(&mut self, key: Key, state: State) -> EntryIndex {
        let entry = Entry { key, state, links: [Link { before: NONE, after: NONE }; 2] };
        let freed = self.free.pop();
        if let Some((index, old)) =
            freed.and_then(|index| Some((index, self.entries.get_mut(index as usize)?)))
        {
            *old = entry;
            return index;
        }
        self.entries.push(entry);
        // The greylist's bounds are far below the maximum.
        EntryIndex::try_from(self.entries.len() - 1).unwrap_or(NONE)
    }

    /// Frees the index for another entry; the entry must be in no list.
    pub(super) fn free(&mut self, index: EntryIndex) {
        self.free.push(index);
    }

    /// Adds the entry as the newest of a list.
    pub(super) fn append(&mut self, chain: Chain, list: &mut List, index: EntryIndex) {
        let before = std::mem::replace(&mut list.last, index);
        list.length += 1;
        match self.link(chain, before) {
            Some(link) => link.after = index,
            None => list.first = index,
        }
        if let Some(link) = self.link(chain, index) {
            *link = Link { before, after: NONE };
        }
    }

    pub(super) fn unlink(&mut self, chain: Chain, list: &mut List, index: EntryIndex) {
        let Some(Link { before, after }) = self.link(chain, index).copied() else { return };
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

    fn link(&mut self, chain: Chain, index: EntryIndex) -> Option<&mut Link> {
        let [kind, network] = &mut self.entries.get_mut(index as usize)?.links;
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
            let mut index = from;
            while let Some(entry) = arena.get(index) {
                keys.push(entry.key[0]);
                index = next(&entry.links[Chain::Kind as usize]);
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
        let indices: Vec<EntryIndex> = (0..5)
            .map(|number| {
                let index = arena.add([number; 16], State::Passed { last: 0 });
                arena.append(Chain::Kind, &mut list, index);
                index
            })
            .collect();
        assert_eq!(keys(&arena, &list), [0, 1, 2, 3, 4]);
        let steps: [(usize, &[u8]); 5] =
            [(2, &[0, 1, 3, 4]), (0, &[1, 3, 4]), (4, &[1, 3]), (3, &[1]), (1, &[])];
        for (at, left) in steps {
            arena.unlink(Chain::Kind, &mut list, indices[at]);
            arena.free(indices[at]);
            assert_eq!(keys(&arena, &list), left);
        }
        assert_eq!(list.first(), None);
        let again = arena.add([9; 16], State::Passed { last: 0 });
        arena.append(Chain::Kind, &mut list, again);
        assert_eq!((keys(&arena, &list), arena.entries.len()), (vec![9], 5), "freed indices are used again");
    }
}
