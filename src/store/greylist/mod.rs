//! The greylist: a client that retries with the same sender and recipient after a delay is a mail server.
//!
//! Each check uses memory only and takes microseconds; a thread writes the changes once a second. With a full or broken
//! disk the greylist works on, and only a restart would lose its entries; the log has an error then.

mod arena;
mod disk;
mod memory;
mod state;
#[cfg(test)]
mod tests;
mod triple;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::policy::client::network_of;
use crate::smtp::address::ForwardPath;
use crate::store::OpenError;
use crate::store::greylist::disk::{Disk, Loaded};
use crate::store::greylist::memory::{Bounds, Checked, Memory, Times};
use crate::store::greylist::triple::Hasher;
pub use crate::store::greylist::triple::Triple;
use crate::store::shared::{Fleet, Patience, Question};
use crate::store::state::StateFile;

/// At these bounds the greylist takes about 80 MiB of memory and 140 MiB on disk. One network may have a sixteenth of the
/// waiting triples.
const BOUNDS: Bounds = Bounds { waiting: 500_000, passed: 400_000, share: 31_250 };
/// How often changes are written.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many intervals after a failed write the next one is tried.
const RETRY_INTERVALS: u32 = 10;
/// The most expired triples that one interval removes.
const MAX_EXPIRED: usize = 10_000;

/// A triple that is in use is said again to the other nodes after this part of its expiry, so that it doesn't expire there.
const SAY_AGAIN: u64 = 8;

/// Whether a delivery attempt may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GreylistAnswer {
    /// The retry was in time; the expiry is extended.
    Passed,
    /// The client has to retry after this time.
    Wait(Duration),
}

/// `[greylist]`, and the prefixes of a client network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub path: PathBuf,
    /// A retry passes after this time.
    pub delay: Duration,
    /// An unused triple is removed after this time.
    pub expire: Duration,
    /// IPv4 addresses with this many leading bits in common are one client.
    pub prefix_v4: u8,
    /// The same for IPv6.
    pub prefix_v6: u8,
}

/// Clones share one store. Dropping the last clone writes the changes that aren't on disk yet.
#[derive(Debug, Clone)]
pub struct Greylist {
    store: Arc<Store>,
    settings: Arc<Settings>,
    others: Option<Arc<Others>>,
}

/// The other nodes, and how they know triples.
#[derive(Debug)]
struct Others {
    fleet: Fleet,
    hasher: Hasher,
}

impl Greylist {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// The file can't be opened or made, is damaged or not one of rmxd, or is in use.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        let file = StateFile::at(&settings.path);
        Self::open_in(file, settings)
    }

    /// The same in a state file that others may use too.
    ///
    /// # Errors
    /// As [`Greylist::open`].
    pub fn open_in(file: Arc<StateFile>, settings: Settings) -> Result<Self, OpenError> {
        let (disk, Loaded { secret, known }) = Disk::open(file)?;
        let mut memory = Memory::new(BOUNDS);
        memory.restore(known, now());
        let (waiting, passed) = memory.count();
        tracing::info!(path = %disk.path().display(), waiting, passed, "the greylist is open");
        let shared = Arc::new(Shared::new(memory, &settings, Some(disk)));
        let writer =
            Writer::start(&shared).map_err(|error| OpenError::Io { path: settings.path.clone(), error })?;
        let store = Store { hasher: Hasher::new(&secret), shared, _writer: Some(writer) };
        Ok(Self { store: Arc::new(store), settings: Arc::new(settings), others: None })
    }

    /// Makes an empty greylist that is never written to disk.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn in_memory(settings: Settings) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(Memory::new(BOUNDS), &settings, None));
        let store = Store { hasher: Hasher::new(&disk::random()?), shared, _writer: None };
        Ok(Self { store: Arc::new(store), settings: Arc::new(settings), others: None })
    }

    /// The same store with other settings; the open file stays. Both greylists can be used, each with its own settings.
    #[must_use]
    pub fn with_settings(&self, settings: Settings) -> Self {
        Self { store: Arc::clone(&self.store), settings: Arc::new(settings), others: self.others.clone() }
    }

    /// The same store, with these other nodes.
    #[must_use]
    pub fn with_fleet(self, fleet: Option<Fleet>) -> Self {
        let others = fleet.map(|fleet| {
            let hasher = Hasher::new(fleet.secret_of_triples());
            Arc::new(Others { fleet, hasher })
        });
        Self { others, ..self }
    }

    /// Lets triples expire by the settings of this greylist from now on.
    pub fn apply_expiry(&self) {
        self.store.shared.expire.store(milliseconds(self.settings.expire), Ordering::Relaxed);
    }

    /// How long a new triple waits.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.settings.delay
    }

    /// `domain` is that of the sender, empty for the null sender.
    #[must_use]
    pub fn triple(&self, client: IpAddr, domain: &str, recipient: &ForwardPath) -> Triple {
        let network = network_of(client, self.settings.prefix_v4, self.settings.prefix_v6);
        let shared = self.others.as_ref().map(|others| others.hasher.triple(network, domain, recipient).key);
        Triple { shared, ..self.store.hasher.triple(network, domain, recipient) }
    }

    /// Whether a delivery attempt may pass. A new triple is stored, and the expiry of one that passes is extended. Where
    /// this list says to wait, the other nodes of a fleet may know more; that takes at most `cluster.timeout`, and the
    /// client's patience.
    pub async fn check(&self, triple: &Triple, patience: &Patience) -> GreylistAnswer {
        self.check_with_others(triple, patience, now()).await
    }

    async fn check_with_others(&self, triple: &Triple, patience: &Patience, now: u64) -> GreylistAnswer {
        let checked = self.check_at(triple, now);
        let fleet = self.others.as_ref().map(|others| &others.fleet).zip(triple.shared);
        match (checked, fleet) {
            (Checked::Passes { unused }, fleet) => {
                let again = milliseconds(self.settings.expire) / SAY_AGAIN;
                if let Some((fleet, hash)) = fleet.filter(|_| unused.is_none_or(|unused| unused >= again)) {
                    fleet.passed(&hash, self.settings.expire);
                }
                GreylistAnswer::Passed
            }
            (Checked::Waits { rest, .. }, None) => GreylistAnswer::Wait(Duration::from_millis(rest)),
            (Checked::Waits { rest, age }, Some((fleet, hash))) => {
                let Settings { delay, expire, .. } = *self.settings;
                let (rest, age) = (Duration::from_millis(rest), Duration::from_millis(age));
                let relief = fleet.check(Question { hash: &hash, delay, expire, age }, patience).await;
                match relief.map_or(Some(rest), |relief| relief.shorten(rest)) {
                    Some(rest) => GreylistAnswer::Wait(rest),
                    None => {
                        lock(&self.store.shared.memory).pass(triple, now);
                        GreylistAnswer::Passed
                    }
                }
            }
        }
    }

    fn check_at(&self, triple: &Triple, now: u64) -> Checked {
        let Settings { delay, expire, .. } = *self.settings;
        let times = Times { delay: milliseconds(delay), expire: milliseconds(expire) };
        lock(&self.store.shared.memory).check(triple, now, times)
    }

    /// Whether a restart keeps the triples.
    #[must_use]
    pub fn is_on_disk(&self) -> bool {
        self.store._writer.is_some()
    }

    /// The numbers of waiting and of passed triples.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        lock(&self.store.shared.memory).count()
    }

    /// Writes the changes that aren't on disk yet; blocks as long as the disk takes.
    pub fn flush(&self) {
        self.store.shared.write(now(), true);
    }
}

#[derive(Debug)]
struct Store {
    hasher: Hasher,
    shared: Arc<Shared>,
    _writer: Option<Writer>,
}

/// The state that sessions and the writer share.
#[derive(Debug)]
struct Shared {
    memory: Mutex<Memory>,
    /// In milliseconds.
    expire: AtomicU64,
    /// Locked before `memory`.
    disk: Mutex<Option<Target>>,
    stop: Mutex<bool>,
    stopped: Condvar,
}

#[derive(Debug)]
struct Target {
    disk: Disk,
    /// Intervals until the next try, after a failed write.
    pause: u32,
    failing: bool,
}

impl Shared {
    fn new(memory: Memory, settings: &Settings, disk: Option<Disk>) -> Self {
        Self {
            memory: Mutex::new(memory),
            expire: AtomicU64::new(milliseconds(settings.expire)),
            disk: Mutex::new(disk.map(|disk| Target { disk, pause: 0, failing: false })),
            stop: Mutex::new(false),
            stopped: Condvar::new(),
        }
    }

    /// Removes expired triples, and writes the changes; with `force` even soon after a failed write.
    fn write(&self, now: u64, force: bool) {
        let mut target = lock(&self.disk);
        let Some(target) = &mut *target else { return };
        if target.pause > 0 && !force {
            target.pause -= 1;
            return;
        }
        let batch = {
            let mut memory = lock(&self.memory);
            memory.remove_expired(now, self.expire.load(Ordering::Relaxed), MAX_EXPIRED);
            memory.take_batch()
        };
        if batch.is_empty() {
            return;
        }
        let written = target.disk.write(batch);
        let (path, failed_before) = (target.disk.path().display(), target.failing);
        target.failing = written.is_err();
        match written {
            Ok(()) if failed_before => tracing::info!(%path, "the greylist can be written again"),
            Ok(()) => {}
            Err(error) => {
                lock(&self.memory).rewrite_all();
                target.pause = RETRY_INTERVALS;
                if !failed_before {
                    tracing::error!(%path, %error, "the greylist can't be written; a restart would lose its entries");
                }
            }
        }
    }
}

/// The writer thread. Dropping it writes the remaining changes.
#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let (own, shared) = (Arc::clone(shared), Arc::clone(shared));
        let thread = std::thread::Builder::new().name("greylist".to_owned());
        let thread = thread.spawn(move || {
            loop {
                let stop = own.stopped.wait_timeout_while(lock(&own.stop), INTERVAL, |stop| !*stop);
                let stop = *stop.unwrap_or_else(PoisonError::into_inner).0;
                own.write(now(), stop);
                if stop {
                    return;
                }
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        *lock(&self.shared.stop) = true;
        self.shared.stopped.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the greylist's writer thread panicked");
        }
    }
}

/// The data is consistent even after a panic: each holder of the lock changes one entry after the other.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970: the wall clock is the only one that a restart doesn't reset.
fn now() -> u64 {
    milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
