//! `GET /api/v1/series`: verdicts over time. Up to an hour they are those of the counters, which are there at once; more comes
//! from the history.

use axum::Json;
use axum::response::IntoResponse;
use serde_json::json;

use crate::admin::api::decisions::kept;
use crate::admin::api::past::minutes;
use crate::admin::call::{Call, ResponseFuture};

/// Minutes that the counters have.
const COUNTED: u64 = 60;

pub(in crate::admin) fn series(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let minutes = call.query.value("minutes", minutes)?.unwrap_or(COUNTED);
        let shared = &call.shared;
        if minutes > COUNTED {
            shared.fortnight.catch_up(kept(&call.state)?).await?;
            return Ok(Json(shared.fortnight.series(minutes)).into_response());
        }
        if let Some(history) = &call.state.history {
            shared.fortnight.read_last_hour(history, call.state.started, &shared.series);
        }
        let mut answer = shared.series.json();
        if let Some(object) = answer.as_object_mut() {
            object.extend([("whole".to_owned(), json!(true)), ("reaches".to_owned(), json!(null))]);
        }
        Ok(Json(answer).into_response())
    })
}
