//! Connection permits: how many connections are open at one time, in all and of each client (an IPv4 address, or an IPv6
//! /64: the network of one customer). Those of each purpose are counted too, without a limit of their own.
//!
//! The caller gives the limit at each call, since a reload may change it; the counts go on, and open connections stay.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::net::endpoint::Purpose;
use crate::policy::client::client_network;

/// Counts the connections; has only those clients that have one.
#[derive(Debug, Default)]
pub(crate) struct ConnectionCounts {
    open: AtomicUsize,
    of_purposes: [AtomicUsize; Purpose::ALL.len()],
    of_clients: Mutex<HashMap<IpAddr, usize>>,
}

/// The right of one connection to be open. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    counts: Arc<ConnectionCounts>,
    purpose: Purpose,
    /// The network of the client that this connection counts for, if it does.
    client: Option<IpAddr>,
}

impl ConnectionCounts {
    /// A permit for one more connection, unless `limit` are open.
    pub(crate) fn permit(self: &Arc<Self>, purpose: Purpose, limit: usize) -> Option<ConnectionPermit> {
        let more = |open| (open < limit).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        if let Some(open) = self.of_purposes.get(purpose as usize) {
            open.fetch_add(1, Ordering::Relaxed);
        }
        Some(ConnectionPermit { counts: Arc::clone(self), purpose, client: None })
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The clients that have so many open at least, by their networks.
    pub(crate) fn of_clients(&self, least: usize) -> Vec<(IpAddr, usize)> {
        let of_clients = self.of_clients.lock().unwrap_or_else(PoisonError::into_inner);
        of_clients
            .iter()
            .filter(|(_, count)| **count >= least)
            .map(|(client, count)| (*client, *count))
            .collect()
    }

    /// How many are open for this purpose.
    pub(crate) fn open_for(&self, purpose: Purpose) -> usize {
        self.of_purposes.get(purpose as usize).map_or(0, |open| open.load(Ordering::Relaxed))
    }
}

impl ConnectionPermit {
    /// Counts the connection for the client at this address too; `None` if the client has `limit` already.
    pub(crate) fn for_client(mut self, address: IpAddr, limit: usize) -> Option<Self> {
        let client = client_network(address);
        let mut of_clients = self.counts.of_clients.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of_clients.entry(client).or_default();
        let granted = *count < limit;
        if granted {
            *count += 1;
        } else if *count == 0 {
            of_clients.remove(&client);
        }
        drop(of_clients);
        if !granted {
            return None;
        }
        self.client = Some(client);
        Some(self)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(open) = self.counts.of_purposes.get(self.purpose as usize) {
            open.fetch_sub(1, Ordering::Relaxed);
        }
        let Some(client) = self.client else { return };
        let mut of_clients = self.counts.of_clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = of_clients.entry(client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A permit within a large total.
    fn permit(counts: &Arc<ConnectionCounts>, client: &str, limit: usize) -> Option<ConnectionPermit> {
        counts.permit(Purpose::Smtp, 100).unwrap().for_client(client.parse().unwrap(), limit)
    }

    #[test]
    fn the_total_has_a_limit_that_may_change() {
        let counts = Arc::<ConnectionCounts>::default();
        let first = counts.permit(Purpose::Smtp, 2).unwrap();
        let second = counts.permit(Purpose::Smtp, 2).unwrap();
        assert!(counts.permit(Purpose::Smtp, 2).is_none());
        let third = counts.permit(Purpose::Smtp, 3).unwrap();
        drop((first, second));
        assert!(counts.permit(Purpose::Smtp, 1).is_none(), "one is still open");
        drop(third);
        assert!(counts.permit(Purpose::Smtp, 1).is_some());
    }

    #[test]
    fn the_connections_of_a_purpose_are_counted_within_the_total() {
        let counts = Arc::<ConnectionCounts>::default();
        let milter = counts.permit(Purpose::Milter, 2).unwrap();
        let _smtp = counts.permit(Purpose::Smtp, 2).unwrap();
        assert!(counts.permit(Purpose::Policy, 2).is_none());
        let open =
            || [Purpose::Smtp, Purpose::Milter, Purpose::Policy].map(|purpose| counts.open_for(purpose));
        assert_eq!((open(), counts.open()), ([1, 1, 0], 2));
        drop(milter);
        assert_eq!((open(), counts.open()), ([1, 0, 0], 1));
    }

    #[test]
    fn each_client_has_its_share_and_gets_it_back() {
        let counts = Arc::<ConnectionCounts>::default();
        let first = permit(&counts, "192.0.2.1", 2).unwrap();
        let _second = permit(&counts, "192.0.2.1", 2).unwrap();
        assert!(permit(&counts, "192.0.2.1", 2).is_none());
        assert!(permit(&counts, "::ffff:192.0.2.1", 2).is_none(), "IPv4-mapped is the same client");
        assert_eq!(counts.open(), 2, "a refused connection gives its permit back");
        assert!(permit(&counts, "192.0.2.2", 2).is_some());
        drop(first);
        assert!(permit(&counts, "192.0.2.1", 2).is_some());
    }

    #[test]
    fn ipv6_clients_are_counted_by_their_network() {
        let counts = Arc::<ConnectionCounts>::default();
        let held = permit(&counts, "2001:db8::1", 1);
        assert!(held.is_some());
        assert!(permit(&counts, "2001:db8::2", 1).is_none());
        assert!(permit(&counts, "2001:db8:0:1::2", 1).is_some());
        drop(held);
        assert!(permit(&counts, "2001:db8::3", 0).is_none());
        assert!(counts.of_clients.lock().unwrap().is_empty());
    }
}
