//! Searches decisions, the newest first: in the records that aren't written yet, then in the database, one segment after the
//! other.
//!
//! A closed segment has keys for what people search by; the open one, and a search by anything else, is read row by row.
//! All of a page is read in one transaction, so that it fits together whatever is written meanwhile.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use compact_str::{CompactString, format_compact};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::decision::{DecisionRecord, Id};
use crate::store::file::is_damage;
use crate::store::history::codes::Coded;
use crate::store::history::encode::milliseconds;
use crate::store::history::file::Trouble;
use crate::store::history::filter::{Cursor, Filter};
use crate::store::history::kind::{Kind, client_key, domain_key, recipient_key};
use crate::store::history::row::{self, COLUMNS};
use crate::store::history::segment::{self, LAST_CLOSED, Range};
use crate::store::history::waiting::Waiting;

/// Rows that are read for one page without an index, so that a filter without matches doesn't take for ever.
const MAX_READ: u64 = 300_000;
/// Rows that are read by one statement, of those that a key has.
const POSITIONS: usize = 256;
/// The most decisions of one id.
const MAX_OF_ONE_ID: usize = 100;
/// The most time between two decisions of one transaction: longer than a session lasts.
const MAX_APART: Duration = Duration::from_secs(2 * 60 * 60);

/// The result of a search.
#[derive(Debug, Default)]
pub struct Page {
    /// The newest first.
    pub records: Vec<DecisionRecord>,
    /// For each record, where a page would begin with it.
    pub positions: Vec<Cursor>,
    /// Where the next page begins. A page with fewer records than the limit isn't always the last.
    pub next: Option<Cursor>,
}

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A system call failed.
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    /// The database can't be read.
    #[error("{}: {what}", path.display())]
    Database {
        path: PathBuf,
        what: String,
        /// The file is damaged.
        damaged: bool,
    },
    /// The search's thread panicked.
    #[error("the search failed: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

impl ReadError {
    pub(super) fn of(path: &Path, trouble: Trouble) -> Self {
        let path = path.to_owned();
        match trouble {
            Trouble::Io(error) => Self::Io { path, error },
            other => {
                let damaged = matches!(&other, Trouble::Sql(error) if is_damage(error));
                Self::Database { path, what: other.to_string(), damaged }
            }
        }
    }
}

/// The data for a search.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// `None` if there is no file yet.
    pub(super) connection: Option<&'a Connection>,
    /// Records that aren't written yet, the oldest first.
    pub(super) pending: &'a [Waiting<'a>],
    /// Older records count as removed.
    pub(super) oldest: Option<SystemTime>,
}

impl Range {
    fn one(kind: Kind, key: CompactString) -> Self {
        Self { kind, low: key.clone(), high: key }
    }

    /// The keys that narrow a search most.
    pub(super) fn of(filter: &Filter) -> Option<Self> {
        let network = filter.client.map(|client| Self {
            kind: Kind::Client,
            low: client_key(client.network()),
            high: client_key(client.broadcast()),
        });
        let (address, network) = match network {
            Some(range) if range.low == range.high => (Some(range), None),
            other => (None, other),
        };
        let domain = || {
            let low = domain_key(filter.common_domain()?.as_str());
            let high = format_compact!("{low}\u{7f}");
            Some(Self { kind: Kind::Domain, low, high })
        };
        let queue = filter.queue.as_ref().map(|queue| Self::one(Kind::Queue, queue.clone()));
        let rcpt = || filter.rcpt.as_ref().map(|rcpt| Self::one(Kind::Recipient, recipient_key(rcpt)));
        let id = filter.id.map(|id| Self::one(Kind::Id, id.as_str().into()));
        id.or(queue).or_else(rcpt).or(address).or_else(domain).or(network)
    }
}

/// Rows of the database, by their positions.
struct Part {
    first: i64,
    last: i64,
    /// The first position of its segment.
    base: i64,
    /// The number of the segment, if it is closed, and so has keys.
    segment: Option<i64>,
    rows: u64,
    /// The earliest and the latest time.
    times: (i64, i64),
}

impl Source<'_> {
    /// The next `limit` matching records before a position.
    pub(super) fn search(
        &self,
        filter: &Filter,
        before: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Trouble> {
        let since = filter.since.into_iter().chain(self.oldest).max();
        let filter = Filter { since, ..filter.clone() };
        let before = before.map_or(i64::MAX, |before| before.seq);
        let mut page = Page::default();
        let mut add = |seq: i64, record: DecisionRecord| {
            let position = Cursor { seq: seq.saturating_add(1) };
            if page.records.len() == limit {
                page.next = Some(position);
                return ControlFlow::Break(());
            }
            page.records.push(record);
            page.positions.push(position);
            ControlFlow::Continue(())
        };
        for one in self.pending.iter().rev().filter(|one| one.seq < before) {
            let found = one.row.record(one.octets, |head| filter.fits_head(head));
            if let Some(record) = found.filter(|record| filter.fits_rest(record))
                && add(one.seq, record).is_break()
            {
                return Ok(page);
            }
        }
        // Pending records may be in the database by now.
        let end = self.pending.first().map_or(i64::MAX, |waiting| waiting.seq).min(before);
        let range = Range::of(&filter);
        let mut left = MAX_READ;
        let next = self.parts(end, |connection, part| {
            if part.times.1 < time(filter.since, 0) || part.times.0 >= time(filter.until, i64::MAX) {
                return Ok(ControlFlow::Continue(()));
            }
            let Some(rest) =
                left.checked_sub(if part.segment.is_some() && range.is_some() { 0 } else { part.rows })
            else {
                return Ok(ControlFlow::Break(Some(part.last.saturating_add(1))));
            };
            left = rest;
            let flow = visit(connection, part, &filter, None, range.as_ref(), &mut add)?;
            Ok(if flow.is_break() { ControlFlow::Break(None) } else { ControlFlow::Continue(()) })
        })?;
        page.next = page.next.or(next.map(|seq| Cursor { seq }));
        Ok(page)
    }

    /// The decisions of one id, the oldest first.
    pub(super) fn find(&self, id: Id) -> Result<Vec<DecisionRecord>, Trouble> {
        let filter = Filter { since: self.oldest, ..Filter::default() };
        let mut records: Vec<DecisionRecord> = Vec::new();
        for one in self.pending.iter().rev().filter(|one| one.row.id == Some(id)).take(MAX_OF_ONE_ID) {
            records.extend(one.row.record(one.octets, |head| filter.fits_head(head)));
        }
        let end = self.pending.first().map_or(i64::MAX, |waiting| waiting.seq);
        let range = Range::one(Kind::Id, id.as_str().into());
        self.parts(end, |connection, part| {
            let apart = i64::try_from(MAX_APART.as_millis()).unwrap_or(i64::MAX);
            let found = records.last().map(|record| time(Some(record.at), 0));
            if found.is_some_and(|found| part.times.1.saturating_add(apart) < found) {
                return Ok(ControlFlow::Break(()));
            }
            let flow = visit(connection, part, &filter, Some(id), Some(&range), &mut |_seq, record| {
                records.push(record);
                if records.len() >= MAX_OF_ONE_ID {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            Ok(flow)
        })?;
        records.reverse();
        Ok(records)
    }

    /// Calls `each` for the parts of the database before a position, the newest first.
    fn parts<B>(
        &self,
        end: i64,
        mut each: impl FnMut(&Connection, &Part) -> Result<ControlFlow<B>, Trouble>,
    ) -> Result<B, Trouble>
    where
        B: Default,
    {
        let Some(connection) = self.connection else { return Ok(B::default()) };
        let transaction = connection.unchecked_transaction()?;
        let last = end.saturating_sub(1);
        let closed: Option<i64> = transaction.query_row(LAST_CLOSED, [], |row| row.get(0))?;
        let first = closed.map_or(i64::MIN, |closed| closed.saturating_add(1));
        if first <= last {
            let rows =
                transaction
                    .query_row("SELECT count(*) FROM rows WHERE seq >= ?1", [first], |row| row.get(0))?;
            let part = Part { first, last, base: first, segment: None, rows, times: (i64::MIN, i64::MAX) };
            if let ControlFlow::Break(value) = each(&transaction, &part)? {
                return Ok(value);
            }
        }
        let sql = "SELECT segment, first, last, earliest, latest, rows FROM segments WHERE first <= ?1 ORDER BY last DESC";
        let mut statement = transaction.prepare(sql)?;
        let mut rows = statement.query([last])?;
        while let Some(row) = rows.next()? {
            let (first, times): (i64, _) = (row.get(1)?, (row.get(3)?, row.get(4)?));
            let (segment, last) = (Some(row.get(0)?), last.min(row.get(2)?));
            let part = Part { first, last, base: first, segment, rows: row.get(5)?, times };
            if let ControlFlow::Break(value) = each(&transaction, &part)? {
                return Ok(value);
            }
        }
        Ok(B::default())
    }
}

/// Calls `each` for the matching records of one part, the newest first.
fn visit(
    connection: &Connection,
    part: &Part,
    filter: &Filter,
    id: Option<Id>,
    range: Option<&Range>,
    each: &mut impl FnMut(i64, DecisionRecord) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Trouble> {
    let conditions = Conditions::of(filter, id);
    let Some((segment, range)) = part.segment.zip(range) else {
        let values = [part.first.into(), part.last.into()].into_iter().chain(conditions.values);
        return read(connection, &scanning(&conditions.sql), values, filter, each);
    };
    let positions = segment::positions(connection, segment, part.base, range)?;
    let positions: Vec<i64> =
        positions.into_iter().filter(|seq| (part.first..=part.last).contains(seq)).collect();
    let sql = keyed(&conditions.sql);
    for some in positions.chunks(POSITIONS) {
        let list = Value::Text(serde_json::to_string(some).unwrap_or_default());
        let values = std::iter::once(list).chain(conditions.values.iter().cloned());
        if read(connection, &sql, values, filter, each)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Calls `each` for the matching records among the rows of a query.
fn read(
    connection: &Connection,
    sql: &str,
    values: impl Iterator<Item = Value>,
    filter: &Filter,
    each: &mut impl FnMut(i64, DecisionRecord) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Trouble> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        // A record that can't be decoded is one of a later version, or damaged; the others are of more use without it.
        let record = row::record(row, |head| filter.fits_head(head))?.flatten();
        let Some(record) = record.filter(|record| filter.fits_rest(record)) else { continue };
        if each(row.get(0)?, record).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Reads the rows of a list of positions, in its order.
pub(super) fn keyed(conditions: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM json_each(?1) AS k CROSS JOIN rows AS r ON r.seq = k.value WHERE TRUE{conditions}"
    )
}

/// Reads all rows of a part.
pub(super) fn scanning(conditions: &str) -> String {
    format!("SELECT {COLUMNS} FROM rows AS r WHERE r.seq BETWEEN ?1 AND ?2{conditions} ORDER BY r.seq DESC")
}

/// Conditions that spare the decoding of a row. What else a filter has is compared with the decoded record.
#[derive(Debug, Default)]
struct Conditions {
    sql: String,
    values: Vec<Value>,
}

impl Conditions {
    fn of(filter: &Filter, id: Option<Id>) -> Self {
        let mut all = Self::default();
        let code = |code: u8| Value::Integer(i64::from(code));
        let address = filter.client.filter(|client| client.network() == client.broadcast());
        all.add("r.at >= ?", filter.since.map(|since| Value::Integer(time(Some(since), 0))));
        all.add("r.at < ?", filter.until.map(|until| Value::Integer(time(Some(until), i64::MAX))));
        all.add("r.verdict = ?", filter.verdict.map(|verdict| code(verdict.code())));
        all.add("r.reason = ?", filter.reason.map(|reason| code(reason.code())));
        all.add("r.outcome = ?", filter.outcome.map(|outcome| code(outcome.code())));
        all.add("r.id = ?", id.or(filter.id).map(|id| text(id.as_str())));
        all.add("r.queue = ?", filter.queue.as_deref().map(text));
        all.add("r.client = ?", address.map(|client| text(&client.addr().to_string())));
        all.add("instr(r.tags, ?) > 0", filter.tag.map(|reason| text(reason.name())));
        all.add("instr(r.domains, ?) > 0", filter.common_domain().map(|domain| text(domain.as_str())));
        let recipient = filter.rcpt.as_deref().map(|recipient| text(&recipient_key(recipient)));
        all.add("(lower(r.rcpt) = ? OR r.recipients IS NOT NULL)", recipient);
        all
    }

    fn add(&mut self, condition: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.sql.push_str(" AND ");
            self.sql.push_str(condition);
            self.values.push(value);
        }
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// Milliseconds since 1970.
fn time(time: Option<SystemTime>, otherwise: i64) -> i64 {
    time.map_or(otherwise, |time| i64::try_from(milliseconds(time)).unwrap_or(i64::MAX))
}
