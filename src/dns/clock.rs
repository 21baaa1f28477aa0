//! The time by which answers expire: a value of its own, so that a test can move it.
//!
//! It is not the time by which network waits are measured; those are tokio's. Moments are counted from the clock's
//! start, which keeps sums with any configured TTL from overflowing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A clock; clones show the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    Running(Instant),
    /// Milliseconds.
    Moved(Arc<AtomicU64>),
}

impl Clock {
    /// The clock that runs.
    #[must_use]
    pub fn running() -> Self {
        Self(Source::Running(Instant::now()))
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    #[must_use]
    pub fn standing() -> Self {
        Self(Source::Moved(Arc::default()))
    }

    /// Moves a standing clock on, to the millisecond; a running one stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Source::Moved(milliseconds) = &self.0 {
            milliseconds.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }

    /// The time since the start.
    pub(super) fn now(&self) -> Moment {
        match &self.0 {
            Source::Running(start) => Moment(nanoseconds(start.elapsed())),
            Source::Moved(milliseconds) => {
                Moment(nanoseconds(Duration::from_millis(milliseconds.load(Ordering::SeqCst))))
            }
        }
    }
}

/// A moment of a [`Clock`], in nanoseconds: half of what a `Duration` takes in each answer of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    pub(super) fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(time)))
    }

    /// How long it lies after `earlier`; zero if it doesn't.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// At most 584 years.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
