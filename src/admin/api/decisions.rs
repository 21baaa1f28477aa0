//! `GET /api/v1/decisions`: decisions of the past, filtered, the newest first and page by page;
//! `GET /api/v1/decisions/ID`: one with its evidence, the JSON of `rmxd explain ID --json`.

use std::time::SystemTime;

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;

use crate::admin::State;
use crate::admin::problem::Problem;
use crate::admin::query::{Query, quoted};
use crate::admin::routes::{Call, ResponseFuture};
use crate::decision::{Id, report};
use crate::store::history::{Cursor, Filter, History, ReadError};

/// Filters, and what belongs to pages.
pub(in crate::admin) const PARAMETERS: &[&str] =
    &["verdict", "reason", "identity", "domain", "client", "since", "until", "would", "before", "limit"];

/// Decisions of one page.
const LIMIT: std::ops::RangeInclusive<usize> = 1..=1000;
const USUAL: usize = 100;

pub(in crate::admin) fn list(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let history = kept(&call.state)?;
        let filter = filter(&call.query, PARAMETERS)?;
        let before = call.query.text("before").map(str::parse::<Cursor>).transpose();
        let before = before.map_err(|what| Problem::parameter("before", what))?;
        let limit = call.query.value("limit", limit)?.unwrap_or(USUAL);
        let page = history.search(filter, before, limit).await.map_err(unreadable)?;
        let decisions: Vec<_> = page.records.iter().map(report::summary).collect();
        let next = page.next.map(|next| next.to_string());
        Ok(Json(json!({ "decisions": decisions, "next": next })).into_response())
    })
}

pub(in crate::admin) fn one(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let history = kept(&call.state)?;
        let unknown = || Problem::not_found(format!("no decision {} is kept", quoted(&call.argument)));
        let id = Id::parse(&call.argument).ok_or_else(unknown)?;
        let records = history.find(id).await.map_err(unreadable)?;
        if records.is_empty() {
            return Err(unknown());
        }
        Ok(Json(report::transaction(&records)).into_response())
    })
}

/// The history, where one is kept.
pub(super) fn kept(state: &State) -> Result<&History, Problem> {
    state.history.as_ref().ok_or_else(|| Problem::not_found("history.path is \"\": no decisions are kept"))
}

/// What these parameters say of the decisions that are wanted.
pub(super) fn filter(query: &Query, parameters: &[&str]) -> Result<Filter, Problem> {
    let (mut filter, now) = (Filter::default(), SystemTime::now());
    for key in parameters.iter().filter(|key| Filter::KEYS.contains(key)) {
        if let Some(value) = query.text(key) {
            filter.set(key, value, now).map_err(|what| Problem::parameter(key, what))?;
        }
    }
    Ok(filter)
}

/// For the operator in the log, as it names files.
pub(super) fn unreadable(error: ReadError) -> Problem {
    tracing::error!(%error, "the history can't be read");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the history can't be read; the log says more")
}

fn limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| LIMIT.contains(limit));
    limit.ok_or_else(|| format!("must be a number from {} to {}", LIMIT.start(), LIMIT.end()))
}
