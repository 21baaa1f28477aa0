//! Questions to DNS and their answers: one cache in front of the configured servers.
//!
//! [`Dns::ask`] never errs: an answer is found, absent or unavailable, and has its source with it.
//!
//! - `resolver`: the way of one question. `cache` and `denials` keep answers by our own `clock`; `cname` follows aliases;
//!   `failover` goes from server to server within one deadline; `upstream` is one exchange with one server (`udp` and `tcp`
//!   its sockets, `packet` its questions, `message` its answers, `unreached` why it wasn't reached).
//! - `budget` bounds the questions of a client, `client_quota` (`quota_table`, `shares`) shares the places among clients. A
//!   question that is under way already (`flights`) needs neither.
//! - `health_check` checks the servers (`probe`, `health`), and `breaker` answers at once while none answers.
//! - Above all of these: `lookups`, the questions of one finding, and `fcrdns`, the names of an address.
//!
//! What an answer means for mail is not judged here.

mod breaker;
mod budget;
mod cache;
mod client_quota;
mod clock;
mod cname;
mod denials;
mod failover;
pub(crate) mod fcrdns;
mod flights;
mod health;
mod health_check;
pub(crate) mod kept;
pub(crate) mod lookups;
mod message;
pub(crate) mod organization;
mod packet;
mod probe;
mod quota_table;
mod resolver;
mod server;
mod settings;
mod shares;
mod tcp;
#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;
mod udp;
mod unreached;
mod upstream;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::dns::cache::Cache;
use crate::dns::client_quota::ClientQuota;
use crate::dns::failover::Servers;
use crate::dns::health_check::Intervals;
use crate::dns::resolver::{How, Resolver, broken};
use crate::dns::shares::Bounds;
use crate::evidence::{DnsFailure, Question};
use crate::metrics::{CacheResult, Metrics};
use crate::smtp::address::DomainName;

pub use crate::dns::budget::{Account, Budget, Urgency};
pub use crate::dns::clock::Clock;
pub use crate::dns::health::{Condition, Health};
pub use crate::dns::health_check::Watch;
pub use crate::dns::resolver::Lookup;
pub use crate::dns::server::{AddressError, ServerName, parse_server};
pub use crate::dns::settings::{CacheSettings, Settings, SetupError};

/// The DNS client; clones share the cache.
#[derive(Clone)]
pub struct Dns(Arc<Resolver>);

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Dns {
    /// # Errors
    /// No server is configured, and the system's configuration names none.
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        Self::with_clock(settings, Clock::running())
    }

    /// Counts questions and lookups in these metrics.
    ///
    /// # Errors
    /// As [`Dns::new`].
    pub fn with_metrics(settings: Settings, metrics: Metrics) -> Result<Self, SetupError> {
        Self::start(settings, Clock::running(), metrics)
    }

    /// For tests: answers expire by this clock.
    ///
    /// # Errors
    /// As [`Dns::new`].
    pub fn with_clock(settings: Settings, clock: Clock) -> Result<Self, SetupError> {
        Self::start(settings, clock, Metrics::default())
    }

    fn start(mut settings: Settings, clock: Clock, metrics: Metrics) -> Result<Self, SetupError> {
        if settings.servers.is_empty() {
            settings.servers = server::system_servers()?;
        }
        Ok(Self(Arc::new(Resolver {
            cache: Cache::new(settings.cache.clone(), clock.clone()),
            servers: servers(&settings, &clock, &metrics),
            quota: ClientQuota::new(Bounds::USUAL),
            flights: Arc::default(),
            clock,
            settings,
            metrics,
        })))
    }

    /// The same client with other settings. Cached answers stay, with their times; with other servers they are dropped, since
    /// those may answer otherwise. Questions under way end by the settings that they began with.
    ///
    /// # Errors
    /// As [`Dns::new`].
    pub async fn with_settings(&self, mut settings: Settings) -> Result<Self, SetupError> {
        if settings.servers.is_empty() {
            settings.servers = server::system_servers()?;
        }
        let Resolver { cache, servers: asked, quota, flights: _, clock, settings: before, metrics } =
            &*self.0;
        if settings == *before {
            return Ok(self.clone());
        }
        let servers = if (&settings.servers, settings.timeout) == (&before.servers, before.timeout) {
            Arc::clone(asked)
        } else {
            servers(&settings, clock, metrics)
        };
        let cache = if settings.servers == before.servers {
            cache.with_settings(settings.cache.clone()).await
        } else {
            Cache::new(settings.cache.clone(), clock.clone())
        };
        // No flight is shared: the questions under way went to the old servers.
        let (quota, flights) = (Arc::clone(quota), Arc::default());
        let (clock, metrics) = (clock.clone(), metrics.clone());
        Ok(Self(Arc::new(Resolver { cache, servers, quota, flights, clock, settings, metrics })))
    }

    /// Starts the health check: the log has a line for each server that is at fault, and while none answers, questions are
    /// answered at once with [`DnsFailure::Down`]. One health check is enough for each set of servers; see
    /// [`Dns::has_servers_of`].
    pub fn watch(&self) -> Watch {
        health_check::watch(Arc::clone(&self.0.servers), Intervals::DEFAULT)
    }

    /// Whether both clients share one set of servers, and so its health check.
    #[must_use]
    pub fn has_servers_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.servers, &other.0.servers)
    }

    /// The result of the latest health check.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.servers.health()
    }

    /// Whether a server has answered and DNS isn't down since. Before the first check or answer the address may be wrong.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        let health = self.health();
        !health.down && (health.is_known() || self.0.servers.breaker.answered() > 0)
    }

    /// The number of cached answers and their octets. The cache counts with a short delay.
    #[must_use]
    pub fn cache_size(&self) -> (u64, u64) {
        self.0.cache.size()
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Removes the cached answers about a name and all names below it, and the proofs that a name above it doesn't exist.
    /// Returns the number of entries removed.
    pub async fn forget(&self, name: &DomainName) -> usize {
        self.0.cache.forget(&name.into()).await
    }

    /// Answers from the cache, or asks on this account. It takes no longer than `dns.timeout`; a failure is
    /// [`Answer::Unavailable`](crate::evidence::Answer::Unavailable).
    pub async fn ask(&self, question: Question, account: &Account) -> Lookup {
        let (question, held) = self.0.cache.fresh(question).await;
        if let Some(entry) = held {
            return self.0.lookup(question, entry, How::Cached, Duration::ZERO);
        }
        if let Some(denial) = self.0.cache.denial(&question).await {
            return self.0.lookup(question, denial, How::Cached, Duration::ZERO);
        }
        if self.0.servers.breaker.blocks(&question) {
            let entry = self.0.unasked(&question, DnsFailure::Down).await;
            return self.0.lookup(question, entry, How::Unasked, Duration::ZERO);
        }
        let asked = Instant::now();
        match self.0.obtain(&question, account, asked).await {
            Some((entry, how)) => self.0.lookup(question, entry, how, asked.elapsed()),
            None => {
                self.0.metrics.cache_lookup(CacheResult::Miss);
                broken(question, asked.elapsed())
            }
        }
    }
}

fn servers(settings: &Settings, clock: &Clock, metrics: &Metrics) -> Arc<Servers> {
    Arc::new(Servers::new(&settings.servers, settings.timeout, clock.clone(), metrics.clone()))
}
