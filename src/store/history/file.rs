//! The file of the database: how it is opened, and what becomes of a file that can't be used.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::store::OpenError;
use crate::store::file::{BUSY, connect, create, is_damage, make_durable, not_there, remove_log, with_end};
use crate::store::history::first_format::beside;
use crate::store::history::schema::{self, APPLICATION, OLDEST, PAGE, VERSION};

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
    let is_new = create(path)?.metadata()?.len() == 0;
    let connection = connect(path)?;
    if is_new {
        connection.pragma_update(None, "page_size", PAGE)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    } else if let Err(trouble) = check(&connection) {
        let is_other_file = matches!(&trouble, Trouble::Sql(error) if is_damage(error)) && !looks_ours(path);
        return Err(if is_other_file && !ours { Trouble::Foreign } else { trouble });
    }
    make_durable(&connection)?;
    connection.pragma_update(None, "cache_size", -CACHE)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        schema::create(&connection)?;
    } else if connection.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0))? < VERSION {
        schema::take_over(&connection)?;
    }
    schema::refresh_view(&connection)?;
    Ok(connection)
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
        (APPLICATION, OLDEST..=VERSION) => Ok(()),
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
    remove_log(path)?;
    Ok(aside)
}
