//! The greylist as a value: who waits, who has passed, and what of it is not on disk yet. No clock, no file.
//!
//! Times are milliseconds of the wall clock, as they must hold over a restart. Those who wait and those who have passed
//! are bounded apart, so that no flood of newcomers pushes out who has shown to come again; and of those who wait, one
//! client network has no more than its share, so that a single host can't push out everybody else's first attempt.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::store::greylist::arena::{Arena, Chain, EntryIndex, List};
use crate::store::greylist::triple::{Key, Triple};

/// How many are remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) waiting: usize,
    pub(super) passed: usize,
    /// Of those who wait, the most of one client network.
    pub(super) share: usize,
}

/// When one may come again, and when it is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) delay: u64,
    pub(super) expire: u64,
}

/// What the greylist says of a triple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GreylistAnswer {
    /// It came again in time; it is remembered anew from now.
    Passed,
    /// It has to come again, after this.
    Wait(Duration),
}

/// What is known of a triple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It came first at this time, from this network.
    Waiting { since: u64, network: u32 },
    /// It came last at this time.
    Passed { last: u64 },
}

impl State {
    fn time(self) -> u64 {
        match self {
            Self::Waiting { since, .. } => since,
            Self::Passed { last } => last,
        }
    }

    fn is_expired(self, now: u64, expire: u64) -> bool {
        now.saturating_sub(self.time()) >= expire
    }
}

/// What goes to disk; no state = not known any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Batch {
    /// In place of all that is there.
    All(Vec<(Key, State)>),
    /// The changes.
    Some(Vec<(Key, Option<State>)>),
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Some(changes) if changes.is_empty())
    }
}

/// Everything that is known.
#[derive(Debug)]
pub(super) struct Memory {
    bounds: Bounds,
    arena: Arena,
    places: HashMap<Key, EntryIndex, RandomState>,
    /// Oldest first.
    waiting: List,
    /// Least recently used first.
    passed: List,
    /// Of those who wait; oldest first.
    networks: HashMap<u32, List, RandomState>,
    /// What differs from what is on disk; `None` = anything may.
    changed: Option<HashSet<Key, RandomState>>,
}

impl Memory {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            arena: Arena::default(),
            places: HashMap::default(),
            waiting: List::default(),
            passed: List::default(),
            networks: HashMap::default(),
            changed: Some(HashSet::default()),
        }
    }

    /// Takes over what was on disk. What lies in the future was written by a clock that was wrong.
    pub(super) fn restore(&mut self, mut known: Vec<(Key, State)>, now: u64) {
        known.sort_unstable_by_key(|(_, state)| state.time());
        self.arena.reserve(known.len());
        self.places.reserve(known.len());
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

    /// How many wait, and how many have passed.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.waiting.len(), self.passed.len())
    }

    /// Whether a triple has passed, or how long it has to wait. To come too early doesn't begin the wait anew.
    pub(super) fn ask(&mut self, triple: &Triple, now: u64, times: Times) -> GreylistAnswer {
        let Triple { key, network } = *triple;
        let known = self.state(&key);
        let known = known.filter(|state| !state.is_expired(now, times.expire));
        let since = match known {
            Some(State::Passed { .. }) => {
                self.put(key, State::Passed { last: now });
                return GreylistAnswer::Passed;
            }
            Some(State::Waiting { since, .. }) if since <= now => since,
            // New, forgotten, or the clock was put back.
            Some(State::Waiting { .. }) | None => {
                self.put(key, State::Waiting { since: now, network });
                now
            }
        };
        match times.delay.saturating_sub(now - since) {
            0 => {
                self.put(key, State::Passed { last: now });
                GreylistAnswer::Passed
            }
            wait => GreylistAnswer::Wait(Duration::from_millis(wait)),
        }
    }

    /// Forgets who was not seen for so long, at most this many.
    pub(super) fn forget(&mut self, now: u64, expire: u64, most: usize) {
        for _ in 0..most {
            let oldest = [&self.waiting, &self.passed].map(List::first);
            let oldest = oldest.into_iter().flatten().filter_map(|place| self.arena.get(place));
            let mut expired =
                oldest.filter(|entry| entry.state.is_expired(now, expire)).map(|entry| entry.key);
            let Some(key) = expired.next() else { return };
            self.remove(&key);
            self.changed(key);
        }
    }

    /// What is to be written; it counts as written from now on.
    pub(super) fn take_batch(&mut self) -> Batch {
        match self.changed.replace(HashSet::default()) {
            None => Batch::All(self.places.keys().filter_map(|key| Some((*key, self.state(key)?))).collect()),
            Some(keys) => Batch::Some(keys.into_iter().map(|key| (key, self.state(&key))).collect()),
        }
    }

    /// A batch could not be written: the next one holds everything.
    pub(super) fn distrust_disk(&mut self) {
        self.changed = None;
    }

    fn put(&mut self, key: Key, state: State) {
        self.insert(key, state);
        self.changed(key);
    }

    fn changed(&mut self, key: Key) {
        let most = self.bounds.waiting + self.bounds.passed;
        if let Some(changed) = &mut self.changed {
            changed.insert(key);
            // A disk that takes nothing for so long costs no more memory than writing everything anew.
            if changed.len() > most {
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
        if let Some(oldest) = oldest.and_then(|place| self.arena.get(place)).map(|entry| entry.key) {
            self.remove(&oldest);
            self.changed(oldest);
        }
        let place = self.arena.add(key, state);
        match state {
            State::Passed { .. } => self.arena.append(Chain::Kind, &mut self.passed, place),
            State::Waiting { network, .. } => {
                self.arena.append(Chain::Kind, &mut self.waiting, place);
                self.arena.append(Chain::Network, self.networks.entry(network).or_default(), place);
            }
        }
        self.places.insert(key, place);
    }

    fn remove(&mut self, key: &Key) {
        let Some(state) = self.state(key) else { return };
        let Some(place) = self.places.remove(key) else { return };
        match state {
            State::Passed { .. } => self.arena.unlink(Chain::Kind, &mut self.passed, place),
            State::Waiting { network, .. } => {
                self.arena.unlink(Chain::Kind, &mut self.waiting, place);
                if let Some(own) = self.networks.get_mut(&network) {
                    self.arena.unlink(Chain::Network, own, place);
                    if own.len() == 0 {
                        self.networks.remove(&network);
                    }
                }
            }
        }
        self.arena.free(place);
    }

    fn state(&self, key: &Key) -> Option<State> {
        let place = self.places.get(key)?;
        Some(self.arena.get(*place)?.state)
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
        Triple { key, network }
    }

    fn memory() -> Memory {
        Memory::new(BOUNDS)
    }

    /// Milliseconds to wait; `None` = passed.
    fn ask(memory: &mut Memory, number: u64, network: u32, now: u64) -> Option<u64> {
        match memory.ask(&triple(number, network), START + now, TIMES) {
            GreylistAnswer::Passed => None,
            GreylistAnswer::Wait(wait) => Some(u64::try_from(wait.as_millis()).unwrap()),
        }
    }

    #[test]
    fn who_comes_again_after_the_delay_passes_and_use_keeps_it_so() {
        let rows: [(&str, &[(u64, Option<u64>)]); 7] = [
            ("on time", &[(0, Some(300)), (300, None), (301, None)]),
            ("too early, which doesn't begin anew", &[(0, Some(300)), (299, Some(1)), (300, None)]),
            ("late, but in time", &[(0, Some(300)), (9_999, None)]),
            ("forgotten while it waited", &[(0, Some(300)), (10_000, Some(300)), (10_300, None)]),
            ("use renews", &[(0, Some(300)), (300, None), (10_299, None), (20_298, None)]),
            ("forgotten without use", &[(0, Some(300)), (300, None), (10_300, Some(300)), (10_600, None)]),
            (
                "the clock is put back, and goes on",
                &[(9_000, Some(300)), (0, Some(300)), (300, None), (200, None)],
            ),
        ];
        for (what, visits) in rows {
            let mut memory = memory();
            for (now, expected) in visits {
                assert_eq!(ask(&mut memory, 1, 1, *now), *expected, "{what}, at {now}");
            }
        }
    }

    #[test]
    fn one_triple_says_nothing_of_another() {
        let mut memory = memory();
        assert_eq!(ask(&mut memory, 1, 1, 0), Some(300));
        assert_eq!(ask(&mut memory, 2, 1, 300), Some(300));
        assert_eq!((ask(&mut memory, 1, 1, 300), memory.count()), (None, (1, 1)));
    }

    #[test]
    fn a_flood_is_bounded_and_pushes_out_the_oldest_that_wait_and_none_that_passed() {
        let mut memory = memory();
        for number in 1..=2 {
            ask(&mut memory, number, 1, 0);
            assert_eq!(ask(&mut memory, number, 1, 300), None);
        }
        for number in 100..1_000 {
            ask(&mut memory, number, u32::try_from(number).unwrap(), 400);
            assert!(memory.count().0 <= 8 && memory.networks.len() <= 8);
        }
        assert_eq!(memory.count(), (8, 2));
        assert_eq!((ask(&mut memory, 1, 1, 700), ask(&mut memory, 2, 1, 700)), (None, None));
        assert_eq!(ask(&mut memory, 992, 992, 700), None, "the latest are still there");
        assert_eq!(ask(&mut memory, 500, 500, 700), Some(300), "older ones are not");
    }

    #[test]
    fn a_network_pushes_out_its_own_before_those_of_others() {
        let mut memory = memory();
        ask(&mut memory, 1, 1, 0);
        for number in 100..200 {
            ask(&mut memory, number, 2, 0);
        }
        assert_eq!(memory.count(), (4, 0));
        assert_eq!(ask(&mut memory, 1, 1, 300), None);
        assert_eq!(ask(&mut memory, 199, 2, 300), None);
        assert_eq!(ask(&mut memory, 196, 2, 300), Some(300));
    }

    #[test]
    fn of_those_who_passed_the_one_that_is_longest_unused_goes_first() {
        let mut memory = memory();
        for number in 1..=4 {
            ask(&mut memory, number, 1, number);
            ask(&mut memory, number, 1, 400 + number);
        }
        ask(&mut memory, 1, 1, 500);
        ask(&mut memory, 5, 1, 500);
        assert_eq!(ask(&mut memory, 5, 1, 800), None);
        assert_eq!(memory.count(), (0, 4));
        assert_eq!(ask(&mut memory, 1, 1, 900), None);
        assert_eq!(ask(&mut memory, 2, 1, 900), Some(300));
    }

    #[test]
    fn who_was_not_seen_for_long_is_forgotten_bit_by_bit() {
        let mut memory = memory();
        for number in 1..=3 {
            ask(&mut memory, number, 1, number);
        }
        ask(&mut memory, 1, 1, 400);
        memory.take_batch();
        memory.forget(START + 10_002, TIMES.expire, 10);
        assert_eq!(memory.count(), (1, 1));
        assert_eq!(memory.take_batch(), Batch::Some(vec![(triple(2, 1).key, None)]));
        memory.forget(START + 20_000, TIMES.expire, 1);
        assert_eq!(memory.count(), (0, 1));
        memory.forget(START + 20_000, TIMES.expire, 1);
        assert_eq!((memory.count(), memory.places.len(), memory.networks.len()), ((0, 0), 0, 0));
    }

    #[test]
    fn batches_bring_a_copy_to_the_same_state_whatever_happens() {
        let mut memory = memory();
        let mut copy: HashMap<Key, State> = HashMap::new();
        for step in 0..2_000_u64 {
            let number = step * step % 37;
            ask(&mut memory, number, u32::try_from(number % 5).unwrap(), step * 40);
            memory.forget(START + step * 40, TIMES.expire, 2);
            if step % 7 == 0 {
                if step % 77 == 0 {
                    memory.distrust_disk();
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
                    memory.places.keys().map(|key| (*key, memory.state(key).unwrap())).collect();
                assert_eq!(copy, real, "step {step}");
                let mut restored = Memory::new(BOUNDS);
                restored.restore(copy.clone().into_iter().collect(), START + step * 40);
                assert_eq!(restored.count(), memory.count());
            }
        }
        assert!(memory.take_batch().is_empty() || memory.count().1 > 0);
    }

    #[test]
    fn changes_that_no_disk_takes_are_bounded() {
        let mut memory = memory();
        for number in 0..1_000 {
            ask(&mut memory, number, u32::try_from(number).unwrap(), 0);
        }
        assert!(matches!(memory.take_batch(), Batch::All(all) if all.len() == 8));
    }

    #[test]
    fn what_a_wrong_clock_wrote_does_not_wait_for_ever() {
        let mut memory = memory();
        let (waiting, passed) = (triple(1, 1), triple(2, 1));
        let future = START * 1_000;
        let known = vec![
            (passed.key, State::Passed { last: future }),
            (waiting.key, State::Waiting { since: future, network: 1 }),
        ];
        memory.restore(known, START);
        assert_eq!(ask(&mut memory, 2, 1, 1), None);
        assert_eq!(ask(&mut memory, 1, 1, 300), None);
        memory.forget(START + 10_300, TIMES.expire, 9);
        assert_eq!(memory.count(), (0, 0));
    }
}
