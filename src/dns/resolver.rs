//! One question, from the cache to the servers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::dns::budget::{Account, Payment, Urgency};
use crate::dns::cache::{Cache, CachedAnswer, Entry};
use crate::dns::client_quota::{ClientQuota, Ticket};
use crate::dns::clock::{Clock, Moment};
use crate::dns::cname::{Resolved, resolve};
use crate::dns::failover::Servers;
use crate::dns::flights::{Awaited, Flights};
use crate::dns::settings::Settings;
use crate::evidence::{Answer, DnsFailure, Evidence, Freshness, Question};
use crate::metrics::{CacheResult, Metrics, QueryOutcome};

/// How often a caller waits for the same question of another caller that ends without an answer for both.
const MOST_AWAITED: usize = 4;
/// What clones of a `Dns` share.
pub(super) struct Resolver {
    pub(super) cache: Cache,
    pub(super) servers: Arc<Servers>,
    pub(super) quota: Arc<ClientQuota>,
    pub(super) flights: Arc<Flights>,
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    pub(super) metrics: Metrics,
}

/// Where the entry of a lookup came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Cached,
    Asked,
    /// Another caller's question was under way.
    Waited,
    /// The question was not asked: no budget, no place, or DNS is down.
    Unasked,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The current answer.
    pub evidence: Evidence,
    /// Where `evidence` is a DNS failure: the positive answer before it, if it expired less than `dns.cache.stale` ago. A
    /// pass may rest on it, a failed rule never.
    pub stale: Option<Evidence>,
}

impl Resolver {
    /// Waits for the answer if the question is under way, else asks. `None` where the task of the question ended without an
    /// answer.
    pub(super) async fn obtain(
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
                    // Another caller was faster; to wait for its answer takes neither place nor payment.
                    under_way = Some(awaited);
                    continue;
                }
            };
            // In a task of its own: a caller that is cancelled must not end the question for the others that wait for it.
            let (resolver, question, account) = (Arc::clone(self), question.clone(), account.clone());
            let task = tokio::spawn(async move {
                let answer = resolver.ask_once(question, &account, payment, &mut place, asked).await;
                flight.end(answer.as_ref().map(|(entry, _)| entry.clone()));
                drop(place);
                answer
            });
            // An error here: the task panicked, or the runtime shuts down.
            return task.await.ok().flatten();
        }
        Some((self.unasked(question, DnsFailure::Busy).await, How::Unasked))
    }

    /// A place for one question; `None` where too many wait, or none was free in time. The caller itself waits here, so a
    /// question whose caller was cancelled is not asked.
    async fn place(&self, account: &Account, asked: Instant) -> Option<Ticket> {
        let mut ticket = self.quota.admit(account.client, account.urgency)?;
        timeout_at(asked + self.patience(account.urgency), ticket.take_place()).await.ok()?;
        Some(ticket)
    }

    /// Asks, unless the cache has the answer by now: the question has waited for its place.
    async fn ask_once(
        &self,
        question: Question,
        account: &Account,
        payment: Payment,
        place: &mut Ticket,
        asked: Instant,
    ) -> Option<(Entry, How)> {
        let (name, mut how, until) = (question.clone(), How::Cached, asked + self.settings.timeout);
        let ask = Box::pin(async {
            how = How::Asked;
            tokio::select! {
                biased;
                resolved = resolve(&self.servers, &name, until, payment, &account.budget) => resolved,
                () = place.revoked() => {
                    self.metrics.unasked(name.rtype, QueryOutcome::Busy);
                    Resolved::failure(DnsFailure::Busy)
                }
            }
        });
        let entry = self.cache.ask_once(question, ask).await?;
        Some((entry, how))
    }

    /// The entry of a question that is not asked, for this reason.
    pub(super) async fn unasked(&self, question: &Question, why: DnsFailure) -> Entry {
        let outcome = match why {
            DnsFailure::Down => QueryOutcome::Down,
            DnsFailure::TooMany => QueryOutcome::TooMany,
            _ => QueryOutcome::Busy,
        };
        self.metrics.unasked(question.rtype, outcome);
        self.cache.unasked(question.clone(), why).await
    }

    /// How long a question may wait for its place. One that began later would time out, which the cache keeps as a failure of
    /// the name. A question that only tags must not delay mail under load.
    fn patience(&self, urgency: Urgency) -> Duration {
        match urgency {
            Urgency::Refuses => self.settings.timeout / 2,
            Urgency::Tags => self.settings.timeout / 10,
        }
    }

    pub(super) fn lookup(&self, question: Question, entry: Entry, how: How, took: Duration) -> Lookup {
        let now = self.clock.now();
        let freshness = if how == How::Cached { Freshness::Cached } else { Freshness::Fresh };
        let stale = match *entry.latest.answer {
            Answer::Unavailable(_) => entry
                .stale(now, self.settings.cache.stale)
                .map(|held| evidence(question.clone(), held, now, Freshness::Stale, took)),
            Answer::Found(_) | Answer::NoData | Answer::NoSuchDomain => None,
        };
        self.metrics.cache_lookup(match (how, &*entry.latest.answer) {
            _ if stale.is_some() => CacheResult::Stale,
            (How::Cached, Answer::Found(_)) => CacheResult::Hit,
            (How::Cached, _) => CacheResult::Negative,
            (How::Waited, _) => CacheResult::Coalesced,
            (How::Asked | How::Unasked, _) => CacheResult::Miss,
        });
        Lookup { evidence: evidence(question, &entry.latest, now, freshness, took), stale }
    }
}

/// The answer to another caller's question, unless that caller's budget was spent: this says nothing for others.
async fn answer_for_all(awaited: Option<Awaited>) -> Option<Entry> {
    let entry = awaited?.wait().await.clone()?;
    (*entry.latest.answer != Answer::Unavailable(DnsFailure::TooMany)).then_some(entry)
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
        server: held.server.clone(),
    }
}

pub(super) fn broken(question: Question, took: Duration) -> Lookup {
    let answer = Arc::new(Answer::Unavailable(DnsFailure::Broken));
    let (freshness, zero) = (Freshness::Fresh, Duration::ZERO);
    Lookup {
        evidence: Evidence { question, answer, freshness, ttl_left: zero, age: zero, took, server: None },
        stale: None,
    }
}
