//! The history: past decisions with their evidence, so that every refusal can be explained later.
//!
//! A session hands over a record and goes on; a thread writes once a second, so that a crash loses the last second. If the
//! disk is too slow or full, records are dropped and counted: mail never waits for the history, and its memory is
//! bounded. The store is a folder of append-only files, not a B-tree: written data never changes, the oldest files are
//! removed whole, other readers need no lock, and damage destroys only the records that it hits.

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
pub use crate::store::history::writer::Count;
use crate::store::history::writer::{Shared, Thread, Writer};

/// Concurrent searches; further ones wait.
const MAX_SEARCHES: usize = 2;
/// Damaged files that are remembered as logged.
const MAX_LOGGED: usize = 1000;
/// Records per page when all are read.
const PAGE: usize = 1000;

/// `[history]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The folder.
    pub path: PathBuf,
    /// Older records are removed.
    pub keep: Duration,
    /// Octets; beyond them the oldest files are removed.
    pub size: u64,
}

impl Settings {
    fn limits(&self) -> Limits {
        Limits { keep: self.keep, size: self.size }
    }
}

/// Older records count as removed.
fn oldest(keep: Duration) -> Option<SystemTime> {
    SystemTime::now().checked_sub(keep)
}

/// An open history; clones share it. When the last clone is dropped, its thread writes the remaining records and ends;
/// only [`WeakHistory::wait_until_written`] waits for that.
#[derive(Debug, Clone)]
pub struct History(Arc<Store>);

/// A reference that doesn't keep the history open.
#[derive(Debug, Clone)]
pub struct WeakHistory {
    store: Weak<Store>,
    thread: Arc<Thread>,
}

impl WeakHistory {
    /// The history, if it is still open.
    #[must_use]
    pub fn upgrade(&self) -> Option<History> {
        self.store.upgrade().map(History)
    }

    /// Blocks until all records are written, or the write has failed, even if the history was dropped a moment ago.
    pub fn wait_until_written(&self) {
        match self.upgrade() {
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
    /// Damaged files with a line in the log.
    logged: Mutex<HashSet<PathBuf>>,
    writer: Writer,
}

impl History {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// The folder can't be made or written, or another daemon uses it.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let folder = Folder::open(&settings.path)?;
        let path = folder.path().to_owned();
        tracing::info!(path = %path.display(), octets = folder.octets(), "the history is open");
        let shared = Arc::new(Shared::new(folder, settings.limits()));
        let writer = Writer::start(&shared).map_err(|error| OpenError::Io { path: path.clone(), error })?;
        let searches = Arc::new(Semaphore::new(MAX_SEARCHES));
        let (index, logged) = (Index::default(), Mutex::default());
        Ok(Self(Arc::new(Store { path, shared, searches, index, logged, writer })))
    }

    /// Whether this is the history of these settings.
    #[must_use]
    pub fn is_at(&self, settings: &Settings) -> bool {
        std::path::absolute(&settings.path).is_ok_and(|path| path == self.0.path)
    }

    #[must_use]
    pub fn downgrade(&self) -> WeakHistory {
        WeakHistory { store: Arc::downgrade(&self.0), thread: self.0.writer.thread() }
    }

    /// Applies the limits of the settings; the open folder stays.
    pub fn set_limits(&self, settings: &Settings) {
        self.0.shared.set_limits(settings.limits());
    }

    /// Stores a decision without waiting. If there is no room, the decision is dropped and counted.
    pub fn record(&self, record: DecisionRecord) {
        self.0.shared.push(record);
    }

    /// The decisions of one transaction, the oldest first.
    ///
    /// # Errors
    /// The files can't be read.
    pub async fn find(&self, id: Id) -> Result<Vec<DecisionRecord>, ReadError> {
        let page = self.read(move |source| source.find(id)).await?;
        self.log_damage(&page.damage);
        Ok(page.records)
    }

    /// The newest matching decisions before `before`, including those that aren't on disk yet.
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
        self.log_damage(&page.damage);
        Ok(page)
    }

    /// Folds all matching decisions, the newest first.
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
                all(|before| source.search(&filter, before, PAGE), |record| each(&mut state, record))?;
            Ok((state, damage))
        };
        let (state, damage) = self.read(read).await?;
        self.log_damage(&damage);
        Ok(state)
    }

    #[must_use]
    pub fn count(&self) -> Count {
        self.0.shared.count()
    }

    /// Writes the records that aren't on disk yet; blocks as long as the disk takes.
    pub fn flush(&self) {
        self.0.shared.write(true);
    }

    /// Logs damaged files, each once.
    fn log_damage(&self, damage: &[Damage]) {
        let mut logged = self.0.logged.lock().unwrap_or_else(PoisonError::into_inner);
        for part in damage.iter().filter(|part| !logged.contains(&part.path)) {
            tracing::warn!("history: {part}");
        }
        if logged.len() > MAX_LOGGED {
            logged.clear();
        }
        logged.extend(damage.iter().map(|part| part.path.clone()));
    }

    /// Runs the work on a blocking thread, since a search may take long.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Source<'_>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        // The semaphore is never closed. If the caller goes away, the work goes on and keeps its permit.
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

/// A history for reading only, even while a daemon writes it. Decisions of the last second may be missing.
#[derive(Debug)]
pub struct Archive {
    settings: Settings,
    index: Index,
}

impl Archive {
    /// Opens the history of these settings; `None` if it doesn't exist.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn open(settings: Settings) -> Result<Option<Self>, ReadError> {
        match folder::segments(&settings.path) {
            Ok(_) => Ok(Some(Self { settings, index: Index::default() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ReadError::Io { path: settings.path, error }),
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.settings.path
    }

    /// Whether a daemon has it open for writing.
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

    /// Calls `each` for all matching decisions, the newest first, and returns the damage.
    ///
    /// # Errors
    /// The files can't be read.
    pub fn all(&self, filter: &Filter, each: impl FnMut(&DecisionRecord)) -> Result<Vec<Damage>, ReadError> {
        all(|before| self.search(filter, before, PAGE), each)
    }

    fn source(&self) -> Source<'_> {
        let oldest = oldest(self.settings.keep);
        Source { folder: &self.settings.path, index: &self.index, tail: &[], oldest }
    }
}

/// Reads page after page.
fn all(
    search: impl Fn(Option<Cursor>) -> Result<Page, ReadError>,
    mut each: impl FnMut(&DecisionRecord),
) -> Result<Vec<Damage>, ReadError> {
    let (mut before, mut damage) = (None, Vec::new());
    loop {
        let page = search(before)?;
        page.records.iter().for_each(&mut each);
        Damage::merge(&mut damage, page.damage);
        match page.next {
            Some(next) => before = Some(next),
            None => return Ok(damage),
        }
    }
}
