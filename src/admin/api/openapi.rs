//! `GET /api/v1/openapi.json`: the OpenAPI document, a file that a test compares with the table of routes.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::admin::call::{Call, ResponseFuture};

/// OpenAPI 3.1, JSON.
pub const DOCUMENT: &str = include_str!("openapi.json");

pub(in crate::admin) fn document(_call: Call) -> ResponseFuture {
    Box::pin(async { Ok(([(CONTENT_TYPE, "application/json")], DOCUMENT).into_response()) })
}
