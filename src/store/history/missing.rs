//! Why a decision isn't in the history. Ids are given in ascending order, so the oldest and the latest that are kept show where
//! one that is missing would be; that is all that its number says.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use rusqlite::OptionalExtension;

use crate::decision::Id;
use crate::store::history::Limits;
use crate::store::history::decode;
use crate::store::history::file::Trouble;
use crate::store::history::read::Source;

/// What a history has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The oldest and the latest decision that are kept; `None` if there is none.
    pub(super) ends: Option<[(Id, SystemTime); 2]>,
    pub(super) keep: Duration,
    pub(super) size: u64,
    /// As in [`Extent::with_dropped`].
    pub(super) dropped: Option<u64>,
}

impl Extent {
    pub(super) fn of(source: &Source<'_>, limits: Limits) -> Result<Self, Trouble> {
        let Limits { keep, size } = limits;
        Ok(Self { ends: ends(source)?, keep, size, dropped: None })
    }

    /// With the decisions that the daemon left out for lack of room since its start; `None` if it wasn't asked.
    #[must_use]
    pub fn with_dropped(self, dropped: Option<u64>) -> Self {
        Self { dropped, ..self }
    }

    /// Why this id isn't found: sentences, as far as the history shows it.
    #[must_use]
    pub fn why_missing(&self, id: Id) -> String {
        let Some([(first, oldest), (last, latest)]) = self.ends else {
            return "The history has no decision yet.".to_owned();
        };
        let time = |time| humantime::format_rfc3339_seconds(time);
        let mut text = String::new();
        // Writing to a String can't fail.
        if id.is_before(first) {
            let keep = humantime::format_duration(self.keep);
            let size = bytesize::ByteSize(self.size);
            write!(
                text,
                "It was given before the oldest decision that is kept ({first}, {}). history.keep is {keep}, history.size \
                 {size}: older ones are removed.",
                time(oldest)
            )
        } else if last.is_before(id) {
            write!(
                text,
                "It would come after the latest decision that is kept ({last}, {}): its transaction has not ended yet, it was \
                 lost in a crash, or another host gave it.",
                time(latest)
            )
        } else {
            write!(
                text,
                "It lies between decisions that are kept ({first}, {}, to {last}, {}): it was left out while the disk was too \
                 slow or full, lost in a crash, another host gave it, or it was misread (8 and B, 5 and S, 2 and Z look alike).",
                time(oldest),
                time(latest)
            )
        }
        .ok();
        match self.dropped {
            Some(0) => text.push_str(" Since its start the daemon has left out none."),
            Some(dropped) => {
                write!(text, " Since its start the daemon has left out {dropped} for lack of room.").ok();
            }
            None => {}
        }
        text
    }
}

fn ends(source: &Source<'_>) -> Result<Option<[(Id, SystemTime); 2]>, Trouble> {
    let time = |at| decode::time(u64::try_from(at).unwrap_or(0));
    let pending = source.pending.iter().filter_map(|waiting| Some((waiting.row.id?, time(waiting.row.at))));
    let of_file = |order: &str| -> Result<Option<(Id, SystemTime)>, Trouble> {
        let Some(connection) = source.connection else { return Ok(None) };
        let since = source.oldest.map_or(i64::MIN, |oldest| {
            i64::try_from(crate::store::history::encode::milliseconds(oldest)).unwrap_or(i64::MAX)
        });
        let sql =
            format!("SELECT id, at FROM rows WHERE at >= ?1 AND id IS NOT NULL ORDER BY seq {order} LIMIT 1");
        let row = connection
            .query_row(&sql, [since], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))
            .optional()?;
        Ok(row.and_then(|(id, at)| Some((Id::parse(&id)?, time(at)))))
    };
    let (mut first, mut last) = (of_file("ASC")?, of_file("DESC")?);
    for end in pending {
        first = first.or(Some(end));
        last = Some(end);
    }
    Ok(first.zip(last).map(|(first, last)| [first, last]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn the_place_of_an_id_among_those_that_are_kept_says_why_it_is_missing() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let ends = Some([(Id::nth(100), at(0)), (Id::nth(200), at(60))]);
        let extent =
            |dropped| Extent { ends, keep: Duration::from_secs(14 * 86_400), size: 1 << 30, dropped };
        let first = Id::nth(100);
        let rows = [
            (
                99,
                None,
                format!(
                    "It was given before the oldest decision that is kept ({first}, 1970-01-01T00:00:00Z). history.keep is 14days, history.size 1.0 GiB: older ones are removed."
                ),
            ),
            (201, Some(0), "It would come after the latest decision that is kept".to_owned()),
            (150, Some(7), "It lies between decisions that are kept".to_owned()),
        ];
        for (number, dropped, expected) in rows {
            let why = extent(dropped).why_missing(Id::nth(number));
            assert!(why.starts_with(&expected), "{number}: {why}");
            let tail = dropped.map(|dropped| {
                if dropped == 0 {
                    "left out none.".to_owned()
                } else {
                    format!("left out {dropped} for lack of room.")
                }
            });
            assert!(tail.is_none_or(|tail| why.ends_with(&tail)), "{why}");
        }
        let empty = Extent { ends: None, ..extent(None) };
        assert_eq!(empty.why_missing(first), "The history has no decision yet.");
    }
}
