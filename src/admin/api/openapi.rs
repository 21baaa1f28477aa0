//! `GET /api/v1/openapi.json`: what there is, for programs that read OpenAPI. The document is a file, held against the
//! table of routes by a test.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::admin::routes::{Call, ResponseFuture};

/// OpenAPI 3.1.
pub(in crate::admin) const DOCUMENT: &str = include_str!("openapi.json");

pub(in crate::admin) fn document(_call: Call) -> ResponseFuture {
    Box::pin(async { Ok(([(CONTENT_TYPE, "application/json")], DOCUMENT).into_response()) })
}
