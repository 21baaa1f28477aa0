//! The greylist's tables in the state file: hashed triples, and the secret of the hash.

use std::io;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::store::file::{self, Lock, OpenError};
use crate::store::greylist::memory::Batch;
use crate::store::greylist::state::State;
use crate::store::greylist::triple::Key;

/// `PRAGMA application_id`: "rmxs".
const APPLICATION: i32 = 0x726d_7873;
/// `PRAGMA user_version`.
const VERSION: i32 = 1;
/// KiB of pages in memory, beside the system's page cache.
const CACHE: i64 = 8 << 10;
const HASH: &str = "hmac-sha256";

const WAITING: u8 = 0;
const PASSED: u8 = 1;

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

/// An open file. After a failed write, it is opened again for the next batch.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    secret: [u8; 32],
    open: Option<Open>,
    _lock: Lock,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    /// The file, by device and inode.
    place: Option<(u64, u64)>,
}

/// The contents of the file.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) secret: [u8; 32],
    pub(super) known: Vec<(Key, State)>,
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
    fn at(self, path: &Path) -> OpenError {
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

impl Disk {
    /// Opens the file, or makes it. All of it is checked: a damaged file is refused and left unchanged, since only the operator knows
    /// whether there is a copy of it.
    pub(super) fn open(path: &Path) -> Result<(Self, Loaded), OpenError> {
        let path = std::path::absolute(path).unwrap_or_else(|_no_folder| path.to_owned());
        file::create(&path).map_err(|error| OpenError::Io { path: path.clone(), error })?;
        let lock = Lock::take(&path)?;
        let loaded = open(&path).and_then(|open| {
            let loaded = load(&open.connection)?;
            Ok((open, loaded))
        });
        let (open, loaded) = loaded.map_err(|trouble| trouble.at(&path))?;
        Ok((Self { path, secret: loaded.secret, open: Some(open), _lock: lock }, loaded))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the batch, whole or not at all.
    pub(super) fn write(&mut self, mut batch: Batch) -> Result<(), Trouble> {
        // A B-tree is written fastest in the order of its keys.
        match &mut batch {
            Batch::All(all) => all.sort_unstable_by_key(|(key, _)| *key),
            Batch::Some(changes) => changes.sort_unstable_by_key(|(key, _)| *key),
        }
        let open = match self.open.take() {
            // The next batch is whole, and goes to a new file.
            Some(open) if open.place != file::place(&self.path) => {
                return Err(Trouble::Contents("the file was moved or removed".to_owned()));
            }
            Some(open) => open,
            None => open(&self.path)?,
        };
        write(&open.connection, &self.secret, &batch)?;
        self.open = Some(open);
        Ok(())
    }
}

fn open(path: &Path) -> Result<Open, Trouble> {
    if file::create(path)?.metadata()?.len() == 0 {
        file::remove_log(path)?;
    }
    let connection = file::connect(path)?;
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(Trouble::Contents(check));
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

fn write(connection: &Connection, secret: &[u8; 32], batch: &Batch) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    {
        let sql = "INSERT OR REPLACE INTO greylist (key, time, network, state) VALUES (?1, ?2, ?3, ?4)";
        let mut insert = transaction.prepare_cached(sql)?;
        let mut insert = |key: &Key, state: State| {
            let (time, network, state) = row(state);
            insert.execute(params![key, time, network, state])
        };
        match batch {
            Batch::Some(changes) => {
                let mut remove = transaction.prepare_cached("DELETE FROM greylist WHERE key = ?1")?;
                for (key, state) in changes {
                    match state {
                        Some(state) => insert(key, *state)?,
                        None => remove.execute([key])?,
                    };
                }
            }
            Batch::All(all) => {
                // The file may be a new one.
                let sql = "INSERT OR REPLACE INTO secrets (name, secret) VALUES (?1, ?2)";
                transaction.execute(sql, params![HASH, secret])?;
                transaction.execute("DELETE FROM greylist", [])?;
                for (key, state) in all {
                    insert(key, *state)?;
                }
            }
        }
    }
    transaction.commit()
}

fn load(connection: &Connection) -> Result<Loaded, Trouble> {
    let sql = "SELECT secret FROM secrets WHERE name = ?1";
    let known = connection.query_row(sql, [HASH], |row| row.get::<_, [u8; 32]>(0)).optional();
    let secret = match known.map_err(unreadable)? {
        Some(secret) => secret,
        None => {
            let secret = random()?;
            connection
                .execute("INSERT INTO secrets (name, secret) VALUES (?1, ?2)", params![HASH, secret])?;
            secret
        }
    };
    let mut statement = connection.prepare("SELECT key, time, network, state FROM greylist")?;
    let mut rows = statement.query([])?;
    let mut known = Vec::new();
    while let Some(row) = rows.next()? {
        let values = || Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?)));
        let (key, row): (Key, Row) = values().map_err(unreadable)?;
        known.push((key, state(row)?));
    }
    Ok(Loaded { secret, known })
}

/// A value of another type or length is damage.
fn unreadable(error: rusqlite::Error) -> Trouble {
    match error {
        rusqlite::Error::SqliteFailure(..) => Trouble::Sql(error),
        other => Trouble::Contents(other.to_string()),
    }
}

/// A random secret.
pub(super) fn random() -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    let filled = SystemRandom::new().fill(&mut secret);
    filled.map_err(|_unspecified| io::Error::other("the system has no random numbers"))?;
    Ok(secret)
}

/// Time, network, state.
type Row = (u64, u32, u8);

fn row(state: State) -> Row {
    match state {
        State::Waiting { since, network } => (since, network, WAITING),
        State::Passed { last } => (last, 0, PASSED),
    }
}

fn state((time, network, state): Row) -> Result<State, Trouble> {
    match state {
        WAITING => Ok(State::Waiting { since: time, network }),
        PASSED => Ok(State::Passed { last: time }),
        other => Err(Trouble::Contents(format!("a triple in state {other}"))),
    }
}
