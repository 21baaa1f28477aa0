//! The permits of a fleet: numbers that no two nodes give, what other nodes tell, and what they don't know yet.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::atomic;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::decision::Node;
use crate::exempt::permits::{MOST, TemporaryPermit};
use crate::store::permits::disk::Change;
use crate::store::permits::entry::{Entry, Removal};
use crate::store::permits::{PermitStore, Writer, log};

/// Removals that are kept; the oldest are forgotten.
pub(super) const MOST_REMOVED: usize = 10_000;
/// Permits with those of other nodes: each node may have made some before it heard of the others'.
const MOST_TAKEN: usize = 2 * MOST;
/// How long after its end a permit is of use to nobody in Redis. Nodes that share the clock of Redis agree to much less.
const OVER: Duration = Duration::from_secs(600);
/// How long after its end the removal of a permit is kept: longer than clocks may differ.
const KEPT: Duration = Duration::from_secs(2 * 3600);
/// A clock that differs more is wrong, and nobody knows which of the two.
const MOST_AHEAD: Duration = Duration::from_secs(3600);
/// Changes of one merge that have a line in the log each.
const MOST_LOGGED: usize = 20;

/// What became of entries that another node told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// The numbers for which this node now has the same. For others it has something newer.
    pub same: Vec<u64>,
    /// The numbers of what is over, and not kept here: nobody needs it.
    pub over: Vec<u64>,
}

/// The numbers of permits that were made or removed here, each with the count of its change.
#[derive(Debug, Default)]
pub(super) struct Unshared {
    changes: BTreeMap<u64, u64>,
    count: u64,
}

impl Unshared {
    pub(super) fn note(&mut self, number: u64) {
        self.count += 1;
        self.changes.insert(number, self.count);
    }
}

/// A change that other nodes can't know yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsent {
    /// Of the permit.
    pub number: u64,
    count: u64,
}

/// Tells two permits with one number apart.
pub(super) fn uid() -> u64 {
    // SQLite has no larger integers.
    rand::random::<u64>() >> 1
}

impl Writer {
    /// The number of the next permit: of a fleet's node a count times 16 and the node, else one more than before.
    pub(super) fn next_number(&mut self, node: Option<Node>) -> u64 {
        self.last = node.map_or(self.last.saturating_add(1), |node| node.next_number(self.last));
        self.last
    }

    pub(super) fn keep(&mut self, removal: Removal, change: &mut Change) {
        self.removed.insert(removal.number, removal.clone());
        change.removed.push(removal);
        while self.removed.len() > MOST_REMOVED
            && let Some(oldest) =
                self.removed.values().min_by_key(|it| (it.at, it.number)).map(|it| it.number)
        {
            self.removed.remove(&oldest);
            change.removed.retain(|it| it.number != oldest);
            change.forgotten.push(oldest);
        }
    }

    /// Forgets what can't matter any more; the numbers.
    pub(super) fn forget(&mut self, now: SystemTime) -> Vec<u64> {
        let is_over = |removal: &Removal| removal.until.is_some_and(|until| until + KEPT <= now);
        let forgotten: Vec<u64> =
            self.removed.values().filter(|removal| is_over(removal)).map(|removal| removal.number).collect();
        for number in &forgotten {
            self.removed.remove(number);
        }
        forgotten
    }
}

impl PermitStore {
    /// The fleet's clock is so many milliseconds ahead of this one, by which permits are made and end from now on. `false`:
    /// that is too much to be true, and nothing changes.
    pub fn set_ahead(&self, milliseconds: i64) -> bool {
        let most = i64::try_from(MOST_AHEAD.as_millis()).unwrap_or(i64::MAX);
        let is_possible = milliseconds.checked_abs().is_some_and(|ahead| ahead <= most);
        if is_possible {
            self.0.ahead.store(milliseconds, atomic::Ordering::Relaxed);
        }
        is_possible
    }

    /// Milliseconds that the fleet's clock is ahead of this one.
    #[must_use]
    pub fn ahead(&self) -> i64 {
        self.0.ahead.load(atomic::Ordering::Relaxed)
    }

    /// By the clock of the fleet, to the millisecond.
    pub(super) fn now(&self) -> SystemTime {
        let (now, ahead) = (self.0.clock.now(), self.ahead());
        let by = Duration::from_millis(ahead.unsigned_abs());
        if ahead < 0 { now.checked_sub(by) } else { now.checked_add(by) }.unwrap_or(now)
    }

    /// Gives the permits that were made without a fleet numbers of this node: other nodes have others under theirs. Blocks as
    /// long as the disk takes.
    pub fn adopt(&self, node: Node) {
        let mut writer = self.writer();
        let mut change = Change::default();
        self.adopt_those(&mut writer, node, &mut change);
        if !change.put.is_empty() {
            self.write(&mut writer, &change);
        }
    }

    fn adopt_those(&self, writer: &mut Writer, node: Node, change: &mut Change) {
        let plain: Vec<TemporaryPermit> =
            self.permits().iter().filter(|permit| permit.uid.is_none()).cloned().collect();
        for permit in plain {
            let was = permit.number;
            self.change(|permits| drop(permits.remove(was)));
            change.gone.push(was);
            self.renumber(writer, permit, node, change);
        }
    }

    /// Gives a permit, which is in the set no more, a new number.
    fn renumber(&self, writer: &mut Writer, permit: TemporaryPermit, node: Node, change: &mut Change) {
        let (was, number) = (permit.number, writer.next_number(Some(node)));
        let permit = TemporaryPermit { number, uid: permit.uid.or_else(|| Some(uid())), ..permit };
        self.change(|permits| permits.insert(permit.clone()));
        self.unshared().note(number);
        log(&permit, &format!("the permit that was {was} has a number of the fleet"));
        change.put.push(permit);
    }

    /// Merges what other nodes told into what is here; the result doesn't depend on the order. Blocks as long as the disk
    /// takes.
    pub fn merge(&self, told: Vec<Entry>, node: Node) -> Merged {
        let mut writer = self.writer();
        self.end_those_over(&mut writer);
        let now = self.now();
        let (mut merged, mut change, mut logged) = (Merged::default(), Change::default(), Vec::new());
        self.adopt_those(&mut writer, node, &mut change);
        writer.last = told.iter().map(Entry::number).fold(writer.last, u64::max);
        let long_over = now.checked_sub(OVER).unwrap_or(now);
        let mut too_many = 0_usize;
        for entry in told {
            let number = entry.number();
            let own = self.entry(&writer, number);
            if entry.is_over(now) {
                if entry.is_over(long_over) && own.as_ref().is_none_or(|own| own.is_over(long_over)) {
                    merged.over.push(number);
                }
                continue;
            }
            match own.as_ref().map(|own| own.rank().cmp(&entry.rank())) {
                Some(Ordering::Equal) => merged.same.push(number),
                Some(Ordering::Less) => {}
                None if matches!(entry, Entry::Permit(_)) && self.permits().len() >= MOST_TAKEN => {
                    too_many += 1
                }
                None | Some(Ordering::Greater) => {
                    merged.same.push(number);
                    if !self.take(&mut writer, own, entry, node, &mut change, &mut logged) {
                        merged.over.push(number);
                    }
                }
            }
        }
        if too_many > 0 {
            tracing::warn!(
                permits = too_many,
                "other nodes have more permits than there can be; these are left out"
            );
        }
        change.forgotten.extend(writer.forget(now));
        let Change { gone, put, forgotten, removed } = &change;
        if !(gone.is_empty() && put.is_empty() && forgotten.is_empty() && removed.is_empty()) {
            self.write(&mut writer, &change);
        }
        let count = logged.len();
        if count > MOST_LOGGED {
            tracing::info!(permits = count, "permits were made or removed at other nodes");
        } else {
            logged.iter().for_each(|(permit, what)| log(permit, what));
        }
        merged
    }

    /// Takes an entry in place of what is under its number. `false`: it isn't kept, since there are too many later ones.
    fn take(
        &self,
        writer: &mut Writer,
        own: Option<Entry>,
        entry: Entry,
        node: Node,
        change: &mut Change,
        logged: &mut Vec<(TemporaryPermit, &'static str)>,
    ) -> bool {
        let number = entry.number();
        let is_of_the_same = own.as_ref().is_some_and(|own| own.is_of_the_same(&entry));
        let before = match own {
            Some(Entry::Permit(permit)) => {
                self.change(|permits| drop(permits.remove(number)));
                change.put.retain(|put| put.number != number);
                change.gone.push(number);
                Some(permit)
            }
            Some(Entry::Removal(_)) => {
                writer.removed.remove(&number);
                change.removed.retain(|removed| removed.number != number);
                change.forgotten.push(number);
                None
            }
            None => None,
        };
        match entry {
            Entry::Permit(permit) => {
                self.change(|permits| permits.insert(permit.clone()));
                change.put.push(permit.clone());
                logged.push((permit, "a permit was made at another node"));
            }
            Entry::Removal(removal) => {
                change.forgotten.retain(|forgotten| *forgotten != number);
                writer.keep(removal, change);
                if let Some(permit) = before.clone().filter(|_| is_of_the_same) {
                    logged.push((permit, "a permit was removed at another node"));
                }
            }
        }
        // Its state was lost, and then it gave a number twice. Only it can give another.
        if let Some(permit) = before.filter(|permit| !is_of_the_same && permit.node() == Some(node)) {
            self.renumber(writer, permit, node, change);
        }
        self.entry(writer, number).is_some()
    }

    fn entry(&self, writer: &Writer, number: u64) -> Option<Entry> {
        let permit = self.permits().get(number).cloned().map(Entry::Permit);
        permit.or_else(|| writer.removed.get(&number).cloned().map(Entry::Removal))
    }

    /// The numbers of what all nodes have to know.
    #[must_use]
    pub fn numbers(&self) -> Vec<u64> {
        let (writer, now) = (self.writer(), self.now());
        let removed = writer.removed.values().filter(|it| it.until.is_none_or(|until| until > now));
        let removed = removed.map(|it| it.number);
        let permits = self.permits();
        let made = permits.iter().filter(|permit| permit.uid.is_some() && !permit.is_over(now));
        made.map(|permit| permit.number).chain(removed).collect()
    }

    /// What is known under these numbers.
    #[must_use]
    pub fn entries(&self, numbers: &[u64]) -> Vec<Entry> {
        let (writer, now) = (self.writer(), self.now());
        let entries = numbers.iter().filter_map(|number| self.entry(&writer, *number));
        entries.filter(|entry| !entry.is_over(now)).collect()
    }

    /// The changes that other nodes can't know yet.
    #[must_use]
    pub fn unsent(&self) -> Vec<Unsent> {
        let unshared = self.unshared();
        unshared.changes.iter().map(|(number, count)| Unsent { number: *number, count: *count }).collect()
    }

    /// Other nodes can know these changes now.
    pub fn sent(&self, changes: &[Unsent]) {
        let mut unshared = self.unshared();
        for Unsent { number, count } in changes {
            if unshared.changes.get(number) == Some(count) {
                unshared.changes.remove(number);
            }
        }
    }

    /// Other nodes lack what is under these numbers.
    pub fn lacking(&self, numbers: &[u64]) {
        let mut unshared = self.unshared();
        numbers.iter().for_each(|number| unshared.note(*number));
    }

    /// Whether other nodes can know of all that was made and removed here.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.unshared().changes.is_empty()
    }

    pub(super) fn unshared(&self) -> MutexGuard<'_, Unshared> {
        self.0.unshared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
