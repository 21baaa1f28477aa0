//! Why a decision isn't in the history. A node gives ids in ascending order, so the oldest and the latest of its own that are
//! kept show where one that is missing would be; that, and the node, is all that its number says.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use rusqlite::OptionalExtension;

use crate::decision::{Id, Node};
use crate::store::history::Limits;
use crate::store::history::decode;
use crate::store::history::file::Trouble;
use crate::store::history::read::Source;

const LOOK_ALIKE: &str = "8 and B, 5 and S, 2 and Z look alike";

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
        } else if first.node() != id.node() || last.node() != id.node() {
            write!(
                text,
                "It is an id of {}, and those that are kept ({first} of {}, {}, to {last} of {}, {}) don't show its place: it was \
                 misread ({LOOK_ALIKE}), another gate has the decision, or it was left out or lost.",
                named(id),
                named(first),
                time(oldest),
                named(last),
                time(latest)
            )
        } else {
            write!(
                text,
                "It lies between decisions that are kept ({first}, {}, to {last}, {}): it was left out while the disk was too \
                 slow or full, lost in a crash, another host gave it, or it was misread ({LOOK_ALIKE}).",
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

/// The gate that gave it.
fn named(id: Id) -> String {
    let node = id.node();
    if node == Node::default() {
        "a gate without a fleet (node 0)".to_owned()
    } else {
        format!("node {node}")
    }
}

fn ends(source: &Source<'_>) -> Result<Option<[(Id, SystemTime); 2]>, Trouble> {
    let time = |at| decode::time(u64::try_from(at).unwrap_or(0));
    let pending = source.pending.iter().filter_map(|waiting| Some((waiting.row.id?, time(waiting.row.at)?)));
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
        Ok(row.and_then(|(id, at)| Some((Id::parse(&id)?, time(at)?))))
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
        let (one, two) = (Node::of_a_test(1), Node::of_a_test(2));
        let first = Id::of(100, one);
        let ends = Some([(first, at(0)), (Id::of(200, one), at(60))]);
        let extent =
            |dropped| Extent { ends, keep: Duration::from_secs(14 * 86_400), size: 1 << 30, dropped };
        let rows = [
            (
                Id::of(99, one),
                None,
                format!(
                    "It was given before the oldest decision that is kept ({first}, 1970-01-01T00:00:00Z). history.keep is 14days, history.size 1.0 GiB: older ones are removed."
                ),
            ),
            (Id::of(201, one), Some(0), "It would come after the latest decision that is kept".to_owned()),
            (Id::of(150, one), Some(7), "It lies between decisions that are kept".to_owned()),
            (
                Id::of(150, two),
                None,
                format!("It is an id of node 2, and those that are kept ({first} of node 1, 1970-"),
            ),
            (Id::of(9, two), Some(0), "It is an id of node 2, ".to_owned()),
            (
                Id::of(900, Node::default()),
                None,
                "It is an id of a gate without a fleet (node 0), ".to_owned(),
            ),
        ];
        for (id, dropped, expected) in rows {
            let why = extent(dropped).why_missing(id);
            assert!(why.starts_with(&expected), "{id}: {why}");
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
        // A gate that was alone and is node 1 now: each end shows the order of its own ids.
        let ends = Some([(Id::of(100, Node::default()), at(0)), (Id::of(200, one), at(60))]);
        let joined = Extent { ends, ..extent(None) };
        let rows = [
            (Id::of(99, Node::default()), "It was given before the oldest"),
            (Id::of(201, one), "It would come after the latest"),
            (Id::of(199, one), "It is an id of node 1, "),
        ];
        for (id, expected) in rows {
            let why = joined.why_missing(id);
            assert!(why.starts_with(expected), "{id}: {why}");
        }
    }
}
