//! The permits' table in the state file. A change is in the file before its command is answered.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use compact_str::CompactString;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::decision::Id;
use crate::exempt::entry;
use crate::exempt::permits::{Conditions, Permits, TemporaryPermit};
use crate::policy::identity::Identity;
use crate::store::OpenError;
use crate::store::state::{Check, Open, StateFile, Trouble, unreadable};

/// Times are milliseconds since 1970. With AUTOINCREMENT the file remembers the largest number that was ever given.
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS permits (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    client TEXT,
    domain TEXT,
    recipient TEXT,
    note TEXT NOT NULL,
    created INTEGER NOT NULL,
    until INTEGER,
    decision TEXT,
    identity TEXT
)";
const INSERT: &str = "INSERT OR REPLACE INTO permits (number, client, domain, recipient, note, created, until, decision, \
     identity) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
const SELECT: &str =
    "SELECT number, client, domain, recipient, note, created, until, decision, identity FROM permits";
/// Of a file from before permits had an identity.
const SELECT_OLD: &str =
    "SELECT number, client, domain, recipient, note, created, until, decision, NULL FROM permits";

/// A change of the set.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change<'p> {
    Added(&'p TemporaryPermit),
    Removed(&'p [u64]),
}

/// The file, which is made with the first permit.
#[derive(Debug)]
pub(super) struct Disk {
    file: Arc<StateFile>,
    /// `None` before the first permit, and after a failed write.
    open: Option<Open>,
}

/// The contents of the file.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) permits: Permits,
    /// The largest number that was ever given.
    pub(super) last: u64,
}

impl Disk {
    /// Reads the file if it is there.
    pub(super) fn open(file: Arc<StateFile>) -> Result<(Self, Loaded), OpenError> {
        let is_there = file.path().try_exists();
        if !is_there.map_err(|error| Trouble::Io(error).at(file.path()))? {
            return Ok((Self { file, open: None }, Loaded::default()));
        }
        file.hold()?;
        let loaded = file.open(Check::Once).and_then(|open| {
            let loaded = load(&open.connection)?;
            make_table(&open.connection)?;
            Ok((open, loaded))
        });
        let (open, loaded) = loaded.map_err(|trouble| trouble.at(file.path()))?;
        Ok((Self { file, open: Some(open) }, loaded))
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// The file was moved or removed.
    pub(super) fn is_moved(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.is_at(self.file.path()))
    }

    /// Writes a change, whole or not at all. `all` are the permits with it, for a file that may lack others.
    pub(super) fn write(&mut self, change: Change<'_>, all: &Permits, last: u64) -> Result<(), OpenError> {
        self.file.hold()?;
        self.try_write(change, all, last).map_err(|trouble| trouble.at(self.file.path()))
    }

    fn try_write(&mut self, change: Change<'_>, all: &Permits, last: u64) -> Result<(), Trouble> {
        match self.open.take().filter(|open| open.is_at(self.file.path())) {
            Some(open) => {
                apply(&open.connection, change)?;
                self.open = Some(open);
            }
            None => {
                let open = self.file.open(Check::Once)?;
                rewrite(&open.connection, all, last)?;
                self.open = Some(open);
            }
        }
        Ok(())
    }
}

/// What a file has, for a command that reads it beside the daemon. Without a file, or before the first permit, there are none.
pub(super) fn read(path: &Path) -> Result<Permits, OpenError> {
    let loaded = StateFile::open_to_read(path).and_then(|connection| match connection {
        Some(connection) => load(&connection),
        None => Ok(Loaded::default()),
    });
    loaded.map(|loaded| loaded.permits).map_err(|trouble| trouble.at(path))
}

fn apply(connection: &Connection, change: Change<'_>) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    match change {
        Change::Added(permit) => insert(&transaction, permit)?,
        Change::Removed(numbers) => {
            for number in numbers {
                transaction.execute("DELETE FROM permits WHERE number = ?1", [number])?;
            }
        }
    }
    transaction.commit()
}

fn rewrite(connection: &Connection, all: &Permits, last: u64) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    make_table(&transaction)?;
    transaction.execute("DELETE FROM permits", [])?;
    for permit in all.iter() {
        insert(&transaction, permit)?;
    }
    transaction.execute("DELETE FROM sqlite_sequence WHERE name = 'permits'", [])?;
    transaction.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('permits', ?1)", [last])?;
    transaction.commit()
}

fn insert(connection: &Connection, permit: &TemporaryPermit) -> rusqlite::Result<()> {
    let TemporaryPermit { number, conditions, note, created, until, decision } = permit;
    let Conditions { client, domain, recipient, identity } = conditions;
    connection.prepare_cached(INSERT)?.execute(params![
        number,
        client.map(|network| network.to_string()),
        domain.as_ref().map(ToString::to_string),
        recipient.as_ref().map(CompactString::as_str),
        note,
        milliseconds(*created),
        until.map(milliseconds),
        decision.as_ref().map(Id::as_str),
        identity.map(Identity::name),
    ])?;
    Ok(())
}

/// The table, with the columns that older versions lack.
fn make_table(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLE)?;
    if !has_identity(connection)? {
        connection.execute_batch("ALTER TABLE permits ADD COLUMN identity TEXT")?;
    }
    Ok(())
}

fn has_identity(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM pragma_table_info('permits') WHERE name = 'identity'";
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|count| count > 0)
}

fn load(connection: &Connection) -> Result<Loaded, Trouble> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'permits'";
    if connection.query_row(sql, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(Loaded::default());
    }
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'permits'";
    let last = connection.query_row(sql, [], |row| row.get::<_, u64>(0)).optional().map_err(unreadable)?;
    let mut statement = connection.prepare(if has_identity(connection)? { SELECT } else { SELECT_OLD })?;
    let mut rows = statement.query([])?;
    let mut permits = Permits::default();
    while let Some(row) = rows.next()? {
        permits.insert(permit(row)?);
    }
    let largest = permits.iter().next_back().map(|permit| permit.number);
    Ok(Loaded { last: last.max(largest).unwrap_or_default(), permits })
}

fn permit(row: &Row<'_>) -> Result<TemporaryPermit, Trouble> {
    let number: u64 = row.get(0).map_err(unreadable)?;
    let wrong = |what: &str| Trouble::Contents(format!("permit {number}: {what}"));
    let text = |at: usize| row.get::<_, Option<String>>(at).map_err(unreadable);
    let read_by = |at: usize| Ok::<_, Trouble>(text(at)?.unwrap_or_default());
    let conditions = Conditions {
        client: text(1)?.map(|text| entry::network(&text)).transpose().map_err(|what| wrong(&what))?,
        domain: text(2)?.map(|text| entry::pattern(&text)).transpose().map_err(|what| wrong(&what))?,
        recipient: text(3)?.map(|text| entry::recipient(&text)).transpose().map_err(|what| wrong(&what))?,
        identity: text(8)?
            .map(|text| identity(&text).ok_or_else(|| wrong("is for no identity")))
            .transpose()?,
    };
    if conditions.is_empty() {
        return Err(wrong("has no condition"));
    }
    let late = || wrong("has a time past the year 9999");
    let until: Option<u64> = row.get(6).map_err(unreadable)?;
    Ok(TemporaryPermit {
        number,
        conditions,
        note: read_by(4)?,
        created: time(row.get(5).map_err(unreadable)?).ok_or_else(late)?,
        until: until.map(|until| time(until).ok_or_else(late)).transpose()?,
        decision: text(7)?.and_then(|text| Id::parse(&text)),
    })
}

fn identity(name: &str) -> Option<Identity> {
    Identity::ALL.into_iter().find(|identity| identity.name() == name)
}

fn milliseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `None` past the year 9999, which RFC 3339 can't write.
fn time(milliseconds: u64) -> Option<SystemTime> {
    const END_OF_TIMES: Duration = Duration::from_secs(253_402_300_800);
    let since = Duration::from_millis(milliseconds);
    UNIX_EPOCH.checked_add(since).filter(|_| since < END_OF_TIMES)
}
