//! `DELETE /api/v1/cache/DOMAIN`: what DNS said of a domain and of all below it is forgotten, so that the next mail asks
//! again. For who has just mended a record.
//!
//! All of the cache is gone through for it, so one goes at a time, and a whole TLD isn't forgotten: nobody has mended that.

use axum::Json;
use axum::response::IntoResponse;

use crate::admin::problem::Problem;
use crate::admin::query::quoted;
use crate::admin::routes::{Call, ResponseFuture, too_many};
use crate::dns::organization::organization;
use crate::smtp::address::DomainName;

#[derive(serde::Serialize)]
struct Removed<'a> {
    domain: &'a str,
    /// Answers that were held.
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
        let _permit = call.shared.rates.forgetting().map_err(|wait| {
            too_many("what goes through the cache is bounded: 1 request a second, 1 at one time", wait)
        })?;
        let removed = call.state.dns.forget(&domain).await;
        tracing::info!(%domain, removed, "answers of DNS forgotten, as the API was asked to");
        Ok(Json(Removed { domain: domain.as_str(), removed }).into_response())
    })
}
