//! `DELETE /api/v1/cache/DOMAIN`: what DNS said of a domain and of all below it is forgotten, so that the next mail asks
//! again. For who has just mended a record.

use axum::Json;
use axum::response::IntoResponse;

use crate::admin::problem::Problem;
use crate::admin::query::quoted;
use crate::admin::routes::{Answer, Call};
use crate::smtp::address::DomainName;

#[derive(serde::Serialize)]
struct Removed<'a> {
    domain: &'a str,
    /// Answers that were held.
    removed: usize,
}

pub(in crate::admin) fn remove(call: Call) -> Answer {
    Box::pin(async move {
        let domain = DomainName::parse_unicode(&call.argument).map_err(|_not_a_name| {
            let what = format!("{} is not a domain such as \"example.com\"", quoted(&call.argument));
            Problem::parameter("domain", what)
        })?;
        let removed = call.state.dns.forget(&domain).await;
        tracing::info!(%domain, removed, "answers of DNS forgotten, as the API was asked to");
        Ok(Json(Removed { domain: domain.as_str(), removed }).into_response())
    })
}
