//! `/metrics`: counters and gauges in the formats of Prometheus.

use std::time::SystemTime;

use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::response::IntoResponse;

use crate::admin::State;
use crate::admin::call::{Call, ResponseFuture};
use crate::metrics::process::Process;
use crate::metrics::{CertificateGauges, Format, Gauges, HistoryGauges};
use crate::tls::Leaf;

pub(super) fn metrics(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let accepted = call.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        // Prometheus names OpenMetrics first; a client without that gets the older format, which every tool reads.
        let open = accepted.into_iter().any(|value| value.contains("application/openmetrics-text"));
        let format = if open { Format::OpenMetrics } else { Format::Prometheus };
        let text = call.state.metrics.text(&gauges(&call.state), format);
        Ok(([(CONTENT_TYPE, format.media_type()), (VARY, "Accept")], text).into_response())
    })
}

fn gauges(state: &State) -> Gauges {
    let (cache_entries, cache_bytes) = state.dns.cache_size();
    let certificate = state.tls.as_ref().and_then(|tls| tls.certificate(SystemTime::now()).leaf);
    Gauges {
        connections_open: state.server.open(),
        connections_limit: state.server.limit(),
        cache_entries,
        cache_bytes,
        cache_limit_bytes: state.dns.settings().cache.memory,
        dns_answering: !state.dns.health().down,
        relay_reachable: !state.relay_is_used || state.relay.availability().ok,
        relay_connections_limit: state.relay.settings().max_connections,
        cluster_up: state.fleet.as_ref().map(|fleet| fleet.condition().up),
        history: state.history.as_ref().map(|history| {
            let count = history.count();
            HistoryGauges { bytes: count.octets, dropped: count.dropped }
        }),
        permits: state.permits.count().0,
        started: state.started,
        configured: state.reloads.since(),
        reload_succeeded: state.reloads.last().is_none_or(|last| last.applied),
        certificate: certificate
            .map(|Leaf { not_before, not_after, .. }| CertificateGauges { not_before, not_after }),
        process: Process::own(),
    }
}
