//! `DELETE /api/v1/cache/DOMAIN`: removes the cached DNS answers for a domain and all names below it, so that the next
//! message queries DNS again. For an operator whose DNS record has just been corrected.
//!
//! Each request reads the whole cache, so one runs at a time. A whole TLD is not allowed: no operator corrects one.

use axum::Json;
use axum::response::IntoResponse;

use crate::admin::call::{Call, ResponseFuture};
use crate::admin::problem::Problem;
use crate::admin::query::quoted;
use crate::dns::organization::organization;
use crate::smtp::address::DomainName;

#[derive(serde::Serialize)]
struct Removed<'a> {
    domain: &'a str,
    /// Cached answers.
    removed: usize,
}

pub(in crate::admin) fn remove(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let domain = DomainName::parse_unicode(&call.argument).map_err(|_not_a_name| {
            let what = format!("{} is not a domain such as \"example.com\"", quoted(&call.argument));
            Problem::parameter("domain", what)
        })?;
        if organization(&domain).is_none() {
            let what = format!(
                "{} is a single label or a public suffix; allowed is a domain below one, such as \"example.com\"",
                quoted(domain.as_str())
            );
            return Err(Problem::parameter("domain", what));
        }
        let _permit = call.shared.rates.removal().map_err(|wait| {
            Problem::too_many("removals from the cache are limited to 1 a second and 1 at a time", wait)
        })?;
        let removed = call.state.dns.forget(&domain).await;
        tracing::info!(%domain, removed, "cached DNS answers removed by an API request");
        Ok(Json(Removed { domain: domain.as_str(), removed }).into_response())
    })
}
