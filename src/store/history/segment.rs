//! Closed segments: rows that are in order of the time, with their keys.

use compact_str::CompactString;
use rusqlite::{Connection, params};

use crate::store::history::row::{self, Kind};

/// The last position in a closed segment.
pub(super) const LAST_CLOSED: &str = "SELECT max(last) FROM segments";

/// Removes the segments whose rows are all gone.
pub(super) fn remove_keys(connection: &Connection) -> rusqlite::Result<()> {
    let gone = "SELECT segment FROM segments WHERE last < coalesce((SELECT min(seq) FROM rows), 9223372036854775807)";
    connection.execute(&format!("DELETE FROM keys WHERE segment IN ({gone})"), [])?;
    connection.execute(&format!("DELETE FROM segments WHERE segment IN ({gone})"), [])?;
    Ok(())
}

/// Writes the keys of these rows in their order, and the segment. Returns the last position.
pub(super) fn write_segment(connection: &Connection, first: i64, last: i64) -> rusqlite::Result<Option<i64>> {
    let mut keys: [Vec<(CompactString, i64)>; 5] = Default::default();
    let (mut rows_read, mut ends, mut earliest, mut latest) = (0_u64, None, i64::MAX, i64::MIN);
    {
        let sql = format!("SELECT {} FROM rows WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq", row::KEY_COLUMNS);
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([first, last])?;
        while let Some(row) = rows.next()? {
            let (seq, at): (i64, i64) = (row.get(0)?, row.get(1)?);
            rows_read += 1;
            ends = Some((ends.map_or(seq, |(first, _)| first), seq));
            (earliest, latest) = (earliest.min(at), latest.max(at));
            row::keys(row, |kind, key| {
                if let Some(keys) = keys.get_mut(kind as usize) {
                    keys.push((key, seq));
                }
            })?;
        }
    }
    let Some((first, last)) = ends else { return Ok(None) };
    connection.execute(
        "INSERT INTO segments (first, last, earliest, latest, rows) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![first, last, earliest, latest, rows_read],
    )?;
    let segment = connection.last_insert_rowid();
    let sql = "INSERT OR IGNORE INTO keys (segment, kind, key, seq) VALUES (?1, ?2, ?3, ?4)";
    let mut statement = connection.prepare_cached(sql)?;
    for (kind, mut keys) in Kind::ALL.into_iter().zip(keys) {
        keys.sort_unstable();
        for (key, seq) in keys {
            statement.execute(params![segment, kind.code(), key.as_str(), seq])?;
        }
    }
    Ok(Some(last))
}
