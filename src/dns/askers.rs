//! How many questions each client has under way: one that names a new domain with every command must not take all the
//! places that there are.
//!
//! A question that finds the cache cold waits for a place of its client first and for one of the total then, so a
//! client over its bound waits behind itself only. The table holds clients that have a question, and no others.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

use crate::policy::client::client_network;

/// All clients with questions under way.
#[derive(Debug)]
pub(super) struct Askers {
    places: usize,
    known: Mutex<HashMap<IpAddr, Weak<Asker>>>,
}

/// One client; as long as anybody holds it, it stands in the table.
#[derive(Debug)]
pub(super) struct Asker {
    askers: Arc<Askers>,
    network: IpAddr,
    /// Its places.
    pub(super) under_way: Semaphore,
}

impl Askers {
    /// Each client has this many places.
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { places, known: Mutex::default() })
    }

    /// The client with this address.
    pub(super) fn of(self: &Arc<Self>, address: IpAddr) -> Arc<Asker> {
        let network = client_network(address);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asker) = known.get(&network).and_then(Weak::upgrade) {
            return asker;
        }
        let under_way = Semaphore::new(self.places);
        let asker = Arc::new(Asker { askers: Arc::clone(self), network, under_way });
        known.insert(network, Arc::downgrade(&asker));
        asker
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let mut known = self.askers.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Another may have taken its place in the table since the last holder let go.
        if let Entry::Occupied(entry) = known.entry(self.network)
            && entry.get().strong_count() == 0
        {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_while_it_asks() {
        let askers = Askers::new(2);
        let of = |address: &str| askers.of(address.parse().unwrap());
        let first = of("192.0.2.1");
        assert!(Arc::ptr_eq(&first, &of("::ffff:192.0.2.1")));
        let network = of("2001:db8::1");
        assert!(Arc::ptr_eq(&network, &of("2001:db8::2")));
        assert!(!Arc::ptr_eq(&network, &of("2001:db8:0:1::1")));
        assert_eq!(askers.known.lock().unwrap().len(), 2);
        drop((first, network));
        assert!(askers.known.lock().unwrap().is_empty());
    }
}
