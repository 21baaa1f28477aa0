//! The temporary permits that are in effect (contract 3.5), and their table in the state file.
//!
//! A change is in effect and on disk before [`PermitStore::add`] or [`PermitStore::remove`] returns, so that nothing is lost by
//! a kill. Where the disk fails, the change is in effect nevertheless, and is written later. Sessions only read memory: one load
//! of a counter while there are no permits.

mod disk;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::decision::{Id, LetIn};
use crate::exempt::permits::{Conditions, MOST, Permits, TemporaryPermit};
use crate::store::permits::disk::{Change, Disk};
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
}

#[derive(Debug)]
struct Writer {
    /// `None` = in memory only.
    disk: Option<Disk>,
    /// The largest number that was ever given.
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
}

/// [`MOST`] permits are in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MOST} permits are in effect, the most that there can be")]
pub struct Full;

/// The time by which permits end: that of the system, or one that a test moves. Clones show the same time.
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
    fn now(&self) -> SystemTime {
        let at = self.0.as_ref().map(|at| at.load(Ordering::SeqCst));
        UNIX_EPOCH + Duration::from_millis(at.unwrap_or_else(|| milliseconds(SystemTime::now())))
    }
}

fn milliseconds(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

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
        Ok(Self::new(loaded.permits, Writer { disk: Some(disk), last: loaded.last, behind: None }, clock))
    }

    /// No permits; those that come are never written to disk.
    #[must_use]
    pub fn in_memory(clock: Clock) -> Self {
        Self::new(Permits::default(), Writer { disk: None, last: 0, behind: None }, clock)
    }

    /// The permits that a daemon has in this file, as they are now, for a command that only judges. Without a file there are
    /// none.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(path: &Path) -> Result<Self, OpenError> {
        let permits = disk::read(path)?;
        Ok(Self::new(permits, Writer { disk: None, last: 0, behind: None }, Clock::default()))
    }

    fn new(permits: Permits, writer: Writer, clock: Clock) -> Self {
        let (count, is_behind) = (AtomicUsize::new(permits.len()), AtomicBool::default());
        let (permits, has_file, writer) = (RwLock::new(permits), writer.disk.is_some(), Mutex::new(writer));
        Self(Arc::new(Shared { permits, count, is_behind, has_file, writer, clock }))
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
        look(&self.permits(), self.0.clock.now()).map(TemporaryPermit::let_in)
    }

    /// All that are in effect, by their numbers.
    #[must_use]
    pub fn list(&self) -> Vec<TemporaryPermit> {
        let now = self.0.clock.now();
        self.permits().iter().filter(|permit| !permit.is_over(now)).cloned().collect()
    }

    /// How many are in effect, and when the next of them ends.
    #[must_use]
    pub fn count(&self) -> (usize, Option<SystemTime>) {
        let (now, permits) = (self.0.clock.now(), self.permits());
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
        let NewPermit { conditions, note, time, decision } = new;
        writer.last += 1;
        let created = self.0.clock.now();
        let until = time.and_then(|time| created.checked_add(time));
        let permit = TemporaryPermit { number: writer.last, conditions, note, created, until, decision };
        self.change(|permits| permits.insert(permit.clone()));
        self.write(&mut writer, Change::Added(&permit));
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
        self.write(&mut writer, Change::Removed(&[number]));
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
            None | Some(0) => self.write(&mut writer, Change::Removed(&[])),
            Some(ticks) => writer.behind = Some(ticks - 1),
        }
    }

    /// Whether [`PermitStore::tick`] has anything to do.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let end = self.permits().next_end();
        let is_moved = || self.0.writer.try_lock().is_ok_and(|writer| writer.lacks_all());
        end.is_some_and(|end| end <= self.0.clock.now()) || self.lacks_changes() || is_moved()
    }

    fn end_those_over(&self, writer: &mut Writer) {
        let over: Vec<TemporaryPermit> = self.permits().over(self.0.clock.now()).cloned().collect();
        if over.is_empty() {
            return;
        }
        let numbers: Vec<u64> = over.iter().map(|permit| permit.number).collect();
        self.change(|permits| {
            for number in &numbers {
                permits.remove(*number);
            }
        });
        self.write(writer, Change::Removed(&numbers));
        for permit in &over {
            log(permit, "a permit has ended");
        }
    }

    fn change(&self, change: impl FnOnce(&mut Permits)) {
        let mut permits = self.permits_mut();
        change(&mut permits);
        self.0.count.store(permits.len(), Ordering::Release);
    }

    fn write(&self, writer: &mut Writer, change: Change<'_>) {
        let last = writer.last;
        let Some(disk) = &mut writer.disk else { return };
        let written = disk.write(change, &self.permits(), last);
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
