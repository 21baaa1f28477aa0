//! Closed segments: rows that are in order of the time, with their keys.

use compact_str::CompactString;
use rusqlite::{Connection, params};

use crate::store::history::keys::{self, Blocks};
use crate::store::history::row::{self, Kind};

/// The last position in a closed segment.
pub(super) const LAST_CLOSED: &str = "SELECT max(last) FROM segments";

/// Keys from `low` to `high`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) kind: Kind,
    pub(super) low: CompactString,
    pub(super) high: CompactString,
}

/// The blocks of a segment that may have keys of a range: from the last one that begins at its start or before.
pub(super) const BLOCKS: &str = "SELECT keys FROM blocks WHERE segment = ?1 AND kind = ?2 AND key <= ?4 AND key >= \
     coalesce((SELECT max(key) FROM blocks WHERE segment = ?1 AND kind = ?2 AND key <= ?3), '')";
pub(super) const KEYS: &str =
    "SELECT seq FROM keys WHERE segment = ?1 AND kind = ?2 AND key BETWEEN ?3 AND ?4";

/// Removes the segments whose rows are all gone.
pub(super) fn remove_keys(connection: &Connection) -> rusqlite::Result<()> {
    let gone = "SELECT segment FROM segments WHERE last < coalesce((SELECT min(seq) FROM rows), 9223372036854775807)";
    for table in ["blocks", "keys"] {
        connection.execute(&format!("DELETE FROM {table} WHERE segment IN ({gone})"), [])?;
    }
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
    let sql = "INSERT INTO blocks (segment, kind, key, keys) VALUES (?1, ?2, ?3, ?4)";
    let mut statement = connection.prepare_cached(sql)?;
    for (kind, mut keys) in Kind::ALL.into_iter().zip(keys) {
        keys.sort_unstable();
        keys.dedup();
        let mut blocks = Blocks::new(first, |key: &str, octets: &[u8]| {
            statement.execute(params![segment, kind.code(), key, octets]).map(drop)
        });
        for of_key in keys.chunk_by(|(one, _), (other, _)| one == other) {
            if let Some((key, _)) = of_key.first() {
                blocks.add(key, of_key.iter().map(|(_, seq)| *seq))?;
            }
        }
        blocks.finish()?;
    }
    Ok(Some(last))
}

/// The rows of a segment, which begins at `base`, that have a key in this range: their positions, the newest first.
pub(super) fn positions(
    connection: &Connection,
    segment: i64,
    base: i64,
    Range { kind, low, high }: &Range,
) -> rusqlite::Result<Vec<i64>> {
    let mut found = Vec::new();
    let wanted = params![segment, kind.code(), low.as_str(), high.as_str()];
    // A file that no daemon of this version has opened yet has no such table.
    let blocks = connection.table_exists(None, "blocks")?;
    let mut statement = if blocks { Some(connection.prepare_cached(BLOCKS)?) } else { None };
    let mut rows = statement.as_mut().map(|statement| statement.query(wanted)).transpose()?;
    while let Some(row) = rows.as_mut().map(rusqlite::Rows::next).transpose()?.flatten() {
        // A damaged block hides its keys; the others are of more use without it.
        keys::positions(row.get_ref(0)?.as_blob()?, base, low, high, &mut found).unwrap_or_default();
    }
    // Segments of version 1 have a row for each key.
    let mut statement = connection.prepare_cached(KEYS)?;
    let mut rows = statement.query(wanted)?;
    while let Some(row) = rows.next()? {
        found.push(row.get(0)?);
    }
    found.sort_unstable_by(|one, other| other.cmp(one));
    found.dedup();
    Ok(found)
}
