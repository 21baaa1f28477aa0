//! `GET /api/v1/decisions`: past decisions, filtered, the newest first, in pages;
//! `GET /api/v1/decisions/ID`: one decision with its evidence, the JSON of `rmxd explain ID --json`.

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
use crate::store::history::{Cursor, Filter};

/// The filters, and `before` and `limit` for pages.
pub(in crate::admin) const PARAMETERS: &[&str] = &[
    "id", "verdict", "reason", "identity", "domain", "sender", "client", "rcpt", "queue", "outcome", "tag",
    "since", "until", "would", "before", "limit", "fleet",
];

/// Of one decision.
pub(in crate::admin) const ONE: &[&str] = &["local", "tree"];

/// Decisions of one page.
const LIMIT: std::ops::RangeInclusive<usize> = 1..=1000;
const DEFAULT_LIMIT: usize = 100;

pub(in crate::admin) fn list(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let history = kept(&call.state)?;
        let filter = filter(&call.query, PARAMETERS)?;
        let before = call.query.text("before").map(str::parse::<Cursor>).transpose();
        let before = before.map_err(|what| Problem::parameter("before", what))?;
        let limit = call.query.value("limit", limit)?.unwrap_or(DEFAULT_LIMIT);
        let of_fleet = call.query.value("fleet", truth)?.is_some();
        if of_fleet && before.is_some() {
            return Err(Problem::parameter("before", "is not allowed with fleet=true, which has no pages"));
        }
        let page = history.search(filter, before, limit).await.map_err(unreadable)?;
        let mut decisions: Vec<_> = page.records.iter().map(report::summary).collect();
        if of_fleet {
            let (others, missing) = fleet::list(&call.state, &call.query, limit).await;
            decisions.extend(others);
            let at = |decision: &Value| decision.get("at").and_then(Value::as_str).map(str::to_owned);
            decisions.sort_by_cached_key(|decision| std::cmp::Reverse(at(decision)));
            decisions.truncate(limit);
            return Ok(
                Json(json!({ "decisions": decisions, "next": null, "missing": missing })).into_response()
            );
        }
        let next = page.next.map(|next| next.to_string());
        Ok(Json(json!({ "decisions": decisions, "next": next })).into_response())
    })
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
