//! The sequence of transaction ids: one for the process, as all its gates write one log.
//!
//! It starts at the milliseconds since 1970, so that a later process continues after an earlier one, up to 1000 ids a
//! second and while the clock isn't set back. The history ensures it by [`Id::continue_after`].

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::decision::Id;

static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    AtomicU64::new(u64::try_from(since.as_millis()).unwrap_or_default())
});

impl Id {
    /// The next id; no id is returned twice.
    #[must_use]
    pub fn next() -> Self {
        Self::nth(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes all further ids come after this one of an earlier process.
    pub fn continue_after(last: Self) {
        NEXT.fetch_max(last.number_after(NEXT.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_id_is_given_twice() {
        let given = || (0..50_000).map(|_| Id::next()).collect::<Vec<_>>();
        let both = [std::thread::spawn(given), std::thread::spawn(given)];
        let all: HashSet<Id> = both.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.len(), 100_000);
    }

    #[test]
    fn the_ids_of_an_earlier_process_are_not_given_again() {
        let before = Id::next().number();
        let last = Id::nth(before + 10_000_000);
        Id::continue_after(last);
        Id::continue_after(Id::nth(before));
        // The id is after `last`, even after the other test has taken its ids.
        let next = Id::next();
        assert!(last.number_after(next.number()) == next.number(), "{next} does not come after {last}");
    }
}
