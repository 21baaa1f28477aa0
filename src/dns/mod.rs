//! Questions to DNS and their answers: one cache in front of the configured servers.
//!
//! [`Dns::ask`] never errs: an answer is found, absent or unavailable, and it says where it came from. From the
//! outside in: `cache` holds answers by our own clock, `alias` follows CNAMEs, `failover` goes from server to
//! server within one deadline, `resolver` is one exchange with one server (`udp` and `tcp` its sockets, `packet` its
//! questions, `message` its answers).
//! Beside them `watch` looks after the servers (`look`, `health`), and `breaker` spares the wait while none answers.
//! Upon it stand `trail`, the look-ups of one finding, and `names`, those of an address. What an answer means is not
//! judged here.

mod alias;
mod askers;
mod breaker;
mod cache;
mod clock;
mod denials;
mod failover;
#[cfg(test)]
mod faults;
mod health;
mod look;
mod message;
pub(crate) mod names;
pub(crate) mod organization;
mod packet;
#[cfg(test)]
mod raw_server;
mod resolver;
mod server;
mod tcp;
#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;
pub(crate) mod trail;
mod udp;
mod watch;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::dns::alias::{Resolved, resolve};
use crate::dns::askers::{Askers, Bounds, Ticket};
use crate::dns::cache::{Cache, Entry, Held};
use crate::dns::clock::Moment;
use crate::dns::failover::Servers;
use crate::dns::watch::Pace;
use crate::metrics::{CacheResult, Metrics, QueryOutcome};
use crate::policy::evidence::{Answer, Evidence, Freshness, Question, Trouble};
use crate::smtp::address::DomainName;

pub use crate::dns::clock::Clock;
pub use crate::dns::health::{Condition, Health};
pub use crate::dns::server::{AddressError, ServerName, parse_server};
pub use crate::dns::watch::Watch;

/// Questions under way at once: each holds a socket, and random sub-domains must drown neither the server nor our file
/// descriptors.
const MAX_UNDER_WAY: usize = 512;
/// Those of one client; past it a question waits for one of the same client's to end, and when that takes half of
/// `dns.timeout`, it is [`Trouble::Busy`].
const MAX_PER_CLIENT: usize = 64;
/// Questions of one client that wait or are under way; past it they are [`Trouble::Busy`] at once.
///
/// One session asks 704 side by side at the very most: PTR 320 (10 names, 2 rules, 16 hosts each), HELO and MAIL FROM
/// 32 each, From: and Reply-To: 160 each (5 domains). So this is five such sessions, or 80 questions for each of 50
/// connections. It is also more than could be answered: while a question waits (2.5 s by default), 64 places that take
/// 50 ms each answer 3200.
const MAX_OPEN_PER_CLIENT: usize = 4096;
/// The same for all clients together: it takes as many of them to fill this as to fill the places under way. One that
/// waits costs 1 KiB with its asker, one that has a place 6 KiB.
const MAX_OPEN: usize = MAX_OPEN_PER_CLIENT * (MAX_UNDER_WAY / MAX_PER_CLIENT);
const BOUNDS: Bounds = Bounds { under_way: MAX_PER_CLIENT, open: MAX_OPEN_PER_CLIENT, open_in_all: MAX_OPEN };

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
    under_way: Arc<Semaphore>,
    askers: Arc<Askers>,
    clock: Clock,
    settings: Settings,
    metrics: Metrics,
}

/// How a look-up came to its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// It was held.
    Held,
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
    pub fn counted(settings: Settings, metrics: Metrics) -> Result<Self, SetupError> {
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
            under_way: Arc::new(Semaphore::new(MAX_UNDER_WAY)),
            askers: Askers::new(BOUNDS),
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
    pub async fn renewed(&self, mut settings: Settings) -> Result<Self, SetupError> {
        if settings.servers.is_empty() {
            settings.servers = server::system_servers()?;
        }
        let Inner { cache, servers: asked, under_way, askers, clock, settings: before, metrics } = &*self.0;
        if settings == *before {
            return Ok(self.clone());
        }
        let servers = if (&settings.servers, settings.timeout) == (&before.servers, before.timeout) {
            Arc::clone(asked)
        } else {
            servers(&settings, clock, metrics)
        };
        let cache = if settings.servers == before.servers {
            cache.renewed(settings.cache.clone()).await
        } else {
            Cache::new(settings.cache.clone(), clock.clone())
        };
        let (under_way, askers) = (Arc::clone(under_way), Arc::clone(askers));
        let (clock, metrics) = (clock.clone(), metrics.clone());
        Ok(Self(Arc::new(Inner { cache, servers, under_way, askers, clock, settings, metrics })))
    }

    /// Looks after the servers from now on: the log tells what is wrong with one, and while none answers, questions are
    /// answered at once with [`Trouble::Down`]. Each set of servers is watched once; see [`Dns::has_servers_of`].
    pub fn watch(&self) -> Watch {
        watch::watch(Arc::clone(&self.0.servers), Pace::USUAL)
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

    /// Answers from the cache, or asks; takes no longer than `dns.timeout`. Trouble is [`Answer::Unavailable`]. It is
    /// `client` on whose account the question is asked.
    pub async fn ask(&self, question: Question, client: IpAddr) -> Lookup {
        let (question, held) = self.0.cache.fresh(question).await;
        if let Some(entry) = held {
            return self.0.lookup(question, entry, How::Held, Duration::ZERO);
        }
        if let Some(denial) = self.0.cache.denial(&question).await {
            return self.0.lookup(question, denial, How::Held, Duration::ZERO);
        }
        if self.0.servers.breaker.turns_away(&question) {
            let entry = self.0.unasked(&question, Trouble::Down).await;
            return self.0.lookup(question, entry, How::Unasked, Duration::ZERO);
        }
        let (asked, began) = (Instant::now(), self.0.clock.now());
        let entry = match self.0.place(client, asked).await {
            None => Some((self.0.unasked(&question, Trouble::Busy).await, false)),
            Some(place) => {
                // A task of its own, so that an asker who leaves doesn't end the question for those who wait with him.
                let (inner, theirs) = (Arc::clone(&self.0), question.clone());
                let task = async move { inner.ask_once(theirs, asked, place).await };
                // An error: the task panicked, or the runtime is being shut down.
                tokio::spawn(task).await.ok().flatten()
            }
        };
        let Some((entry, by_us)) = entry else {
            self.0.metrics.cache_lookup(CacheResult::Miss);
            return broken(question, asked.elapsed());
        };
        let how = match *entry.latest.answer {
            _ if by_us => How::Asked,
            _ if entry.latest.received < began => How::Held,
            Answer::Unavailable(Trouble::Busy | Trouble::Down) => How::Unasked,
            _ => How::Waited,
        };
        self.0.lookup(question, entry, how, asked.elapsed())
    }
}

impl Inner {
    /// One of the client's places. It is the asker who waits for it: nobody else waits for the question yet, so if he
    /// leaves, it need not be asked. `None` = too many questions, or none of the places was free in time.
    async fn place(&self, client: IpAddr, asked: Instant) -> Option<Ticket> {
        let mut ticket = self.askers.admit(client)?;
        timeout_at(self.patience(asked), ticket.take_place()).await.ok()?;
        Some(ticket)
    }

    /// Asks unless another does already, and says whether it did. It is after its client's place that a question waits for others: they must not
    /// wait for that place.
    async fn ask_once(&self, question: Question, asked: Instant, _place: Ticket) -> Option<(Entry, bool)> {
        let (name, mut by_us) = (question.clone(), false);
        let ask = Box::pin(async {
            by_us = true;
            match timeout_at(self.patience(asked), self.under_way.acquire()).await {
                Ok(Ok(_permit)) => resolve(&self.servers, &name, asked + self.settings.timeout).await,
                Ok(Err(_)) | Err(_) => {
                    self.metrics.unasked(name.rtype, QueryOutcome::Busy);
                    Resolved::trouble(Trouble::Busy)
                }
            }
        });
        let entry = self.cache.ask_once(question, ask).await?;
        Some((entry, by_us))
    }

    /// What is known of a question that can't be asked.
    async fn unasked(&self, question: &Question, why: Trouble) -> Entry {
        let outcome = if why == Trouble::Down { QueryOutcome::Down } else { QueryOutcome::Busy };
        self.metrics.unasked(question.rtype, outcome);
        self.cache.unasked(question.clone(), why).await
    }

    /// Until when a question may wait for its turn: one that began later would fail for want of time, and that is held
    /// against the domain.
    fn patience(&self, asked: Instant) -> Instant {
        asked + self.settings.timeout / 2
    }

    fn lookup(&self, question: Question, entry: Entry, how: How, took: Duration) -> Lookup {
        let now = self.clock.now();
        let freshness = if how == How::Held { Freshness::Cached } else { Freshness::Fresh };
        let stale = match *entry.latest.answer {
            Answer::Unavailable(_) => entry
                .stale(now, self.settings.cache.stale)
                .map(|held| evidence(question.clone(), held, now, Freshness::Stale, took)),
            Answer::Found(_) | Answer::NoData | Answer::NoSuchDomain => None,
        };
        self.metrics.cache_lookup(match (how, &*entry.latest.answer) {
            _ if stale.is_some() => CacheResult::Stale,
            (How::Held, Answer::Found(_)) => CacheResult::Hit,
            (How::Held, _) => CacheResult::Negative,
            (How::Waited, _) => CacheResult::Coalesced,
            (How::Asked | How::Unasked, _) => CacheResult::Miss,
        });
        Lookup { evidence: evidence(question, &entry.latest, now, freshness, took), stale }
    }
}

fn servers(settings: &Settings, clock: &Clock, metrics: &Metrics) -> Arc<Servers> {
    Arc::new(Servers::new(&settings.servers, settings.timeout, clock.clone(), metrics.clone()))
}

fn evidence(question: Question, held: &Held, now: Moment, freshness: Freshness, took: Duration) -> Evidence {
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
    let answer = Arc::new(Answer::Unavailable(Trouble::Broken));
    let (freshness, zero) = (Freshness::Fresh, Duration::ZERO);
    Lookup {
        evidence: Evidence { question, answer, freshness, ttl_left: zero, age: zero, took },
        stale: None,
    }
}
