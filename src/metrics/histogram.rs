//! A histogram of durations, by atomics only.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics::labels::Label;

/// Upper bounds in microseconds, from an answer of the cache to the longest timeout of a question, 30 s.
const BOUNDS: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 2_500_000,
    10_000_000, 30_000_000,
];

#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// One for each bound, and one above the last.
    counts: [AtomicU64; BOUNDS.len() + 1],
    /// In microseconds.
    sum: AtomicU64,
}

#[derive(Debug, PartialEq)]
pub(super) struct Reading {
    pub(super) sum: f64,
    pub(super) count: u64,
    /// Upper bound in seconds, and the count between the previous bound and this one.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Histogram {
    pub(super) fn observe(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX >> 8);
        let at = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Reading {
        let bounds = BOUNDS.iter().map(|micros| Duration::from_micros(*micros).as_secs_f64());
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_micros(self.sum.load(Ordering::Relaxed)).as_secs_f64();
        Reading { sum, count, buckets }
    }
}

/// One histogram for each value of a label.
#[derive(Debug)]
pub(super) struct LabelTimes<L> {
    times: Box<[Histogram]>,
    of: std::marker::PhantomData<fn(L)>,
}

impl<L: Label> Default for LabelTimes<L> {
    fn default() -> Self {
        let times = L::ALL.iter().map(|_| Histogram::default()).collect();
        Self { times, of: std::marker::PhantomData }
    }
}

impl<L: Label> LabelTimes<L> {
    pub(super) fn observe(&self, value: L, time: Duration) {
        if let Some(times) = self.times.get(value.place()) {
            times.observe(time);
        }
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (L, Reading)> {
        L::ALL.iter().copied().zip(self.times.iter().map(Histogram::read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_below_the_first_bound_that_it_does_not_exceed() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 30_000_000, 30_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let Reading { sum, count, buckets } = histogram.read();
        assert_eq!((count, sum), (5, 60.000202));
        let filled: Vec<(f64, u64)> = buckets.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.0001, 2), (0.00025, 1), (30.0, 1), (f64::INFINITY, 1)]);
    }

    #[test]
    fn the_longest_duration_is_counted() {
        let histogram = Histogram::default();
        histogram.observe(Duration::MAX);
        assert_eq!(histogram.read().count, 1);
    }
}
