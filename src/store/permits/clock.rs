//! The time by which permits end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::store::permits::entry::milliseconds;

/// The clock of the system, or one that a test moves. Clones show the same time.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// A clock that stands still at this time until [`Clock::advance`] moves it.
    #[must_use]
    pub fn standing(at: SystemTime) -> Self {
        Self(Some(Arc::new(AtomicU64::new(milliseconds(at)))))
    }

    /// Moves a standing clock on; that of the system stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Some(at) = &self.0 {
            at.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }

    /// To the millisecond, as the file has it.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        let at = self.0.as_ref().map(|at| at.load(Ordering::SeqCst));
        UNIX_EPOCH + Duration::from_millis(at.unwrap_or_else(|| milliseconds(SystemTime::now())))
    }
}
