//! The keys of a closed segment, in blocks: each key once, in order, with the positions of its rows.
//!
//! A row in a table for each key took a third of the time of a decision, and of its octets. A key is stored as what differs
//! from the key before, positions as distances.

use crate::store::history::number::{put_number, take_number};

/// Octets of a block, so that four of them fit into a page. One key with many rows may take more.
const BLOCK: usize = 1800;

/// Collects keys in their order, and hands on each block that is full.
pub(super) struct Blocks<F> {
    /// Positions count from here.
    base: i64,
    first: String,
    last: String,
    octets: Vec<u8>,
    entry: Vec<u8>,
    full: F,
}

impl<E, F: FnMut(&str, &[u8]) -> Result<(), E>> Blocks<F> {
    pub(super) fn new(base: i64, full: F) -> Self {
        Self { base, first: String::new(), last: String::new(), octets: Vec::new(), entry: Vec::new(), full }
    }

    /// Adds a key with the positions of its rows, which increase.
    pub(super) fn add(&mut self, key: &str, positions: impl ExactSizeIterator<Item = i64>) -> Result<(), E> {
        self.entry.clear();
        put_count(&mut self.entry, positions.len());
        let mut before = self.base;
        for position in positions {
            put_number(&mut self.entry, position.saturating_sub(before).unsigned_abs());
            before = position;
        }
        if !self.octets.is_empty() && self.octets.len() + key.len() + self.entry.len() > BLOCK {
            self.finish()?;
        }
        if self.octets.is_empty() {
            key.clone_into(&mut self.first);
        }
        let same = key.bytes().zip(self.last.bytes()).take_while(|(one, other)| one == other).count();
        let rest = key.as_bytes().get(same..).unwrap_or_default();
        put_count(&mut self.octets, same);
        put_count(&mut self.octets, rest.len());
        self.octets.extend_from_slice(rest);
        self.octets.extend_from_slice(&self.entry);
        key.clone_into(&mut self.last);
        Ok(())
    }

    /// Hands on what is left.
    pub(super) fn finish(&mut self) -> Result<(), E> {
        if !self.octets.is_empty() {
            (self.full)(&self.first, &self.octets)?;
        }
        self.octets.clear();
        self.last.clear();
        Ok(())
    }
}

/// Appends the positions of the keys from `low` to `high`; `None` for a block that is damaged.
pub(super) fn positions(block: &[u8], base: i64, low: &str, high: &str, found: &mut Vec<i64>) -> Option<()> {
    let mut rest = block;
    let mut key: Vec<u8> = Vec::new();
    while !rest.is_empty() {
        key.truncate(take_count(&mut rest)?);
        let length = take_count(&mut rest)?;
        let (more, behind) = rest.split_at_checked(length)?;
        key.extend_from_slice(more);
        rest = behind;
        if key.as_slice() > high.as_bytes() {
            return Some(());
        }
        let wanted = key.as_slice() >= low.as_bytes();
        let mut position = base;
        for _ in 0..take_count(&mut rest)? {
            position = position.checked_add(i64::try_from(take_number(&mut rest)?).ok()?)?;
            if wanted {
                found.push(position);
            }
        }
    }
    Some(())
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    put_number(out, count as u64);
}

fn take_count(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(take_number(rest)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of these keys, with the first key of each.
    fn blocks(keys: &[(String, Vec<i64>)], base: i64) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        let mut blocks = Blocks::new(base, |first: &str, octets: &[u8]| {
            all.push((first.to_owned(), octets.to_vec()));
            Ok::<(), ()>(())
        });
        for (key, positions) in keys {
            blocks.add(key, positions.iter().copied()).unwrap();
        }
        blocks.finish().unwrap();
        drop(blocks);
        all
    }

    #[test]
    fn every_range_of_keys_has_the_positions_of_its_rows() {
        let base = 1_795_959_576_780_000;
        let keys: Vec<(String, Vec<i64>)> = (0..900)
            .map(|at| {
                let count = if at == 450 { 3000 } else { 1 + at % 3 };
                (format!("test.spoof{at:04}."), (0..count).map(|row| base + at * 7 + row * 1000).collect())
            })
            .collect();
        let all = blocks(&keys, base);
        assert!(all.len() > 5 && all.iter().filter(|(_, octets)| octets.len() > BLOCK).count() == 1);
        for (low, high) in [(0, 0), (0, 899), (1, 2), (449, 451), (450, 450), (700, 899), (899, 899)] {
            let (low_key, high_key) = (&keys[low].0, &keys[high].0);
            let mut found = Vec::new();
            for (_, octets) in &all {
                positions(octets, base, low_key, high_key, &mut found).unwrap();
            }
            let expected: Vec<i64> =
                keys[low..=high].iter().flat_map(|(_, positions)| positions.clone()).collect();
            assert_eq!(found, expected, "{low} {high}");
        }
        let mut found = Vec::new();
        positions(&all[0].1, base, "test.spoof0000.a", "test.spoof0000.z", &mut found).unwrap();
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn damaged_blocks_give_no_positions_and_no_panic() {
        let keys: Vec<_> = (0..50).map(|at| (format!("key{at:02}"), vec![at, at + 1])).collect();
        let (_, block) = blocks(&keys, 0).remove(0);
        for length in 0..block.len() {
            positions(&block[..length], 0, "", "~", &mut Vec::new());
            let mut broken = block.clone();
            broken[length] = 0xff;
            positions(&broken, 0, "", "~", &mut Vec::new());
        }
        assert_eq!(positions(&[0, 9, b'a'], 0, "", "~", &mut Vec::new()), None);
        let far = [[0, 1, b'a', 1].as_slice(), &[0xff; 9], &[1]].concat();
        assert_eq!(positions(&far, i64::MAX, "", "~", &mut Vec::new()), None);
    }
}
