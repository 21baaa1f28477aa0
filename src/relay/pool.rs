//! Idle connections to the relay, kept for the next transaction.
//!
//! A slot stands for one connection in use. Idle connections have no slot, but are closed when a slot needs a new
//! connection, so that all together never exceed `relay.max_connections`. Each is kept for a bounded time. A connection
//! on which the relay sees a client goes only to the lease that left it, and none goes to a session with settings that
//! would make another one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::policy::client::client_network;
use crate::relay::connection::{Connection, Next};
use crate::relay::slots::{Slot, Slots};
use crate::relay::{ClientInfo, Settings};

/// Longest idle time. The relay itself would close after minutes (Postfix: 300 s).
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// Most idle connections for any lease; each occupies a process of the relay.
const MOST_SHARED: usize = 16;

/// The connections of one next hop, across reloads.
#[derive(Debug, Default)]
pub(super) struct Pool {
    slots: Arc<Slots>,
    waiting: Mutex<Waiting>,
}

/// Identifies a lease, and shows whether it has ended.
pub(super) type LeaseKey = Weak<()>;

#[derive(Debug, Default)]
struct Waiting {
    /// The longest idle is the first.
    connections: Vec<Parked>,
    /// Whether a task closes expired ones.
    watched: bool,
}

#[derive(Debug)]
struct Parked {
    connection: Connection,
    /// The only lease that may use it; `None` = any.
    lease: Option<LeaseKey>,
    until: Instant,
}

impl Pool {
    /// A slot, if this client may have one in time. Pass `None` for a connection of our own.
    pub(super) async fn slot(&self, client: Option<&ClientInfo>, settings: &Settings) -> Option<Slot> {
        let client = client.map(|client| client_network(client.address.ip()));
        self.slots.take(client, settings, settings.connect_timeout).await
    }

    /// The idle connection that was used last, of those for this client's transaction.
    pub(super) fn take(
        &self,
        lease: &LeaseKey,
        client: &ClientInfo,
        settings: &Settings,
    ) -> Option<Connection> {
        let mine = |parked: &Parked| {
            parked.lease.as_ref().is_none_or(|owner| owner.ptr_eq(lease))
                && parked.connection.made_by.makes_the_same_connections(settings)
        };
        let mut unsuitable = Vec::new();
        let mut waiting = self.waiting();
        let found = loop {
            let Some(at) = waiting.connections.iter().rposition(mine) else { break None };
            let parked = waiting.connections.remove(at);
            if parked.until > Instant::now() && parked.connection.suits(client) {
                break Some(parked.connection);
            }
            unsuitable.push(parked);
        };
        drop(waiting);
        unsuitable.into_iter().for_each(Parked::quit);
        found
    }

    /// Closes idle connections until there is room for the slot's new one.
    pub(super) fn make_room(&self, slot: &Slot) {
        let mut waiting = self.waiting();
        let surplus = waiting.connections.len().saturating_sub(slot.others_free());
        let evicted: Vec<Parked> = waiting.connections.drain(..surplus).collect();
        drop(waiting);
        evicted.into_iter().for_each(Parked::quit);
    }

    /// Takes a connection back after a transaction of `lease`; `undo` where that ended without a message. The slot is
    /// released last: until then there is no room for another connection.
    pub(super) fn give_back(
        self: &Arc<Self>,
        mut connection: Connection,
        undo: bool,
        lease: LeaseKey,
        slot: Slot,
    ) {
        let lease = match connection.next(undo) {
            Next::End => return connection.quit(),
            Next::SameLease => Some(lease),
            Next::AnyLease => None,
        };
        let mut waiting = self.waiting();
        // older settings may have allowed more
        let room = waiting.connections.len() <= slot.others_free();
        if !room || !waiting.has_use_for(lease.as_ref()) {
            drop(waiting);
            return connection.quit();
        }
        waiting.connections.push(Parked { connection, lease, until: Instant::now() + IDLE });
        if !std::mem::replace(&mut waiting.watched, true) {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
    }

    /// Closes the connections of leases that have ended.
    pub(super) fn forget(&self) {
        let mut waiting = self.waiting();
        let ended = |parked: &mut Parked| parked.lease.as_ref().is_some_and(has_ended);
        let left: Vec<Parked> = waiting.connections.extract_if(.., ended).collect();
        drop(waiting);
        left.into_iter().for_each(Parked::quit);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes expired connections; returns the next time of expiry, `None` without idle connections.
    fn expire(&self) -> Option<Instant> {
        let mut waiting = self.waiting();
        let now = Instant::now();
        let expired: Vec<Parked> = waiting.connections.extract_if(.., |parked| parked.until <= now).collect();
        let next = waiting.connections.iter().map(|parked| parked.until).min();
        waiting.watched = next.is_some();
        drop(waiting);
        expired.into_iter().for_each(Parked::quit);
        next
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let waiting = self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner);
        waiting.connections.drain(..).for_each(Parked::quit);
    }
}

impl Waiting {
    /// Whether a connection for this lease (or any) is worth keeping.
    fn has_use_for(&self, lease: Option<&LeaseKey>) -> bool {
        match lease {
            Some(lease) => !has_ended(lease),
            None => self.connections.iter().filter(|parked| parked.lease.is_none()).count() < MOST_SHARED,
        }
    }
}

fn has_ended(lease: &LeaseKey) -> bool {
    lease.strong_count() == 0
}

impl Parked {
    fn quit(self) {
        self.connection.quit();
    }
}

/// Closes connections as they expire, until none is idle.
async fn watch(pool: Weak<Pool>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.expire()) {
        sleep_until(next).await;
    }
}
