//! Connections to the relay: how many there are, and those that wait to be used again.
//!
//! Whoever has a slot may have one connection in use. Those that wait have none, but make way for whoever needs a new
//! one, so that all together they are never more than `relay.max_connections`. Each waits for a bounded time. A
//! connection on which the relay knows a client is given to nobody but the lease that left it, and none to sessions of
//! other settings than those that it was made by.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::policy::client::client_network;
use crate::relay::connection::{Connection, Next};
use crate::relay::slots::{Slot, Slots};
use crate::relay::{ClientInfo, Settings};

/// How long a connection waits unused. The relay would close it by itself after minutes (Postfix: 300 s).
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// How many wait for anyone; each keeps a process of the relay busy.
const MOST_SHARED: usize = 16;

/// The connections of one next hop, by whatever settings.
#[derive(Debug, Default)]
pub(super) struct Pool {
    slots: Arc<Slots>,
    waiting: Mutex<Waiting>,
}

/// Tells one lease from another; whether it goes on can be seen.
pub(super) type VisitKey = Weak<()>;

#[derive(Debug, Default)]
struct Waiting {
    /// The one that has waited longest is the first.
    connections: Vec<Parked>,
    /// Whether somebody looks after their time.
    watched: bool,
}

#[derive(Debug)]
struct Parked {
    connection: Connection,
    /// Who may have it; `None` = anyone.
    lease: Option<VisitKey>,
    until: Instant,
}

impl Pool {
    /// A slot, if one that this client may have gets free in time; `None` as the client asks for us.
    pub(super) async fn slot(&self, client: Option<&ClientInfo>, settings: &Settings) -> Option<Slot> {
        let client = client.map(|client| client_network(client.address.ip()));
        self.slots.take(client, settings, settings.connect_timeout).await
    }

    /// A connection that waits and may be used for this client's transaction; the one used last, if there are more.
    pub(super) fn take(
        &self,
        lease: &VisitKey,
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

    /// Makes room for one more connection, to whoever has a slot for it.
    pub(super) fn make_room(&self, slot: &Slot) {
        let mut waiting = self.waiting();
        let surplus = waiting.connections.len().saturating_sub(slot.others_free());
        let evicted: Vec<Parked> = waiting.connections.drain(..surplus).collect();
        drop(waiting);
        evicted.into_iter().for_each(Parked::quit);
    }

    /// Takes a connection back after a transaction of `lease`; `undo` when that ended without a message. The slot is
    /// given back last: until then there is no room for another connection.
    pub(super) fn give_back(
        self: &Arc<Self>,
        mut connection: Connection,
        undo: bool,
        lease: VisitKey,
        slot: Slot,
    ) {
        let lease = match connection.next(undo) {
            Next::End => return connection.quit(),
            Next::SameVisit => Some(lease),
            Next::Anyone => None,
        };
        let mut waiting = self.waiting();
        // those that wait may be too many where older settings allowed more
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

    /// Closes the connections of visits that have ended.
    pub(super) fn forget(&self) {
        let mut waiting = self.waiting();
        let over = |parked: &mut Parked| parked.lease.as_ref().is_some_and(is_over);
        let left: Vec<Parked> = waiting.connections.extract_if(.., over).collect();
        drop(waiting);
        left.into_iter().for_each(Parked::quit);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes what has waited long enough. When the next one will have, or `None` when nothing waits.
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
    /// Whether a connection for this lease, or for anyone, is worth keeping.
    fn has_use_for(&self, lease: Option<&VisitKey>) -> bool {
        match lease {
            Some(lease) => !is_over(lease),
            None => self.connections.iter().filter(|parked| parked.lease.is_none()).count() < MOST_SHARED,
        }
    }
}

fn is_over(lease: &VisitKey) -> bool {
    lease.strong_count() == 0
}

impl Parked {
    fn quit(self) {
        self.connection.quit();
    }
}

/// Closes connections in their time, as long as any wait.
async fn watch(pool: Weak<Pool>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.expire()) {
        sleep_until(next).await;
    }
}
