//! Listeners: who gets a connection, how many at one time, and how the daemon ends.
//!
//! An error of accept() (no descriptors left) is waited out, never the end of the daemon. A panic in one connection is
//! caught, counted, logged, and harms no other. A trusted proxy's connection counts for the client that it announces. A reload swaps what new connections are served by and leaves the open ones
//! alone. At the end the listeners are closed first, then the open connections are told: whoever is turned away can't come
//! back in. They may finish their transaction until the drain time is over.

mod clients;
mod contained;
mod descriptors;
mod listeners;
pub mod proxy;
mod status;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::door::{Door, refuse_connection};
use crate::metrics::{Connection, Metrics};
use crate::server::clients::{Clients, Place, Seat, Total};
use crate::server::contained::Panics;
pub use crate::server::descriptors::raise_descriptor_limit;
use crate::server::listeners::Registered;
pub use crate::server::listeners::{ListenError, Listener, passed};
use crate::server::status::Accepting;
pub use crate::server::status::Status;

/// After an error of accept(): the first wait, doubled up to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Clients that are being told that there is no room, at one time; more are just closed.
const REFUSALS: usize = 64;

/// What the listeners need of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses to listen on, besides the sockets that were passed.
    pub listen: Vec<SocketAddr>,
    /// Connections at one time.
    pub connections: usize,
    /// Connections of one client at one time: an IPv4 address, an IPv6 /64.
    pub connections_per_client: usize,
    /// Who must say by a PROXY header whom it speaks for.
    pub trusted_proxy: Vec<IpNet>,
    /// Who may speak for others by XCLIENT, and is therefore not held to `connections_per_client`.
    pub trusted_xclient: Vec<IpNet>,
    /// How long open connections may go on after SIGTERM.
    pub drain: Duration,
}

/// A running server. Dropped without [`Server::drain`], it goes on as long as the runtime.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    open: Vec<Open>,
    loops: TaskTracker,
}

/// A listener that is served.
#[derive(Debug)]
struct Open {
    address: SocketAddr,
    /// [`Listener::bound_as`].
    bound_as: Option<SocketAddr>,
    close: CancellationToken,
}

/// What a reload changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Addresses that are listened on now.
    pub opened: Vec<SocketAddr>,
    /// Addresses that are not listened on any more.
    pub closed: Vec<SocketAddr>,
}

impl Server {
    /// Serves these listeners until [`Server::drain`], and counts what comes in there.
    ///
    /// # Errors
    /// The runtime can't take a listener.
    pub fn start(
        settings: Settings,
        door: Door,
        listeners: Vec<Listener>,
        metrics: Metrics,
    ) -> Result<Self, ListenError> {
        let listeners = listeners.into_iter().map(Listener::register).collect::<Result<Vec<_>, _>>()?;
        let shared = Arc::new(Shared {
            current: watch::Sender::new(Arc::new(Current { settings, door })),
            total: Arc::default(),
            listeners: AtomicUsize::new(0),
            clients: Arc::default(),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            connections: TaskTracker::new(),
            panics: Panics(metrics.clone()),
            metrics,
            close: CancellationToken::new(),
            stop: CancellationToken::new(),
        });
        let mut server = Self { shared, open: Vec::new(), loops: TaskTracker::new() };
        for listener in listeners {
            server.serve(listener);
        }
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.open.iter().map(|open| open.address).collect()
    }

    /// For who wants to know how it is, whatever becomes of this value.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(&self.shared)
    }

    /// From now on new connections are served by these settings and this door; open ones end as they began. The
    /// counts of connections go on.
    ///
    /// # Errors
    /// A new address can't be listened on, or none would be left; nothing is changed then.
    pub fn reload(&mut self, settings: Settings, door: Door) -> Result<Moved, ListenError> {
        let held: Vec<_> = self.open.iter().map(|open| open.bound_as.unwrap_or(open.address)).collect();
        let bound = bind_missing(&settings.listen, &held)?;
        let bound = bound.into_iter().map(Listener::register).collect::<Result<Vec<_>, _>>()?;
        let wanted: HashSet<SocketAddr> = settings.listen.iter().copied().collect();
        let is_kept = |open: &Open| open.bound_as.is_none_or(|address| wanted.contains(&address));
        if bound.is_empty() && !self.open.iter().any(is_kept) {
            return Err(ListenError::Nowhere);
        }
        self.shared.current.send_replace(Arc::new(Current { settings, door }));
        let mut moved = Moved::default();
        for closed in self.open.extract_if(.., |open| !is_kept(open)) {
            closed.close.cancel();
            moved.closed.push(closed.address);
        }
        for listener in bound {
            moved.opened.push(listener.address);
            self.serve(listener);
        }
        Ok(moved)
    }

    /// Takes no more connections and waits for the open ones to end, at most `settings.drain`. Returns how many were
    /// still open then.
    pub async fn drain(self) -> usize {
        self.shared.close.cancel();
        self.loops.close();
        self.loops.wait().await;
        self.shared.stop.cancel();
        let connections = &self.shared.connections;
        connections.close();
        let drain = self.shared.current.borrow().settings.drain;
        if tokio::time::timeout(drain, connections.wait()).await.is_err() {
            return connections.len();
        }
        0
    }

    fn serve(&mut self, listener: Registered) {
        let close = self.shared.close.child_token();
        self.open.push(Open { address: listener.address, bound_as: listener.bound_as, close: close.clone() });
        self.loops.spawn(accept_loop(listener, close, Arc::clone(&self.shared)));
    }
}

/// All that is to be listened on: what was passed, and `wanted` as far as that isn't among it.
///
/// # Errors
/// An address can't be bound, or there is nothing to listen on.
pub fn listeners(wanted: &[SocketAddr], passed: Vec<Listener>) -> Result<Vec<Listener>, ListenError> {
    let held: Vec<_> = passed.iter().map(Listener::address).collect();
    let mut listeners = passed;
    listeners.extend(bind_missing(wanted, &held)?);
    if listeners.is_empty() { Err(ListenError::Nowhere) } else { Ok(listeners) }
}

/// Binds those that are not held yet: all or none.
fn bind_missing(wanted: &[SocketAddr], held: &[SocketAddr]) -> Result<Vec<Listener>, ListenError> {
    let missing = wanted.iter().filter(|address| !held.contains(address));
    missing.map(|address| Listener::bind(*address)).collect()
}

/// What new connections are served by.
#[derive(Debug)]
struct Current {
    settings: Settings,
    door: Door,
}

/// What all listeners share.
#[derive(Debug)]
struct Shared {
    current: watch::Sender<Arc<Current>>,
    total: Arc<Total>,
    /// Those that accept.
    listeners: AtomicUsize,
    clients: Arc<Clients>,
    refusals: Arc<Semaphore>,
    connections: TaskTracker,
    panics: Panics,
    metrics: Metrics,
    /// Ends the listeners.
    close: CancellationToken,
    /// Ends the connections, once no listener is left.
    stop: CancellationToken,
}

/// Accepts until `close` is cancelled. What waits to be accepted then is taken if the socket is our own, as it would be
/// reset with it; else it waits for who comes after us.
async fn accept_loop(listener: Registered, close: CancellationToken, server: Arc<Shared>) {
    let Registered { socket: listener, bound_as, .. } = listener;
    let accepting = Accepting::new(&server.listeners);
    let mut wait = BACK_OFF.0;
    loop {
        let accepted = tokio::select! {
            biased; // whoever waits in the queue when we stop is for the successor, not to be refused
            () = close.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                wait = BACK_OFF.0;
                server.admit(stream, client);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed, waiting {} ms", wait.as_millis());
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = close.cancelled() => break,
                }
                wait = (wait * 2).min(BACK_OFF.1);
            }
        }
    }
    drop(accepting);
    if bound_as.is_some()
        && let Err(error) = take_waiting(listener, &server)
    {
        tracing::warn!(%error, "closing a listener");
    }
}

/// By the system's own accept(), as tokio's knows only of those connections that it was woken for.
fn take_waiting(listener: TcpListener, server: &Arc<Shared>) -> io::Result<()> {
    let listener = listener.into_std()?;
    loop {
        match listener.accept() {
            Ok((stream, client)) => {
                stream.set_nonblocking(true)?;
                server.admit(TcpStream::from_std(stream)?, client);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// The places that a connection takes; dropping them gives them back. Gateways have no share of their own.
type Room = (Seat, Option<Place>);

/// Why there is no room: as it is counted, and as the client is told.
type Full = (Connection, &'static str);

const STOPPING: Full = (Connection::Stopping, "is shutting down, try again later");
const LIMIT: Full = (Connection::Limit, "too many connections, try again later");
const CLIENT_LIMIT: Full =
    (Connection::ClientLimit, "too many connections from your address, try again later");

impl Shared {
    /// Serves a client if there is room for it, else says why not.
    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let current = Arc::clone(&self.current.borrow());
        let seat = self.seat(&current.settings);
        match seat {
            Ok(seat) if contains(&current.settings.trusted_proxy, peer.ip()) => {
                self.connections.spawn(Arc::clone(self).behind_proxy(current, stream, peer, seat));
            }
            Ok(seat) => self.seated(current, stream, peer, seat),
            Err(why) => self.refuse(&current, stream, peer.ip(), why),
        }
    }

    fn seat(&self, limits: &Settings) -> Result<Seat, Full> {
        if self.close.is_cancelled() {
            return Err(STOPPING);
        }
        self.total.enter(limits.connections).ok_or(LIMIT)
    }

    /// Learns from a trusted proxy whom it speaks for; everything after that is about the client announced.
    async fn behind_proxy(
        self: Arc<Self>,
        current: Arc<Current>,
        mut stream: TcpStream,
        proxy: SocketAddr,
        seat: Seat,
    ) {
        match proxy::client(&mut stream, proxy).await {
            Ok(client) => self.seated(current, stream, client, seat),
            Err(error) => {
                self.metrics.connection(Connection::NotAnnounced);
                tracing::warn!(proxy = %proxy.ip(), %error, "closed: a trusted proxy must announce its client");
            }
        }
    }

    /// Serves a client that is within the total, unless it has its share already.
    fn seated(self: &Arc<Self>, current: Arc<Current>, stream: TcpStream, client: SocketAddr, seat: Seat) {
        match self.place(&current.settings, client.ip()) {
            Ok(place) => self.serve(current, stream, client, (seat, place)),
            Err(why) => self.refuse(&current, stream, client.ip(), why),
        }
    }

    fn place(&self, limits: &Settings, client: IpAddr) -> Result<Option<Place>, Full> {
        if contains(&limits.trusted_xclient, client) {
            return Ok(None);
        }
        self.clients.enter(client, limits.connections_per_client).map(Some).ok_or(CLIENT_LIMIT)
    }

    fn serve<S>(self: &Arc<Self>, current: Arc<Current>, stream: S, client: SocketAddr, room: Room)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.metrics.connection(Connection::Served);
        self.connections.spawn(Arc::clone(self).connection(current, stream, client, room));
    }

    /// One connection's whole task. Its size is what an idle client costs, so nothing large is held on the way.
    async fn connection<S>(self: Arc<Self>, current: Arc<Current>, stream: S, client: SocketAddr, _room: Room)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let stop = self.stop.clone();
        self.panics.contain(client, current.door.serve(stream, client, stop)).await;
    }

    fn refuse(&self, current: &Current, stream: TcpStream, address: IpAddr, (outcome, why): Full) {
        self.metrics.connection(outcome);
        tracing::info!(client = %address, "{why}");
        let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else {
            return;
        };
        let hostname = current.door.session.hostname.clone();
        self.connections.spawn(async move {
            refuse_connection(stream, hostname.as_str(), why).await;
            drop(permit);
        });
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}
