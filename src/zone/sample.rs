//! The sample zones and their table; the data is in `sample.zone`, to be read as an example too.

use std::net::IpAddr;

use super::Zone;

const SAMPLE: &str = include_str!("sample.zone");

/// Laid over [`SAMPLE`], it mends the two-line company.
const REPAIR: &str = include_str!("sample-repair.zone");

/// How a line of the table starts.
const ROW: &str = ";|";

/// One sender of the sample zones, and what a reverse MX look-up says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Row {
    /// The sender's domain.
    pub domain: &'static str,
    /// Where its mail comes from; `None` where that doesn't matter.
    pub client: Option<IpAddr>,
    /// The result of the rule `exists`, by MX records: `pass` or a reason.
    pub exists: &'static str,
    /// The result of the rule `matches`, by MX records: `pass` or a reason.
    pub matches: &'static str,
    /// The client's PTR record: `confirmed`, `lies` or `none`.
    pub ptr: &'static str,
    /// What the row is there for.
    pub shows: &'static str,
}

/// The table in `sample.zone`. Its columns are explained there.
pub fn sample_rows() -> Vec<Row> {
    let lines = SAMPLE.lines().filter_map(|line| line.strip_prefix(ROW));
    lines.skip(1).filter_map(row).collect()
}

impl Zone {
    /// The sample zones.
    pub fn sample() -> Self {
        shipped(SAMPLE)
    }

    /// The sample zones after the two-line company has mended its DNS.
    pub fn repaired_sample() -> Self {
        let mut zone = Self::sample();
        zone.merge(shipped(REPAIR));
        zone
    }
}

/// A test parses both texts, so that they can't be broken here; an empty zone is what would be left.
fn shipped(text: &str) -> Zone {
    Zone::parse(text, None).unwrap_or_else(|error| {
        debug_assert!(false, "the sample zones: {error}");
        Zone::new()
    })
}

fn row(line: &'static str) -> Option<Row> {
    let mut columns = line.split('|').map(str::trim);
    let mut next = || columns.next();
    let row = Row {
        domain: next()?,
        client: next()?.parse().ok(),
        exists: next()?,
        matches: next()?,
        ptr: next()?,
        shows: next()?,
    };
    Some(row)
}
