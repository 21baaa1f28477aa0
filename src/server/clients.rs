//! How many connections each client has: an IPv4 address, or an IPv6 /64 (one customer's network).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::policy::client::client_network;

/// Counts connections; holds only clients that have one.
#[derive(Debug)]
pub(super) struct Clients {
    limit: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of a client; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Place {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Clients {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, open: Mutex::default() })
    }

    /// A place for one more connection of this address, unless it has its share already.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let client = client_network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(client).or_default();
        if *count >= self.limit {
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

    #[test]
    fn each_client_has_its_share_and_gets_it_back() {
        let clients = Clients::new(2);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = clients.enter(address("192.0.2.1")).unwrap();
        let _second = clients.enter(address("192.0.2.1")).unwrap();
        assert!(clients.enter(address("192.0.2.1")).is_none());
        assert!(clients.enter(address("::ffff:192.0.2.1")).is_none(), "IPv4-mapped is the same client");
        assert!(clients.enter(address("192.0.2.2")).is_some());
        drop(first);
        assert!(clients.enter(address("192.0.2.1")).is_some());
    }

    #[test]
    fn ipv6_clients_are_counted_by_their_network() {
        let clients = Clients::new(1);
        let held = clients.enter("2001:db8::1".parse().unwrap());
        assert!(held.is_some());
        assert!(clients.enter("2001:db8::2".parse().unwrap()).is_none());
        assert!(clients.enter("2001:db8:0:1::2".parse().unwrap()).is_some());
        drop(held);
        assert!(clients.open.lock().unwrap().is_empty());
    }
}
