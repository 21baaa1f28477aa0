//! The greylist's file: a table of hashed triples, and the secret of the hash.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use ring::rand::{SecureRandom, SystemRandom};

use crate::store::file::{self, OpenError};
use crate::store::greylist::memory::Batch;
use crate::store::greylist::state::State;
use crate::store::greylist::triple::Key;

/// Time in milliseconds since 1970, network, state.
type Row = (u64, u32, u8);
const TRIPLES: TableDefinition<'_, &Key, Row> = TableDefinition::new("greylist");
const SECRETS: TableDefinition<'_, &str, &[u8; 32]> = TableDefinition::new("secret");
const HASH: &str = "hmac-sha256";

const WAITING: u8 = 0;
const PASSED: u8 = 1;

/// An open file. After a failed write, it is opened again for the next batch.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    secret: [u8; 32],
    database: Option<Database>,
}

/// The contents of the file.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) secret: [u8; 32],
    pub(super) known: Vec<(Key, State)>,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<(Self, Loaded), OpenError> {
        let (database, loaded) = file::open(path, load)?;
        Ok((Self { path: path.to_owned(), secret: loaded.secret, database: Some(database) }, loaded))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the file, as after a failed write.
    #[cfg(test)]
    pub(super) fn lose(&mut self) {
        self.database = None;
    }

    /// Writes the batch, whole or not at all.
    pub(super) fn write(&mut self, mut batch: Batch) -> Result<(), Box<dyn std::error::Error>> {
        // A B-tree is written fastest in the order of its keys.
        match &mut batch {
            Batch::All(all) => all.sort_unstable_by_key(|(key, _)| *key),
            Batch::Some(changes) => changes.sort_unstable_by_key(|(key, _)| *key),
        }
        // After an error, redb needs the file to be opened again.
        let database = match self.database.take() {
            Some(database) => database,
            None => file::open(&self.path, |_database| Ok(()))?.0,
        };
        // redb may panic on a damaged file; the writer thread has to go on.
        let written = catch_unwind(AssertUnwindSafe(|| write(&database, &self.secret, &batch)));
        written.map_err(|_panic| "its contents make no sense")??;
        self.database = Some(database);
        Ok(())
    }
}

fn write(database: &Database, secret: &[u8; 32], batch: &Batch) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TRIPLES)?;
        match batch {
            Batch::Some(changes) => {
                for (key, state) in changes {
                    match state {
                        Some(state) => table.insert(key, row(*state))?,
                        None => table.remove(key)?,
                    };
                }
            }
            Batch::All(all) => {
                // The file may be a new one.
                transaction.open_table(SECRETS)?.insert(HASH, secret)?;
                table.retain(|_, _| false)?;
                for (key, state) in all {
                    table.insert(key, row(*state))?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn load(database: &Database) -> Result<Loaded, redb::Error> {
    let transaction = database.begin_write()?;
    let secret = {
        let mut secrets = transaction.open_table(SECRETS)?;
        let known = secrets.get(HASH)?.map(|secret| *secret.value());
        match known {
            Some(secret) => secret,
            None => {
                let secret = random().map_err(redb::Error::Io)?;
                secrets.insert(HASH, &secret)?;
                secret
            }
        }
    };
    transaction.open_table(TRIPLES)?;
    transaction.commit()?;
    let table = database.begin_read()?.open_table(TRIPLES)?;
    let mut known = Vec::new();
    for entry in table.iter()? {
        let (key, row) = entry?;
        known.push((*key.value(), state(row.value())?));
    }
    Ok(Loaded { secret, known })
}

/// A random secret.
pub(super) fn random() -> std::io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    let filled = SystemRandom::new().fill(&mut secret);
    filled.map_err(|_unspecified| std::io::Error::other("the system has no random numbers"))?;
    Ok(secret)
}

fn row(state: State) -> Row {
    match state {
        State::Waiting { since, network } => (since, network, WAITING),
        State::Passed { last } => (last, 0, PASSED),
    }
}

fn state((time, network, state): Row) -> Result<State, redb::Error> {
    match state {
        WAITING => Ok(State::Waiting { since: time, network }),
        PASSED => Ok(State::Passed { last: time }),
        other => Err(redb::Error::Corrupted(format!("a triple in state {other}"))),
    }
}
