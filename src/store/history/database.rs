//! The database, open for writing: decisions in batches, the keys of closed segments, and room for new decisions.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::store::file::place;
use crate::store::history::encode::milliseconds;
use crate::store::history::file::{self, Trouble};
use crate::store::history::first_format::OldFile;
use crate::store::history::limits::Limits;
use crate::store::history::row::{self, Scratch};
use crate::store::history::schema::PAGE;
use crate::store::history::segment::{LAST_CLOSED, remove_keys, write_segment};
use crate::store::history::waiting::Waiting;

/// Rows that are looked at in search of old ones, at each write.
const LOOKED_AT: u64 = 2000;
/// Milliseconds until they are looked at again even if none was old.
const LOOK_AGAIN: u64 = 60_000;
/// Octets of a row, and of its keys, about.
const OCTETS_OF_ROW: u64 = 1024;
const OCTETS_OF_KEYS: u64 = 256;
/// Steps in which room is made, at each write.
const MAX_STEPS: usize = 64;
/// Pages that are given back to the disk at each write.
const MAX_PAGES: u64 = 1000;
/// So many times the usual log mean that a reader holds it; nothing is written then beyond the size limit.
const MOST_LOGS: u64 = 4;

#[derive(Debug)]
pub(super) struct Database {
    pub(super) connection: Connection,
    /// The file, by device and inode.
    pub(super) place: Option<(u64, u64)>,
    /// The last position in a closed segment.
    closed: i64,
    /// Rows behind it.
    rows: u64,
    limits: Limits,
    looked: Looked,
}

/// When the oldest rows were looked at, and the earliest time among them, in milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Looked {
    at: i64,
    earliest: i64,
}

impl Looked {
    /// None of them is older than `before`, as of now. Rows come behind them, so that only a clock that was set back can bring
    /// an older one: a look once a minute is enough for these.
    fn is_enough(self, now: i64, before: i64) -> bool {
        self.earliest >= before && now.abs_diff(self.at) < LOOK_AGAIN
    }
}

impl Database {
    pub(super) fn new(connection: Connection, path: &Path, limits: Limits) -> Result<Self, Trouble> {
        let closed: Option<i64> = connection.query_row(LAST_CLOSED, [], |row| row.get(0))?;
        let closed = closed.unwrap_or(i64::MIN);
        let rows =
            connection.query_row("SELECT count(*) FROM rows WHERE seq > ?1", [closed], |row| row.get(0))?;
        let place = place(path);
        let looked = Looked { at: 0, earliest: i64::MIN };
        let open = Self { connection, place, closed, rows, limits, looked };
        open.apply_limits()?;
        Ok(open)
    }

    pub(super) fn set_limits(&mut self, limits: Limits) -> rusqlite::Result<()> {
        if self.limits != limits {
            self.limits = limits;
            self.apply_limits()?;
        }
        Ok(())
    }

    fn apply_limits(&self) -> rusqlite::Result<()> {
        let pages = self.limits.log() / u64::from(PAGE);
        let set = |pragma: &str, value: u64| {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            self.connection.pragma_update_and_check(None, pragma, value, |_row| Ok(()))
        };
        set("wal_autocheckpoint", pages.max(1))?;
        set("journal_size_limit", self.limits.log())
    }

    fn number(&self, pragma: &str) -> rusqlite::Result<u64> {
        self.connection.pragma_query_value(None, pragma, |row| row.get(0))
    }

    /// Octets of the file: in use, and in all.
    fn octets(&self) -> rusqlite::Result<(u64, u64)> {
        let (page, pages, free) =
            (self.number("page_size")?, self.number("page_count")?, self.number("freelist_count")?);
        Ok((pages.saturating_sub(free) * page, pages * page))
    }

    /// Makes room and writes decisions; `written` counts those that are on disk.
    pub(super) fn append(
        &mut self,
        path: &Path,
        records: &[Waiting<'_>],
        now: SystemTime,
        written: &mut usize,
    ) -> Result<(), Trouble> {
        let limits = self.limits;
        if file::wal_octets(path) > MOST_LOGS * limits.log() && file::octets(path) > limits.size {
            return Err(io::Error::other("a reader keeps the log from being emptied").into());
        }
        self.remove_old(now, LOOKED_AT.max(2 * records.len() as u64))?;
        self.make_room(0)?;
        while let Some(rest) = records.get(*written..).filter(|rest| !rest.is_empty()) {
            self.make_room(limits.batch().min(rest.len() as u64 * OCTETS_OF_ROW))?;
            *written += self.batch(rest)?;
        }
        if self.rows >= limits.segment() {
            self.make_room(self.rows * OCTETS_OF_KEYS)?;
            self.close_segment()?;
        }
        Ok(self.shrink()?)
    }

    /// Writes the first of these decisions in one transaction, and returns how many.
    fn batch(&mut self, records: &[Waiting<'_>]) -> Result<usize, Trouble> {
        let transaction = self.connection.unchecked_transaction()?;
        let (mut octets, mut count) = (0, 0);
        {
            let mut statement = transaction.prepare_cached(row::INSERT)?;
            for one in records {
                octets += one.row.insert(&mut statement, one.seq, one.octets)? as u64;
                count += 1;
                if octets >= self.limits.batch() {
                    break;
                }
            }
        }
        transaction.commit()?;
        self.rows += count as u64;
        Ok(count)
    }

    /// Removes the oldest decisions until so many octets fit.
    fn make_room(&mut self, octets: u64) -> rusqlite::Result<()> {
        let room = self.limits.file();
        let mut step = self.limits.step();
        for _ in 0..MAX_STEPS {
            let (used, _) = self.octets()?;
            if used + octets <= room || step == 0 {
                return Ok(());
            }
            let transaction = self.connection.unchecked_transaction()?;
            match nth(&transaction, step)? {
                Some(edge) => {
                    transaction.execute("DELETE FROM rows WHERE seq < ?1", [edge])?;
                    remove_keys(&transaction)?;
                }
                None => step /= 2,
            }
            transaction.commit()?;
            self.count()?;
        }
        Ok(())
    }

    /// Removes what is too old among the oldest rows, also beside the newest row: a clock that jumps forward must not remove all.
    fn remove_old(&mut self, now: SystemTime, step: u64) -> rusqlite::Result<()> {
        let newest: Option<i64> = self
            .connection
            .query_row("SELECT at FROM rows ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
            .optional()?;
        let Some(newest) = newest else { return Ok(()) };
        let as_number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let keep = as_number(u64::try_from(self.limits.keep.as_millis()).unwrap_or(u64::MAX));
        let now = as_number(milliseconds(now));
        let before = newest.min(now).saturating_sub(keep);
        if self.looked.is_enough(now, before) {
            return Ok(());
        }
        let earliest: Option<i64> = self
            .connection
            .query_row(
                "SELECT min(at) FROM (SELECT at FROM rows ORDER BY seq LIMIT ?1)",
                [as_number(step)],
                |row| row.get(0),
            )
            .optional()?
            .flatten();
        if let Some(earliest) = earliest.filter(|earliest| *earliest >= before) {
            self.looked = Looked { at: now, earliest };
            return Ok(());
        }
        let transaction = self.connection.unchecked_transaction()?;
        let edge = nth(&transaction, step)?.unwrap_or(i64::MAX);
        transaction.execute("DELETE FROM rows WHERE seq < ?1 AND at < ?2", params![edge, before])?;
        remove_keys(&transaction)?;
        transaction.commit()?;
        self.count()
    }

    /// Counts the rows of the open segment anew, if it may have lost some.
    fn count(&mut self) -> rusqlite::Result<()> {
        let closed: Option<i64> = self.connection.query_row(LAST_CLOSED, [], |row| row.get(0))?;
        if closed.is_none() {
            self.closed = i64::MIN;
            self.rows = self.connection.query_row("SELECT count(*) FROM rows", [], |row| row.get(0))?;
        }
        Ok(())
    }

    /// Gives pages back to the disk when the file is larger than it may be, such as after a change of the limit.
    fn shrink(&self) -> rusqlite::Result<()> {
        let (used, all) = self.octets()?;
        let room = self.limits.file();
        if all <= room || used >= all {
            return Ok(());
        }
        let pages = (all - room.max(used)).div_ceil(u64::from(PAGE));
        let sql = format!("PRAGMA incremental_vacuum({})", pages.min(MAX_PAGES));
        let mut vacuum = self.connection.prepare(&sql)?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
        drop(steps);
        self.empty_log()
    }

    /// Moves all of the log into the file, as far as no reader needs it.
    pub(super) fn empty_log(&self) -> rusqlite::Result<()> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_row| Ok(()))
    }

    /// Writes the keys of the rows behind the last segment.
    fn close_segment(&mut self) -> rusqlite::Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        let last = write_segment(&transaction, self.closed.saturating_add(1), i64::MAX)?;
        transaction.commit()?;
        if let Some(last) = last {
            (self.closed, self.rows) = (last, 0);
        }
        Ok(())
    }

    /// The files of the first format that are taken over.
    pub(super) fn taken(&self) -> rusqlite::Result<Vec<u64>> {
        let mut statement = self.connection.prepare("SELECT file FROM taken_over")?;
        statement.query_map([], |row| row.get(0))?.collect()
    }

    pub(super) fn forget_taken(&self) -> rusqlite::Result<()> {
        self.connection.execute("DELETE FROM taken_over", []).map(drop)
    }

    /// The last position that a file of the first format with this number comes after.
    fn before(&self, number: u64) -> rusqlite::Result<u64> {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let sql = "SELECT coalesce(max(last), 0) FROM segments WHERE first <= ?1";
        self.connection.query_row(sql, [number], |row| row.get(0))
    }

    /// Copies a file of the first format into a closed segment. Returns the number of damaged octets.
    pub(super) fn take_over(&mut self, file: &OldFile, scratch: &mut Scratch) -> Result<u64, Trouble> {
        let before = self.before(file.number)?;
        let transaction = self.connection.unchecked_transaction()?;
        let mut ends: Option<(i64, i64)> = None;
        let lost = {
            let mut statement = transaction.prepare_cached(row::INSERT)?;
            file.read(before, |position, record| {
                let seq = i64::try_from(position).unwrap_or(i64::MAX);
                ends = Some((ends.map_or(seq, |(first, _)| first), seq));
                let (row, octets) = scratch.row(record);
                row.insert(&mut statement, seq, octets).map(drop).map_err(Trouble::Sql)
            })?
        };
        if let Some((first, last)) = ends {
            let last = write_segment(&transaction, first, last)?;
            self.closed = self.closed.max(last.unwrap_or(self.closed));
        }
        transaction.execute("INSERT INTO taken_over (file) VALUES (?1)", [file.number])?;
        transaction.commit()?;
        Ok(lost)
    }
}

/// The position of a row behind so many older ones.
fn nth(connection: &Connection, rows: u64) -> rusqlite::Result<Option<i64>> {
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let sql = "SELECT seq FROM rows ORDER BY seq LIMIT 1 OFFSET ?1";
    connection.query_row(sql, [rows], |row| row.get(0)).optional()
}
