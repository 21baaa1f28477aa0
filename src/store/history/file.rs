//! The file of the database: how it is opened, its lock, and what becomes of a file that can't be used.
//!
//! SQLite's own locks would let two daemons write to one history. A lock on a file beside it keeps a second daemon out, and
//! shows a reader whether a daemon is there. It is never removed.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::store::OpenError;
use crate::store::history::first_format::beside;
use crate::store::history::schema::{self, APPLICATION, PAGE, VERSION};

/// How often the lock is tried: a writer that ends, or a reader that tests for a writer, holds it for a moment.
const TRIES: u32 = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);
/// How long one connection waits for a lock of another.
const BUSY: Duration = Duration::from_secs(5);
/// KiB of pages in memory, while a segment's keys are written.
const CACHE: i64 = 16 << 10;
/// Octets up to the end of the application's id in the head of a database.
const HEAD: u64 = 72;

/// Why a database can't be opened, or can't go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    #[error("it has version {0} of a later rmxd")]
    Newer(i32),
    #[error("it is not a history of rmxd")]
    Foreign,
}

impl Trouble {
    /// Whether the contents are at fault, so that another file would do.
    pub(super) fn is_of_contents(&self) -> bool {
        match self {
            Self::Io(_) | Self::Foreign => false,
            Self::Newer(_) => true,
            Self::Sql(error) => is_damage(error),
        }
    }

    /// For the start.
    pub(super) fn at(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::Io(error) => OpenError::Io { path, error },
            Self::Foreign => OpenError::Foreign { path },
            Self::Sql(_) | Self::Newer(_) => OpenError::Database { path, what: self.to_string() },
        }
    }
}

/// Whether SQLite found the file damaged.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a history is opened before a session runs, or on a thread for it"
)]
fn pause() {
    std::thread::sleep(BETWEEN_TRIES);
}

/// The lock of the daemon that writes.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    /// There was a history of rmxd here before.
    pub(super) was_there: bool,
}

impl Lock {
    /// Takes the lock; makes the folder if it is missing.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let failed = |error| OpenError::Io { path: path.to_owned(), error };
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        let place = lock_of(path);
        let was_there = place.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(place).map_err(failed)?;
        let mut tries = 1..TRIES;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file, was_there }),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if tries.next().is_none() => {
                    return Err(OpenError::InUse { path: path.to_owned() });
                }
                Err(TryLockError::WouldBlock) => pause(),
            }
        }
    }
}

/// Whether a daemon has the history open.
pub(super) fn is_in_use(path: &Path) -> bool {
    let lock = File::open(lock_of(path));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn lock_of(path: &Path) -> PathBuf {
    with_end(path, "-lock")
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// The device and the inode: a file that was moved or removed is another one than that at its path.
pub(super) fn place(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Octets on disk, with those that SQLite keeps beside the file.
pub(super) fn octets(path: &Path) -> u64 {
    let length = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    length(path) + wal_octets(path) + length(&with_end(path, "-shm"))
}

pub(super) fn wal_octets(path: &Path) -> u64 {
    fs::metadata(with_end(path, "-wal")).map_or(0, |metadata| metadata.len())
}

/// Opens the database for writing, or makes one that no other user can read. `ours`: whatever is there is of rmxd.
pub(super) fn open(path: &Path, ours: bool) -> Result<Connection, Trouble> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let is_new = options.open(path)?.metadata()?.len() == 0;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    if is_new {
        connection.pragma_update(None, "page_size", PAGE)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    } else if let Err(trouble) = check(&connection) {
        let is_other_file = matches!(&trouble, Trouble::Sql(error) if is_damage(error)) && !looks_ours(path);
        return Err(if is_other_file && !ours { Trouble::Foreign } else { trouble });
    }
    // Each commit is on disk: a power cut loses no more than a kill does.
    for (pragma, value) in [("journal_mode", "WAL"), ("synchronous", "FULL"), ("temp_store", "MEMORY")] {
        connection.pragma_update_and_check(None, pragma, value, |_| Ok(())).or_else(no_row)?;
    }
    connection.pragma_update(None, "cache_size", -CACHE)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        schema::create(&connection)?;
    }
    schema::refresh_view(&connection)?;
    Ok(connection)
}

/// Not every pragma gives a row.
fn no_row(error: rusqlite::Error) -> rusqlite::Result<()> {
    match error {
        rusqlite::Error::QueryReturnedNoRows => Ok(()),
        other => Err(other),
    }
}

/// Opens the database for reading only, even while a daemon writes to it.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, Trouble> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    File::open(path)?;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    check(&connection)?;
    Ok(connection)
}

/// Whether this version can use the contents.
fn check(connection: &Connection) -> Result<(), Trouble> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (number("application_id")?, number("user_version")?) {
        // A crash came before the tables.
        (0, 0) if tables == 0 => Ok(()),
        (APPLICATION, VERSION) => Ok(()),
        (APPLICATION, version) => Err(Trouble::Newer(version)),
        _ => Err(Trouble::Foreign),
    }
}

/// Whether the head is that of one of our databases, even if the rest is damaged.
fn looks_ours(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    let application = head.last_chunk::<4>().map(|octets| i32::from_be_bytes(*octets));
    read.is_ok() && head.starts_with(b"SQLite format 3\0") && application == Some(APPLICATION)
}

/// Moves a database that can't be used out of the way, with what belongs to it. Only the last one is kept, so that a broken disk
/// isn't filled. Returns where it is now.
pub(super) fn move_aside(path: &Path, trouble: &Trouble) -> io::Result<PathBuf> {
    let end = match trouble {
        Trouble::Newer(version) => format!("version-{version}"),
        Trouble::Io(_) | Trouble::Sql(_) | Trouble::Foreign => "damaged".to_owned(),
    };
    let aside = beside(path, &end);
    fs::rename(path, &aside)?;
    // The log belongs to the file: without it, the newest decisions would be missing.
    let (log, log_aside) = (with_end(path, "-wal"), with_end(&aside, "-wal"));
    fs::remove_file(&log_aside).or_else(not_there)?;
    fs::rename(log, log_aside).or_else(not_there)?;
    fs::remove_file(with_end(path, "-shm")).or_else(not_there)?;
    Ok(aside)
}

/// Removes the log of a file that is gone.
pub(super) fn remove_log(path: &Path) -> io::Result<()> {
    fs::remove_file(with_end(path, "-wal")).or_else(not_there)?;
    fs::remove_file(with_end(path, "-shm")).or_else(not_there)
}

fn not_there(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
