//! `/healthz`: the process serves. `/readyz`: mail can be taken now, or what is missing for that.
//!
//! Ready is: mail is listened for, the next hop could be reached a moment ago, and some DNS server answers (that
//! nobody has looked yet is no answer). When the last
//! that is known of the next hop is old, it is tried; that carries no mail, and many askers share one try.
//!
//! Where there is a token, who doesn't show it learns whether all is well, and no more: why not names hosts and servers.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::admin::State;
use crate::admin::guard::{Shown, shown};
use crate::admin::problem::Problem;
use crate::admin::routes::{Call, ResponseFuture};

/// What is known of the next hop may be so old.
const FRESH: Duration = Duration::from_secs(15);
/// For a try.
const PATIENCE: Duration = Duration::from_secs(5);

/// One of the things that mail needs.
#[derive(Debug, serde::Serialize)]
struct Part {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl Part {
    fn new(ok: bool, detail: String) -> Self {
        Self { ok, detail: Some(detail) }
    }

    fn for_strangers(self) -> Self {
        Self { detail: None, ..self }
    }
}

#[derive(Debug, serde::Serialize)]
struct Readiness {
    ready: bool,
    listeners: Part,
    relay: Part,
    dns: Part,
}

pub(super) fn healthz(_call: Call) -> ResponseFuture {
    Box::pin(async { Ok("ok\n".into_response()) })
}

pub(super) fn readyz(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let trusted = shown(&call.headers, &call.state.settings) == Shown::Right;
        readiness(&call.state, trusted).await
    })
}

async fn readiness(state: &State, trusted: bool) -> Result<Response, Problem> {
    let parts = [listeners(state), relay(state).await, dns(state)];
    let [listeners, relay, dns] = if trusted { parts } else { parts.map(Part::for_strangers) };
    let ready = listeners.ok && relay.ok && dns.ok;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(Readiness { ready, listeners, relay, dns })).into_response())
}

fn listeners(state: &State) -> Part {
    let server = &state.server;
    let detail = match server.listeners() {
        _ if server.is_stopping() => "shutting down".to_owned(),
        0 => "none".to_owned(),
        listeners => format!("{listeners} up, {} of {} connections", server.open(), server.limit()),
    };
    Part::new(server.listeners() > 0 && !server.is_stopping(), detail)
}

async fn relay(state: &State) -> Part {
    let reach = state.relay.reach_within(FRESH, PATIENCE).await;
    Part::new(reach.ok, reach.detail)
}

fn dns(state: &State) -> Part {
    Part::new(state.dns.is_proven(), state.dns.health().to_string())
}
