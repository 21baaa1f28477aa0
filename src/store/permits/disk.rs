//! The permits' table in the state file. A change is in the file before its command is answered.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use compact_str::CompactString;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::decision::Id;
use crate::exempt::permits::{Conditions, Permits, TemporaryPermit};
use crate::policy::identity::Identity;
use crate::store::OpenError;
use crate::store::permits::entry::{Removal, conditions, milliseconds, time};
use crate::store::state::{Check, Open, StateFile, Trouble, unreadable};

/// Times are milliseconds since 1970. With AUTOINCREMENT the file remembers the largest number that was ever given.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS permits (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    client TEXT,
    domain TEXT,
    recipient TEXT,
    note TEXT NOT NULL,
    created INTEGER NOT NULL,
    until INTEGER,
    decision TEXT,
    identity TEXT,
    uid INTEGER
);
CREATE TABLE IF NOT EXISTS removed_permits (
    number INTEGER PRIMARY KEY,
    uid INTEGER NOT NULL,
    created INTEGER NOT NULL,
    until INTEGER,
    at INTEGER NOT NULL
)";
/// Columns that older versions lack.
const LATER_COLUMNS: [(&str, &str); 2] = [("identity", "TEXT"), ("uid", "INTEGER")];
const INSERT: &str = "INSERT OR REPLACE INTO permits (number, client, domain, recipient, note, created, until, decision, \
     identity, uid) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const INSERT_REMOVAL: &str =
    "INSERT OR REPLACE INTO removed_permits (number, uid, created, until, at) VALUES (?1, ?2, ?3, ?4, ?5)";

/// A change of the set, in this order.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Permits that are no more.
    pub(super) gone: Vec<u64>,
    /// New ones, each in place of one with its number.
    pub(super) put: Vec<TemporaryPermit>,
    /// Removals that are no longer kept.
    pub(super) forgotten: Vec<u64>,
    pub(super) removed: Vec<Removal>,
}

impl Change {
    pub(super) fn put(permit: &TemporaryPermit) -> Self {
        Self { put: vec![permit.clone()], ..Self::default() }
    }
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
    pub(super) removed: BTreeMap<u64, Removal>,
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
            make_tables(&open.connection)?;
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

    /// Writes a change, whole or not at all. `all` and `removed` are the contents with it, for a file that may lack others.
    pub(super) fn write(
        &mut self,
        change: &Change,
        all: &Permits,
        removed: &BTreeMap<u64, Removal>,
        last: u64,
    ) -> Result<(), OpenError> {
        self.file.hold()?;
        self.try_write(change, all, removed, last).map_err(|trouble| trouble.at(self.file.path()))
    }

    fn try_write(
        &mut self,
        change: &Change,
        all: &Permits,
        removed: &BTreeMap<u64, Removal>,
        last: u64,
    ) -> Result<(), Trouble> {
        match self.open.take().filter(|open| open.is_at(self.file.path())) {
            Some(open) => {
                apply(&open.connection, change, last)?;
                self.open = Some(open);
            }
            None => {
                let open = self.file.open(Check::Once)?;
                rewrite(&open.connection, all, removed, last)?;
                self.open = Some(open);
            }
        }
        Ok(())
    }
}

/// What a file has, for a command that reads it beside the daemon. Without a file, or before the first permit, there are none.
pub(super) fn read(path: &Path) -> Result<Loaded, OpenError> {
    let loaded = StateFile::open_to_read(path).and_then(|connection| match connection {
        Some(connection) => load(&connection),
        None => Ok(Loaded::default()),
    });
    loaded.map_err(|trouble| trouble.at(path))
}

fn apply(connection: &Connection, change: &Change, last: u64) -> rusqlite::Result<()> {
    let Change { gone, put, forgotten, removed } = change;
    let transaction = connection.unchecked_transaction()?;
    for number in gone {
        transaction.prepare_cached("DELETE FROM permits WHERE number = ?1")?.execute([number])?;
    }
    for permit in put {
        insert(&transaction, permit)?;
    }
    for number in forgotten {
        transaction.prepare_cached("DELETE FROM removed_permits WHERE number = ?1")?.execute([number])?;
    }
    for removal in removed {
        insert_removal(&transaction, removal)?;
    }
    set_last(&transaction, last)?;
    transaction.commit()
}

fn rewrite(
    connection: &Connection,
    all: &Permits,
    removed: &BTreeMap<u64, Removal>,
    last: u64,
) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    make_tables(&transaction)?;
    transaction.execute_batch("DELETE FROM permits; DELETE FROM removed_permits")?;
    for permit in all.iter() {
        insert(&transaction, permit)?;
    }
    for removal in removed.values() {
        insert_removal(&transaction, removal)?;
    }
    set_last(&transaction, last)?;
    transaction.commit()
}

/// Another node may have given the largest number.
fn set_last(connection: &Connection, last: u64) -> rusqlite::Result<()> {
    let changed = connection
        .prepare_cached("UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'permits'")?
        .execute([last])?;
    if changed == 0 {
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('permits', ?1)", [last])?;
    }
    Ok(())
}

fn insert(connection: &Connection, permit: &TemporaryPermit) -> rusqlite::Result<()> {
    let TemporaryPermit { number, uid, conditions, note, created, until, decision } = permit;
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
        uid,
    ])?;
    Ok(())
}

fn insert_removal(connection: &Connection, removal: &Removal) -> rusqlite::Result<()> {
    let Removal { number, uid, created, until, at } = removal;
    let (created, until, at) = (milliseconds(*created), until.map(milliseconds), milliseconds(*at));
    connection.prepare_cached(INSERT_REMOVAL)?.execute(params![number, uid, created, until, at])?;
    Ok(())
}

/// The tables, with the columns that older versions lack.
fn make_tables(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)?;
    for (name, kind) in LATER_COLUMNS {
        if !has_column(connection, name)? {
            connection.execute_batch(&format!("ALTER TABLE permits ADD COLUMN {name} {kind}"))?;
        }
    }
    Ok(())
}

fn has_column(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM pragma_table_info('permits') WHERE name = ?1";
    connection.query_row(sql, [name], |row| row.get::<_, i64>(0)).map(|count| count > 0)
}

fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    connection.query_row(sql, [name], |row| row.get::<_, i64>(0)).map(|count| count > 0)
}

fn load(connection: &Connection) -> Result<Loaded, Trouble> {
    if !has_table(connection, "permits")? {
        return Ok(Loaded::default());
    }
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'permits'";
    let last = connection.query_row(sql, [], |row| row.get::<_, u64>(0)).optional().map_err(unreadable)?;
    let mut sql = "SELECT number, client, domain, recipient, note, created, until, decision".to_owned();
    for (name, _) in LATER_COLUMNS {
        sql.push_str(", ");
        sql.push_str(if has_column(connection, name)? { name } else { "NULL" });
    }
    let mut statement = connection.prepare(&format!("{sql} FROM permits"))?;
    let mut rows = statement.query([])?;
    let mut permits = Permits::default();
    while let Some(row) = rows.next()? {
        permits.insert(permit(row)?);
    }
    let removed = load_removed(connection)?;
    let largest = permits.iter().next_back().map(|permit| permit.number);
    let largest = largest.max(removed.keys().next_back().copied());
    Ok(Loaded { last: last.max(largest).unwrap_or_default(), permits, removed })
}

fn load_removed(connection: &Connection) -> Result<BTreeMap<u64, Removal>, Trouble> {
    let mut removed = BTreeMap::new();
    if !has_table(connection, "removed_permits")? {
        return Ok(removed);
    }
    let mut statement = connection.prepare("SELECT number, uid, created, until, at FROM removed_permits")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let number: u64 = row.get(0).map_err(unreadable)?;
        let late = || Trouble::Contents(format!("permit {number}: has a time past the year 9999"));
        let at = |column: usize| -> Result<SystemTime, Trouble> {
            time(row.get(column).map_err(unreadable)?).ok_or_else(late)
        };
        let until: Option<u64> = row.get(3).map_err(unreadable)?;
        let until = until.map(|until| time(until).ok_or_else(late)).transpose()?;
        let uid = row.get(1).map_err(unreadable)?;
        removed.insert(number, Removal { number, uid, created: at(2)?, until, at: at(4)? });
    }
    Ok(removed)
}

fn permit(row: &Row<'_>) -> Result<TemporaryPermit, Trouble> {
    let number: u64 = row.get(0).map_err(unreadable)?;
    let wrong = |what: &str| Trouble::Contents(format!("permit {number}: {what}"));
    let text = |at: usize| row.get::<_, Option<String>>(at).map_err(unreadable);
    let conditions = conditions(text(1)?, text(2)?, text(3)?, text(8)?).map_err(|what| wrong(&what))?;
    let late = || wrong("has a time past the year 9999");
    let until: Option<u64> = row.get(6).map_err(unreadable)?;
    Ok(TemporaryPermit {
        number,
        uid: row.get(9).map_err(unreadable)?,
        conditions,
        note: text(4)?.unwrap_or_default(),
        created: time(row.get(5).map_err(unreadable)?).ok_or_else(late)?,
        until: until.map(|until| time(until).ok_or_else(late)).transpose()?,
        decision: text(7)?.and_then(|text| Id::parse(&text)),
    })
}
