//! The history: decisions of the past with their evidence, so that every refusal can be explained later.
//!
//! A session hands over a value and goes on; a thread writes once a second. What a crash loses is the last second. Where
//! the disk is too slow or full, decisions are dropped and counted: mail never waits for the history, and its memory is
//! bounded. The store is a folder of files that are only appended to, not a B-tree: nothing is ever changed, the oldest
//! go, readers beside the daemon need no lock, and damage costs what it hit.

mod block;
mod codes;
mod decode;
mod encode;
mod filter;
mod folder;
mod read;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;

use crate::decision::{DecisionRecord, Id};
use crate::store::OpenError;
pub use crate::store::history::filter::{Cursor, Filter};
use crate::store::history::folder::{Folder, Limits};
pub use crate::store::history::read::{Damage, Page, ReadError};
use crate::store::history::read::{Index, Source};
use crate::store::history::writer::{Shared, Thread, Writer};

/// Searches at a time; more of them wait.
const SEARCHES: usize = 2;
/// Damaged files that are remembered as told.
const MOST_TOLD: usize = 1000;
/// Records of one page where all are gone through.
const STEP: usize = 1000;

/// `[history]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The folder.
    pub path: PathBuf,
    /// What is older goes.
    pub keep: Duration,
    /// Where there is more, the oldest go.
    pub size: u64,
}

impl Settings {
    fn limits(&self) -> Limits {
        Limits { keep: self.keep, size: self.size }
    }
}

/// What is older counts as gone.
fn oldest(keep: Duration) -> Option<SystemTime> {
    SystemTime::now().checked_sub(keep)
}

/// An open history; clones share it. When the last one goes, its thread writes what is not on disk yet and ends; nobody
/// waits for that unless by [`WeakHistory::settle`].
#[derive(Debug, Clone)]
pub struct History(Arc<Store>);

/// A history that somebody else may still have open.
#[derive(Debug, Clone)]
pub struct WeakHistory {
    store: Weak<Store>,
    thread: Arc<Thread>,
}

impl WeakHistory {
    /// The history, while it is open.
    #[must_use]
    pub fn wake(&self) -> Option<History> {
        self.store.upgrade().map(History)
    }

    /// Comes back when everything that it was given is on disk, as far as the disk takes it: whether it is still open or
    /// was dropped a moment ago. Takes as long as the disk does.
    pub fn settle(&self) {
        match self.wake() {
            Some(history) => history.flush(),
            None => self.thread.join(),
        }
    }
}

#[derive(Debug)]
struct Store {
    path: PathBuf,
    shared: Arc<Shared>,
    searches: Arc<Semaphore>,
    index: Index,
    /// Damaged files that were told.
    told: Mutex<HashSet<PathBuf>>,
    writer: Writer,
}

/// What can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Octets on disk.
    pub octets: u64,
    /// Decisions that came since the start.
    pub recorded: u64,
    /// Those of them that were dropped, as there was no room for them.
    pub dropped: u64,
}

impl History {
    /// Opens the folder, and makes it if it isn't there.
    ///
    /// # Errors
    /// It can't be made or written, or another daemon uses it.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let folder = Folder::open(&settings.path)?;
        let path = folder.path().to_owned();
        tracing::info!(path = %path.display(), octets = folder.octets(), "history");
        let shared = Arc::new(Shared::new(folder, settings.limits()));
        let writer = Writer::start(&shared).map_err(|error| OpenError::Io { path: path.clone(), error })?;
        let searches = Arc::new(Semaphore::new(SEARCHES));
        let (index, told) = (Index::default(), Mutex::default());
        Ok(Self(Arc::new(Store { path, shared, searches, index, told, writer })))
    }

    /// Whether it is the one of these settings.
    #[must_use]
    pub fn is_at(&self, settings: &Settings) -> bool {
        std::path::absolute(&settings.path).is_ok_and(|path| path == self.0.path)
    }

    /// The same, without keeping it open.
    #[must_use]
    pub fn downgrade(&self) -> WeakHistory {
        WeakHistory { store: Arc::downgrade(&self.0), thread: self.0.writer.thread() }
    }

    /// From now on this much is kept; the folder stays the one that is open.
    pub fn renew(&self, settings: &Settings) {
        self.0.shared.set_limits(settings.limits());
    }

    /// Remembers a decision, without waiting for anything: where there is no room it is dropped and counted.
    pub fn record(&self, record: DecisionRecord) {
        self.0.shared.push(record);
    }

    /// The decisions of one transaction, the oldest first.
    ///
    /// # Errors
    /// The files can't be read.
    pub async fn find(&self, id: Id) -> Result<Vec<DecisionRecord>, ReadError> {
        let page = self.read(move |source| source.find(id)).await?;
        self.tell(&page.damage);
        Ok(page.records)
    }

    /// The newest decisions that fit, those before `before`; also those that were made a moment ago.
    ///
    /// # Errors
    /// The files can't be read.
    pub async fn search(
        &self,
        filter: Filter,
        before: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let page = self.read(move |source| source.search(&filter, before, limit)).await?;
        self.tell(&page.damage);
        Ok(page)
    }

    /// Goes through all decisions that fit, the newest first.
    ///
    /// # Errors
    /// The files can't be read.
    pub async fn fold<T: Send + 'static>(
        &self,
        filter: Filter,
        start: T,
        mut each: impl FnMut(&mut T, &DecisionRecord) + Send + 'static,
    ) -> Result<T, ReadError> {
        let read = move |source: &Source<'_>| {
            let mut state = start;
            let damage =
                all(|before| source.search(&filter, before, STEP), |record| each(&mut state, record))?;
            Ok((state, damage))
        };
        let (state, damage) = self.read(read).await?;
        self.tell(&damage);
        Ok(state)
    }

    /// What there is.
    #[must_use]
    pub fn count(&self) -> Count {
        self.0.shared.count()
    }

    /// Writes what is not on disk yet. Takes as long as the disk does.
    pub fn flush(&self) {
        self.0.shared.write(true);
    }

    /// Says what could not be read, of each file once.
    fn tell(&self, damage: &[Damage]) {
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        for part in damage.iter().filter(|part| !told.contains(&part.path)) {
            tracing::warn!("history: {part}");
        }
        if told.len() > MOST_TOLD {
            told.clear();
        }
        told.extend(damage.iter().map(|part| part.path.clone()));
    }

    /// A search may take long: it has a thread of its own.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Source<'_>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        // It is never closed. Who doesn't wait for the answer leaves the work behind, and with it the permit.
        let permit = Arc::clone(&self.0.searches).acquire_owned().await;
        let store = Arc::clone(&self.0);
        let read = move || {
            let _permit = permit;
            let tail = store.shared.tail();
            let (index, oldest) = (&store.index, oldest(store.shared.limits().keep));
            work(&Source { folder: &store.path, index, tail: &tail, oldest })
        };
        tokio::task::spawn_blocking(read).await?
    }
}

/// A history that is only read, whether a daemon writes it or not: what was decided within the last second is not in it
/// yet.
#[derive(Debug)]
pub struct Archive {
    settings: Settings,
    index: Index,
}

impl Archive {
    /// The history of these settings; `None` where there is none.
    ///
    /// # Errors
    /// It can't be looked at.
    pub fn open(settings: Settings) -> Result<Option<Self>, ReadError> {
        match folder::segments(&settings.path) {
            Ok(_) => Ok(Some(Self { settings, index: Index::default() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ReadError::Io { path: settings.path, error }),
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.settings.path
    }

    /// Whether a daemon is writing it.
    #[must_use]
    pub fn is_live(&self) -> bool {
        folder::is_in_use(&self.settings.path)
    }

    /// [`History::find`].
    ///
    /// # Errors
    /// The files can't be read.
    pub fn find(&self, id: Id) -> Result<Page, ReadError> {
        self.source().find(id)
    }

    /// [`History::search`].
    ///
    /// # Errors
    /// The files can't be read.
    pub fn search(&self, filter: &Filter, before: Option<Cursor>, limit: usize) -> Result<Page, ReadError> {
        self.source().search(filter, before, limit)
    }

    /// Goes through all decisions that fit, the newest first; what could not be read.
    ///
    /// # Errors
    /// The files can't be read.
    pub fn all(&self, filter: &Filter, each: impl FnMut(&DecisionRecord)) -> Result<Vec<Damage>, ReadError> {
        all(|before| self.search(filter, before, STEP), each)
    }

    fn source(&self) -> Source<'_> {
        let oldest = oldest(self.settings.keep);
        Source { folder: &self.settings.path, index: &self.index, tail: &[], oldest }
    }
}

/// Page after page.
fn all(
    search: impl Fn(Option<Cursor>) -> Result<Page, ReadError>,
    mut each: impl FnMut(&DecisionRecord),
) -> Result<Vec<Damage>, ReadError> {
    let (mut before, mut damage) = (None, Vec::new());
    loop {
        let page = search(before)?;
        page.records.iter().for_each(&mut each);
        Damage::gather(&mut damage, page.damage);
        match page.next {
            Some(next) => before = Some(next),
            None => return Ok(damage),
        }
    }
}
