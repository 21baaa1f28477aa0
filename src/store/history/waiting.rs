//! Decisions that wait to be written, as rows in a few large pieces of memory: a row is encoded by the session that has its
//! parts at hand, and freed together with its neighbours.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use crate::store::history::row::Row;

/// Octets of the rows of one chunk, about: as a whole they fit into a piece of memory of 64 KiB.
const CHUNK: usize = 60 << 10;
const ROOM: usize = 64 << 10;
const ROWS: usize = 160;

/// A row with its position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting<'c> {
    pub(super) seq: i64,
    pub(super) row: &'c Row,
    /// The texts and the record of the row.
    pub(super) octets: &'c [u8],
}

impl Waiting<'_> {
    /// Octets of memory.
    fn weight(&self) -> usize {
        weight(self.octets)
    }
}

/// Octets of memory that a row with these octets takes.
pub(super) fn weight(octets: &[u8]) -> usize {
    size_of::<Placed>() + octets.len()
}

#[derive(Debug)]
struct Placed {
    seq: i64,
    row: Row,
    /// Where its octets end.
    end: usize,
}

#[derive(Debug, Default)]
pub(super) struct Chunk {
    rows: Vec<Placed>,
    octets: Vec<u8>,
}

impl Chunk {
    fn each(&self) -> impl Iterator<Item = Waiting<'_>> {
        let mut start = 0;
        self.rows.iter().map(move |Placed { seq, row, end }| {
            let octets = self.octets.get(mem::replace(&mut start, *end)..*end).unwrap_or_default();
            Waiting { seq: *seq, row, octets }
        })
    }
}

/// Rows from the sessions, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    full: VecDeque<Arc<Chunk>>,
    /// Takes further rows.
    open: Chunk,
    /// Rows of the first chunk that are written.
    written: usize,
    /// Octets of memory of the rows that aren't written.
    weight: usize,
}

impl Queue {
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    pub(super) fn push(&mut self, seq: i64, row: Row, octets: &[u8]) {
        self.weight += weight(octets);
        if self.open.rows.is_empty() {
            self.open = Chunk { rows: Vec::with_capacity(ROWS), octets: Vec::with_capacity(ROOM) };
        }
        self.open.octets.extend_from_slice(octets);
        self.open.rows.push(Placed { seq, row, end: self.open.octets.len() });
        if self.open.octets.len() >= CHUNK {
            self.close();
        }
    }

    fn close(&mut self) {
        if !self.open.rows.is_empty() {
            self.full.push_back(Arc::new(mem::take(&mut self.open)));
        }
    }

    /// What waits now; rows that come later go into another chunk.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        self.close();
        Snapshot { chunks: self.full.iter().cloned().collect(), written: self.written }
    }

    /// Removes the first rows, so many. The result is for the caller to drop without a lock.
    pub(super) fn remove(&mut self, rows: usize) -> Vec<Arc<Chunk>> {
        let mut left = rows;
        let mut removed = Vec::new();
        while let Some(first) = self.full.front() {
            let here = left.min(first.rows.len() - self.written);
            let gone: usize = first.each().skip(self.written).take(here).map(|one| one.weight()).sum();
            self.weight -= gone;
            self.written += here;
            left -= here;
            if self.written < first.rows.len() {
                break;
            }
            removed.extend(self.full.pop_front());
            self.written = 0;
        }
        removed
    }
}

/// The rows that waited at some time.
#[derive(Debug)]
pub(super) struct Snapshot {
    chunks: Vec<Arc<Chunk>>,
    written: usize,
}

impl Snapshot {
    /// The oldest first.
    pub(super) fn rows(&self) -> Vec<Waiting<'_>> {
        self.chunks.iter().flat_map(|chunk| chunk.each()).skip(self.written).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::history::row::Scratch;
    use crate::store::history::tests::refusal;

    fn queue(rows: std::ops::Range<i64>, queue: &mut Queue) {
        let mut scratch = Scratch::default();
        for seq in rows {
            let (row, octets) = scratch.row(&refusal(seq.unsigned_abs(), "a.test"));
            queue.push(seq, row, octets);
        }
    }

    fn positions(snapshot: &Snapshot) -> Vec<i64> {
        snapshot.rows().iter().map(|one| one.seq).collect()
    }

    #[test]
    fn rows_are_removed_from_the_front_across_chunks_and_each_keeps_its_octets() {
        let mut all = Queue::default();
        queue(0..1200, &mut all);
        let whole = all.weight();
        let before = all.snapshot();
        assert!(before.chunks.len() >= 3, "{}", before.chunks.len());
        assert_eq!(positions(&before), (0..1200).collect::<Vec<_>>());
        for one in before.rows() {
            let record = one.row.record(one.octets, |_| true).expect("a record");
            assert_eq!(record.id, Some(crate::decision::Id::nth(one.seq.unsigned_abs())));
        }
        all.remove(0);
        all.remove(7);
        queue(1200..1210, &mut all);
        let freed = all.remove(700);
        assert!(!freed.is_empty());
        assert_eq!(positions(&all.snapshot()), (707..1210).collect::<Vec<_>>());
        assert_eq!(positions(&before).len(), 1200);
        assert!(all.weight() < whole && all.weight() > whole / 3);
        all.remove(503);
        assert_eq!((all.weight(), all.snapshot().rows().len()), (0, 0));
        queue(1210..1211, &mut all);
        assert_eq!(positions(&all.snapshot()), [1210]);
    }
}
