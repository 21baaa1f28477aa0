//! `GET /api/v1/decisions`: past decisions, filtered, the newest first, in pages;
//! `GET /api/v1/decisions/ID`: one decision with its evidence, the JSON of `rmxd explain ID --json`.

use std::time::SystemTime;

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;

use crate::admin::State;
use crate::admin::call::{Call, ResponseFuture};
use crate::admin::problem::Problem;
use crate::admin::query::{Query, quoted};
use crate::decision::{Id, report};
use crate::store::history::{Cursor, Filter, History, ReadError};

/// The filters, and `before` and `limit` for pages.
pub(in crate::admin) const PARAMETERS: &[&str] = &[
    "id", "verdict", "reason", "identity", "domain", "sender", "client", "rcpt", "queue", "outcome", "tag",
    "since", "until", "would", "before", "limit",
];

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
        let page = history.search(filter, before, limit).await.map_err(unreadable)?;
        let decisions: Vec<_> = page.records.iter().map(report::summary).collect();
        let next = page.next.map(|next| next.to_string());
        Ok(Json(json!({ "decisions": decisions, "next": next })).into_response())
    })
}

pub(in crate::admin) fn one(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let history = kept(&call.state)?;
        let unknown =
            |why: &str| Problem::not_found(format!("no decision {} is kept: {why}", quoted(&call.argument)));
        let id = Id::parse(&call.argument).ok_or_else(|| unknown(&Id::why_malformed(&call.argument)))?;
        let records = history.find(id).await.map_err(unreadable)?;
        if records.is_empty() {
            let extent = history.extent().await.map_err(unreadable)?;
            return Err(unknown(&format!("{} {}", extent.why_missing(id), id.in_the_log())));
        }
        Ok(Json(report::transaction(&records)).into_response())
    })
}

pub(super) fn kept(state: &State) -> Result<&History, Problem> {
    state
        .history
        .as_ref()
        .ok_or_else(|| Problem::not_found("history.path is empty, so no decisions are kept"))
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

/// The error is only logged, since it names files.
pub(super) fn unreadable(error: ReadError) -> Problem {
    tracing::error!(%error, "the history can't be read");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the history can't be read; the log has the error")
}

fn limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| LIMIT.contains(limit));
    limit.ok_or_else(|| format!("must be a number from {} to {}", LIMIT.start(), LIMIT.end()))
}
