//! How often is too often: a bucket for each client and lane, one for all that asks DNS, and one for what is forgotten.
//!
//! Behind a reverse proxy all clients are one: so who guesses tokens is barred from what needs one, and neither who has it
//! nor who asks whether the daemon is well notices. That the right token always opens leaves guessing to the token's length.
//!
//! The tables of clients are bounded. A client is forgotten when its bucket is full again, which says as much as no bucket;
//! while the table is full of others, newcomers share one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::policy::client::client_network;

/// For each client: a dashboard in a few windows needs 10 a second.
const ANY: Pace = Pace { at_once: 200.0, per_second: 50.0 };
/// For all clients together: what asks DNS, by up to some hundred questions each.
const ASKING: Pace = Pace { at_once: 30.0, per_second: 5.0 };
/// Those that ask DNS at one time; an audit may take half a minute.
const ASKING_AT_ONCE: usize = 8;
/// For all clients together: each goes through the whole cache.
const FORGETTING: Pace = Pace { at_once: 10.0, per_second: 1.0 };
/// What a wrong token costs of [`ANY`]: who guesses is answered 2 a second.
const WRONG_TOKEN: f64 = 25.0;
/// Clients of a lane that are told apart.
const CLIENTS: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Pace {
    at_once: f64,
    per_second: f64,
}

/// Requests of one kind, which the others don't slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Whether the daemon is well.
    Health,
    /// The page, and what isn't there.
    Open,
    /// With the token, or where none is wanted.
    Known,
    /// Without the token that is wanted.
    Stranger,
    /// With a wrong one.
    Guesser,
}

/// All buckets.
#[derive(Debug)]
pub(super) struct Rates {
    health: Mutex<Clients>,
    open: Mutex<Clients>,
    known: Mutex<Clients>,
    strangers: Mutex<Clients>,
    asking: Mutex<Bucket>,
    at_once: Semaphore,
    forgetting: Mutex<Bucket>,
    one_at_a_time: Semaphore,
}

#[derive(Debug)]
struct Clients {
    each: HashMap<IpAddr, Bucket>,
    others: Bucket,
}

impl Default for Clients {
    fn default() -> Self {
        Self { each: HashMap::new(), others: Bucket::full(ANY) }
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            health: Mutex::default(),
            open: Mutex::default(),
            known: Mutex::default(),
            strangers: Mutex::default(),
            asking: Mutex::new(Bucket::full(ASKING)),
            at_once: Semaphore::new(ASKING_AT_ONCE),
            forgetting: Mutex::new(Bucket::full(FORGETTING)),
            one_at_a_time: Semaphore::new(1),
        }
    }
}

impl Rates {
    /// One request of a client; if it is one too many, when to come again.
    pub(super) fn request(&self, client: IpAddr, lane: Lane) -> Result<(), Duration> {
        let (clients, cost) = match lane {
            Lane::Health => (&self.health, 1.0),
            Lane::Open => (&self.open, 1.0),
            Lane::Known => (&self.known, 1.0),
            Lane::Stranger => (&self.strangers, 1.0),
            Lane::Guesser => (&self.strangers, WRONG_TOKEN),
        };
        clients.lock().unwrap_or_else(PoisonError::into_inner).take(client, cost)
    }

    /// The right to ask DNS, while it is held; if there is none, when to come again.
    pub(super) fn asking(&self) -> Result<SemaphorePermit<'_>, Duration> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let permit = self.at_once.try_acquire().map_err(|_all_taken| Duration::from_secs(1))?;
        asking.take(1.0, ASKING, Instant::now())?;
        Ok(permit)
    }

    /// The right to go through the cache, while it is held; if there is none, when to come again.
    pub(super) fn forgetting(&self) -> Result<SemaphorePermit<'_>, Duration> {
        let mut forgetting = self.forgetting.lock().unwrap_or_else(PoisonError::into_inner);
        let permit = self.one_at_a_time.try_acquire().map_err(|_taken| Duration::from_secs(1))?;
        forgetting.take(1.0, FORGETTING, Instant::now())?;
        Ok(permit)
    }
}

impl Clients {
    fn take(&mut self, client: IpAddr, cost: f64) -> Result<(), Duration> {
        let (client, now) = (client_network(client), Instant::now());
        let Self { each, others } = self;
        if each.len() >= CLIENTS && !each.contains_key(&client) {
            each.retain(|_, bucket| !bucket.is_full(ANY, now));
            if each.len() >= CLIENTS {
                return others.take(cost, ANY, now);
            }
        }
        each.entry(client).or_insert_with(|| Bucket::full(ANY)).take(cost, ANY, now)
    }
}

/// What may be taken now, and since when that is counted.
#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn full(pace: Pace) -> Self {
        Self { left: pace.at_once, at: Instant::now() }
    }

    fn refill(&mut self, pace: Pace, now: Instant) {
        let more = now.saturating_duration_since(self.at).as_secs_f64() * pace.per_second;
        self.left = (self.left + more).min(pace.at_once);
        self.at = now;
    }

    fn take(&mut self, much: f64, pace: Pace, now: Instant) -> Result<(), Duration> {
        self.refill(pace, now);
        if self.left < much {
            return Err(Duration::from_secs_f64((much - self.left) / pace.per_second));
        }
        self.left -= much;
        Ok(())
    }

    fn is_full(&mut self, pace: Pace, now: Instant) -> bool {
        self.refill(pace, now);
        self.left >= pace.at_once
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::time::advance;

    use super::*;

    fn client(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    fn let_in(rates: &Rates, client: IpAddr) -> usize {
        (0..1000).take_while(|_| rates.request(client, Lane::Known).is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn each_client_has_a_burst_and_then_a_pace_of_its_own() {
        let rates = Rates::default();
        assert_eq!(let_in(&rates, client(1)), 200);
        assert_eq!(let_in(&rates, client(2)), 200);
        let wait = rates.request(client(1), Lane::Known).unwrap_err();
        assert!(wait <= Duration::from_millis(20), "{wait:?}");
        advance(Duration::from_secs(1)).await;
        assert_eq!(let_in(&rates, client(1)), 50);
        advance(Duration::from_secs(3600)).await;
        assert_eq!(let_in(&rates, client(1)), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_who_came_before_keeps_its_place() {
        let rates = Rates::default();
        for number in 0..5000 {
            assert!(rates.request(client(number), Lane::Known).is_ok() || number >= 1024, "{number}");
        }
        let held = rates.known.lock().unwrap().each.len();
        assert_eq!(held, CLIENTS);
        assert_eq!(let_in(&rates, client(3)), 199);
        assert_eq!(let_in(&rates, client(9999)), 0, "the newcomers' bucket is empty");
        advance(Duration::from_secs(10)).await;
        assert_eq!(let_in(&rates, client(9999)), 200, "those with full buckets were forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_guesser_of_tokens_is_slow_and_slows_nobody_who_needs_none() {
        let rates = Rates::default();
        let guess = || rates.request(client(1), Lane::Guesser);
        assert_eq!((0..100).take_while(|_| guess().is_ok()).count(), 8);
        assert!(rates.request(client(1), Lane::Stranger).is_err(), "who shows none is barred with it");
        for lane in [Lane::Health, Lane::Open, Lane::Known] {
            assert_eq!((0..1000).take_while(|_| rates.request(client(1), lane).is_ok()).count(), 200);
        }
        advance(Duration::from_secs(1)).await;
        assert_eq!((0..100).take_while(|_| guess().is_ok()).count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn one_goes_through_the_cache_at_a_time_and_not_without_end() {
        let rates = Rates::default();
        let held = rates.forgetting().unwrap();
        assert_eq!(rates.forgetting().unwrap_err(), Duration::from_secs(1));
        drop(held);
        assert_eq!((0..100).take_while(|_| rates.forgetting().is_ok()).count(), 9);
        advance(Duration::from_secs(1)).await;
        assert_eq!((0..100).take_while(|_| rates.forgetting().is_ok()).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_dns_does_it_by_a_budget_of_all() {
        let rates = Rates::default();
        let held: Vec<_> = (0..ASKING_AT_ONCE).map(|_| rates.asking().unwrap()).collect();
        assert_eq!(rates.asking().unwrap_err(), Duration::from_secs(1));
        drop(held);
        let more = (0..100).take_while(|_| rates.asking().is_ok()).count();
        assert_eq!(more, 30 - ASKING_AT_ONCE);
        advance(Duration::from_secs(1)).await;
        assert_eq!((0..100).take_while(|_| rates.asking().is_ok()).count(), 5);
    }
}
