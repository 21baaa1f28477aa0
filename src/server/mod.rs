//! Listeners: who gets a connection, how many at one time, and how the daemon ends.
//!
//! An error of accept() (no descriptors left) is waited out, never the end of the daemon. A panic in one connection is
//! caught, logged, and harms no other. After `stop` no connection is taken any more; open ones may finish
//! their transaction until the drain time is over.

mod clients;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::door::{Door, refuse_connection};
use crate::server::clients::{Clients, Place};

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
    let server = Arc::new(Server {
        places: Arc::new(Semaphore::new(settings.connections)),
        clients: Clients::new(settings.connections_per_client),
        refusals: Arc::new(Semaphore::new(REFUSALS)),
        connections: TaskTracker::new(),
        door,
        stop: stop.clone(),
    });
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
    door: Door,
    stop: CancellationToken,
}

async fn accept_loop(listener: TcpListener, server: Arc<Server>) {
    let mut wait = BACK_OFF.0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, client)) => {
                wait = BACK_OFF.0;
                server.admit(stream, client);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed, waiting {} ms", wait.as_millis());
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(BACK_OFF.1);
            }
        }
    }
}

impl Server {
    /// Serves a client if there is room for it, else says why not.
    fn admit(self: &Arc<Self>, stream: TcpStream, client: SocketAddr) {
        let address = client.ip().to_canonical();
        match self.room_for(address) {
            Ok(room) => self.serve(stream, client, room),
            Err(why) => self.refuse(stream, address, why),
        }
    }

    fn room_for(&self, address: IpAddr) -> Result<(OwnedSemaphorePermit, Place), &'static str> {
        let place =
            self.clients.enter(address).ok_or("too many connections from your address, try again later")?;
        let permit = Arc::clone(&self.places).try_acquire_owned();
        let permit = permit.map_err(|_full| "too many connections, try again later")?;
        Ok((permit, place))
    }

    fn serve(self: &Arc<Self>, stream: TcpStream, client: SocketAddr, room: (OwnedSemaphorePermit, Place)) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %client, "TCP_NODELAY");
        }
        let server = Arc::clone(self);
        self.connections.spawn(async move {
            let session = server.door.serve(stream, client, server.stop.clone());
            if AssertUnwindSafe(session).catch_unwind().await.is_err() {
                tracing::error!(%client, "a connection ended in a panic");
            }
            drop(room);
        });
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
