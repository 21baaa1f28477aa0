//! The history: past decisions with their evidence, so that every refusal can be explained later.
//!
//! It is one SQLite database, whose view `decisions` is part of the public contract; rmxd and other programs read it while
//! the daemon writes.
//!
//! - **Written behind.** A session hands over a record as a row and goes on; a thread writes all of them once a second, each batch in a
//!   transaction that is on disk at its end (WAL, `synchronous = FULL`). A kill or a power cut loses the last second. If the
//!   disk is too slow or full, records wait in 32 MiB of memory, then they are dropped and counted: mail never waits.
//! - **Tables.** `rows` has a row for each decision in the order of `seq`, which is at least its time in microseconds and increases:
//!   rows are appended, and the oldest are removed in one range, both without a search. The columns have what is searched for; the
//!   column `record` has the whole record, without the texts of the columns.
//! - **Keys come late.** An index that every row changes costs five times the row. So the rows behind the last segment have none: there
//!   are at most 32 768, which are read in some milliseconds. Then they become a segment: their keys (id, queue id, recipients, client,
//!   sender domains) are sorted and go into the table `blocks` (`keys`). A search for a key looks once into each segment. A search
//!   by time needs no key: segments have their times.
//! - **Bounds.** `history.keep` removes rows by time. `history.size` bounds the files, the write-ahead log included: an eighth is left
//!   for the log, and the oldest rows go before a batch would pass the rest. Freed pages are used again; after a change of the limit
//!   they go back to the disk.
//! - **Readers** have a connection of their own that can't write, and read a page of results in one transaction. The records that
//!   aren't written yet are searched in memory.
//! - **Trouble** never stops mail. A damaged file, or one of a later version, is moved aside with a warning, and a new one begins.
//!   In a folder without write access the history stays in memory. A moved or removed file is replaced. Only a second daemon and a
//!   file that isn't of rmxd stop the start.
//! - **Versions.** `user_version` is the version of the tables. A file of version 1, whose keys have a row each in the table `keys`, is
//!   read and goes on as one of version 2. The view is made anew if it differs. The first format, a folder of files, is
//!   taken over (`first_format`).

mod brief;
mod codes;
mod database;
mod decode;
mod disk;
mod encode;
mod file;
mod filter;
mod first_format;
mod keys;
mod kind;
mod limits;
mod missing;
mod number;
mod read;
mod row;
mod schema;
mod segment;
#[cfg(test)]
mod tests;
mod waiting;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::decision::{DecisionRecord, Id};
use crate::dns::kept::KeptWhole;
use crate::store::OpenError;
use crate::store::file::is_in_use;
pub use crate::store::history::brief::{Brief, Scan};
use crate::store::history::disk::Disk;
use crate::store::history::file::Trouble;
pub use crate::store::history::filter::{Cursor, Filter};
use crate::store::history::limits::Limits;
pub use crate::store::history::missing::Extent;
use crate::store::history::read::Source;
pub use crate::store::history::read::{Page, ReadError};
pub use crate::store::history::writer::Count;
use crate::store::history::writer::{Shared, Thread, Writer};

/// How much of one answer is kept at most.
pub(crate) const KEPT: KeptWhole = KeptWhole { items: limits::MAX_ITEMS, text: limits::MAX_TEXT };
/// Concurrent searches; further ones wait.
const MAX_SEARCHES: usize = 2;
/// Records per page when all are read.
const PAGE: usize = 1000;

/// `[history]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The database.
    pub path: PathBuf,
    /// Older records are removed.
    pub keep: Duration,
    /// Octets; beyond them the oldest records are removed.
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

    /// Whether this is a reference to that history.
    #[must_use]
    pub fn is_of(&self, history: &History) -> bool {
        std::ptr::eq(self.store.as_ptr(), Arc::as_ptr(&history.0))
    }

    /// Blocks until all records are written and the file is closed, or the write has failed, even if the history was dropped a
    /// moment ago. A later record opens the file again.
    pub fn wait_until_written(&self) {
        match self.upgrade() {
            Some(history) => history.0.shared.close(),
            None => self.thread.join(),
        }
    }
}

#[derive(Debug)]
struct Store {
    path: PathBuf,
    shared: Arc<Shared>,
    searches: Arc<Semaphore>,
    writer: Writer,
}

impl History {
    /// Opens the database, or makes it.
    ///
    /// # Errors
    /// Another daemon uses it, the file is not one of rmxd, or its folder can't be made.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let disk = Disk::open(&settings.path, settings.limits())?;
        let path = disk.path().to_owned();
        tracing::info!(path = %path.display(), octets = disk.octets(), "the history is open");
        let shared = Arc::new(Shared::new(disk, settings.limits()));
        let writer = Writer::start(&shared).map_err(|error| OpenError::Io { path: path.clone(), error })?;
        let searches = Arc::new(Semaphore::new(MAX_SEARCHES));
        Ok(Self(Arc::new(Store { path, shared, searches, writer })))
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
        self.0.shared.push(&record);
    }

    /// The decisions of one transaction, the oldest first.
    ///
    /// # Errors
    /// The file can't be read.
    pub async fn find(&self, id: Id) -> Result<Vec<DecisionRecord>, ReadError> {
        self.read(move |source| source.find(id)).await
    }

    /// The newest matching decisions before `before`, including those that aren't on disk yet.
    ///
    /// # Errors
    /// The file can't be read.
    pub async fn search(
        &self,
        filter: Filter,
        before: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        self.read(move |source| source.search(&filter, before, limit)).await
    }

    /// At most `limit` decisions from a position on, without their evidence; fewer only at the end of the history.
    ///
    /// # Errors
    /// The file can't be read.
    pub async fn brief(&self, scan: Scan, limit: usize) -> Result<Vec<Brief>, ReadError> {
        self.read(move |source| source.brief(scan, limit)).await
    }

    /// How long decisions are kept.
    #[must_use]
    pub fn keep(&self) -> Duration {
        self.0.shared.limits().keep
    }

    /// Folds all matching decisions, the newest first.
    ///
    /// # Errors
    /// The file can't be read.
    pub async fn fold<T: Send + 'static>(
        &self,
        filter: Filter,
        start: T,
        mut each: impl FnMut(&mut T, &DecisionRecord) + Send + 'static,
    ) -> Result<T, ReadError> {
        let read = move |source: &Source<'_>| {
            let mut state = start;
            all(|before| source.search(&filter, before, PAGE), |record| each(&mut state, record))?;
            Ok(state)
        };
        self.read(read).await
    }

    /// What the history has now.
    ///
    /// # Errors
    /// The file can't be read.
    pub async fn extent(&self) -> Result<Extent, ReadError> {
        let limits = self.0.shared.limits();
        let extent = self.read(move |source| Extent::of(source, limits)).await?;
        Ok(extent.with_dropped(Some(self.count().dropped)))
    }

    #[must_use]
    pub fn count(&self) -> Count {
        self.0.shared.count()
    }

    /// Writes the records that aren't on disk yet; blocks as long as the disk takes.
    pub fn flush(&self) {
        self.0.shared.write(true);
    }

    /// Runs the work on a blocking thread, since a search may take long.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Source<'_>) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, ReadError> {
        // The semaphore is never closed. If the caller goes away, the work goes on and keeps its permit.
        let permit = Arc::clone(&self.0.searches).acquire_owned().await;
        let store = Arc::clone(&self.0);
        let read = move || {
            let _permit = permit;
            // What is written afterwards is in the database too, with the same position.
            let snapshot = store.shared.pending();
            let pending = snapshot.rows();
            let read = || {
                let connection = open_if_there(&store.path)?;
                let oldest = oldest(store.shared.limits().keep);
                work(&Source { connection: connection.as_ref(), pending: &pending, oldest })
            };
            read().map_err(|trouble| {
                if trouble.is_of_contents() {
                    store.shared.suspect();
                }
                ReadError::of(&store.path, trouble)
            })
        };
        tokio::task::spawn_blocking(read).await?
    }
}

fn open_if_there(path: &Path) -> Result<Option<Connection>, Trouble> {
    match file::open_for_reading(path) {
        Err(Trouble::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// A history for reading only, even while a daemon writes it. Decisions of the last second may be missing.
#[derive(Debug)]
pub struct Archive {
    settings: Settings,
    connection: Connection,
}

impl Archive {
    /// Opens the history of these settings; `None` if it doesn't exist.
    ///
    /// # Errors
    /// The file can't be read, or isn't a history.
    pub fn open(settings: Settings) -> Result<Option<Self>, ReadError> {
        match open_if_there(&settings.path) {
            Ok(connection) => Ok(connection.map(|connection| Self { settings, connection })),
            Err(trouble) => Err(ReadError::of(&settings.path, trouble)),
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.settings.path
    }

    /// Whether a daemon has it open for writing.
    #[must_use]
    pub fn is_live(&self) -> bool {
        is_in_use(&self.settings.path)
    }

    /// [`History::find`].
    ///
    /// # Errors
    /// The file can't be read.
    pub fn find(&self, id: Id) -> Result<Vec<DecisionRecord>, ReadError> {
        self.source().find(id).map_err(|trouble| ReadError::of(&self.settings.path, trouble))
    }

    /// [`History::extent`], but the daemon isn't asked.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn extent(&self) -> Result<Extent, ReadError> {
        let extent = Extent::of(&self.source(), self.settings.limits());
        extent.map_err(|trouble| ReadError::of(&self.settings.path, trouble))
    }

    /// [`History::search`].
    ///
    /// # Errors
    /// The file can't be read.
    pub fn search(&self, filter: &Filter, before: Option<Cursor>, limit: usize) -> Result<Page, ReadError> {
        let page = self.source().search(filter, before, limit);
        page.map_err(|trouble| ReadError::of(&self.settings.path, trouble))
    }

    /// Calls `each` for all matching decisions, the newest first.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn all(&self, filter: &Filter, each: impl FnMut(&DecisionRecord)) -> Result<(), ReadError> {
        all(|before| self.search(filter, before, PAGE), each)
    }

    fn source(&self) -> Source<'_> {
        Source { connection: Some(&self.connection), pending: &[], oldest: oldest(self.settings.keep) }
    }
}

/// Reads page after page.
fn all<E>(
    search: impl Fn(Option<Cursor>) -> Result<Page, E>,
    mut each: impl FnMut(&DecisionRecord),
) -> Result<(), E> {
    let mut before = None;
    loop {
        let page = search(before)?;
        page.records.iter().for_each(&mut each);
        match page.next {
            Some(next) => before = Some(next),
            None => return Ok(()),
        }
    }
}
