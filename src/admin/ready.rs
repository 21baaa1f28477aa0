//! `/healthz`: the process serves requests. `/readyz`: the daemon can take mail now, or what is missing.
//!
//! Ready means: a listener for mail is open, the next hop was reachable a moment ago, and a DNS server has answered since
//! the start. If the last check of the next hop is too old, it is checked again; that sends no mail, and concurrent
//! requests share one check.
//!
//! With `admin.token`, a request without the token gets the results only: the details name hosts and servers.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::admin::State;
use crate::admin::call::{Call, ResponseFuture};
use crate::admin::guard::{Shown, shown};
use crate::admin::problem::Problem;

/// Maximum age of a check of the next hop.
const FRESH: Duration = Duration::from_secs(15);
/// Where only the policy service listens.
pub(super) const UNUSED_RELAY: &str = "is not used: nothing listens for SMTP";
/// For one check of the next hop.
const TIMEOUT: Duration = Duration::from_secs(5);

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
    /// It is never a reason not to take mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'static str>,
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
    let cluster = state.fleet.as_ref().map(|fleet| if fleet.condition().up { "up" } else { "away" });
    Ok((status, Json(Readiness { ready, listeners, relay, dns, cluster })).into_response())
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
    if !state.relay_is_used {
        return Part::new(true, UNUSED_RELAY.to_owned());
    }
    let reach = state.relay.availability_within(FRESH, TIMEOUT).await;
    Part::new(reach.ok, reach.detail)
}

fn dns(state: &State) -> Part {
    Part::new(state.dns.is_proven(), state.dns.health().to_string())
}
