//! How many questions each client has: one that names a new domain with every command must neither take all the places
//! that there are nor fill our memory with what waits for them.
//!
//! A question that finds the cache cold is admitted or not, at once; then it waits for a place of its client, and for
//! one of the total after that, so a client over its bound waits behind itself only. Whoever stops waiting takes his
//! question away. The table holds clients that have a question, and no others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::policy::client::client_network;

/// How many questions there may be at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Of one client, under way.
    pub(super) under_way: usize,
    /// Of one client, waiting or under way.
    pub(super) open: usize,
    /// Of all clients, waiting or under way.
    pub(super) open_in_all: usize,
}

/// All clients with questions.
#[derive(Debug)]
pub(super) struct Askers {
    bounds: Bounds,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    open: usize,
    clients: HashMap<IpAddr, Asker>,
}

#[derive(Debug)]
struct Asker {
    open: usize,
    places: Arc<Semaphore>,
}

/// A question that was admitted: it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    askers: Arc<Askers>,
    network: IpAddr,
    places: Arc<Semaphore>,
    place: Option<OwnedSemaphorePermit>,
}

impl Askers {
    /// Nobody has asked yet.
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, table: Mutex::default() })
    }

    /// One more question of the client with this address, unless there are too many.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Ticket> {
        let network = client_network(address);
        let mut table = self.table();
        let open = table.clients.get(&network).map_or(0, |asker| asker.open);
        if table.open >= self.bounds.open_in_all || open >= self.bounds.open {
            return None;
        }
        table.open += 1;
        let asker = table
            .clients
            .entry(network)
            .or_insert_with(|| Asker { open: 0, places: Arc::new(Semaphore::new(self.bounds.under_way)) });
        asker.open += 1;
        let places = Arc::clone(&asker.places);
        Some(Ticket { askers: Arc::clone(self), network, places, place: None })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Waits for one of the client's places and keeps it.
    pub(super) async fn take_place(&mut self) {
        // Nobody closes the semaphore.
        self.place = Arc::clone(&self.places).acquire_owned().await.ok();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut table = self.askers.table();
        table.open -= 1;
        if let Some(asker) = table.clients.get_mut(&self.network) {
            asker.open -= 1;
            if asker.open == 0 {
                table.clients.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    impl Askers {
        /// Questions that wait or are under way, and of how many clients.
        pub(in crate::dns) fn open(&self) -> (usize, usize) {
            let table = self.table();
            (table.open, table.clients.len())
        }
    }

    fn askers(under_way: usize, open: usize, open_in_all: usize) -> Arc<Askers> {
        Askers::new(Bounds { under_way, open, open_in_all })
    }

    #[test]
    fn a_client_is_known_while_it_asks() {
        let askers = askers(2, 9, 9);
        let of = |address: &str| askers.admit(address.parse().unwrap()).unwrap();
        let first = of("192.0.2.1");
        let same = of("::ffff:192.0.2.1");
        assert!(Arc::ptr_eq(&first.places, &same.places));
        let network = of("2001:db8::1");
        assert!(Arc::ptr_eq(&network.places, &of("2001:db8::2").places));
        assert!(!Arc::ptr_eq(&network.places, &of("2001:db8:0:1::1").places));
        assert_eq!(askers.open(), (3, 2));
        drop(first);
        assert_eq!(askers.open(), (2, 2));
        drop((same, network));
        assert_eq!(askers.open(), (0, 0));
    }

    #[test]
    fn too_many_questions_of_one_client_or_of_all_are_not_admitted() {
        let askers = askers(1, 2, 3);
        let admit = |address: &str| askers.admit(address.parse().unwrap());
        let mut held = vec![admit("192.0.2.1").unwrap(), admit("192.0.2.1").unwrap()];
        assert!(admit("192.0.2.1").is_none(), "the third of one client");
        held.push(admit("192.0.2.2").unwrap());
        assert!(admit("192.0.2.3").is_none(), "the fourth of all");
        assert_eq!(askers.open(), (3, 2), "what isn't admitted leaves nothing behind");
        held.remove(0);
        assert!(admit("192.0.2.3").is_some());
        assert!(admit("192.0.2.1").is_some());
    }

    #[test]
    fn a_place_is_free_again_when_its_question_ends_and_who_leaves_waits_no_longer() {
        let askers = askers(1, 9, 9);
        let admit = || askers.admit("192.0.2.1".parse().unwrap()).unwrap();
        let (mut first, mut second, mut third) = (admit(), admit(), admit());
        assert!(first.take_place().now_or_never().is_some());
        let mut waiting = Box::pin(second.take_place());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(third.take_place().now_or_never().is_none());
        drop(waiting);
        drop((first, second));
        assert!(third.take_place().now_or_never().is_some());
    }
}
