//! Gives each transaction its id.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::record::Id;

/// The next id: one sequence for the process, as several gates of it write one log. A process started later goes on
/// behind those of an earlier one (up to 1000 ids a second).
static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    AtomicU64::new(u64::try_from(since.as_millis()).unwrap_or_default())
});

/// Gives ids, each once.
#[derive(Debug)]
pub(super) struct Ids(&'static AtomicU64);

impl Ids {
    pub(super) fn new() -> Self {
        Self(&NEXT)
    }

    pub(super) fn next(&self) -> Id {
        Id::nth(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn several_gates_give_each_id_once() {
        let gates = [Ids::new(), Ids::new()];
        let given: HashSet<Id> = (0..50_000).flat_map(|_| gates.each_ref().map(Ids::next)).collect();
        assert_eq!(given.len(), 100_000);
    }
}
