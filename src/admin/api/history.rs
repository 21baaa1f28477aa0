//! The history, as handlers have it.

use axum::http::StatusCode;

use crate::admin::State;
use crate::admin::problem::Problem;
use crate::store::history::{History, ReadError};

pub(super) fn kept(state: &State) -> Result<&History, Problem> {
    state
        .history
        .as_ref()
        .ok_or_else(|| Problem::not_found("history.path is empty, so no decisions are kept"))
}

/// The error is only logged, since it names files.
pub(super) fn unreadable(error: ReadError) -> Problem {
    tracing::error!(%error, "the history can't be read");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the history can't be read; the log has the error")
}
