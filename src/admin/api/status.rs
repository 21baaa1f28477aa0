//! `GET /api/v1/status`: the state of the daemon. An open dashboard requests it every two seconds, so it waits for nothing.

use std::time::SystemTime;

use axum::Json;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use crate::admin::call::{Call, ResponseFuture};
use crate::admin::ready::UNUSED_RELAY;
use crate::admin::recent::SPAN;
use crate::admin::{Reloads, Shared, State};
use crate::dns::{Condition, Health, ServerName};
use crate::metrics::Metrics;
use crate::net::Purpose;
use crate::policy::decide::Verdict;
use crate::policy::door::DoorName;
use crate::store::greylist::Greylist;
use crate::store::history::History;
use crate::store::shared::{Fleet, OtherNode};
use crate::tls::CertificateState;

pub(in crate::admin) fn status(call: Call) -> ResponseFuture {
    Box::pin(async move { Ok(Json(now(&call.state, &call.shared)).into_response()) })
}

fn now(state: &State, shared: &Shared) -> Value {
    let pace = shared.series.pace();
    let State { server, metrics, .. } = state;
    let (entries, bytes) = state.dns.cache_size();
    let uptime = SystemTime::now().duration_since(state.started).unwrap_or_default();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "hostname": state.hostname.as_str(),
        "mode": state.gate.policy().mode.name(),
        "uptime_seconds": uptime.as_secs(),
        "doors": doors(state, shared),
        "connections": { "open": server.open(), "total": metrics.connections_total(), "limit": server.limit() },
        "verdicts": verdicts(state),
        "verdicts_per_second": pace.verdicts_per_second,
        "cache": {
            "entries": entries,
            "bytes": bytes,
            "limit_bytes": state.dns.settings().cache.memory,
            "hit_rate": pace.hit_rate,
        },
        "dns": dns(&state.dns.health()),
        "relay": relay(state),
        "history": history(state),
        "greylist": greylist(state),
        "permits": permits(state),
        "cluster": state.fleet.as_ref().map(|fleet| cluster(fleet, metrics)),
        "recent": { "seconds": SPAN.as_secs(), "history_dropped": shared.recent.dropped() },
        "certificate": state.tls.as_ref().map(|tls| Certificate::of(&tls.certificate(SystemTime::now()))),
        "reload": reload(&state.reloads),
        "panics": metrics.panics(),
    })
}

/// The doors that have a listener, or still a connection; verdicts are a mean of the last minutes.
fn doors(state: &State, shared: &Shared) -> Value {
    let listeners = state.server.doors();
    let mut doors = Vec::new();
    for (name, purpose) in DoorName::ALL.into_iter().zip([Purpose::Smtp, Purpose::Milter, Purpose::Policy]) {
        let own = listeners.iter().filter(|listener| listener.purpose == purpose);
        let own: Vec<_> =
            own.map(|it| json!({ "address": it.endpoint.to_string(), "accepting": it.accepting })).collect();
        let open = state.server.open_at(purpose);
        if own.is_empty() && open == 0 {
            continue;
        }
        let rates = shared.recent.per_minute(name).into_iter();
        let rates: Map<String, Value> =
            rates.map(|(verdict, rate)| (verdict.name().to_owned(), json!(rate))).collect();
        doors.push(json!({
            "door": name.name(),
            "addresses": own,
            "open": open,
            "verdicts_per_minute": rates,
        }));
    }
    Value::from(doors)
}

/// The certificate of `tls.certificate`.
#[derive(Debug, serde::Serialize)]
struct Certificate {
    ok: bool,
    /// What is wrong, else until when it is valid.
    detail: String,
    path: String,
    /// `None` for one that can't be read.
    not_before: Option<String>,
    not_after: Option<String>,
    /// Whole days, negative after it has expired.
    days_left: Option<i64>,
    names: Vec<String>,
}

impl Certificate {
    fn of(CertificateState { path, leaf, faults }: &CertificateState) -> Self {
        let leaf = leaf.as_ref();
        let not_after = leaf.map(|leaf| time(leaf.not_after));
        let detail = match &not_after {
            Some(end) if faults.is_empty() => format!("valid until {end}"),
            _ => faults.join("; "),
        };
        Self {
            ok: faults.is_empty(),
            detail,
            path: path.display().to_string(),
            not_before: leaf.map(|leaf| time(leaf.not_before)),
            not_after,
            days_left: leaf.map(|leaf| leaf.days_left(SystemTime::now())),
            names: leaf.map(|leaf| leaf.names.clone()).unwrap_or_default(),
        }
    }
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// Since the start.
fn verdicts(state: &State) -> Value {
    let all = state.metrics.verdicts();
    let total = |wanted: Verdict| -> u64 {
        all.iter().filter(|(verdict, ..)| *verdict == wanted).map(|(.., count)| count).sum()
    };
    json!({
        "accept": total(Verdict::Accept),
        "reject": total(Verdict::Reject),
        "defer": total(Verdict::Defer),
    })
}

/// DNS is ok while one server answers; each server has its own state and detail.
fn dns(health: &Health) -> Value {
    let servers = health.servers.iter().map(|(address, condition)| {
        let good = matches!(condition, Condition::Good | Condition::Unknown) && !health.down;
        json!({ "address": ServerName(*address).to_string(), "ok": good, "detail": condition.to_string() })
    });
    json!({ "ok": !health.down, "detail": health.to_string(), "servers": servers.collect::<Vec<_>>() })
}

fn relay(state: &State) -> Value {
    let reach = state.relay.availability();
    let (ok, detail) =
        if state.relay_is_used { (reach.ok, reach.detail) } else { (true, UNUSED_RELAY.to_owned()) };
    json!({
        "used": state.relay_is_used,
        "ok": ok,
        "detail": detail,
        "next_hop": state.relay.settings().next_hop.to_string(),
        "connections": state.metrics.relay_connections(),
        "limit": state.relay.settings().max_connections,
    })
}

fn history(state: &State) -> Value {
    let count = state.history.as_ref().map(History::count);
    json!({
        "on": count.is_some(),
        "bytes": count.map_or(0, |count| count.octets),
        "dropped": count.map_or(0, |count| count.dropped),
    })
}

fn greylist(state: &State) -> Value {
    let greylist = state.greylist.as_ref();
    let (waiting, passed) = greylist.map(Greylist::count).unwrap_or_default();
    json!({
        "on": greylist.is_some(),
        "on_disk": greylist.is_some_and(Greylist::is_on_disk),
        "waiting": waiting,
        "passed": passed,
    })
}

fn permits(state: &State) -> Value {
    let (count, next_end) = state.permits.count();
    json!({
        "count": count,
        "on_disk": state.permits.is_on_disk(),
        "next_end": next_end.map(time),
        "shared": state.fleet.as_ref().map(|_| state.permits.is_shared()),
    })
}

fn cluster(fleet: &Fleet, metrics: &Metrics) -> Value {
    let condition = fleet.condition();
    json!({
        "node": fleet.node().number(),
        "redis": fleet.settings().target.to_string(),
        "up": condition.up,
        "detail": condition.detail,
        "dropped": metrics.cluster_dropped_total(),
        "others": fleet.others().iter().map(other).collect::<Vec<_>>(),
    })
}

fn other(OtherNode { node, name, version, advertise }: &OtherNode) -> Value {
    let advertise = advertise.map(|address| format!("http://{address}"));
    json!({ "node": node.number(), "hostname": name, "version": version, "advertise": advertise })
}

fn reload(reloads: &Reloads) -> Value {
    let last = reloads.last();
    json!({
        "since": time(reloads.since()),
        "at": last.as_ref().map(|last| time(last.at)),
        "applied": last.as_ref().is_none_or(|last| last.applied),
        "detail": last.and_then(|last| last.detail),
    })
}
