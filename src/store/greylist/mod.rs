//! The greylist: a client that comes again with the same sender and recipient after a while is a mail server.
//!
//! Every question is answered from memory, in microseconds and without a disk; a thread writes what changed once a
//! second. A disk that is full or broken costs nothing but what a restart would have remembered, and the log says so.

mod arena;
mod disk;
mod memory;
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

use ipnet::IpNet;

use crate::smtp::address::ForwardPath;
use crate::store::OpenError;
use crate::store::greylist::disk::{Disk, Loaded};
pub use crate::store::greylist::memory::GreylistAnswer;
use crate::store::greylist::memory::{Bounds, Memory, Times};
use crate::store::greylist::triple::Hasher;
pub use crate::store::greylist::triple::Triple;

/// When all of it is in use, about 80 MiB of memory and 140 MiB on disk. One network may have a sixteenth of those who
/// wait.
const BOUNDS: Bounds = Bounds { waiting: 500_000, passed: 400_000, share: 31_250 };
/// How often what changed is written.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many intervals pass before a file that could not be written is tried again.
const PAUSE: u32 = 10;
/// Who was not seen for so long is forgotten, so many in one interval.
const FORGOTTEN: usize = 10_000;

/// `[greylist]`, and what makes a client network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The file.
    pub path: PathBuf,
    /// A client may pass when it comes again after this.
    pub delay: Duration,
    /// A triple is forgotten when it was not used for this long.
    pub expire: Duration,
    /// IPv4 addresses with this many bits in common are one client.
    pub prefix_v4: u8,
    /// The same for IPv6.
    pub prefix_v6: u8,
}

/// A greylist; clones share what is known. When the last one goes, what is not on disk yet is written.
#[derive(Debug, Clone)]
pub struct Greylist {
    store: Arc<Store>,
    settings: Arc<Settings>,
}

impl Greylist {
    /// Opens the file, and makes it if it isn't there.
    ///
    /// # Errors
    /// It can't be opened or made, isn't a whole file of ours, or is in use.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        let (disk, Loaded { secret, known }) = Disk::open(&settings.path)?;
        let mut memory = Memory::new(BOUNDS);
        memory.restore(known, now());
        let (waiting, passed) = memory.count();
        tracing::info!(path = %disk.path().display(), waiting, passed, "greylist");
        let shared = Arc::new(Shared::new(memory, &settings, Some(disk)));
        let writer =
            Writer::start(&shared).map_err(|error| OpenError::Io { path: settings.path.clone(), error })?;
        let store = Store { hasher: Hasher::new(&secret), shared, _writer: Some(writer) };
        Ok(Self { store: Arc::new(store), settings: Arc::new(settings) })
    }

    /// One that knows nothing and writes nothing.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn in_memory(settings: Settings) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(Memory::new(BOUNDS), &settings, None));
        let store = Store { hasher: Hasher::new(&disk::random()?), shared, _writer: None };
        Ok(Self { store: Arc::new(store), settings: Arc::new(settings) })
    }

    /// The same store by other settings; its file stays the one that is open. Both can be asked, each by its own.
    #[must_use]
    pub fn with_settings(&self, settings: Settings) -> Self {
        Self { store: Arc::clone(&self.store), settings: Arc::new(settings) }
    }

    /// From now on, who isn't seen any more is forgotten by the settings of this one.
    pub fn take_over(&self) {
        self.store.shared.expire.store(milliseconds(self.settings.expire), Ordering::Relaxed);
    }

    /// How long a triple waits that comes for the first time.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.settings.delay
    }

    /// Client, domain of the sender (empty for the null sender) and recipient.
    #[must_use]
    pub fn triple(&self, client: IpAddr, domain: &str, recipient: &ForwardPath) -> Triple {
        let client = client.to_canonical();
        let prefix = if client.is_ipv4() { self.settings.prefix_v4 } else { self.settings.prefix_v6 };
        let network = IpNet::new(client, prefix).unwrap_or_else(|_too_long| IpNet::from(client)).trunc();
        self.store.hasher.triple(network, domain, recipient)
    }

    /// A triple comes: may it pass? A new one is remembered, one that passes is remembered anew.
    #[must_use]
    pub fn ask(&self, triple: &Triple) -> GreylistAnswer {
        self.ask_at(triple, now())
    }

    fn ask_at(&self, triple: &Triple, now: u64) -> GreylistAnswer {
        let Settings { delay, expire, .. } = *self.settings;
        let times = Times { delay: milliseconds(delay), expire: milliseconds(expire) };
        lock(&self.store.shared.memory).ask(triple, now, times)
    }

    /// How many triples wait, and how many have passed.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        lock(&self.store.shared.memory).count()
    }

    /// Writes what is not on disk yet. Takes as long as the disk does.
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

/// What the sessions and the writer share.
#[derive(Debug)]
struct Shared {
    memory: Mutex<Memory>,
    /// As it was set last, in milliseconds.
    expire: AtomicU64,
    /// Taken before `memory`.
    disk: Mutex<Option<Target>>,
    stop: Mutex<bool>,
    stopped: Condvar,
}

#[derive(Debug)]
struct Target {
    disk: Disk,
    /// Intervals to let pass, as the file could not be written.
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

    /// Forgets what is too old, and writes what changed.
    fn write(&self, now: u64, at_once: bool) {
        let mut target = lock(&self.disk);
        let Some(target) = &mut *target else { return };
        if target.pause > 0 && !at_once {
            target.pause -= 1;
            return;
        }
        let batch = {
            let mut memory = lock(&self.memory);
            memory.forget(now, self.expire.load(Ordering::Relaxed), FORGOTTEN);
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
                lock(&self.memory).distrust_disk();
                target.pause = PAUSE;
                if !failed_before {
                    tracing::error!(%path, %error, "the greylist can't be written, a restart would forget it");
                }
            }
        }
    }
}

/// The thread that writes. Dropping it writes what is left.
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
            tracing::error!("the greylist's writer died");
        }
    }
}

/// What a panic left behind is whole: each holder changes one entry after the other.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970: the only clock that goes on over a restart.
fn now() -> u64 {
    milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
