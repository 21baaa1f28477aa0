//! Questions to DNS and their answers: one cache in front of the configured servers.
//!
//! [`Dns::ask`] never errs: an answer is found, absent or unavailable, and it says where it came from. From the
//! outside in: `cache` holds answers by our own clock, `alias` follows CNAMEs, `failover` goes from server to
//! server within one deadline, `resolver` is one exchange with one server (`udp` and `tcp` its sockets, `packet` its
//! questions, `message` its answers).
//! Beside them `watch` looks after the servers (`look`, `health`), and `breaker` spares the wait while none answers.
//! A question is asked on an account (`budget`), which pays for it and whose client has its place (`quota`); one that is
//! under way already (`flights`) needs neither. Upon it stand `lookups`, the look-ups of one finding, and `names`, those of an
//! address. What an answer means is not judged here.

mod breaker;
mod budget;
mod cache;
mod client_quota;
mod clock;
mod cname;
mod denials;
mod failover;
#[cfg(test)]
mod faults;
pub(crate) mod fcrdns;
mod flights;
mod health;
mod health_check;
pub(crate) mod lookups;
mod message;
pub(crate) mod organization;
mod packet;
mod probe;
#[cfg(test)]
mod raw_server;
mod resolver;
mod server;
mod tcp;
#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;
mod udp;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::dns::budget::Payment;
use crate::dns::cache::{Cache, CachedAnswer, Entry};
use crate::dns::client_quota::{Bounds, ClientQuota, Ticket};
use crate::dns::clock::Moment;
use crate::dns::cname::{Resolved, resolve};
use crate::dns::failover::Servers;
use crate::dns::flights::{Awaited, Flights};
use crate::dns::health_check::Pace;
use crate::evidence::{Answer, DnsFailure, Evidence, Freshness, Question};
use crate::metrics::{CacheResult, Metrics, QueryOutcome};
use crate::smtp::address::DomainName;

pub use crate::dns::budget::{Account, Budget, Urgency};
pub use crate::dns::clock::Clock;
pub use crate::dns::health::{Condition, Health};
pub use crate::dns::health_check::Watch;
pub use crate::dns::server::{AddressError, ServerName, parse_server};

/// Questions under way at once: each holds a socket, and random sub-domains must drown neither the server nor our file
/// descriptors.
const MAX_UNDER_WAY: usize = 512;
/// Of these, only for what can refuse.
const RESERVED: usize = 64;
/// Besides, those that lost their place to a newcomer and still wait for their answer: each holds a socket as well.
const MAX_LATE: usize = 512;
/// Those of one client. Where many ask it has fewer: see [`ClientQuota`].
const MAX_PER_CLIENT: usize = 64;
/// Questions of one client that wait; past it they are [`DnsFailure::Busy`] at once. It is more than could be answered: while
/// one waits (2.5 s by default), 64 places that take 50 ms each answer 3200.
const MAX_WAITING_PER_CLIENT: usize = 4096;
/// The same for all clients together. One that waits costs 1 KiB with its asker, one that has a place 6 KiB.
const MAX_WAITING: usize = 32_768;
const BOUNDS: Bounds = Bounds {
    places: MAX_UNDER_WAY,
    reserved: RESERVED,
    late: MAX_LATE,
    places_each: MAX_PER_CLIENT,
    waiting: MAX_WAITING,
    waiting_each: MAX_WAITING_PER_CLIENT,
};
/// How often an asker waits for another's question that ends without an answer for all.
const MOST_AWAITED: usize = 4;

/// `[dns]` as the resolver and the cache need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Servers to ask, in order of preference; empty = those of the system's resolver configuration.
    pub servers: Vec<SocketAddr>,
    /// Total time for one question, retries and failover included.
    pub timeout: Duration,
    /// `[dns.cache]`.
    pub cache: CacheSettings,
}

/// `[dns.cache]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// Bound of the cache, in octets.
    pub memory: u64,
    /// Shortest time an answer is kept.
    pub min_ttl: Duration,
    /// Longest time a positive answer is kept.
    pub max_ttl: Duration,
    /// Longest time a negative answer is kept.
    pub max_negative_ttl: Duration,
    /// How long after its expiry a positive answer may still carry an accept while DNS fails.
    pub stale: Duration,
}

/// Why DNS can't be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// `dns.servers` is empty and the system names no server.
    #[error(
        "dns.servers is empty and the system's resolver configuration (/etc/resolv.conf) is of no use: {0}"
    )]
    System(String),
}

/// Asks DNS; clones share the cache.
#[derive(Clone)]
pub struct Dns(Arc<Inner>);

struct Inner {
    cache: Cache,
    servers: Arc<Servers>,
    quota: Arc<ClientQuota>,
    flights: Arc<Flights>,
    clock: Clock,
    settings: Settings,
    metrics: Metrics,
}

/// How a look-up came to its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// It was held.
    CachedAnswer,
    /// It was asked for.
    Asked,
    /// Somebody else asked.
    Waited,
    /// It could not be asked for.
    Unasked,
}

/// What is known in answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The answer that holds now.
    pub evidence: Evidence,
    /// While that is trouble: the positive answer before it, if it expired no longer than `dns.cache.stale` ago.
    /// It may carry a pass, never a failure.
    pub stale: Option<Evidence>,
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Dns {
    /// For these settings.
    ///
    /// # Errors
    /// No server is configured and the system names none.
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        Self::with_clock(settings, Clock::running())
    }

    /// The same, counted there.
    ///
    /// # Errors
    /// As [`Dns::new`].
    pub fn with_metrics(settings: Settings, metrics: Metrics) -> Result<Self, SetupError> {
        Self::start(settings, Clock::running(), metrics)
    }

    /// The same by another clock, for tests.
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
        Ok(Self(Arc::new(Inner {
            cache: Cache::new(settings.cache.clone(), clock.clone()),
            servers: servers(&settings, &clock, &metrics),
            quota: ClientQuota::new(BOUNDS),
            flights: Arc::default(),
            clock,
            settings,
            metrics,
        })))
    }

    /// The same by other settings. What is held stays, with the times that it was given; but other servers may answer
    /// otherwise, so with them nothing does. Questions under way end by the settings that they began with.
    ///
    /// # Errors
    /// As [`Dns::new`].
    pub async fn with_settings(&self, mut settings: Settings) -> Result<Self, SetupError> {
        if settings.servers.is_empty() {
            settings.servers = server::system_servers()?;
        }
        let Inner { cache, servers: asked, quota, flights: _, clock, settings: before, metrics } = &*self.0;
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
        // What is under way was put to the servers before.
        let (quota, flights) = (Arc::clone(quota), Arc::default());
        let (clock, metrics) = (clock.clone(), metrics.clone());
        Ok(Self(Arc::new(Inner { cache, servers, quota, flights, clock, settings, metrics })))
    }

    /// Looks after the servers from now on: the log tells what is wrong with one, and while none answers, questions are
    /// answered at once with [`DnsFailure::Down`]. Each set of servers is watched once; see [`Dns::has_servers_of`].
    pub fn watch(&self) -> Watch {
        health_check::watch(Arc::clone(&self.0.servers), Pace::USUAL)
    }

    /// Whether the servers are one with those of the other, so that who watches those watches these.
    #[must_use]
    pub fn has_servers_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.servers, &other.0.servers)
    }

    /// The servers as they were when they were last looked at.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.servers.health()
    }

    /// Whether it was seen to answer, and not to fall silent since: a server that nobody has looked at, nor asked, may be
    /// none.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        let health = self.health();
        !health.down && (health.is_known() || self.0.servers.breaker.answered() > 0)
    }

    /// How many answers are held, and their octets; what was done in the last moment may be missing.
    #[must_use]
    pub fn cache_size(&self) -> (u64, u64) {
        self.0.cache.size()
    }

    /// The settings in effect.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Forgets the answers about a name and all names below it, and that a name above it is proven not to exist. How many
    /// entries that were.
    pub async fn forget(&self, name: &DomainName) -> usize {
        self.0.cache.forget(&name.into()).await
    }

    /// Answers from the cache, or asks on this account; takes no longer than `dns.timeout`. DnsFailure is
    /// [`Answer::Unavailable`].
    pub async fn ask(&self, question: Question, account: &Account) -> Lookup {
        let (question, held) = self.0.cache.fresh(question).await;
        if let Some(entry) = held {
            return self.0.lookup(question, entry, How::CachedAnswer, Duration::ZERO);
        }
        if let Some(denial) = self.0.cache.denial(&question).await {
            return self.0.lookup(question, denial, How::CachedAnswer, Duration::ZERO);
        }
        if self.0.servers.breaker.turns_away(&question) {
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

impl Inner {
    /// The answer to a question that another asker waits for already, or that is asked now. `None` where it died.
    async fn obtain(
        self: &Arc<Self>,
        question: &Question,
        account: &Account,
        asked: Instant,
    ) -> Option<(Entry, How)> {
        let mut under_way = self.flights.awaited(question);
        for _ in 0..MOST_AWAITED {
            if let Some(entry) = answer_for_all(under_way.take()).await {
                return Some((entry, How::Waited));
            }
            let Some(payment) = account.budget.pay() else {
                return Some((self.unasked(question, DnsFailure::TooMany).await, How::Unasked));
            };
            let Some(mut place) = self.place(account, asked).await else {
                return Some((self.unasked(question, DnsFailure::Busy).await, How::Unasked));
            };
            let flight = match self.flights.begin(question) {
                Ok(flight) => flight,
                Err(awaited) => {
                    // Another was faster; who waits for it needs neither place nor payment.
                    under_way = Some(awaited);
                    continue;
                }
            };
            // A task of its own, so that an asker who leaves doesn't end the question for those who wait with him.
            let (inner, question, account) = (Arc::clone(self), question.clone(), account.clone());
            let task = tokio::spawn(async move {
                let answer = inner.ask_once(question, &account, payment, &mut place, asked).await;
                flight.end(answer.as_ref().map(|(entry, _)| entry.clone()));
                drop(place);
                answer
            });
            // An error: the task panicked, or the runtime is being shut down.
            return task.await.ok().flatten();
        }
        Some((self.unasked(question, DnsFailure::Busy).await, How::Unasked))
    }

    /// A place for one question. It is the asker who waits for it, so if he leaves, it need not be asked. `None` = too many
    /// wait, or it was nobody's turn in time.
    async fn place(&self, account: &Account, asked: Instant) -> Option<Ticket> {
        let mut ticket = self.quota.admit(account.client, account.urgency)?;
        timeout_at(asked + self.patience(account.urgency), ticket.take_place()).await.ok()?;
        Some(ticket)
    }

    /// Asks, unless the answer came while this question waited for its place.
    async fn ask_once(
        &self,
        question: Question,
        account: &Account,
        payment: Payment,
        place: &mut Ticket,
        asked: Instant,
    ) -> Option<(Entry, How)> {
        let (name, mut how, until) = (question.clone(), How::CachedAnswer, asked + self.settings.timeout);
        let ask = Box::pin(async {
            how = How::Asked;
            tokio::select! {
                biased;
                resolved = resolve(&self.servers, &name, until, payment, &account.budget) => resolved,
                () = place.given_up() => {
                    self.metrics.unasked(name.rtype, QueryOutcome::Busy);
                    Resolved::trouble(DnsFailure::Busy)
                }
            }
        });
        let entry = self.cache.ask_once(question, ask).await?;
        Some((entry, how))
    }

    /// What is known of a question that can't be asked.
    async fn unasked(&self, question: &Question, why: DnsFailure) -> Entry {
        let outcome = match why {
            DnsFailure::Down => QueryOutcome::Down,
            DnsFailure::TooMany => QueryOutcome::TooMany,
            _ => QueryOutcome::Busy,
        };
        self.metrics.unasked(question.rtype, outcome);
        self.cache.unasked(question.clone(), why).await
    }

    /// How long a question may wait for its turn: one that began later would fail for want of time, and that is held
    /// against the domain. What only tags must not keep mail waiting where many ask.
    fn patience(&self, urgency: Urgency) -> Duration {
        match urgency {
            Urgency::Refuses => self.settings.timeout / 2,
            Urgency::Tags => self.settings.timeout / 10,
        }
    }

    fn lookup(&self, question: Question, entry: Entry, how: How, took: Duration) -> Lookup {
        let now = self.clock.now();
        let freshness = if how == How::CachedAnswer { Freshness::Cached } else { Freshness::Fresh };
        let stale = match *entry.latest.answer {
            Answer::Unavailable(_) => entry
                .stale(now, self.settings.cache.stale)
                .map(|held| evidence(question.clone(), held, now, Freshness::Stale, took)),
            Answer::Found(_) | Answer::NoData | Answer::NoSuchDomain => None,
        };
        self.metrics.cache_lookup(match (how, &*entry.latest.answer) {
            _ if stale.is_some() => CacheResult::Stale,
            (How::CachedAnswer, Answer::Found(_)) => CacheResult::Hit,
            (How::CachedAnswer, _) => CacheResult::Negative,
            (How::Waited, _) => CacheResult::Coalesced,
            (How::Asked | How::Unasked, _) => CacheResult::Miss,
        });
        Lookup { evidence: evidence(question, &entry.latest, now, freshness, took), stale }
    }
}

/// The answer that another asker's question comes to, unless it is one for that asker alone.
async fn answer_for_all(awaited: Option<Awaited>) -> Option<Entry> {
    let entry = awaited?.wait().await.clone()?;
    (*entry.latest.answer != Answer::Unavailable(DnsFailure::TooMany)).then_some(entry)
}

fn servers(settings: &Settings, clock: &Clock, metrics: &Metrics) -> Arc<Servers> {
    Arc::new(Servers::new(&settings.servers, settings.timeout, clock.clone(), metrics.clone()))
}

fn evidence(
    question: Question,
    held: &CachedAnswer,
    now: Moment,
    freshness: Freshness,
    took: Duration,
) -> Evidence {
    Evidence {
        question,
        answer: Arc::clone(&held.answer),
        freshness,
        ttl_left: held.expires.since(now),
        age: now.since(held.received),
        took,
    }
}

fn broken(question: Question, took: Duration) -> Lookup {
    let answer = Arc::new(Answer::Unavailable(DnsFailure::Broken));
    let (freshness, zero) = (Freshness::Fresh, Duration::ZERO);
    Lookup {
        evidence: Evidence { question, answer, freshness, ttl_left: zero, age: zero, took },
        stale: None,
    }
}
