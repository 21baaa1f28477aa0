//! The state file: one SQLite database for what a restart has to know, the greylist and the permits.
//!
//! Both have a connection of their own. The process holds the file's lock once, from the first of them that needs it: permits
//! may come while there is no greylist, and a greylist by a later reload.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use rusqlite::Connection;

use crate::store::file::{self, Lock, OpenError};

/// `PRAGMA application_id`: "rmxs".
const APPLICATION: i32 = 0x726d_7873;
/// `PRAGMA user_version`. Tables that an earlier version ignores don't change it.
const VERSION: i32 = 1;
/// KiB of pages in memory, beside the system's page cache.
const CACHE: i64 = 8 << 10;

/// Times are milliseconds since 1970.
const TABLES: &str = "
CREATE TABLE greylist (
    key BLOB PRIMARY KEY,
    time INTEGER NOT NULL,
    network INTEGER NOT NULL,
    state INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE secrets (name TEXT PRIMARY KEY, secret BLOB NOT NULL) WITHOUT ROWID;
";

/// The place of the file, and its lock once something of it is used.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    lock: Mutex<Option<Lock>>,
    /// All of it was checked.
    checked: AtomicBool,
}

/// A connection to the file.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) connection: Connection,
    /// The file, by device and inode.
    place: Option<(u64, u64)>,
}

impl Open {
    /// Whether the file is still at its path.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        self.place == file::place(path)
    }
}

/// Whether a connection begins with a check of the whole file, which reads all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    Always,
    /// Unless this process has done it.
    Once,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    #[error("{0}")]
    Contents(String),
}

impl Trouble {
    pub(super) fn at(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        let damaged = match &self {
            Self::Io(_) => false,
            Self::Contents(_) => true,
            Self::Sql(error) => file::is_damage(error),
        };
        match self {
            Self::Io(error) => OpenError::Io { path, error },
            other if damaged => OpenError::Damaged { path, what: other.to_string() },
            other => OpenError::Database { path, what: other.to_string() },
        }
    }
}

impl StateFile {
    /// The file at this path, which need not be there; nothing is opened.
    #[must_use]
    pub fn at(path: &Path) -> Arc<Self> {
        let path = std::path::absolute(path).unwrap_or_else(|_no_folder| path.to_owned());
        Arc::new(Self { path, lock: Mutex::default(), checked: AtomicBool::default() })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file if there is none, and holds its lock from now on.
    pub(super) fn hold(&self) -> Result<(), OpenError> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_none() {
            file::create(&self.path).map_err(|error| OpenError::Io { path: self.path.clone(), error })?;
            *lock = Some(Lock::take(&self.path)?);
        }
        Ok(())
    }

    /// A connection, behind [`StateFile::hold`]. A damaged file is refused and left unchanged, since only the operator knows
    /// whether there is a copy of it.
    ///
    /// A file that is there isn't opened other than by SQLite: to close it would end the locks of another connection of this
    /// process (fcntl(2)).
    pub(super) fn open(&self, check: Check) -> Result<Open, Trouble> {
        let path = &self.path;
        let _one_at_a_time = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let length = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) => {
                file::not_there(error)?;
                file::create(path)?;
                0
            }
        };
        if length == 0 {
            file::remove_log(path)?;
        }
        let connection = file::connect(path)?;
        let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if check == Check::Always || !self.checked.load(Ordering::Relaxed) {
            let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if check != "ok" {
                return Err(Trouble::Contents(check));
            }
            self.checked.store(true, Ordering::Relaxed);
        }
        match (number("application_id")?, number("user_version")?) {
            (0, 0) if tables == 0 => {}
            (APPLICATION, VERSION) => {}
            (APPLICATION, version) => {
                return Err(Trouble::Contents(format!("version {version} of a later rmxd")));
            }
            _ => return Err(Trouble::Contents("another program's database".to_owned())),
        }
        file::make_durable(&connection)?;
        connection.pragma_update(None, "cache_size", -CACHE)?;
        if tables == 0 {
            let transaction = connection.unchecked_transaction()?;
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            transaction.commit()?;
        }
        Ok(Open { connection, place: file::place(path) })
    }

    /// A connection that only reads, beside a daemon that may have the file open. `None` if there is no file.
    pub(super) fn open_to_read(path: &Path) -> Result<Option<Connection>, Trouble> {
        if !path.try_exists()? {
            return Ok(None);
        }
        let connection = file::connect_to_read(path)?;
        let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        Ok(Some(connection).filter(|_| application == APPLICATION))
    }
}

/// A value of another type or length is damage.
pub(super) fn unreadable(error: rusqlite::Error) -> Trouble {
    match error {
        rusqlite::Error::SqliteFailure(..) => Trouble::Sql(error),
        other => Trouble::Contents(other.to_string()),
    }
}
