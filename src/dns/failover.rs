//! From server to server: one question to the configured servers, in turn, until one answers.
//!
//! After SERVFAIL, REFUSED, silence or a broken answer the next server is asked, all within one deadline that the tries share.
//! A server that has failed in the last 30 s comes last. Several servers at once would double the load on resolvers for the few
//! questions that meet a dead one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::dns::breaker::Breaker;
use crate::dns::clock::{Clock, Moment};
use crate::dns::health::Health;
use crate::dns::message::{Response, WireName};
use crate::dns::upstream::Upstream;
use crate::evidence::{DnsFailure, RecordType};
use crate::metrics::{Metrics, QueryOutcome};

/// How often a silent server is asked; lost packets are repeated within each try.
const ROUNDS: usize = 2;
/// How long a server that failed comes last.
const DISTRUST: Duration = Duration::from_secs(30);

/// Why there is no answer, and the server that this is about; `None` if there was no time to ask any.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub(super) why: DnsFailure,
    pub(super) server: Option<Arc<SocketAddr>>,
}

/// The configured servers, in order of preference.
pub(super) struct Servers {
    servers: Vec<Server>,
    timeout: Duration,
    clock: Clock,
    pub(super) breaker: Breaker,
    health: Mutex<Health>,
    metrics: Metrics,
}

struct Server {
    address: Arc<SocketAddr>,
    upstream: Upstream,
    failed: Mutex<Option<Moment>>,
}

impl Servers {
    pub(super) fn new(addresses: &[SocketAddr], timeout: Duration, clock: Clock, metrics: Metrics) -> Self {
        let server = |&address| Server {
            address: Arc::new(address),
            upstream: Upstream::new(address),
            failed: Mutex::default(),
        };
        let servers = addresses.iter().map(server).collect();
        let health = Mutex::new(Health::unknown(addresses));
        Self { servers, timeout, clock, breaker: Breaker::default(), health, metrics }
    }

    /// The first answer, or the most specific failure.
    pub(super) async fn ask(
        &self,
        name: &WireName,
        rtype: RecordType,
        deadline: Instant,
    ) -> Result<Response, Failed> {
        let began = Instant::now();
        let outcome = self.ask_in_turn(name, rtype, deadline).await;
        let said = outcome.as_ref().map_err(|failed| failed.why);
        self.metrics.query(rtype, query_outcome(&said), began.elapsed());
        self.breaker.note(name, rtype, &said);
        outcome
    }

    /// In order of preference.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = (SocketAddr, &Upstream)> {
        self.servers.iter().map(|server| (*server.address, &server.upstream))
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_health(&self, health: Health) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    async fn ask_in_turn(
        &self,
        name: &WireName,
        rtype: RecordType,
        deadline: Instant,
    ) -> Result<Response, Failed> {
        let mut failure = Failed { why: DnsFailure::Timeout, server: None };
        let mut candidates = self.by_trust();
        for round in 0..ROUNDS {
            let mut silent = Vec::new();
            for (at, server) in candidates.iter().enumerate() {
                let tries_left = candidates.len() * (ROUNDS - round) - at;
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(failure);
                }
                let share = left / u32::try_from(tries_left).unwrap_or(u32::MAX);
                match server.upstream.ask(name, rtype, Instant::now() + share).await {
                    Ok(response) => {
                        server.note(None);
                        return Ok(response);
                    }
                    Err(found) => {
                        // SERVFAIL is mostly about the domain (bad DNSSEC, dead servers), the rest about the server.
                        if found != DnsFailure::ServerFailure {
                            server.note(Some(self.clock.now()));
                        }
                        if found == DnsFailure::Timeout {
                            silent.push(*server);
                        }
                        if failure.server.is_none() || rank(found) > rank(failure.why) {
                            failure = Failed { why: found, server: Some(Arc::clone(&server.address)) };
                        }
                    }
                }
            }
            candidates = silent;
        }
        Err(failure)
    }

    fn by_trust(&self) -> Vec<&Server> {
        let now = self.clock.now();
        let mut order: Vec<_> = self.servers.iter().collect();
        order.sort_by_cached_key(|server| server.failed_lately(now));
        order
    }
}

impl Server {
    fn note(&self, failed: Option<Moment>) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    }

    fn failed_lately(&self, now: Moment) -> bool {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|failed| now.since(failed) < DISTRUST)
    }
}

fn query_outcome(outcome: &Result<&Response, DnsFailure>) -> QueryOutcome {
    match outcome {
        Ok(response) if response.denied => QueryOutcome::NoSuchDomain,
        Ok(response) if response.records.is_empty() => QueryOutcome::NoData,
        Ok(_) => QueryOutcome::Found,
        Err(DnsFailure::ServerFailure) => QueryOutcome::ServerFailure,
        Err(DnsFailure::Refused) => QueryOutcome::Refused,
        Err(DnsFailure::Timeout) => QueryOutcome::Timeout,
        Err(
            DnsFailure::Broken
            | DnsFailure::AliasLoop
            | DnsFailure::FormatError
            | DnsFailure::NotImplemented
            | DnsFailure::OtherError
            | DnsFailure::NoTcp,
        ) => QueryOutcome::Broken,
        Err(
            DnsFailure::NoRoute
            | DnsFailure::Forbidden
            | DnsFailure::NoAddress
            | DnsFailure::PortClosed
            | DnsFailure::NoSocket,
        ) => QueryOutcome::Unreachable,
        Err(DnsFailure::Busy) => QueryOutcome::Busy,
        Err(DnsFailure::TooMany) => QueryOutcome::TooMany,
        Err(DnsFailure::Down) => QueryOutcome::Down,
    }
}

/// A server's answer about the question counts more than a failure to reach another, and that more than silence.
fn rank(failure: DnsFailure) -> u8 {
    match failure {
        DnsFailure::Timeout | DnsFailure::Busy | DnsFailure::TooMany | DnsFailure::Down => 0,
        DnsFailure::NoRoute
        | DnsFailure::Forbidden
        | DnsFailure::NoAddress
        | DnsFailure::PortClosed
        | DnsFailure::NoSocket => 1,
        DnsFailure::Broken
        | DnsFailure::FormatError
        | DnsFailure::NotImplemented
        | DnsFailure::OtherError
        | DnsFailure::NoTcp => 2,
        DnsFailure::Refused => 3,
        DnsFailure::ServerFailure | DnsFailure::AliasLoop => 4,
    }
}
