//! Closed segments: rows that are in order of the time, with their keys.

use std::collections::HashMap;

use compact_str::CompactString;
use rusqlite::{Connection, params};

use crate::store::history::keys::{self, Blocks};
use crate::store::history::kind::{self, Kind};

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
    let mut keys = Kind::ALL.map(KeysOfRows::new);
    let (mut rows_read, mut ends, mut earliest, mut latest) = (0_u64, None, i64::MAX, i64::MIN);
    {
        let sql = format!("SELECT {} FROM rows WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq", kind::KEY_COLUMNS);
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([first, last])?;
        while let Some(row) = rows.next()? {
            let (seq, at): (i64, i64) = (row.get(0)?, row.get(1)?);
            rows_read += 1;
            ends = Some((ends.map_or(seq, |(first, _)| first), seq));
            (earliest, latest) = (earliest.min(at), latest.max(at));
            kind::key_texts(row, |kind, text| {
                if let Some(keys) = keys.get_mut(kind as usize) {
                    keys.add(text, seq);
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
    for (kind, keys) in Kind::ALL.into_iter().zip(keys) {
        let mut blocks = Blocks::new(first, |key: &str, octets: &[u8]| {
            statement.execute(params![segment, kind.code(), key, octets]).map(drop)
        });
        keys.in_order(|key, positions| blocks.add(key, positions.iter().copied()))?;
        blocks.finish()?;
    }
    Ok(Some(last))
}

/// The keys of one kind, with their rows. A key is made and sorted once for each text, however many rows have it.
#[derive(Debug)]
struct KeysOfRows {
    kind: Kind,
    /// The number of a text.
    numbers: HashMap<CompactString, usize>,
    /// How many rows the text with a number has.
    counts: Vec<usize>,
    /// The number of a text, and the position of a row.
    rows: Vec<(usize, i64)>,
}

impl KeysOfRows {
    fn new(kind: Kind) -> Self {
        Self { kind, numbers: HashMap::new(), counts: Vec::new(), rows: Vec::new() }
    }

    /// Adds a text of a row; positions don't decrease.
    fn add(&mut self, text: &str, position: i64) {
        let next = self.numbers.len();
        let number = self.numbers.get(text).copied().unwrap_or(next);
        if number == next {
            self.numbers.insert(text.into(), next);
            self.counts.push(0);
        }
        if let Some(count) = self.counts.get_mut(number) {
            *count += 1;
        }
        self.rows.push((number, position));
    }

    /// Calls `each` for each key, in their order, with the positions of its rows in theirs, each once.
    fn in_order<E>(self, mut each: impl FnMut(&str, &[i64]) -> Result<(), E>) -> Result<(), E> {
        let mut ends: Vec<usize> = Vec::with_capacity(self.counts.len());
        let mut sum = 0;
        for count in &self.counts {
            ends.push(sum);
            sum += count;
        }
        let mut positions = vec![0; self.rows.len()];
        for (number, position) in self.rows {
            if let Some(end) = ends.get_mut(number)
                && let Some(place) = positions.get_mut(*end)
            {
                *place = position;
                *end += 1;
            }
        }
        let keys =
            self.numbers.into_iter().filter_map(|(text, number)| Some((self.kind.key(&text)?, number)));
        let mut keys: Vec<(CompactString, usize)> = keys.collect();
        keys.sort_unstable();
        let mut of_key = Vec::new();
        for texts in keys.chunk_by(|(one, _), (other, _)| one == other) {
            of_key.clear();
            for (_, number) in texts {
                let range =
                    ends.get(*number).zip(self.counts.get(*number)).map(|(end, count)| end - count..*end);
                of_key.extend_from_slice(positions.get(range.unwrap_or_default()).unwrap_or_default());
            }
            if texts.len() > 1 {
                of_key.sort_unstable();
            }
            of_key.dedup();
            if let Some((key, _)) = texts.first() {
                each(key, &of_key)?;
            }
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_their_order_with_each_of_their_rows_once() {
        let mut keys = KeysOfRows::new(Kind::Recipient);
        for (text, position) in
            [("b", 1), ("a", 1), ("B", 2), ("b", 2), ("c", 5), ("a", 7), ("b", 9), ("B", 10)]
        {
            keys.add(text, position);
        }
        let mut all = Vec::new();
        let each = |key: &str, positions: &[i64]| {
            all.push((key.to_owned(), positions.to_vec()));
            Ok::<(), ()>(())
        };
        keys.in_order(each).unwrap();
        let expected = [("a", vec![1, 7]), ("b", vec![1, 2, 9, 10]), ("c", vec![5])];
        assert_eq!(all, expected.map(|(key, positions)| (key.to_owned(), positions)));
    }

    #[test]
    fn a_damaged_client_has_no_key() {
        let mut keys = KeysOfRows::new(Kind::Client);
        keys.add("192.0.2.x", 1);
        keys.in_order(|_, _| Err(())).unwrap();
    }
}
