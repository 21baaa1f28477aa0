//! How many connections there are, in total and of each client: an IPv4 address, or an IPv6 /64 (one customer's
//! network).
//!
//! The limit is told at each entry, as a reload may change it: the counts go on, and who is in stays.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::policy::client::client_network;

/// Counts all connections.
#[derive(Debug, Default)]
pub(super) struct Total(AtomicUsize);

/// One connection; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Seat(Arc<Total>);

impl Total {
    /// A place for one more connection, unless there are `limit` of them.
    pub(super) fn enter(self: &Arc<Self>, limit: usize) -> Option<Seat> {
        let more = |open| (open < limit).then_some(open + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Seat(Arc::clone(self)))
    }

    /// How many there are.
    pub(super) fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts the connections of each client; holds only clients that have one.
#[derive(Debug, Default)]
pub(super) struct Clients {
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of a client; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Place {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Clients {
    /// A place for one more connection of this address, unless it has `limit` of them already.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, limit: usize) -> Option<Place> {
        let client = client_network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(client).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Place { clients: Arc::clone(self), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.clients.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = open.entry(self.client) {
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

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_total_has_a_limit_that_may_change() {
        let total = Arc::new(Total::default());
        let first = total.enter(2).unwrap();
        let second = total.enter(2).unwrap();
        assert!(total.enter(2).is_none());
        let third = total.enter(3).unwrap();
        drop((first, second));
        assert!(total.enter(1).is_none(), "one is in still");
        drop(third);
        assert!(total.enter(1).is_some());
    }

    #[test]
    fn each_client_has_its_share_and_gets_it_back() {
        let clients = Arc::new(Clients::default());
        let first = clients.enter(address("192.0.2.1"), 2).unwrap();
        let _second = clients.enter(address("192.0.2.1"), 2).unwrap();
        assert!(clients.enter(address("192.0.2.1"), 2).is_none());
        assert!(clients.enter(address("::ffff:192.0.2.1"), 2).is_none(), "IPv4-mapped is the same client");
        assert!(clients.enter(address("192.0.2.2"), 2).is_some());
        drop(first);
        assert!(clients.enter(address("192.0.2.1"), 2).is_some());
    }

    #[test]
    fn ipv6_clients_are_counted_by_their_network() {
        let clients = Arc::new(Clients::default());
        let held = clients.enter(address("2001:db8::1"), 1);
        assert!(held.is_some());
        assert!(clients.enter(address("2001:db8::2"), 1).is_none());
        assert!(clients.enter(address("2001:db8:0:1::2"), 1).is_some());
        drop(held);
        assert!(clients.open.lock().unwrap().is_empty());
    }
}
