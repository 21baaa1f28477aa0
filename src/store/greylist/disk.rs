//! The greylist's tables in the state file: hashed triples, and the secret of the hash.

use std::io;
use std::path::Path;
use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::store::OpenError;
use crate::store::greylist::memory::Batch;
use crate::store::greylist::state::State;
use crate::store::greylist::triple::Key;
use crate::store::state::{Check, Open, StateFile, Trouble, unreadable};

const HASH: &str = "hmac-sha256";

const WAITING: u8 = 0;
const PASSED: u8 = 1;

/// An open file. After a failed write, it is opened again for the next batch.
#[derive(Debug)]
pub(super) struct Disk {
    file: Arc<StateFile>,
    secret: [u8; 32],
    open: Option<Open>,
}

/// The contents of the file.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) secret: [u8; 32],
    pub(super) known: Vec<(Key, State)>,
}

impl Disk {
    /// Opens the file, or makes it. All of it is checked: a damaged file is refused and left unchanged, since only the operator knows
    /// whether there is a copy of it.
    pub(super) fn open(file: Arc<StateFile>) -> Result<(Self, Loaded), OpenError> {
        file.hold()?;
        let loaded = file.open(Check::Always).and_then(|open| {
            let loaded = load(&open.connection)?;
            Ok((open, loaded))
        });
        let (open, loaded) = loaded.map_err(|trouble| trouble.at(file.path()))?;
        Ok((Self { file, secret: loaded.secret, open: Some(open) }, loaded))
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
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
            Some(open) if !open.is_at(self.file.path()) => {
                return Err(Trouble::Contents("the file was moved or removed".to_owned()));
            }
            Some(open) => open,
            None => self.file.open(Check::Always)?,
        };
        write(&open.connection, &self.secret, &batch)?;
        self.open = Some(open);
        Ok(())
    }
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
