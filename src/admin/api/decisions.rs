//! `GET /api/v1/decisions`: past decisions, filtered, the newest first, in pages; with `fleet=true` those of all nodes. An
//! id that another node gave is looked for there too.
//! `GET /api/v1/decisions/ID`: one decision with its evidence, the JSON of `rmxd explain ID --json`.

use std::str::FromStr;
use std::time::SystemTime;

use axum::Json;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::admin::api::fleet;
pub(super) use crate::admin::api::history::{kept, unreadable};
use crate::admin::call::{Call, ResponseFuture};
use crate::admin::problem::Problem;
use crate::admin::query::{Query, quoted};
use crate::decision::{Id, report};
use crate::store::history::Filter;

/// The filters, `before` and `limit` for pages, and which nodes' decisions.
pub(in crate::admin) const PARAMETERS: &[&str] = &[
    "id", "verdict", "reason", "identity", "domain", "sender", "client", "rcpt", "queue", "outcome", "tag",
    "since", "until", "would", "before", "limit", "fleet", "local",
];

/// Of one decision.
pub(in crate::admin) const ONE: &[&str] = &["local", "tree"];

/// Decisions of one page.
const LIMIT: std::ops::RangeInclusive<usize> = 1..=1000;
const DEFAULT_LIMIT: usize = 100;

pub(in crate::admin) fn list(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let Call { state, query, .. } = &call;
        let filter = filter(query, PARAMETERS)?;
        let limit = query.value("limit", limit)?.unwrap_or(DEFAULT_LIMIT);
        let (of_fleet, local) = (query.value("fleet", truth)?, query.value("local", truth)?);
        if of_fleet.is_some() && local.is_some() {
            return Err(Problem::parameter("local", "is not allowed with fleet=true"));
        }
        if local.is_none() && fleet::is_merged(state, &filter, of_fleet.is_some()) {
            if state.fleet.is_none() {
                kept(state)?;
            }
            let before = before(query)?;
            let asked = fleet::Asked { query, filter, before, limit };
            return Ok(Json(fleet::list(state, &asked).await).into_response());
        }
        let page = kept(state)?.search(filter, before(query)?, limit).await.map_err(unreadable)?;
        let decisions: Vec<_> = page.records.iter().map(report::summary).collect();
        let positions: Vec<_> = page.positions.iter().map(ToString::to_string).collect();
        let next = page.next.map(|next| next.to_string());
        let mut answer = json!({ "decisions": decisions, "next": next });
        if let (Some(()), Value::Object(answer)) = (local, &mut answer) {
            answer.insert("positions".to_owned(), positions.into());
        }
        Ok(Json(answer).into_response())
    })
}

/// Where the page begins.
fn before<T: FromStr<Err = String>>(query: &Query) -> Result<Option<T>, Problem> {
    let before = query.text("before").map(str::parse).transpose();
    before.map_err(|what| Problem::parameter("before", what))
}

pub(in crate::admin) fn one(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let unknown =
            |why: &str| Problem::not_found(format!("no decision {} is kept: {why}", quoted(&call.argument)));
        let id = Id::parse(&call.argument).ok_or_else(|| unknown(&Id::why_malformed(&call.argument)))?;
        let (local, tree) = (call.query.value("local", truth)?, call.query.value("tree", truth)?);
        let records = match &call.state.history {
            Some(history) => history.find(id).await.map_err(unreadable)?,
            None => Vec::new(),
        };
        if records.is_empty() {
            let elsewhere =
                if local.is_some() { None } else { fleet::one(&call.state, id, &call.query).await };
            if let Some(decision) = elsewhere {
                return Ok(Json(decision?).into_response());
            }
            let extent = kept(&call.state)?.extent().await.map_err(unreadable)?;
            return Err(unknown(&format!("{} {}", extent.why_missing(id), id.in_the_log())));
        }
        let mut decision = report::transaction(&records);
        if let (Some(()), Value::Object(decision)) = (tree, &mut decision) {
            let trees: Vec<_> = records.iter().map(|record| report::tree(record, report::utc)).collect();
            decision.insert("tree".to_owned(), trees.join("\n").into());
        }
        Ok(Json(decision).into_response())
    })
}

/// The filter that these parameters make.
pub(super) fn filter(query: &Query, parameters: &[&str]) -> Result<Filter, Problem> {
    let (mut filter, now) = (Filter::default(), SystemTime::now());
    for key in parameters.iter().filter(|key| Filter::KEYS.contains(key)) {
        if let Some(value) = query.text(key) {
            filter.set(key, value, now).map_err(|what| Problem::parameter(key, what))?;
        }
    }
    Ok(filter)
}

fn limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| LIMIT.contains(limit));
    limit.ok_or_else(|| format!("must be a number from {} to {}", LIMIT.start(), LIMIT.end()))
}

fn truth(text: &str) -> Result<(), String> {
    if text == "true" { Ok(()) } else { Err("must be true, or left out".to_owned()) }
}
