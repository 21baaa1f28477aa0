//! From the sessions to the files: what was handed over, what waits to be written, and the thread that writes it.
//!
//! Both waiting rooms are bounded by what they hold in memory. Whoever reads takes the first one along to the second, so
//! that nothing is overlooked.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::decision::{DecisionRecord, Id};
use crate::store::history::Count;
use crate::store::history::block::{Block, Closed};
use crate::store::history::folder::{Folder, Limits};

/// How often what came is written.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a folder that could not be written is left alone.
const PAUSE: Duration = Duration::from_secs(10);
/// How long no more drops are told.
const SILENCE: Duration = Duration::from_secs(60);
/// Octets in memory that wait for the writer, about; from the second on it is woken.
const MOST_PENDING: usize = 32 << 20;
const WAKE: usize = 4 << 20;
/// Octets that wait for the disk.
const MOST_TAIL: usize = 32 << 20;

/// What the sessions, the writer and the readers share. Locks are taken in the order of the fields.
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

/// Handed over, not looked at.
#[derive(Debug, Default)]
struct Pending {
    records: Vec<DecisionRecord>,
    weight: usize,
    stop: bool,
}

/// Blocks that are not written, the oldest first.
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
    /// Not before, as it could not be written.
    again: Option<Instant>,
    failing: bool,
    /// Drops that were told, and until when no more are.
    told: u64,
    silent: Option<Instant>,
}

impl Shared {
    pub(super) fn new(folder: Folder, limits: Limits) -> Self {
        let ((last, id), octets) = (folder.last(), folder.octets());
        if let Some(id) = id {
            // An id names one transaction for as long as it is remembered.
            Id::continue_after(id);
        }
        Self {
            disk: Mutex::new(Disk { folder, again: None, failing: false, told: 0, silent: None }),
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

    /// The one thing that a session waits for is that lock, which nobody holds for long.
    pub(super) fn push(&self, record: DecisionRecord) {
        let weight = record.weight();
        self.recorded.fetch_add(1, Ordering::Relaxed);
        let wake = {
            let mut pending = lock(&self.pending);
            let before = pending.weight;
            if before + weight > MOST_PENDING {
                drop(pending);
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            pending.weight += weight;
            pending.records.push(record);
            before < WAKE && pending.weight >= WAKE
        };
        if wake {
            self.woken.notify_one();
        }
    }

    /// Everything that is not written yet.
    pub(super) fn tail(&self) -> Vec<Arc<Closed>> {
        let mut tail = lock(&self.tail);
        self.absorb(&mut tail);
        tail.blocks.clone()
    }

    /// Makes blocks of what was handed over.
    fn absorb(&self, tail: &mut Tail) {
        let records = {
            let mut pending = lock(&self.pending);
            pending.weight = 0;
            // Room for as many again.
            let room = Vec::with_capacity(pending.records.len());
            mem::replace(&mut pending.records, room)
        };
        let mut records = records.iter();
        while records.len() > 0 && tail.octets < MOST_TAIL {
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

    /// Writes what came, and forgets what is too old.
    pub(super) fn write(&self, at_once: bool) {
        let mut disk = lock(&self.disk);
        let blocks = self.tail();
        disk.tell_drops(self.dropped.load(Ordering::Relaxed), at_once);
        if disk.again.is_some_and(|again| Instant::now() < again) && !at_once {
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
        // Where nothing was to be written, nothing is known about whether it could be.
        if !blocks.is_empty() {
            disk.tell(written);
        }
    }

    /// Nothing is written after this.
    fn give_up(&self) {
        let blocks = self.tail();
        let lost: u64 = blocks.iter().map(|block| u64::from(block.contents.count)).sum();
        if lost > 0 {
            tracing::error!(
                lost,
                "decisions are missing in the history: they could not be written before the end"
            );
        }
    }
}

#[cfg(test)]
impl Shared {
    /// Nothing is absorbed or written meanwhile.
    pub(super) fn while_it_hangs(&self, work: impl FnOnce()) {
        let (disk, tail) = (lock(&self.disk), lock(&self.tail));
        work();
        drop((disk, tail));
    }

    /// Removes what is too old, as of this time.
    pub(super) fn prune(&self, now: SystemTime) {
        let limits = self.limits();
        lock(&self.disk).folder.prune(limits, now);
    }

    /// Where the numbers of blocks go on.
    pub(super) fn last_number(&self) -> u64 {
        lock(&self.tail).last
    }

    /// The next block begins a file.
    pub(super) fn begin_file(&self) {
        lock(&self.disk).folder.close();
    }
}

impl Tail {
    /// Numbers are microseconds since 1970, so that they go on after a restart; where the clock stands still or goes
    /// back, they go on all the same.
    fn next_number(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.last = now.max(self.last.saturating_add(1));
        self.last
    }
}

impl Disk {
    fn tell(&mut self, written: io::Result<()>) {
        let path = self.folder.path().display();
        let failed_before = mem::replace(&mut self.failing, written.is_err());
        match written {
            Ok(()) => {
                self.again = None;
                if failed_before {
                    tracing::info!(%path, "the history can be written again");
                }
            }
            Err(error) => {
                self.again = Instant::now().checked_add(PAUSE);
                if !failed_before {
                    tracing::error!(%path, %error, "the history can't be written; decisions are held in memory, then dropped");
                }
            }
        }
    }

    /// Clients can cause drops, so they are not told one by one.
    fn tell_drops(&mut self, dropped: u64, at_once: bool) {
        let now = Instant::now();
        if dropped > self.told && (at_once || self.silent.is_none_or(|silent| now >= silent)) {
            tracing::warn!(
                dropped = dropped - self.told,
                "decisions are missing in the history: they came faster than they could be written"
            );
            (self.told, self.silent) = (dropped, now.checked_add(SILENCE));
        }
    }
}

/// What makes the thread write, and has it end when it is dropped; who drops it may be a session, which doesn't wait.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Arc<Thread>,
}

/// The thread that writes.
#[derive(Debug)]
pub(super) struct Thread(Mutex<Option<JoinHandle<()>>>);

impl Thread {
    /// Waits for its end.
    pub(super) fn join(&self) {
        if let Some(thread) = lock(&self.0).take()
            && thread.join().is_err()
        {
            tracing::error!("the history's writer died");
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
                let idle = |pending: &mut Pending| !pending.stop && pending.weight < WAKE;
                let waited = own.woken.wait_timeout_while(pending, INTERVAL, idle);
                let stop = waited.unwrap_or_else(PoisonError::into_inner).0.stop;
                own.write(stop);
                if stop {
                    own.give_up();
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

/// What a panic left behind is whole: each holder changes one thing after the other.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
