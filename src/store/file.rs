//! What the databases of the store have in common: why one can't be used, its lock, how it is set up.
//!
//! SQLite's own locks would let two daemons write to one file. A lock on a file beside it keeps a second daemon out, and shows
//! a reader whether a daemon is there. It is never removed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// How often the lock is tried: a writer that ends, or a reader that tests for a writer, holds it for a moment.
const TRIES: u32 = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);
/// How long one connection waits for a lock of another.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// Why a file of the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A system call failed.
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    /// Another process has it open.
    #[error("{}: in use by another rmxd", path.display())]
    InUse { path: PathBuf },
    /// It isn't a file of rmxd; it is left as it is.
    #[error("{}: is not a file of rmxd: move it away, or name another", path.display())]
    Foreign { path: PathBuf },
    /// The database refused.
    #[error("{}: {what}", path.display())]
    Database { path: PathBuf, what: String },
    /// It isn't a file of rmxd, or it is damaged.
    #[error("{}: can't be read ({what}): move it away, and rmxd begins a new one", path.display())]
    Damaged { path: PathBuf, what: String },
}

impl OpenError {
    /// Whether a later try may succeed without an action of the operator.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::InUse { .. } | Self::Database { .. } => true,
            Self::Damaged { .. } | Self::Foreign { .. } => false,
            Self::Io { error, .. } => !matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::IsADirectory
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::InvalidInput
            ),
        }
    }
}

/// The lock of the daemon that writes.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    /// There was a file of rmxd here before.
    pub(super) was_there: bool,
}

impl Lock {
    /// Takes the lock on a database.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let failed = |error| OpenError::Io { path: path.to_owned(), error };
        let place = with_end(path, "-lock");
        let was_there = place.exists();
        let file = create(&place).map_err(failed)?;
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

#[expect(
    clippy::disallowed_methods,
    reason = "a store is opened before a session runs, or on a thread for it"
)]
fn pause() {
    std::thread::sleep(BETWEEN_TRIES);
}

/// Whether a daemon has the database open.
pub(super) fn is_in_use(path: &Path) -> bool {
    let lock = File::open(with_end(path, "-lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Opens a file, or makes one that no other user can read.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// A connection that writes to a file that is there.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// A connection that reads a file that is there.
pub(super) fn connect_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// Makes each commit last: a power cut loses no more than a kill does.
pub(super) fn make_durable(connection: &Connection) -> rusqlite::Result<()> {
    for (pragma, value) in [("journal_mode", "WAL"), ("synchronous", "FULL"), ("temp_store", "MEMORY")] {
        match connection.pragma_update_and_check(None, pragma, value, |_row| Ok(())) {
            // Not every pragma gives a row.
            Ok(()) | Err(rusqlite::Error::QueryReturnedNoRows) => {}
            Err(error) => return Err(error),
        }
    }
    connection.pragma_update(None, "cell_size_check", true)
}

/// Whether SQLite found the file damaged.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// The device and the inode: a file that was moved or removed is another one than that at its path.
pub(super) fn place(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Removes the log of a file that is gone.
pub(super) fn remove_log(path: &Path) -> io::Result<()> {
    fs::remove_file(with_end(path, "-wal")).or_else(not_there)?;
    fs::remove_file(with_end(path, "-shm")).or_else(not_there)
}

/// The path with more behind its name.
pub(super) fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

pub(super) fn not_there(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
