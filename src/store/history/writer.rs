//! From the sessions to the files: pending records, the tail of blocks for the disk, and the writer thread.
//!
//! Both are bounded by their memory. A reader first encodes the pending records into the tail, so that it finds all of
//! them.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::decision::{DecisionRecord, Id};
use crate::store::history::block::{Block, Closed};
use crate::store::history::folder::{Folder, Limits};

/// How often new records are written.
const INTERVAL: Duration = Duration::from_secs(1);
/// The time from a failed write to the next try.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// The time between two log lines about dropped records.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Octets of pending records at most, about.
const MAX_PENDING: usize = 32 << 20;
/// At this many octets of pending records, the writer doesn't wait for its interval.
const WRITE_AT: usize = 4 << 20;
/// Octets of blocks that wait for the disk.
const MAX_TAIL: usize = 32 << 20;

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
    disk: Mutex<Disk>,
    tail: Mutex<Tail>,
    pending: Mutex<Pending>,
    limits: Mutex<Limits>,
    woken: Condvar,
    recorded: AtomicU64,
    dropped: AtomicU64,
    octets: AtomicU64,
}

/// Records from the sessions, not yet encoded.
#[derive(Debug, Default)]
struct Pending {
    records: Vec<DecisionRecord>,
    weight: usize,
    stop: bool,
}

/// Blocks that aren't written yet, the oldest first.
#[derive(Debug, Default)]
struct Tail {
    blocks: Vec<Arc<Closed>>,
    octets: usize,
    /// The number of the last block.
    last: u64,
}

#[derive(Debug)]
struct Disk {
    folder: Folder,
    /// The time of the next try, after a failed write.
    retry_at: Option<Instant>,
    failing: bool,
    /// Dropped records that the log has, and the earliest time of the next log line about them.
    logged: u64,
    log_again: Option<Instant>,
}

impl Shared {
    pub(super) fn new(folder: Folder, limits: Limits) -> Self {
        let ((last, id), octets) = (folder.last(), folder.octets());
        if let Some(id) = id {
            // Ids must be unique within the history.
            Id::continue_after(id);
        }
        Self {
            disk: Mutex::new(Disk { folder, retry_at: None, failing: false, logged: 0, log_again: None }),
            tail: Mutex::new(Tail { last, ..Tail::default() }),
            pending: Mutex::default(),
            limits: Mutex::new(limits),
            woken: Condvar::new(),
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
    pub(super) fn push(&self, record: DecisionRecord) {
        let weight = record.weight();
        self.recorded.fetch_add(1, Ordering::Relaxed);
        let wake = {
            let mut pending = lock(&self.pending);
            let before = pending.weight;
            if before + weight > MAX_PENDING {
                drop(pending);
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            pending.weight += weight;
            pending.records.push(record);
            before < WRITE_AT && pending.weight >= WRITE_AT
        };
        if wake {
            self.woken.notify_one();
        }
    }

    /// All blocks that aren't written yet.
    pub(super) fn tail(&self) -> Vec<Arc<Closed>> {
        let mut tail = lock(&self.tail);
        self.encode_pending(&mut tail);
        tail.blocks.clone()
    }

    /// Encodes the pending records into blocks.
    fn encode_pending(&self, tail: &mut Tail) {
        let records = {
            let mut pending = lock(&self.pending);
            pending.weight = 0;
            let room = Vec::with_capacity(pending.records.len());
            mem::replace(&mut pending.records, room)
        };
        let mut records = records.iter();
        while records.len() > 0 && tail.octets < MAX_TAIL {
            let mut block = Block::new(tail.next_number());
            while !block.is_full()
                && let Some(record) = records.next()
            {
                block.push(record);
            }
            let block = block.close();
            tail.octets += block.octets.len();
            tail.blocks.push(Arc::new(block));
        }
        self.dropped.fetch_add(records.len() as u64, Ordering::Relaxed);
    }

    /// Writes the tail and removes old files; with `force` even soon after a failed write.
    pub(super) fn write(&self, force: bool) {
        let mut disk = lock(&self.disk);
        let blocks = self.tail();
        disk.log_drops(self.dropped.load(Ordering::Relaxed), force);
        if disk.retry_at.is_some_and(|time| Instant::now() < time) && !force {
            return;
        }
        let (limits, now) = (self.limits(), SystemTime::now());
        disk.folder.prune(limits, now);
        let written = if blocks.is_empty() { Ok(()) } else { disk.folder.append(&blocks, limits, now) };
        self.octets.store(disk.folder.octets(), Ordering::Relaxed);
        if written.is_ok() {
            let mut tail = lock(&self.tail);
            tail.blocks.drain(..blocks.len());
            tail.octets = tail.blocks.iter().map(|block| block.octets.len()).sum();
        }
        // An empty write doesn't show whether the disk works.
        if !blocks.is_empty() {
            disk.log_result(written);
        }
    }

    /// Logs the records that could not be written before the end.
    fn log_unwritten(&self) {
        let blocks = self.tail();
        let lost: u64 = blocks.iter().map(|block| u64::from(block.contents.count)).sum();
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
    /// Blocks encoding and writing while `work` runs.
    pub(super) fn while_blocked(&self, work: impl FnOnce()) {
        let (disk, tail) = (lock(&self.disk), lock(&self.tail));
        work();
        drop((disk, tail));
    }

    /// Removes old files, as of this time.
    pub(super) fn prune(&self, now: SystemTime) {
        let limits = self.limits();
        lock(&self.disk).folder.prune(limits, now);
    }

    /// The number of the last block.
    pub(super) fn last_number(&self) -> u64 {
        lock(&self.tail).last
    }

    /// Makes the next block begin a file.
    pub(super) fn begin_file(&self) {
        lock(&self.disk).folder.close();
    }
}

impl Tail {
    /// Numbers are microseconds since 1970, so that they increase over a restart; they increase even if the clock stands
    /// still or is set back.
    fn next_number(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.last = now.max(self.last.saturating_add(1));
        self.last
    }
}

impl Disk {
    fn log_result(&mut self, written: io::Result<()>) {
        let path = self.folder.path().display();
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
            loop {
                let pending = lock(&own.pending);
                let idle = |pending: &mut Pending| !pending.stop && pending.weight < WRITE_AT;
                let waited = own.woken.wait_timeout_while(pending, INTERVAL, idle);
                let stop = waited.unwrap_or_else(PoisonError::into_inner).0.stop;
                own.write(stop);
                if stop {
                    own.log_unwritten();
                    return;
                }
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
