//! The decisions of several nodes as one list, the newest first.
//!
//! Each node has its decisions in the order in which it wrote them, and the list takes the newest of their heads again and
//! again. A node that doesn't answer is named, and the rest is there; where it answers again later, its list goes on where it
//! was, so that nothing is left out.

use std::vec::IntoIter;

use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use crate::admin::State;
use crate::admin::api::fleet::places::{Place, Places};
use crate::admin::api::fleet::{UNKNOWN, ask, row};
use crate::admin::api::history::{kept, unreadable};
use crate::admin::encoded;
use crate::admin::query::Query;
use crate::decision::{Id, Node, report};
use crate::store::history::{Cursor, Filter};
use crate::store::shared::{Fleet, OtherNode};

/// Octets of a list, and of each of its decisions: what a node sends is held for the time of a request.
const LONGEST_LIST: usize = 256 << 10;
const LONGEST_ROW: usize = 4 << 10;

/// What a merged list is to have.
pub(in crate::admin) struct Asked<'a> {
    pub(in crate::admin) query: &'a Query,
    pub(in crate::admin) filter: Filter,
    /// `None` = from the newest on.
    pub(in crate::admin) before: Option<Places>,
    pub(in crate::admin) limit: usize,
}

/// Whether other nodes are asked too: for the decisions of all, and for an id that another node gave.
pub(in crate::admin) fn is_merged(state: &State, filter: &Filter, of_fleet: bool) -> bool {
    let of_another = |own: Node| filter.id.is_some_and(|id| id.node() != own);
    of_fleet || state.fleet.as_ref().is_some_and(|fleet| of_another(fleet.node()))
}

/// The answer: decisions, the next page, and the nodes that are missing.
pub(in crate::admin) async fn list(state: &State, asked: &Asked<'_>) -> Value {
    let own = state.fleet.as_ref().map(Fleet::node).unwrap_or_default();
    let others = others(state, asked);
    let place = |node: Node| asked.before.as_ref().map(|before| before.of(node)).unwrap_or_default();
    let of_others = join_all(others.iter().map(|(node, other)| {
        let (node, other) = (*node, other.as_ref());
        async move {
            match other {
                _ if place(node) == Place::End => (node, other, Ok(Head::default())),
                None => (node, None, Err(UNKNOWN.to_owned())),
                Some(it) => (node, other, theirs(state, it, place(node), asked).await),
            }
        }
    }));
    let of_own = ours(state, place(own), asked);
    let (of_own, of_others) = if asked.filter.id.is_some() {
        // An id from before the fleet names any node.
        let of_own = of_own.await;
        let is_here = of_own.as_ref().is_ok_and(|head| head.first.is_some());
        let of_others = if is_here { Vec::new() } else { of_others.await };
        (of_own, of_others)
    } else {
        tokio::join!(of_own, of_others)
    };
    let hostname = state.hostname.as_str();
    let answers = std::iter::once((own, Some(hostname), of_own));
    let answers = answers.chain(
        of_others.into_iter().map(|(node, other, head)| (node, other.map(|it| it.name.as_str()), head)),
    );

    let (mut heads, mut missing, mut places) =
        (Vec::new(), Vec::new(), asked.before.clone().unwrap_or_default());
    for (node, hostname, head) in answers {
        match head {
            Ok(head) => heads.push((node, hostname, head)),
            Err(why) => {
                places.set(node, place(node));
                missing.push(json!({ "node": node.number(), "hostname": hostname, "why": why }));
            }
        }
    }
    let decisions = merged(&mut heads, asked.limit);
    for (node, _, head) in &heads {
        places.set(*node, head.place());
    }
    let more = heads.iter().any(|(.., head)| head.place() != Place::End);
    json!({ "decisions": decisions, "next": more.then(|| places.to_string()), "missing": missing })
}

/// The other nodes whose decisions are wanted: all, or the one that an id names. `None` for one that nobody knows.
fn others(state: &State, asked: &Asked<'_>) -> Vec<(Node, Option<OtherNode>)> {
    let Some(fleet) = &state.fleet else { return Vec::new() };
    let mut others: Vec<_> = fleet.known().into_iter().map(|other| (other.node, Some(other))).collect();
    let is_there =
        |others: &[(Node, Option<OtherNode>)], node: Node| others.iter().any(|(it, _)| *it == node);
    let of_before = asked.before.iter().flat_map(Places::nodes);
    let wanted: Vec<Node> = asked.filter.id.map(Id::node).into_iter().chain(of_before).collect();
    for node in wanted {
        if node != fleet.node() && !is_there(&others, node) {
            others.push((node, None));
        }
    }
    others.retain(|(node, _)| asked.filter.id.is_none_or(|id| id.node() == *node));
    others
}

/// Decisions of one node that aren't in the list yet.
#[derive(Debug, Default)]
struct Head {
    /// The next one, with its position.
    first: Option<(Map<String, Value>, Cursor)>,
    rest: IntoIter<(Map<String, Value>, Cursor)>,
    /// Behind the last one.
    next: Option<Cursor>,
}

impl Head {
    fn of(rows: Vec<(Map<String, Value>, Cursor)>, next: Option<Cursor>) -> Self {
        let mut rest = rows.into_iter();
        Self { first: rest.next(), rest, next }
    }

    fn take(&mut self) -> Option<Map<String, Value>> {
        let (row, _) = std::mem::replace(&mut self.first, self.rest.next())?;
        Some(row)
    }

    /// Where its next page begins.
    fn place(&self) -> Place {
        let next = self.first.as_ref().map(|(_, position)| *position).or(self.next);
        next.map_or(Place::End, Place::Before)
    }
}

/// Takes the newest of the heads, as often as `limit` says.
fn merged(heads: &mut [(Node, Option<&str>, Head)], limit: usize) -> Vec<Value> {
    let mut decisions = Vec::new();
    while decisions.len() < limit {
        let newest = heads
            .iter_mut()
            .filter(|(.., head)| head.first.is_some())
            .reduce(|one, other| if at(&other.2) > at(&one.2) { other } else { one });
        let Some((_, hostname, head)) = newest else { break };
        let Some(mut row) = head.take() else { break };
        row.insert("hostname".to_owned(), (*hostname).into());
        decisions.push(Value::Object(row));
    }
    decisions
}

fn at(head: &Head) -> &str {
    head.first.as_ref().map(|(row, _)| row::at(row)).unwrap_or_default()
}

/// This node's own.
async fn ours(state: &State, place: Place, asked: &Asked<'_>) -> Result<Head, String> {
    let before = match place {
        Place::Start => None,
        Place::Before(cursor) => Some(cursor),
        Place::End => return Ok(Head::default()),
    };
    let history = kept(state).map_err(|off| off.detail().to_owned())?;
    let page = history.search(asked.filter.clone(), before, asked.limit).await;
    let page = page.map_err(|error| unreadable(error).detail().to_owned())?;
    let rows = page.records.iter().zip(page.positions).filter_map(|(record, position)| {
        let Value::Object(row) = report::summary(record) else { return None };
        Some((row, position))
    });
    Ok(Head::of(rows.collect(), page.next))
}

/// Another node's, by the same filters.
async fn theirs(state: &State, other: &OtherNode, place: Place, asked: &Asked<'_>) -> Result<Head, String> {
    let limit = asked.limit;
    let mut target = format!("/api/v1/decisions?local=true&limit={limit}");
    for key in Filter::KEYS {
        if let Some(value) = asked.query.text(key) {
            target.push_str(&format!("&{key}={}", encoded(value)));
        }
    }
    if let Place::Before(cursor) = place {
        target.push_str(&format!("&before={cursor}"));
    }
    let longest = LONGEST_LIST + limit.saturating_mul(LONGEST_ROW);
    let answer = ask(state, other, &target, longest).await.map_err(|failure| failure.why)?;
    head(answer, limit).ok_or_else(|| "it answers with something else".to_owned())
}

/// The page in an answer; `None` for what is none.
fn head(mut answer: Value, limit: usize) -> Option<Head> {
    let mut list = |name: &str| match answer.get_mut(name).map(Value::take) {
        Some(Value::Array(items)) if items.len() <= limit => Some(items),
        _ => None,
    };
    let (decisions, positions) = (list("decisions")?, list("positions")?);
    if decisions.len() != positions.len() {
        return None;
    }
    let position = |value: &Value| value.as_str()?.parse::<Cursor>().ok();
    let rows: Option<Vec<_>> = decisions
        .into_iter()
        .zip(&positions)
        .map(|(decision, at)| Some((row::read(decision)?, position(at)?)))
        .collect();
    let next = match answer.get("next")? {
        Value::Null => None,
        next => Some(position(next)?),
    };
    Some(Head::of(rows?, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of one node at these seconds, and whether there are more.
    fn node(number: u8, seconds: &[u64], more: bool) -> (Node, Option<&'static str>, Head) {
        let cursor = |at: usize| format!("{number}{at}").parse::<Cursor>().unwrap();
        let rows = seconds.iter().enumerate().map(|(at, second)| {
            let row = json!({ "at": format!("2026-11-29T10:00:{second:02}.000Z"), "id": format!("{number}-{second}") });
            let Value::Object(row) = row else { unreachable!() };
            (row, cursor(at))
        });
        let next = more.then(|| cursor(seconds.len()));
        (Node::of_a_test(number), Some("gate.test"), Head::of(rows.collect(), next))
    }

    #[test]
    fn the_newest_come_first_and_no_node_skips_one_of_its_own() {
        // The clock of the second node went back between two of its decisions.
        let mut heads = vec![node(1, &[40, 20, 10], false), node(2, &[30, 50, 5], true), node(3, &[], true)];
        let ids = |rows: Vec<Value>| rows.iter().map(|row| row["id"].clone()).collect::<Vec<_>>();
        assert_eq!(ids(merged(&mut heads, 4)), ["1-40", "2-30", "2-50", "1-20"]);
        let places: Vec<Place> = heads.iter().map(|(.., head)| head.place()).collect();
        let before = |text: &str| Place::Before(text.parse().unwrap());
        assert_eq!(places, [before("12"), before("22"), before("30")]);
        assert_eq!(ids(merged(&mut heads, 4)), ["1-10", "2-5"]);
        let places: Vec<Place> = heads.iter().map(|(.., head)| head.place()).collect();
        assert_eq!(places, [Place::End, before("23"), before("30")]);
    }

    #[test]
    fn a_page_with_more_than_was_asked_for_or_without_positions_is_none() {
        let page =
            |positions: Value, next: Value| json!({ "decisions": [], "positions": positions, "next": next });
        assert!(head(page(json!([]), Value::Null), 1).is_some());
        assert!(head(page(json!([]), json!("64a1f0")), 1).is_some());
        for wrong in [
            page(json!(["1"]), Value::Null),
            page(json!([]), json!("next")),
            page(Value::Null, Value::Null),
            json!({ "decisions": [{}, {}], "positions": ["1", "1"], "next": null }),
            json!({ "decisions": [], "positions": [] }),
            json!([]),
        ] {
            assert!(head(wrong.clone(), 1).is_none(), "{wrong}");
        }
    }
}
