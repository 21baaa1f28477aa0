//! How long one client waits for Redis in all: each question ends after `cluster.timeout`, but a session may ask many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A client waits so many times `cluster.timeout` in all. Then its mail is judged as if there were no other nodes.
const TIMES: u32 = 3;

/// What one connection has waited for Redis. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Patience {
    /// In microseconds.
    waited: Arc<AtomicU64>,
}

impl Patience {
    /// The end of a question that begins now; `None` if there is no patience left.
    pub(super) fn end(&self, timeout: Duration) -> Option<Instant> {
        let waited = Duration::from_micros(self.waited.load(Ordering::Relaxed));
        let left = (timeout * TIMES).saturating_sub(waited);
        (!left.is_zero()).then(|| Instant::now() + left.min(timeout))
    }

    /// The client has waited since then.
    pub fn waited_since(&self, began: Instant) {
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX >> 16);
        self.waited.fetch_add(micros, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn a_client_waits_three_times_the_time_of_a_question_in_all() {
        let patience = Patience::default();
        let mut ends = Vec::new();
        for waits in [40, 100, 100, 60, 1] {
            let began = Instant::now();
            ends.push(patience.clone().end(TIMEOUT).map(|end| (end - began).as_millis()));
            tokio::time::advance(Duration::from_millis(waits)).await;
            patience.waited_since(began);
        }
        assert_eq!(ends, [Some(100), Some(100), Some(100), Some(60), None]);
    }
}
