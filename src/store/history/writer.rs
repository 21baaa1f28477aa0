//! From the sessions to the database: pending records, bounded by their memory, and the writer thread.
//!
//! A record gets its position when it is handed over, so that a reader finds it by the same position before and after it is
//! written.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::decision::DecisionRecord;
use crate::store::history::disk::Disk;
use crate::store::history::file::Trouble;
use crate::store::history::limits::Limits;
use crate::store::history::row::Scratch;
use crate::store::history::waiting::{Queue, Snapshot, weight};

/// How often new records are written.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same while a history of the first format is taken over.
const INTERVAL_OF_TAKING_OVER: Duration = Duration::from_millis(20);
/// The time from a failed write to the next try.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// The time between two log lines about dropped records.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Octets of pending records at most, about.
const MAX_PENDING: usize = 32 << 20;
/// At this many octets of pending records, the writer doesn't wait for its interval.
const WRITE_AT: usize = 4 << 20;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Octets on disk.
    pub octets: u64,
    /// Decisions since the start.
    pub recorded: u64,
    /// Those that were dropped for lack of room.
    pub dropped: u64,
}

/// The state that sessions, writer and readers share. The locks are taken in the order of the fields.
#[derive(Debug)]
pub(super) struct Shared {
    writing: Mutex<Writing>,
    pending: Mutex<Pending>,
    limits: Mutex<Limits>,
    woken: Condvar,
    /// A reader has found damage.
    suspect: AtomicBool,
    recorded: AtomicU64,
    dropped: AtomicU64,
    octets: AtomicU64,
}

/// Records from the sessions, the oldest first.
#[derive(Debug, Default)]
struct Pending {
    rows: Queue,
    /// The last position.
    last: i64,
    /// The last write failed.
    failing: bool,
    stop: bool,
}

#[derive(Debug)]
struct Writing {
    disk: Disk,
    /// The time of the next try, after a failed write.
    retry_at: Option<Instant>,
    failing: bool,
    /// Dropped records that the log has, and the earliest time of the next log line about them.
    logged: u64,
    log_again: Option<Instant>,
}

impl Shared {
    pub(super) fn new(disk: Disk, limits: Limits) -> Self {
        let (last, octets) = (disk.last(), disk.octets());
        Self {
            writing: Mutex::new(Writing { disk, retry_at: None, failing: false, logged: 0, log_again: None }),
            pending: Mutex::new(Pending { last, ..Pending::default() }),
            limits: Mutex::new(limits),
            woken: Condvar::new(),
            suspect: AtomicBool::new(false),
            recorded: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            octets: AtomicU64::new(octets),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        *lock(&self.limits)
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        *lock(&self.limits) = limits;
    }

    pub(super) fn count(&self) -> Count {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Count { octets: of(&self.octets), recorded: of(&self.recorded), dropped: of(&self.dropped) }
    }

    /// A session waits only for the lock, which is never held for long.
    pub(super) fn push(&self, record: &DecisionRecord) {
        self.recorded.fetch_add(1, Ordering::Relaxed);
        let wake = SCRATCH.with_borrow_mut(|scratch| {
            let (row, octets) = scratch.row(record);
            let mut pending = lock(&self.pending);
            let before = pending.rows.weight();
            if before + weight(octets) > MAX_PENDING {
                return None;
            }
            // Positions increase, over a restart too, and even if the clock stands still or is set back.
            let now = row.at.saturating_mul(1000);
            pending.last = now.max(pending.last.saturating_add(1));
            let seq = pending.last;
            pending.rows.push(seq, row, octets);
            Some(before < WRITE_AT && pending.rows.weight() >= WRITE_AT)
        });
        match wake {
            Some(true) => self.woken.notify_one(),
            Some(false) => {}
            None => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// All rows that aren't written yet.
    pub(super) fn pending(&self) -> Snapshot {
        lock(&self.pending).rows.snapshot()
    }

    /// A reader has found damage: the next write checks the file.
    pub(super) fn suspect(&self) {
        self.suspect.store(true, Ordering::Relaxed);
        self.woken.notify_one();
    }

    /// Writes the pending records and removes old ones; with `force` even soon after a failed write.
    pub(super) fn write(&self, force: bool) {
        self.write_as_of(SystemTime::now(), force);
    }

    fn write_as_of(&self, now: SystemTime, force: bool) {
        let mut writing = lock(&self.writing);
        writing.log_drops(self.dropped.load(Ordering::Relaxed), force);
        if self.suspect.swap(false, Ordering::Relaxed) {
            writing.disk.check();
        }
        if writing.retry_at.is_some_and(|time| Instant::now() < time) && !force {
            return;
        }
        let waiting = self.pending();
        let (written, result) = writing.disk.append(&waiting.rows(), self.limits(), now);
        self.octets.store(writing.disk.octets(), Ordering::Relaxed);
        let done = {
            let mut pending = lock(&self.pending);
            pending.failing = result.is_err();
            pending.rows.remove(written)
        };
        // Freed without the lock.
        drop((waiting, done));
        writing.log_result(result);
    }

    /// Writes the pending records and closes the file until the next one comes.
    pub(super) fn close(&self) {
        self.write(true);
        lock(&self.writing).disk.close();
    }

    /// Takes over a part of a history of the first format; returns whether there is more.
    fn take_over(&self) -> bool {
        lock(&self.writing).disk.take_over_one()
    }

    /// Logs the records that could not be written before the end.
    fn log_unwritten(&self) {
        let lost = self.pending().rows().len();
        if lost > 0 {
            tracing::error!(
                lost,
                "decisions are missing in the history: they could not be written before rmxd ended"
            );
        }
    }
}

#[cfg(test)]
impl Shared {
    /// Blocks writing while `work` runs.
    pub(super) fn while_blocked(&self, work: impl FnOnce()) {
        let writing = lock(&self.writing);
        work();
        drop(writing);
    }

    /// Writes, as of this time.
    pub(super) fn write_at(&self, now: SystemTime) {
        self.write_as_of(now, true);
    }

    /// The last position.
    pub(super) fn last(&self) -> i64 {
        lock(&self.pending).last
    }
}

impl Writing {
    fn log_result(&mut self, written: Result<(), Trouble>) {
        let path = self.disk.path().display();
        let failed_before = mem::replace(&mut self.failing, written.is_err());
        match written {
            Ok(()) => {
                self.retry_at = None;
                if failed_before {
                    tracing::info!(%path, "the history can be written again");
                }
            }
            Err(error) => {
                self.retry_at = Instant::now().checked_add(RETRY_AFTER);
                if !failed_before {
                    tracing::error!(%path, %error, "the history can't be written; decisions are kept in memory, and dropped when it is full");
                }
            }
        }
    }

    /// Clients can cause drops, so the log has only one line per interval.
    fn log_drops(&mut self, dropped: u64, force: bool) {
        let now = Instant::now();
        if dropped > self.logged && (force || self.log_again.is_none_or(|time| now >= time)) {
            tracing::warn!(
                dropped = dropped - self.logged,
                "decisions are missing in the history: the disk was slower than the decisions"
            );
            (self.logged, self.log_again) = (dropped, now.checked_add(LOG_INTERVAL));
        }
    }
}

/// The handle of the writer thread. Dropping it makes the thread end, without waiting for it: a session may drop it.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Arc<Thread>,
}

#[derive(Debug)]
pub(super) struct Thread(Mutex<Option<JoinHandle<()>>>);

impl Thread {
    pub(super) fn join(&self) {
        if let Some(thread) = lock(&self.0).take()
            && thread.join().is_err()
        {
            tracing::error!("the history's writer thread panicked");
        }
    }
}

impl Writer {
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let (own, shared) = (Arc::clone(shared), Arc::clone(shared));
        let thread = std::thread::Builder::new().name("history".to_owned());
        let thread = thread.spawn(move || {
            let mut interval = INTERVAL_OF_TAKING_OVER;
            loop {
                let pending = lock(&own.pending);
                let idle = |pending: &mut Pending| {
                    let urgent = pending.rows.weight() >= WRITE_AT && !pending.failing;
                    !pending.stop && !urgent && !own.suspect.load(Ordering::Relaxed)
                };
                let waited = own.woken.wait_timeout_while(pending, interval, idle);
                let stop = waited.unwrap_or_else(PoisonError::into_inner).0.stop;
                own.write(stop);
                if stop {
                    own.log_unwritten();
                    lock(&own.writing).disk.close();
                    return;
                }
                interval = if own.take_over() { INTERVAL_OF_TAKING_OVER } else { INTERVAL };
            }
        })?;
        Ok(Self { shared, thread: Arc::new(Thread(Mutex::new(Some(thread)))) })
    }

    pub(super) fn thread(&self) -> Arc<Thread> {
        Arc::clone(&self.thread)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.shared.pending).stop = true;
        self.shared.woken.notify_all();
    }
}

/// The data is consistent even after a panic: each holder of the lock changes one thing after the other.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
