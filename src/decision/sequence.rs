//! The sequence of transaction ids: one for the process, as all its gates write one log.
//!
//! It starts at the milliseconds since 1970, so that a later process continues after an earlier one, up to 1000 ids a
//! second and while the clock isn't set back. The history ensures it by [`Id::continue_after`]. Nodes of a fleet count for
//! themselves: their numbers differ in the node.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::decision::{Id, Node};

static SEQUENCE: LazyLock<Sequence> = LazyLock::new(|| Sequence::starting_at(SystemTime::now()));

#[derive(Debug)]
struct Sequence {
    next: AtomicU64,
}

impl Sequence {
    fn starting_at(now: SystemTime) -> Self {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { next: AtomicU64::new(u64::try_from(since.as_millis()).unwrap_or_default()) }
    }

    fn next(&self, node: Node) -> Id {
        Id::of(self.next.fetch_add(1, Ordering::Relaxed), node)
    }

    fn continue_after(&self, last: Id) {
        self.next.fetch_max(last.count_after(self.next.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}

impl Id {
    /// The next id of a node; no id is returned twice.
    #[must_use]
    pub fn next(node: Node) -> Self {
        SEQUENCE.next(node)
    }

    /// Makes all further ids come after this one of an earlier process.
    pub fn continue_after(last: Self) {
        SEQUENCE.continue_after(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::Duration;

    const ALONE: Node = Node::of_a_test(0);

    #[test]
    fn no_id_is_given_twice() {
        let given = || (0..50_000).map(|_| Id::next(ALONE)).collect::<Vec<_>>();
        let both = [std::thread::spawn(given), std::thread::spawn(given)];
        let all: HashSet<Id> = both.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.len(), 100_000);
    }

    #[test]
    fn nodes_that_start_in_the_same_millisecond_never_give_one_id_twice() {
        let now = SystemTime::now();
        let of_a_node = |node| {
            let sequence = Sequence::starting_at(now);
            (0..20_000).map(move |_| sequence.next(node)).collect::<Vec<_>>()
        };
        let nodes: Vec<Node> = std::iter::once(ALONE).chain(Node::of_a_fleet()).collect();
        let all: HashSet<Id> = nodes.iter().flat_map(|node| of_a_node(*node)).collect();
        assert_eq!((nodes.len(), all.len()), (16, 16 * 20_000));
    }

    #[test]
    fn a_process_that_starts_later_continues_after_an_earlier_one_by_the_clock_alone() {
        let now = SystemTime::now();
        let (earlier, later) =
            (Sequence::starting_at(now), Sequence::starting_at(now + Duration::from_secs(2)));
        let first: HashSet<Id> = (0..2_000).map(|_| earlier.next(ALONE)).collect();
        assert!((0..2_000).map(|_| later.next(ALONE)).all(|id| !first.contains(&id)));
    }

    #[test]
    fn the_ids_of_an_earlier_process_are_not_given_again() {
        let now = SystemTime::now();
        let earlier = Sequence::starting_at(now);
        let given: Vec<Id> = (0..5_000).map(|_| earlier.next(ALONE)).collect();
        // It gave more ids than milliseconds have passed.
        let later = Sequence::starting_at(now + Duration::from_millis(100));
        later.continue_after(*given.last().unwrap());
        later.continue_after(given[0]);
        let next = later.next(ALONE);
        assert!(!given.contains(&next), "{next}");
        assert!(given.iter().all(|id| id.number() < next.number()), "{next}");
    }

    /// Before ids had a node, their numbers were the milliseconds themselves.
    #[test]
    fn the_ids_of_a_version_without_nodes_are_not_given_again() {
        let now = SystemTime::now();
        let since = now.duration_since(UNIX_EPOCH).unwrap();
        let day = 24 * 3600 * 1000;
        let start = u64::try_from(since.as_millis()).unwrap();
        for fortnight in 0..40 {
            let start = start + fortnight * 14 * day;
            let old: HashSet<Id> = (start - 14 * day..start).step_by(16 * 997).map(Id::nth).collect();
            let sequence = Sequence { next: AtomicU64::new(start) };
            sequence.continue_after(Id::nth(start - 1));
            assert!((0..100_000).all(|_| !old.contains(&sequence.next(ALONE))), "{fortnight}");
        }
    }
}
