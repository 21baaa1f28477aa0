//! Which connections are served: within the limits, and behind a trusted proxy only with a PROXY header.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::metrics::Connection;
use crate::net::permit::ConnectionPermit;
use crate::net::{Purpose, Stream, proxy};
use crate::policy::client::client_network;
use crate::server::service::AnyDoor;
use crate::server::strangers::is_mail_server;
use crate::server::{Current, Settings, Shared};

/// Why a connection is refused, for the metrics and for the client.
type Refusal = (Connection, &'static str);

const STOPPING: Refusal = (Connection::Stopping, "is shutting down, try again later");
const LIMIT: Refusal = (Connection::Limit, "too many connections, try again later");
const CLIENT_LIMIT: Refusal =
    (Connection::ClientLimit, "too many connections from your address, try again later");

/// An accepted connection that is not served yet.
struct Arrival {
    /// The settings and services of the connection, to its end.
    current: Arc<Current>,
    purpose: Purpose,
    stream: Stream,
    /// The peer of the connection, or the client that a proxy announced for it.
    client: SocketAddr,
}

impl Shared {
    /// Serves an accepted connection if the limits allow it; otherwise refuses it.
    pub(super) fn admit(self: &Arc<Self>, purpose: Purpose, stream: Stream, peer: SocketAddr) {
        let client = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let current = Arc::clone(&self.current.borrow());
        let arrival = Arrival { current, purpose, stream, client };
        if !arrival.may_connect() {
            return self.close_stranger(&arrival);
        }
        match self.permit(purpose, &arrival.current.settings) {
            Ok(permit) if arrival.is_from_proxy() => {
                self.connections.spawn(Arc::clone(self).behind_proxy(arrival, permit));
            }
            Ok(permit) => self.within_total(arrival, permit),
            Err(refusal) => self.refuse(arrival, refusal),
        }
    }

    fn close_stranger(&self, arrival: &Arrival) {
        self.metrics.connection(Connection::NotTrusted);
        if let Some(connections) = self.strangers.count() {
            let (door, peer) = (arrival.purpose.name(), arrival.client.ip());
            tracing::warn!(door, %peer, connections, "closed: not this machine, and not in trusted.postfix");
        }
    }

    fn permit(&self, purpose: Purpose, limits: &Settings) -> Result<ConnectionPermit, Refusal> {
        if self.close.is_cancelled() {
            return Err(STOPPING);
        }
        self.counts.permit(purpose, limits.connections).ok_or(LIMIT)
    }

    /// Reads the PROXY header, after which the announced client counts as the client.
    async fn behind_proxy(self: Arc<Self>, mut arrival: Arrival, permit: ConnectionPermit) {
        let proxy = arrival.client;
        let announced = match &mut arrival.stream {
            Stream::Tcp(stream) => proxy::client(stream, proxy).await,
            Stream::Unix(_) => Ok(proxy),
        };
        match announced {
            Ok(client) => self.within_total(Arrival { client, ..arrival }, permit),
            Err(error) => {
                self.metrics.connection(Connection::NotAnnounced);
                tracing::warn!(proxy = %proxy.ip(), %error, "closed: a trusted proxy must announce its client");
            }
        }
    }

    /// Serves a connection within the total limit, unless its client has too many. Gateways that announce their clients
    /// by XCLIENT have no limit of their own, and the peers of the other doors are no clients (contract 7.4).
    fn within_total(self: &Arc<Self>, arrival: Arrival, permit: ConnectionPermit) {
        let (limits, client) = (&arrival.current.settings, arrival.client.ip());
        let permit = if arrival.purpose != Purpose::Smtp || contains(&limits.trusted_xclient, client) {
            Some(permit)
        } else {
            let elsewhere = self.elsewhere.of(client_network(client));
            permit.for_client(client, limits.connections_per_client.saturating_sub(elsewhere))
        };
        let Some(permit) = permit else { return self.refuse(arrival, CLIENT_LIMIT) };
        let Some(door) = arrival.door() else { return };
        self.metrics.connection(Connection::Served);
        let stop = match arrival.purpose {
            Purpose::Milter => self.stop_milters.clone(),
            Purpose::Smtp | Purpose::Policy | Purpose::Admin => self.stop.clone(),
        };
        door.serve(Arc::clone(self), arrival.stream, arrival.client, permit, stop);
    }

    fn refuse(&self, arrival: Arrival, (outcome, why): Refusal) {
        self.metrics.connection(outcome);
        tracing::info!(client = %arrival.client.ip(), "{why}");
        if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned()
            && let Some(door) = arrival.door()
        {
            door.refuse(self, arrival.stream, why, permit);
        }
    }
}

impl Arrival {
    /// Clients may come from anywhere, the mail server that asks only from places that are trusted.
    fn may_connect(&self) -> bool {
        match self.purpose {
            Purpose::Smtp | Purpose::Admin => true,
            Purpose::Milter | Purpose::Policy => {
                is_mail_server(&self.current.settings.trusted_postfix, &self.stream, self.client.ip())
            }
        }
    }

    fn is_from_proxy(&self) -> bool {
        self.purpose == Purpose::Smtp && contains(&self.current.settings.trusted_proxy, self.client.ip())
    }

    fn door(&self) -> Option<Arc<dyn AnyDoor>> {
        self.current.service(self.purpose).map(|service| Arc::clone(&service.door))
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}
