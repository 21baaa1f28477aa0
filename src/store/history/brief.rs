//! The decisions without their evidence, one after the other: for sums over many of them. A row costs about a microsecond, as
//! nothing is decoded.

use std::net::IpAddr;
use std::time::SystemTime;

use compact_str::CompactString;
use rusqlite::{Connection, Row, params};

use crate::decision::DecisionRecord;
use crate::policy::decide::Verdict;
use crate::policy::reason::Reason;
use crate::policy::rule::Mode;
use crate::store::history::codes::Coded;
use crate::store::history::decode;
use crate::store::history::file::Trouble;
use crate::store::history::filter::Cursor;
use crate::store::history::read::Source;

/// What sums need of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brief {
    pub cursor: Cursor,
    pub at: SystemTime,
    pub verdict: Verdict,
    pub reason: Option<Reason>,
    pub mode: Mode,
    /// The domain of the finding that decided, and the client; `None` where the verdict is accept.
    pub sender: Option<(CompactString, IpAddr)>,
}

/// The next decisions, from a position on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// Older than the position, the newest first; `None` begins with the newest of all.
    Before(Option<Cursor>),
    /// Newer than the position, the oldest first.
    After(Cursor),
}

const SELECT: &str = "SELECT seq, at, verdict, mode, reason, domain, client FROM rows";

impl Source<'_> {
    /// At most `limit` decisions; fewer only at the end of the history.
    pub(super) fn brief(&self, scan: Scan, limit: usize) -> Result<Vec<Brief>, Trouble> {
        let mut found = Vec::new();
        // Records that wait may be in the database by now.
        let written_before = self.pending.first().map_or(i64::MAX, |waiting| waiting.seq);
        let mut waiting = self.pending.iter().filter_map(|waiting| {
            let record = waiting.row.record(waiting.octets, |_| true)?;
            Some(of_record(waiting.seq, &record))
        });
        match scan {
            Scan::Before(before) => {
                let before = before.map_or(i64::MAX, |before| before.seq);
                found.extend(waiting.rev().filter(|one| one.cursor.seq < before).take(limit));
                let sql = format!("{SELECT} WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2");
                self.rows(&sql, [before.min(written_before), rest(limit, &found)], &mut found)?;
            }
            Scan::After(after) => {
                let sql = format!("{SELECT} WHERE seq > ?1 AND seq < {written_before} ORDER BY seq LIMIT ?2");
                self.rows(&sql, [after.seq, rest(limit, &found)], &mut found)?;
                let left = limit.saturating_sub(found.len());
                found.extend(waiting.by_ref().filter(|one| one.cursor.seq > after.seq).take(left));
            }
        }
        Ok(found)
    }

    fn rows(&self, sql: &str, values: [i64; 2], found: &mut Vec<Brief>) -> Result<(), Trouble> {
        let Some(connection) = self.connection else { return Ok(()) };
        read(connection, sql, values, found).map_err(Trouble::Sql)
    }
}

fn rest(limit: usize, found: &[Brief]) -> i64 {
    i64::try_from(limit.saturating_sub(found.len())).unwrap_or(i64::MAX)
}

fn read(
    connection: &Connection,
    sql: &str,
    [position, limit]: [i64; 2],
    found: &mut Vec<Brief>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params![position, limit])?;
    while let Some(row) = rows.next()? {
        found.extend(of_row(row)?);
    }
    Ok(())
}

/// What a later version wrote with a code of its own counts as accepted without a reason. A row with a damaged time is left
/// out.
fn of_row(row: &Row<'_>) -> rusqlite::Result<Option<Brief>> {
    let Some(at) = u64::try_from(row.get::<_, i64>(1)?).ok().and_then(decode::time) else { return Ok(None) };
    let verdict = Verdict::from_code(row.get(2)?).unwrap_or(Verdict::Accept);
    let reason: Option<u8> = row.get(4)?;
    let sender = || {
        let domain = row.get_ref(5)?.as_str_or_null()?.unwrap_or_default();
        let client = row.get_ref(6)?.as_str()?;
        Ok::<_, rusqlite::Error>(client.parse().ok().map(|client| (CompactString::new(domain), client)))
    };
    Ok(Some(Brief {
        cursor: Cursor { seq: row.get(0)? },
        at,
        verdict,
        reason: reason.and_then(Reason::from_code),
        mode: Mode::from_code(row.get(3)?).unwrap_or(Mode::Enforce),
        sender: if verdict == Verdict::Accept { None } else { sender()? },
    }))
}

fn of_record(seq: i64, record: &DecisionRecord) -> Brief {
    let domain = || record.deciding().map(|finding| finding.domain.clone()).unwrap_or_default();
    Brief {
        cursor: Cursor { seq },
        at: record.at,
        verdict: record.verdict,
        reason: record.reason(),
        mode: record.mode,
        sender: (record.verdict != Verdict::Accept).then(|| (domain(), record.client.to_canonical())),
    }
}
