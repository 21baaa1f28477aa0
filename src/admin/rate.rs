//! Rate limits: a token bucket for each client and lane, one for all requests that query DNS, and one for requests that
//! remove cache entries.
//!
//! Behind a reverse proxy all clients have one address. A client that guesses tokens therefore uses up a bucket that
//! requests with the right token and health checks don't share. The right token always works, so the protection against
//! guessing is its length.
//!
//! The tables of clients are bounded. A client with a full bucket is removed, since a new bucket is full too; while the
//! table is full of other clients, new clients share one bucket.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::policy::client::client_network;

/// For each client: a few windows with the dashboard send about 10 requests a second.
const CLIENT: Pace = Pace { at_once: 200.0, per_second: 50.0 };
/// For all clients together: requests that query DNS, each with up to some hundred queries.
const DNS: Pace = Pace { at_once: 30.0, per_second: 5.0 };
/// Requests that query DNS at a time; an audit may take half a minute.
const DNS_AT_ONCE: usize = 8;
/// For all clients together: each of these requests reads the whole cache.
const REMOVALS: Pace = Pace { at_once: 10.0, per_second: 1.0 };
/// Cost of a wrong token in a bucket of [`CLIENT`]: 2 guesses a second.
const WRONG_TOKEN: f64 = 25.0;
/// Buckets of a lane.
const CLIENTS: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Pace {
    at_once: f64,
    per_second: f64,
}

/// Requests of different lanes don't share a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Health,
    /// The page, and unknown paths.
    Open,
    /// With the token, or none is configured.
    Known,
    /// Without the token that the path needs.
    Stranger,
    /// With a wrong token.
    Guesser,
}

#[derive(Debug)]
pub(super) struct Rates {
    health: Mutex<Clients>,
    open: Mutex<Clients>,
    known: Mutex<Clients>,
    strangers: Mutex<Clients>,
    dns: Mutex<Bucket>,
    dns_permits: Semaphore,
    removals: Mutex<Bucket>,
    removal_permit: Semaphore,
}

#[derive(Debug)]
struct Clients {
    each: HashMap<IpAddr, Bucket>,
    others: Bucket,
}

impl Default for Clients {
    fn default() -> Self {
        Self { each: HashMap::new(), others: Bucket::full(CLIENT) }
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            health: Mutex::default(),
            open: Mutex::default(),
            known: Mutex::default(),
            strangers: Mutex::default(),
            dns: Mutex::new(Bucket::full(DNS)),
            dns_permits: Semaphore::new(DNS_AT_ONCE),
            removals: Mutex::new(Bucket::full(REMOVALS)),
            removal_permit: Semaphore::new(1),
        }
    }
}

impl Rates {
    /// Admits one request of a client; the error is the time after which the client may try again.
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

    /// A permit for a request that queries DNS; the error is the time after which the client may try again.
    pub(super) fn dns_request(&self) -> Result<SemaphorePermit<'_>, Duration> {
        let mut bucket = self.dns.lock().unwrap_or_else(PoisonError::into_inner);
        let permit = self.dns_permits.try_acquire().map_err(|_all_taken| Duration::from_secs(1))?;
        bucket.take(1.0, DNS, Instant::now())?;
        Ok(permit)
    }

    /// The permit to remove cache entries; the error is the time after which the client may try again.
    pub(super) fn removal(&self) -> Result<SemaphorePermit<'_>, Duration> {
        let mut bucket = self.removals.lock().unwrap_or_else(PoisonError::into_inner);
        let permit = self.removal_permit.try_acquire().map_err(|_taken| Duration::from_secs(1))?;
        bucket.take(1.0, REMOVALS, Instant::now())?;
        Ok(permit)
    }
}

impl Clients {
    fn take(&mut self, client: IpAddr, cost: f64) -> Result<(), Duration> {
        let (client, now) = (client_network(client), Instant::now());
        let Self { each, others } = self;
        if each.len() >= CLIENTS && !each.contains_key(&client) {
            each.retain(|_, bucket| !bucket.is_full(CLIENT, now));
            if each.len() >= CLIENTS {
                return others.take(cost, CLIENT, now);
            }
        }
        each.entry(client).or_insert_with(|| Bucket::full(CLIENT)).take(cost, CLIENT, now)
    }
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    /// When `left` was computed.
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

    fn admitted(rates: &Rates, client: IpAddr) -> usize {
        (0..1000).take_while(|_| rates.request(client, Lane::Known).is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn each_client_has_its_own_burst_and_then_its_own_rate() {
        let rates = Rates::default();
        assert_eq!(admitted(&rates, client(1)), 200);
        assert_eq!(admitted(&rates, client(2)), 200);
        let wait = rates.request(client(1), Lane::Known).unwrap_err();
        assert!(wait <= Duration::from_millis(20), "{wait:?}");
        advance(Duration::from_secs(1)).await;
        assert_eq!(admitted(&rates, client(1)), 50);
        advance(Duration::from_secs(3600)).await;
        assert_eq!(admitted(&rates, client(1)), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_known_clients_keep_their_buckets() {
        let rates = Rates::default();
        for number in 0..5000 {
            assert!(rates.request(client(number), Lane::Known).is_ok() || number >= 1024, "{number}");
        }
        let held = rates.known.lock().unwrap().each.len();
        assert_eq!(held, CLIENTS);
        assert_eq!(admitted(&rates, client(3)), 199);
        assert_eq!(admitted(&rates, client(9999)), 0, "the bucket of the new clients is empty");
        advance(Duration::from_secs(10)).await;
        assert_eq!(admitted(&rates, client(9999)), 200, "clients with full buckets were removed");
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_are_limited_and_slow_no_other_lane() {
        let rates = Rates::default();
        let guess = || rates.request(client(1), Lane::Guesser);
        assert_eq!((0..100).take_while(|_| guess().is_ok()).count(), 8);
        assert!(
            rates.request(client(1), Lane::Stranger).is_err(),
            "requests without a token share the bucket"
        );
        for lane in [Lane::Health, Lane::Open, Lane::Known] {
            assert_eq!((0..1000).take_while(|_| rates.request(client(1), lane).is_ok()).count(), 200);
        }
        advance(Duration::from_secs(1)).await;
        assert_eq!((0..100).take_while(|_| guess().is_ok()).count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn removals_are_limited_to_one_at_a_time_and_one_a_second() {
        let rates = Rates::default();
        let held = rates.removal().unwrap();
        assert_eq!(rates.removal().unwrap_err(), Duration::from_secs(1));
        drop(held);
        assert_eq!((0..100).take_while(|_| rates.removal().is_ok()).count(), 9);
        advance(Duration::from_secs(1)).await;
        assert_eq!((0..100).take_while(|_| rates.removal().is_ok()).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_query_dns_share_one_limit() {
        let rates = Rates::default();
        let held: Vec<_> = (0..DNS_AT_ONCE).map(|_| rates.dns_request().unwrap()).collect();
        assert_eq!(rates.dns_request().unwrap_err(), Duration::from_secs(1));
        drop(held);
        let more = (0..100).take_while(|_| rates.dns_request().is_ok()).count();
        assert_eq!(more, 30 - DNS_AT_ONCE);
        advance(Duration::from_secs(1)).await;
        assert_eq!((0..100).take_while(|_| rates.dns_request().is_ok()).count(), 5);
    }
}
