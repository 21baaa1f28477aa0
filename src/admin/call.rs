//! What a handler gets and returns.

use std::pin::Pin;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::response::Response;

use crate::admin::problem::Problem;
use crate::admin::query::Query;
use crate::admin::{Shared, State};

/// A request that the guard admitted, with parameters that the route knows.
pub(super) struct Call {
    pub(super) state: Arc<State>,
    pub(super) shared: Arc<Shared>,
    /// The value of the path's parameter; empty if the path has none.
    pub(super) argument: String,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    /// Empty but for a POST.
    pub(super) body: Bytes,
}

pub(super) type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>;
