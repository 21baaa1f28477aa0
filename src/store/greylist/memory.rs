//! The greylist in memory: waiting triples, passed triples, and the changes that aren't on disk yet. No clock, no file.
//!
//! Times are milliseconds of the wall clock, so that they stay valid over a restart. Waiting and passed triples have
//! separate bounds, so that a flood of new triples can't push out passed ones. A client network may have only its share
//! of the waiting triples, so that a single host can't push out the first attempts of others.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use crate::store::greylist::arena::{Arena, Chain, EntryIndex, List};
use crate::store::greylist::state::State;
use crate::store::greylist::triple::{Key, Triple};

/// The largest numbers of triples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) waiting: usize,
    pub(super) passed: usize,
    /// Waiting triples of one client network.
    pub(super) share: usize,
}

/// When a retry passes, and when an unused triple expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) delay: u64,
    pub(super) expire: u64,
}

/// What this list knows of a triple; times are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    /// It passes, and its expiry is extended. `unused` is the time since it passed last; `None` = it passes for the first
    /// time.
    Passes { unused: Option<u64> },
    /// It has to come again after `rest`; its first attempt was `age` ago.
    Waits { rest: u64, age: u64 },
}

/// Entries for the disk; a key without a state is removed there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Batch {
    /// Replaces all entries.
    All(Vec<(Key, State)>),
    /// Changes some entries.
    Some(Vec<(Key, Option<State>)>),
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Some(changes) if changes.is_empty())
    }
}

#[derive(Debug)]
pub(super) struct Memory {
    bounds: Bounds,
    arena: Arena,
    indices: HashMap<Key, EntryIndex, RandomState>,
    /// Oldest first.
    waiting: List,
    /// Least recently used first.
    passed: List,
    /// The waiting triples of each network, oldest first.
    networks: HashMap<u32, List, RandomState>,
    /// The keys that differ from those on disk; `None` if any may differ.
    changed: Option<HashSet<Key, RandomState>>,
}

impl Memory {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            arena: Arena::default(),
            indices: HashMap::default(),
            waiting: List::default(),
            passed: List::default(),
            networks: HashMap::default(),
            changed: Some(HashSet::default()),
        }
    }

    /// Adds the entries from disk. A time in the future comes from a wrong clock and counts as now.
    pub(super) fn restore(&mut self, mut known: Vec<(Key, State)>, now: u64) {
        known.sort_unstable_by_key(|(_, state)| state.time());
        self.arena.reserve(known.len());
        self.indices.reserve(known.len());
        for (key, state) in known {
            self.insert(
                key,
                match state {
                    State::Waiting { since, network } => State::Waiting { since: since.min(now), network },
                    State::Passed { last } => State::Passed { last: last.min(now) },
                },
            );
        }
    }

    /// The numbers of waiting and of passed triples.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.waiting.len(), self.passed.len())
    }

    /// Whether a triple passes, or how long it has to wait. A retry that is too early doesn't restart the wait.
    pub(super) fn check(&mut self, triple: &Triple, now: u64, times: Times) -> Checked {
        let Triple { key, network, .. } = *triple;
        let known = self.state(&key);
        let known = known.filter(|state| !state.is_expired(now, times.expire));
        let since = match known {
            Some(State::Passed { last }) => {
                self.put(key, State::Passed { last: now });
                return Checked::Passes { unused: Some(now.saturating_sub(last)) };
            }
            Some(State::Waiting { since, .. }) if since <= now => since,
            // New, expired, or the clock was set back.
            Some(State::Waiting { .. }) | None => {
                self.put(key, State::Waiting { since: now, network });
                now
            }
        };
        match times.delay.saturating_sub(now - since) {
            0 => {
                self.put(key, State::Passed { last: now });
                Checked::Passes { unused: None }
            }
            rest => Checked::Waits { rest, age: now - since },
        }
    }

    /// A triple passes, whatever this list knows of it.
    pub(super) fn pass(&mut self, triple: &Triple, now: u64) {
        self.put(triple.key, State::Passed { last: now });
    }

    /// Removes expired triples, at most `max`.
    pub(super) fn remove_expired(&mut self, now: u64, expire: u64, max: usize) {
        for _ in 0..max {
            let oldest = [&self.waiting, &self.passed].map(List::first);
            let oldest = oldest.into_iter().flatten().filter_map(|index| self.arena.get(index));
            let mut expired =
                oldest.filter(|entry| entry.state.is_expired(now, expire)).map(|entry| entry.key);
            let Some(key) = expired.next() else { return };
            self.remove(&key);
            self.mark_changed(key);
        }
    }

    /// The changes since the last batch; they count as written from now on.
    pub(super) fn take_batch(&mut self) -> Batch {
        match self.changed.replace(HashSet::default()) {
            None => {
                Batch::All(self.indices.keys().filter_map(|key| Some((*key, self.state(key)?))).collect())
            }
            Some(keys) => Batch::Some(keys.into_iter().map(|key| (key, self.state(&key))).collect()),
        }
    }

    /// Makes the next batch contain all entries, after a failed write.
    pub(super) fn rewrite_all(&mut self) {
        self.changed = None;
    }

    fn put(&mut self, key: Key, state: State) {
        self.insert(key, state);
        self.mark_changed(key);
    }

    fn mark_changed(&mut self, key: Key) {
        let max = self.bounds.waiting + self.bounds.passed;
        if let Some(changed) = &mut self.changed {
            changed.insert(key);
            // Bounds the memory while the disk can't be written: then a full rewrite is cheaper than the changes.
            if changed.len() > max {
                self.changed = None;
            }
        }
    }

    fn insert(&mut self, key: Key, state: State) {
        self.remove(&key);
        let oldest = match state {
            State::Passed { .. } => self.passed.first().filter(|_| self.passed.len() >= self.bounds.passed),
            State::Waiting { network, .. } => {
                let own = self.networks.get(&network).filter(|own| own.len() >= self.bounds.share);
                let all = Some(&self.waiting).filter(|all| all.len() >= self.bounds.waiting);
                own.or(all).and_then(List::first)
            }
        };
        if let Some(oldest) = oldest.and_then(|index| self.arena.get(index)).map(|entry| entry.key) {
            self.remove(&oldest);
            self.mark_changed(oldest);
        }
        let index = self.arena.add(key, state);
        match state {
            State::Passed { .. } => self.arena.append(Chain::Kind, &mut self.passed, index),
            State::Waiting { network, .. } => {
                self.arena.append(Chain::Kind, &mut self.waiting, index);
                self.arena.append(Chain::Network, self.networks.entry(network).or_default(), index);
            }
        }
        self.indices.insert(key, index);
    }

    fn remove(&mut self, key: &Key) {
        let Some(state) = self.state(key) else { return };
        let Some(index) = self.indices.remove(key) else { return };
        match state {
            State::Passed { .. } => self.arena.unlink(Chain::Kind, &mut self.passed, index),
            State::Waiting { network, .. } => {
                self.arena.unlink(Chain::Kind, &mut self.waiting, index);
                if let Some(own) = self.networks.get_mut(&network) {
                    self.arena.unlink(Chain::Network, own, index);
                    if own.len() == 0 {
                        self.networks.remove(&network);
                    }
                }
            }
        }
        self.arena.free(index);
    }

    fn state(&self, key: &Key) -> Option<State> {
        let index = self.indices.get(key)?;
        Some(self.arena.get(*index)?.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { waiting: 8, passed: 4, share: 3 };
    const TIMES: Times = Times { delay: 300, expire: 10_000 };
    const START: u64 = 1_000_000;

    fn triple(number: u64, network: u32) -> Triple {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&number.to_be_bytes());
        Triple { key, network, shared: None }
    }

    fn memory() -> Memory {
        Memory::new(BOUNDS)
    }

    /// Milliseconds to wait; `None` if the triple passed.
    fn check(memory: &mut Memory, number: u64, network: u32, now: u64) -> Option<u64> {
        match memory.check(&triple(number, network), START + now, TIMES) {
            Checked::Passes { .. } => None,
            Checked::Waits { rest, .. } => Some(rest),
        }
    }

    #[test]
    fn a_retry_after_the_delay_passes_and_each_use_extends_the_expiry() {
        let rows: [(&str, &[(u64, Option<u64>)]); 7] = [
            ("on time", &[(0, Some(300)), (300, None), (301, None)]),
            ("too early, which doesn't restart the wait", &[(0, Some(300)), (299, Some(1)), (300, None)]),
            ("late, but in time", &[(0, Some(300)), (9_999, None)]),
            ("expired while it waited", &[(0, Some(300)), (10_000, Some(300)), (10_300, None)]),
            ("each use extends the expiry", &[(0, Some(300)), (300, None), (10_299, None), (20_298, None)]),
            ("expired without use", &[(0, Some(300)), (300, None), (10_300, Some(300)), (10_600, None)]),
            (
                "the clock is set back, and goes on",
                &[(9_000, Some(300)), (0, Some(300)), (300, None), (200, None)],
            ),
        ];
        for (what, attempts) in rows {
            let mut memory = memory();
            for (now, expected) in attempts {
                assert_eq!(check(&mut memory, 1, 1, *now), *expected, "{what}, at {now}");
            }
        }
    }

    #[test]
    fn one_triple_does_not_affect_another() {
        let mut memory = memory();
        assert_eq!(check(&mut memory, 1, 1, 0), Some(300));
        assert_eq!(check(&mut memory, 2, 1, 300), Some(300));
        assert_eq!((check(&mut memory, 1, 1, 300), memory.count()), (None, (1, 1)));
    }

    #[test]
    fn a_flood_is_bounded_and_pushes_out_the_oldest_waiting_and_no_passed_triples() {
        let mut memory = memory();
        for number in 1..=2 {
            check(&mut memory, number, 1, 0);
            assert_eq!(check(&mut memory, number, 1, 300), None);
        }
        for number in 100..1_000 {
            check(&mut memory, number, u32::try_from(number).unwrap(), 400);
            assert!(memory.count().0 <= 8 && memory.networks.len() <= 8);
        }
        assert_eq!(memory.count(), (8, 2));
        assert_eq!((check(&mut memory, 1, 1, 700), check(&mut memory, 2, 1, 700)), (None, None));
        assert_eq!(check(&mut memory, 992, 992, 700), None, "the latest are still stored");
        assert_eq!(check(&mut memory, 500, 500, 700), Some(300), "older ones are not");
    }

    #[test]
    fn a_network_pushes_out_its_own_triples_before_those_of_others() {
        let mut memory = memory();
        check(&mut memory, 1, 1, 0);
        for number in 100..200 {
            check(&mut memory, number, 2, 0);
        }
        assert_eq!(memory.count(), (4, 0));
        assert_eq!(check(&mut memory, 1, 1, 300), None);
        assert_eq!(check(&mut memory, 199, 2, 300), None);
        assert_eq!(check(&mut memory, 196, 2, 300), Some(300));
    }

    #[test]
    fn of_the_passed_triples_the_least_recently_used_goes_first() {
        let mut memory = memory();
        for number in 1..=4 {
            check(&mut memory, number, 1, number);
            check(&mut memory, number, 1, 400 + number);
        }
        check(&mut memory, 1, 1, 500);
        check(&mut memory, 5, 1, 500);
        assert_eq!(check(&mut memory, 5, 1, 800), None);
        assert_eq!(memory.count(), (0, 4));
        assert_eq!(check(&mut memory, 1, 1, 900), None);
        assert_eq!(check(&mut memory, 2, 1, 900), Some(300));
    }

    #[test]
    fn expired_triples_are_removed_bit_by_bit() {
        let mut memory = memory();
        for number in 1..=3 {
            check(&mut memory, number, 1, number);
        }
        check(&mut memory, 1, 1, 400);
        memory.take_batch();
        memory.remove_expired(START + 10_002, TIMES.expire, 10);
        assert_eq!(memory.count(), (1, 1));
        assert_eq!(memory.take_batch(), Batch::Some(vec![(triple(2, 1).key, None)]));
        memory.remove_expired(START + 20_000, TIMES.expire, 1);
        assert_eq!(memory.count(), (0, 1));
        memory.remove_expired(START + 20_000, TIMES.expire, 1);
        assert_eq!((memory.count(), memory.indices.len(), memory.networks.len()), ((0, 0), 0, 0));
    }

    #[test]
    fn batches_bring_a_copy_to_the_same_state_whatever_happens() {
        let mut memory = memory();
        let mut copy: HashMap<Key, State> = HashMap::new();
        for step in 0..2_000_u64 {
            let number = step * step % 37;
            check(&mut memory, number, u32::try_from(number % 5).unwrap(), step * 40);
            memory.remove_expired(START + step * 40, TIMES.expire, 2);
            if step % 7 == 0 {
                if step % 77 == 0 {
                    memory.rewrite_all();
                }
                match memory.take_batch() {
                    Batch::All(all) => copy = all.into_iter().collect(),
                    Batch::Some(changes) => {
                        for (key, state) in changes {
                            match state {
                                Some(state) => copy.insert(key, state),
                                None => copy.remove(&key),
                            };
                        }
                    }
                }
                let real: HashMap<Key, State> =
                    memory.indices.keys().map(|key| (*key, memory.state(key).unwrap())).collect();
                assert_eq!(copy, real, "step {step}");
                let mut restored = Memory::new(BOUNDS);
                restored.restore(copy.clone().into_iter().collect(), START + step * 40);
                assert_eq!(restored.count(), memory.count());
            }
        }
        assert!(memory.take_batch().is_empty() || memory.count().1 > 0);
    }

    #[test]
    fn changes_that_can_not_be_written_are_bounded() {
        let mut memory = memory();
        for number in 0..1_000 {
            check(&mut memory, number, u32::try_from(number).unwrap(), 0);
        }
        assert!(matches!(memory.take_batch(), Batch::All(all) if all.len() == 8));
    }

    #[test]
    fn a_time_in_the_future_counts_as_now() {
        let mut memory = memory();
        let (waiting, passed) = (triple(1, 1), triple(2, 1));
        let future = START * 1_000;
        let known = vec![
            (passed.key, State::Passed { last: future }),
            (waiting.key, State::Waiting { since: future, network: 1 }),
        ];
        memory.restore(known, START);
        assert_eq!(check(&mut memory, 2, 1, 1), None);
        assert_eq!(check(&mut memory, 1, 1, 300), None);
        memory.remove_expired(START + 10_300, TIMES.expire, 9);
        assert_eq!(memory.count(), (0, 0));
    }
}
