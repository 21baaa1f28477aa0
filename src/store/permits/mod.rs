//! The temporary permits that are in effect (contract 3.5), and their table in the state file.
//!
//! A change is in effect and on disk before [`PermitStore::add`] or [`PermitStore::remove`] returns, so that nothing is lost by
//! a kill. Where the disk fails, the change is in effect nevertheless, and is written later. Sessions only read memory: one load
//! of a counter while there are no permits.

mod clock;
mod disk;
mod entry;
mod fleet;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use crate::decision::{Id, LetIn, Node};
use crate::exempt::permits::{Conditions, MOST, Permits, TemporaryPermit};
pub use crate::store::permits::clock::Clock;
use crate::store::permits::disk::{Change, Disk, Loaded};
pub use crate::store::permits::entry::{Entry, LONGEST_TEXT, Removal};
use crate::store::permits::fleet::Unshared;
pub use crate::store::permits::fleet::{Merged, Unsent};
use crate::store::{OpenError, StateFile};

/// How many calls of [`PermitStore::tick`] after a failed write the next one is tried.
const RETRY_TICKS: u32 = 10;

/// Clones share one store.
#[derive(Debug, Clone)]
pub struct PermitStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    permits: RwLock<Permits>,
    /// How many there are.
    count: AtomicUsize,
    /// The file lacks changes; the same as in [`Writer`], for those that don't wait.
    is_behind: AtomicBool,
    /// There is a file.
    has_file: bool,
    /// Locked before `permits`: one change at a time.
    writer: Mutex<Writer>,
    clock: Clock,
    /// Milliseconds that the clock of the fleet is ahead of this one.
    ahead: AtomicI64,
    /// Changes that the other nodes of the fleet can't know yet.
    unshared: Mutex<Unshared>,
}

#[derive(Debug)]
struct Writer {
    /// `None` = in memory only.
    disk: Option<Disk>,
    /// Permits of a fleet that were removed, by their numbers.
    removed: BTreeMap<u64, Removal>,
    /// The largest number that was ever given, here or at another node.
    last: u64,
    /// The file lacks changes; ticks until the next try.
    behind: Option<u32>,
}

impl Writer {
    /// The file was moved or removed, so that a restart would forget all permits.
    fn lacks_all(&self) -> bool {
        self.disk.as_ref().is_some_and(Disk::is_moved)
    }
}

/// A permit to be made.
#[derive(Debug, Clone)]
pub struct NewPermit {
    pub conditions: Conditions,
    pub note: String,
    /// `None` = until it is removed.
    pub time: Option<Duration>,
    pub decision: Option<Id>,
    /// The node of the fleet that makes it; `None` without one.
    pub node: Option<Node>,
}

/// [`MOST`] permits are in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MOST} permits are in effect, the most that there can be")]
pub struct Full;

impl PermitStore {
    /// The permits of a state file. A file that isn't there is made with the first permit.
    ///
    /// # Errors
    /// The file can't be opened, is damaged or not one of rmxd, or is in use.
    pub fn open(file: Arc<StateFile>) -> Result<Self, OpenError> {
        Self::open_with(file, Clock::default())
    }

    /// The same by another clock.
    ///
    /// # Errors
    /// As [`PermitStore::open`].
    pub fn open_with(file: Arc<StateFile>, clock: Clock) -> Result<Self, OpenError> {
        let (disk, loaded) = Disk::open(file)?;
        let count = loaded.permits.len();
        if count > 0 {
            tracing::info!(path = %disk.path().display(), permits = count, "permits are in effect");
        }
        Ok(Self::new(Some(disk), loaded, clock))
    }

    /// No permits; those that come are never written to disk.
    #[must_use]
    pub fn in_memory(clock: Clock) -> Self {
        Self::new(None, Loaded::default(), clock)
    }

    /// The permits that a daemon has in this file, as they are now, for a command that only judges. Without a file there are
    /// none.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(path: &Path) -> Result<Self, OpenError> {
        Ok(Self::new(None, disk::read(path)?, Clock::default()))
    }

    fn new(disk: Option<Disk>, loaded: Loaded, clock: Clock) -> Self {
        let Loaded { permits, removed, last } = loaded;
        Self(Arc::new(Shared {
            count: AtomicUsize::new(permits.len()),
            permits: RwLock::new(permits),
            is_behind: AtomicBool::default(),
            has_file: disk.is_some(),
            writer: Mutex::new(Writer { disk, removed, last, behind: None }),
            clock,
            ahead: AtomicI64::default(),
            unshared: Mutex::default(),
        }))
    }

    /// Looks for a permit. While there are none, this costs one load.
    #[must_use]
    pub fn find<F>(&self, look: F) -> Option<LetIn>
    where
        F: for<'p> FnOnce(&'p Permits, SystemTime) -> Option<&'p TemporaryPermit>,
    {
        if self.0.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        look(&self.permits(), self.now()).map(TemporaryPermit::let_in)
    }

    /// All that are in effect, by their numbers.
    #[must_use]
    pub fn list(&self) -> Vec<TemporaryPermit> {
        let now = self.now();
        self.permits().iter().filter(|permit| !permit.is_over(now)).cloned().collect()
    }

    /// How many are in effect, and when the next of them ends.
    #[must_use]
    pub fn count(&self) -> (usize, Option<SystemTime>) {
        let (now, permits) = (self.now(), self.permits());
        let over = permits.over(now).count();
        let next = if over == 0 {
            permits.next_end()
        } else {
            permits.iter().filter(|permit| !permit.is_over(now)).filter_map(|permit| permit.until).min()
        };
        (permits.len() - over, next)
    }

    /// Whether a restart keeps all of them.
    #[must_use]
    pub fn is_on_disk(&self) -> bool {
        self.0.has_file && !self.0.is_behind.load(Ordering::Acquire)
    }

    /// Whether the file lacks changes, so that a restart would bring back what was there before.
    #[must_use]
    pub fn lacks_changes(&self) -> bool {
        self.0.is_behind.load(Ordering::Acquire)
    }

    /// Adds a permit, which is in effect from now on; blocks as long as the disk takes.
    ///
    /// # Errors
    /// There are too many.
    pub fn add(&self, new: NewPermit) -> Result<TemporaryPermit, Full> {
        let mut writer = self.writer();
        self.end_those_over(&mut writer);
        if self.permits().len() >= MOST {
            return Err(Full);
        }
        let NewPermit { conditions, note, time, decision, node } = new;
        let number = writer.next_number(node);
        let uid = node.map(|_fleet| fleet::uid());
        let created = self.now();
        let until = time.and_then(|time| created.checked_add(time));
        let permit = TemporaryPermit { number, uid, conditions, note, created, until, decision };
        self.change(|permits| permits.insert(permit.clone()));
        if uid.is_some() {
            self.unshared().note(number);
        }
        self.write(&mut writer, &Change::put(&permit));
        log(&permit, "a permit was made");
        Ok(permit)
    }

    /// Removes a permit, which is in effect no more; blocks as long as the disk takes.
    #[must_use]
    pub fn remove(&self, number: u64) -> Option<TemporaryPermit> {
        let mut writer = self.writer();
        self.end_those_over(&mut writer);
        let mut removed = None;
        self.change(|permits| removed = permits.remove(number));
        let permit = removed?;
        let mut change = Change { gone: vec![number], ..Change::default() };
        if let Some(removal) = Removal::of(&permit, self.now()) {
            writer.keep(removal, &mut change);
            self.unshared().note(number);
        }
        self.write(&mut writer, &change);
        log(&permit, "a permit was removed");
        Some(permit)
    }

    /// Removes the permits that are over, and writes what could not be written before; to be called once a second. Blocks as
    /// long as the disk takes.
    pub fn tick(&self) {
        let mut writer = self.writer();
        self.end_those_over(&mut writer);
        match writer.behind {
            None if !writer.lacks_all() => {}
            None | Some(0) => self.write(&mut writer, &Change::default()),
            Some(ticks) => writer.behind = Some(ticks - 1),
        }
    }

    /// Whether [`PermitStore::tick`] has anything to do.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let end = self.permits().next_end();
        let is_moved = || self.0.writer.try_lock().is_ok_and(|writer| writer.lacks_all());
        end.is_some_and(|end| end <= self.now()) || self.lacks_changes() || is_moved()
    }

    fn end_those_over(&self, writer: &mut Writer) {
        let over: Vec<TemporaryPermit> = self.permits().over(self.now()).cloned().collect();
        if over.is_empty() {
            return;
        }
        let gone: Vec<u64> = over.iter().map(|permit| permit.number).collect();
        self.change(|permits| {
            for number in &gone {
                permits.remove(*number);
            }
        });
        let forgotten = writer.forget(self.now());
        self.write(writer, &Change { gone, forgotten, ..Change::default() });
        for permit in &over {
            log(permit, "a permit has ended");
        }
    }

    fn change(&self, change: impl FnOnce(&mut Permits)) {
        let mut permits = self.permits_mut();
        change(&mut permits);
        self.0.count.store(permits.len(), Ordering::Release);
    }

    fn write(&self, writer: &mut Writer, change: &Change) {
        let Writer { disk: Some(disk), removed, last, .. } = writer else { return };
        let written = disk.write(change, &self.permits(), removed, *last);
        let path = disk.path().display();
        self.0.is_behind.store(written.is_err(), Ordering::Release);
        match written {
            Ok(()) if writer.behind.take().is_some() => {
                tracing::info!(%path, "the permits can be written again")
            }
            Ok(()) => {}
            Err(error) => {
                if writer.behind.replace(RETRY_TICKS).is_none() {
                    tracing::error!(%error, "the permits can't be written; a restart would bring back those before");
                }
            }
        }
    }

    fn permits(&self) -> RwLockReadGuard<'_, Permits> {
        self.0.permits.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn permits_mut(&self) -> RwLockWriteGuard<'_, Permits> {
        self.0.permits.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(permit: &TemporaryPermit, what: &str) {
    let TemporaryPermit { number, conditions, note, until, decision, .. } = permit;
    tracing::info!(
        permit = number,
        node = permit.node().map(Node::number),
        client = conditions.client.map(tracing::field::display),
        domain = conditions.domain.as_ref().map(tracing::field::display),
        recipient = conditions.recipient.as_ref().map(tracing::field::display),
        identity = conditions.identity.map(tracing::field::display),
        until = until.map(|until| humantime::format_rfc3339_seconds(until).to_string()),
        decision = decision.map(tracing::field::display),
        note = (!note.is_empty()).then(|| tracing::field::display(note)),
        "{what}"
    );
}
