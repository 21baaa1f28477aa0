//! Listeners: who gets a connection, how many at one time, and how the daemon ends.
//!
//! An error of accept() (no descriptors left) is waited out, never the end of the daemon. A panic in one connection is
//! caught, counted, logged, and harms no other. A trusted proxy's connection counts for the client that it announces. After `stop` no connection is taken any more; open ones may finish
//! their transaction until the drain time is over.

mod clients;
mod contained;
mod descriptors;
mod proxy;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::door::{Door, refuse_connection};
use crate::server::clients::{Clients, Place};
use crate::server::contained::Panics;
pub use crate::server::descriptors::raise_descriptor_limit;

/// Connections that wait to be accepted, for the kernel.
const BACKLOG: i32 = 1024;
/// After an error of accept(): the first wait, doubled up to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Clients that are being told that there is no room, at one time; more are just closed.
const REFUSALS: usize = 64;

/// What the listeners need of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses to listen on.
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

/// Binds a listener; `[::]` takes IPv4 as well.
///
/// # Errors
/// Those of the socket; the address is in use, or not ours, or the port is privileged.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves all listeners until `stop` is cancelled, then waits for open connections, at most `settings.drain`.
/// Returns how many were still open then.
pub async fn run(
    settings: Settings,
    listeners: Vec<TcpListener>,
    door: Door,
    stop: CancellationToken,
) -> usize {
    let server = Arc::new(Server::new(&settings, door, stop));
    let loops = TaskTracker::new();
    for listener in listeners {
        loops.spawn(accept_loop(listener, Arc::clone(&server)));
    }
    loops.close();
    loops.wait().await;
    server.connections.close();
    if tokio::time::timeout(settings.drain, server.connections.wait()).await.is_err() {
        return server.connections.len();
    }
    0
}

#[derive(Debug)]
struct Server {
    places: Arc<Semaphore>,
    clients: Arc<Clients>,
    refusals: Arc<Semaphore>,
    connections: TaskTracker,
    panics: Panics,
    door: Door,
    stop: CancellationToken,
    trusted_proxy: Vec<IpNet>,
    trusted_xclient: Vec<IpNet>,
}

async fn accept_loop(listener: TcpListener, server: Arc<Server>) {
    let mut back_off = BackOff::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, client)) => {
                back_off.reset();
                server.admit(stream, client);
            }
            Err(error) => {
                let wait = back_off.next();
                tracing::warn!(%error, "accept failed, waiting {} ms", wait.as_millis());
                rest(wait, &server.stop).await;
            }
        }
    }
}

async fn rest(wait: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = stop.cancelled() => {}
    }
}

/// How long to wait after an error of accept().
#[derive(Debug)]
struct BackOff(Duration);

impl Default for BackOff {
    fn default() -> Self {
        Self(BACK_OFF.0)
    }
}

impl BackOff {
    fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(BACK_OFF.1);
        wait
    }

    fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Why there is no room, as the client is told.
const FULL: &str = "too many connections, try again later";
const CLIENT_FULL: &str = "too many connections from your address, try again later";

impl Server {
    fn new(settings: &Settings, door: Door, stop: CancellationToken) -> Self {
        Self {
            places: Arc::new(Semaphore::new(settings.connections)),
            clients: Clients::new(settings.connections_per_client),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            connections: TaskTracker::new(),
            panics: Panics::default(),
            door,
            stop,
            trusted_proxy: settings.trusted_proxy.clone(),
            trusted_xclient: settings.trusted_xclient.clone(),
        }
    }

    /// Serves a client if there is room for it, else says why not.
    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, client = %peer, "TCP_NODELAY");
        }
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            return self.refuse(stream, peer.ip(), FULL);
        };
        if contains(&self.trusted_proxy, peer.ip()) {
            let server = Arc::clone(self);
            self.connections.spawn(async move { server.behind_proxy(stream, peer, permit).await });
            return;
        }
        match self.place_for(peer.ip()) {
            Ok(place) => self.serve(stream, peer, (permit, place)),
            Err(why) => self.refuse(stream, peer.ip(), why),
        }
    }

    /// A client's share; gateways that speak for many clients have no bound of their own.
    fn place_for(&self, address: IpAddr) -> Result<Option<Place>, &'static str> {
        if contains(&self.trusted_xclient, address) {
            return Ok(None);
        }
        self.clients.enter(address).map(Some).ok_or(CLIENT_FULL)
    }

    /// Learns from a trusted proxy whom it speaks for; everything after that is about the client announced.
    async fn behind_proxy(
        self: Arc<Self>,
        mut stream: TcpStream,
        proxy: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) {
        let client = match proxy::client(&mut stream, proxy).await {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!(proxy = %proxy.ip(), %error, "closed: a trusted proxy must announce its client");
                return;
            }
        };
        match self.place_for(client.ip()) {
            Ok(place) => self.serve(stream, client, (permit, place)),
            Err(why) => self.refuse(stream, client.ip(), why),
        }
    }

    fn serve<S>(self: &Arc<Self>, stream: S, client: SocketAddr, room: (OwnedSemaphorePermit, Option<Place>))
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.connections.spawn(Arc::clone(self).connection(stream, client, room));
    }

    /// One connection's whole task. Its size is what an idle client costs, so nothing large is held on the way.
    async fn connection<S>(
        self: Arc<Self>,
        stream: S,
        client: SocketAddr,
        _room: (OwnedSemaphorePermit, Option<Place>),
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let stop = self.stop.clone();
        self.panics.contain(client, self.door.serve(stream, client, stop)).await;
    }

    fn refuse(&self, stream: TcpStream, address: IpAddr, why: &'static str) {
        tracing::info!(client = %address, "{why}");
        let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else {
            return;
        };
        let hostname = self.door.session.hostname.clone();
        self.connections.spawn(async move {
            refuse_connection(stream, hostname.as_str(), why).await;
            drop(permit);
        });
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}
