//! Connection permits of the admin server, and request permits.
//!
//! They differ from those of the doors (`net::permit`): where too many connections are open, a new one replaces the oldest
//! one that has sent no whole request head, or doesn't read its response, so that half requests can't keep an operator
//! out. Health requests and all others have separate permits, so that neither uses up those of the other.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::policy::client::client_network;

/// Connections at one time: file descriptors are wanted for mail.
const MOST: usize = 128;
/// Those of one client; a browser opens six.
const MOST_PER_CLIENT: usize = 32;
/// Requests in work at one time: health, and everything else. Together they are fewer than the connections, so that there
/// is always a connection to replace.
const HEALTH: RequestLimit = RequestLimit { all: 24, one: 8 };
const OTHERS: RequestLimit = RequestLimit { all: 80, one: 20 };

/// How many at one time, of all clients and of one.
struct RequestLimit {
    all: usize,
    one: usize,
}

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No whole request head has come since its last response.
    Head,
    /// A health request is in work.
    Health,
    /// Another request is in work.
    Other,
}

/// All open connections.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    connections: HashMap<u64, Connection>,
    /// Counts connections and changes of phase.
    turn: u64,
}

#[derive(Debug)]
struct Connection {
    client: IpAddr,
    phase: Phase,
    /// The turn in which the phase began.
    since: u64,
    replaced: Arc<Notify>,
}

/// The right of one connection to be open.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    all: Arc<Connections>,
    number: u64,
    /// Notified when another connection has replaced this one.
    pub(super) replaced: Arc<Notify>,
}

/// The right of one request to be in work, until its response is taken.
pub(super) struct RequestPermit(Arc<ConnectionPermit>);

impl Connections {
    /// A permit; where too many are given, that of a connection without a request.
    pub(super) fn permit(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        let client = client_network(address);
        let mut table = self.table();
        let own = table.count(|connection| connection.client == client);
        if own >= MOST_PER_CLIENT {
            table.replace_oldest(client)?;
        } else if table.connections.len() >= MOST {
            let client = table.client_with_most_heads()?;
            table.replace_oldest(client)?;
        }
        let (number, replaced) = (table.next_turn(), Arc::new(Notify::new()));
        let connection =
            Connection { client, phase: Phase::Head, since: number, replaced: Arc::clone(&replaced) };
        table.connections.insert(number, connection);
        Some(ConnectionPermit { all: Arc::clone(self), number, replaced })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    fn count(&self, which: impl Fn(&Connection) -> bool) -> usize {
        self.connections.values().filter(|connection| which(connection)).count()
    }

    fn heads(&self) -> impl Iterator<Item = (&u64, &Connection)> {
        self.connections.iter().filter(|(_, connection)| connection.phase == Phase::Head)
    }

    fn client_with_most_heads(&self) -> Option<IpAddr> {
        let mut heads: HashMap<IpAddr, usize> = HashMap::new();
        for (_, connection) in self.heads() {
            *heads.entry(connection.client).or_default() += 1;
        }
        let oldest = |client: IpAddr| {
            let own = self.heads().filter(|(_, connection)| connection.client == client);
            own.map(|(_, connection)| connection.since).min()
        };
        let most = heads.values().copied().max()?;
        let clients = heads.into_iter().filter(|(_, count)| *count == most).map(|(client, _)| client);
        clients.min_by_key(|client| oldest(*client))
    }

    /// Ends the client's oldest connection that has no request.
    fn replace_oldest(&mut self, client: IpAddr) -> Option<()> {
        let own = self.heads().filter(|(_, connection)| connection.client == client);
        let oldest = *own.min_by_key(|(_, connection)| connection.since)?.0;
        self.connections.remove(&oldest)?.replaced.notify_one();
        Some(())
    }

    fn enter(&mut self, number: u64, phase: Phase) {
        let since = self.next_turn();
        if let Some(connection) = self.connections.get_mut(&number) {
            (connection.phase, connection.since) = (phase, since);
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.all.table().connections.remove(&self.number);
    }
}

impl RequestPermit {
    pub(super) fn take(permit: Arc<ConnectionPermit>, phase: Phase) -> Option<Self> {
        let mut table = permit.all.table();
        let limit = if phase == Phase::Health { HEALTH } else { OTHERS };
        let client = table.connections.get(&permit.number)?.client;
        let all = table.count(|connection| connection.phase == phase);
        let own = table.count(|connection| connection.phase == phase && connection.client == client);
        if all >= limit.all || own >= limit.one {
            return None;
        }
        table.enter(permit.number, phase);
        drop(table);
        Some(Self(permit))
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.0.all.table().enter(self.0.number, Phase::Head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    fn is_replaced(permit: &ConnectionPermit) -> bool {
        !permit.all.table().connections.contains_key(&permit.number)
    }

    #[test]
    fn a_new_connection_replaces_the_oldest_without_a_request() {
        let all: Arc<Connections> = Arc::default();
        let own: Vec<ConnectionPermit> = (0..MOST_PER_CLIENT).filter_map(|_| all.permit(client(1))).collect();
        let newest = all.permit(client(1)).unwrap();
        assert!(is_replaced(&own[0]) && !is_replaced(&own[1]) && !is_replaced(&newest));
        let many: Vec<ConnectionPermit> =
            (0..1000).filter_map(|number| all.permit(client(2 + (number % 200) as u8))).collect();
        assert_eq!((many.len(), all.table().connections.len()), (1000, MOST));
        assert!(many[999 - 90..].iter().all(|permit| !is_replaced(permit)));
        drop((own, newest, many));
        assert!(all.table().connections.is_empty());
    }

    #[test]
    fn health_has_permits_that_no_other_request_and_no_half_one_can_take() {
        let all: Arc<Connections> = Arc::default();
        let permit = |number| Arc::new(all.permit(client(number)).unwrap());
        let mut busy = Vec::new();
        for number in 1..=8 {
            busy.extend((0..30).map_while(|_| RequestPermit::take(permit(number), Phase::Other)));
        }
        assert_eq!(busy.len(), OTHERS.all);
        assert_eq!(
            busy.iter()
                .filter(|permit| permit.0.all.table().connections[&permit.0.number].client == client(1))
                .count(),
            OTHERS.one
        );
        for number in 0..200 {
            permit(100 + number % 100);
            let permit = RequestPermit::take(permit(1), Phase::Health);
            assert!(permit.is_some());
        }
        let health: Vec<RequestPermit> = (1..=3)
            .flat_map(|number| {
                (0..20).map_while(|_| RequestPermit::take(permit(number), Phase::Health)).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(health.len(), HEALTH.all);
        assert!(all.permit(client(9)).is_some(), "there is always a connection to replace");
        assert!(busy.iter().chain(&health).all(|permit| !is_replaced(&permit.0)));
    }
}
