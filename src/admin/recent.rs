//! The last five minutes: verdicts of each door, and decisions that the history dropped, from a sample of the counters
//! each second.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::policy::decide::Verdict;
use crate::policy::door::DoorName;

/// How far back it reaches.
pub(super) const SPAN: Duration = Duration::from_secs(300);
/// A rate per minute is taken over this time at least, so that one message after a start is no flood.
const LEAST: Duration = Duration::from_secs(60);

type Verdicts = [[u64; Verdict::ALL.len()]; DoorName::ALL.len()];

/// Counters since the start of the daemon.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    verdicts: Verdicts,
    dropped: u64,
}

impl Counted {
    pub(super) fn now(metrics: &Metrics, dropped: u64) -> Self {
        let mut verdicts = Verdicts::default();
        for (door, row) in DoorName::ALL.into_iter().zip(&mut verdicts) {
            for ((_, count), cell) in metrics.verdicts_at(door).zip(row) {
                *cell = count;
            }
        }
        Self { verdicts, dropped }
    }
}

#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<(Instant, Counted)>>);

impl Recent {
    pub(super) fn sample(&self, at: Instant, counted: Counted) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back((at, counted));
        while samples.front().is_some_and(|(before, _)| at - *before > SPAN) {
            samples.pop_front();
        }
    }

    /// Verdicts of a door per minute, in the order of the metrics: accept, defer, reject.
    pub(super) fn per_minute(&self, door: DoorName) -> [(Verdict, f64); Verdict::ALL.len()] {
        let (before, now, time) = self.ends();
        let count = |counted: &Counted, verdict: usize| {
            counted.verdicts.get(door as usize).and_then(|row| row.get(verdict)).copied().unwrap_or_default()
        };
        let minutes = time.max(LEAST).as_secs_f64() / 60.0;
        [Verdict::Accept, Verdict::Defer, Verdict::Reject].map(|verdict| {
            let at = verdict as usize;
            (verdict, count(&now, at).saturating_sub(count(&before, at)) as f64 / minutes)
        })
    }

    /// Decisions that the history dropped.
    pub(super) fn dropped(&self) -> u64 {
        let (before, now, _) = self.ends();
        // A reload may have begun another history, which counts from 0.
        now.dropped.saturating_sub(before.dropped)
    }

    fn ends(&self) -> (Counted, Counted, Duration) {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (samples.front(), samples.back()) {
            (Some((began, before)), Some((at, now))) => (*before, *now, *at - *began),
            _ => (Counted::default(), Counted::default(), Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rule::Mode;

    #[test]
    fn the_rate_is_that_of_the_last_five_minutes_and_of_one_door() {
        let (recent, metrics, began) = (Recent::default(), Metrics::default(), Instant::now());
        let rejected = |door| {
            let rates = recent.per_minute(door);
            rates.into_iter().find(|(verdict, _)| *verdict == Verdict::Reject).unwrap().1
        };
        assert!(rejected(DoorName::Milter).abs() < 1e-9);
        for second in 0..900_u32 {
            // two a second, until the seventh minute is over
            for _ in 0..if second < 420 { 2 } else { 0 } {
                metrics.verdict(DoorName::Milter, Verdict::Reject, None, Mode::Enforce, Duration::ZERO);
            }
            let dropped = u64::from(second.min(100));
            recent.sample(began + Duration::from_secs(second.into()), Counted::now(&metrics, dropped));
            let (rate, lost) = match second {
                10 => (20.0, 10),
                // the first sample counts what came before it
                200 => (120.0, 100),
                400 => (120.0, 0),
                570 => (120.0 * 149.0 / 300.0, 0),
                899 => (0.0, 0),
                _ => continue,
            };
            let found = rejected(DoorName::Milter);
            assert!((found - rate).abs() < 1e-6, "{second}: {found}");
            assert_eq!(recent.dropped(), lost, "{second}");
        }
        assert!(rejected(DoorName::Smtp).abs() < 1e-9);
    }
}
