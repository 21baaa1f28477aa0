//! A table that drops its oldest entries, for messages and sessions whose end may never occur in a log.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;

/// Values by the hash of their key.
#[derive(Debug)]
pub(super) struct Bounded<V> {
    most: usize,
    values: HashMap<u64, (u64, V), RandomState>,
    /// Keys in the order of insertion, with the number of the insertion; some have been removed.
    order: VecDeque<(u64, u64)>,
    inserted: u64,
}

impl<V> Bounded<V> {
    pub(super) fn new(most: usize) -> Self {
        Self { most, values: HashMap::default(), order: VecDeque::new(), inserted: 0 }
    }

    pub(super) fn insert(&mut self, key: u64, value: V) {
        self.inserted += 1;
        self.values.insert(key, (self.inserted, value));
        self.order.push_back((key, self.inserted));
        while self.values.len() > self.most
            && let Some((oldest, number)) = self.order.pop_front()
        {
            if self.contains(oldest, number) {
                self.values.remove(&oldest);
            }
        }
        if self.order.len() > 2 * self.most {
            let values = &self.values;
            self.order.retain(|(key, number)| values.get(key).is_some_and(|(its, _)| its == number));
        }
    }

    pub(super) fn remove(&mut self, key: u64) -> Option<V> {
        self.values.remove(&key).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        self.values.get_mut(&key).map(|(_, value)| value)
    }

    fn contains(&self, key: u64, number: u64) -> bool {
        self.values.get(&key).is_some_and(|(its, _)| *its == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entry_is_dropped_and_an_insertion_renews_an_entry() {
        let mut table = Bounded::new(3);
        (1..=3).for_each(|key| table.insert(key, key));
        table.insert(1, 10);
        table.insert(4, 4);
        assert_eq!((table.remove(2), table.remove(1), table.remove(4)), (None, Some(10), Some(4)));
        for key in 0..10_000 {
            table.insert(key, key);
            if key % 2 == 0 {
                table.remove(key);
            }
            assert!(table.values.len() <= 3 && table.order.len() <= 6);
        }
        assert_eq!(table.get_mut(9_999).copied(), Some(9_999));
    }
}
