//! The socket and its connections: how many, how long, how large.
//!
//! A connection that is one too many is told 503 and closed. The time for a request's head is bounded, idle connections
//! included, and so are its octets; who doesn't read the answer is cut off by the kernel. hyper answers what isn't HTTP.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::policy::client::client_network;

/// Connections at one time: file descriptors are wanted for mail.
const MOST: usize = 128;
/// Those of one client; a browser opens six.
const MOST_PER_CLIENT: usize = 32;
/// Connections that wait to be accepted, for the kernel.
const BACKLOG: i32 = 128;
/// For the head of a request, and for the next one to begin.
const HEAD: Duration = Duration::from_secs(10);
/// The head's octets; hyper has 8 KiB as its least.
const HEAD_OCTETS: usize = 16 << 10;
/// How long a connection is used at most.
const LIFE: Duration = Duration::from_secs(300);
/// For the request that is under way when a connection, or the daemon, has come to its end.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// For a peer that doesn't take what was sent.
const STUCK: Duration = Duration::from_secs(30);
/// After an error of accept().
const BACK_OFF: Duration = Duration::from_millis(200);

const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// A socket to accept on.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    bound_as: SocketAddr,
}

/// The same, known to the runtime.
#[derive(Debug)]
pub(super) struct Registered {
    socket: tokio::net::TcpListener,
    pub(super) address: SocketAddr,
    /// As the operator wrote it, where the port may be 0.
    pub(super) bound_as: SocketAddr,
}

/// In use, not ours, or the port is privileged.
#[derive(Debug, thiserror::Error)]
#[error("listen.admin: {address}: {error}")]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
}

impl Listener {
    /// Binds; `[::]` takes IPv4 as well.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let bound = || -> io::Result<Self> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(!address.ip().is_unspecified())?;
            }
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let socket = TcpListener::from(socket);
            Ok(Self { address: socket.local_addr()?, bound_as: address, socket })
        };
        bound().map_err(|error| BindError { address, error })
    }

    pub(super) fn register(self) -> Result<Registered, BindError> {
        let Self { socket, address, bound_as } = self;
        let socket = tokio::net::TcpListener::from_std(socket);
        let socket = socket.map_err(|error| BindError { address, error })?;
        Ok(Registered { socket, address, bound_as })
    }
}

/// Who a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Lets connections in, and serves them.
#[derive(Debug)]
pub(super) struct Door {
    router: Router,
    seats: Arc<Seats>,
}

impl Door {
    pub(super) fn new(router: Router) -> Self {
        Self { router, seats: Arc::default() }
    }

    /// Accepts until `close` is cancelled.
    pub(super) async fn accept_loop(
        self: Arc<Self>,
        listener: Registered,
        close: CancellationToken,
        tasks: TaskTracker,
    ) {
        loop {
            let accepted = tokio::select! {
                () = close.cancelled() => return,
                accepted = listener.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => match self.seats.take(peer.ip()) {
                    Some(seat) => {
                        tasks.spawn(Arc::clone(&self).connection(stream, peer.ip(), seat, close.clone()));
                    }
                    None => {
                        tracing::debug!(peer = %peer.ip(), "too many connections to listen.admin");
                        // Whatever fits into the socket's buffer; nobody waits for such a client.
                        stream.try_write(FULL).ok();
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "listen.admin: accept failed");
                    sleep(BACK_OFF).await;
                }
            }
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: IpAddr,
        _seat: Seat,
        close: CancellationToken,
    ) {
        if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(Some(STUCK)) {
            tracing::debug!(%error, "TCP_USER_TIMEOUT");
        }
        let service =
            TowerToHyperService::new(self.router.clone().layer(Extension(Peer(peer.to_canonical()))));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_OCTETS);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = connection.as_mut() => return told(ended),
            () = sleep(LIFE) => {}
            () = close.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        if let Ok(ended) = timeout(GRACE, connection).await {
            told(ended);
        }
    }
}

/// That a client left or was silent is nobody's trouble here.
fn told(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to listen.admin ended");
    }
}

/// How many connections there are, in total and of each client.
#[derive(Debug, Default)]
struct Seats(Mutex<HashMap<IpAddr, usize>>);

/// The place of one connection.
#[derive(Debug)]
struct Seat {
    seats: Arc<Seats>,
    client: IpAddr,
}

impl Seats {
    fn take(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let client = client_network(address);
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&client).copied().unwrap_or_default();
        if own >= MOST_PER_CLIENT || taken.values().sum::<usize>() >= MOST {
            return None;
        }
        taken.insert(client, own + 1);
        Some(Seat { seats: Arc::clone(self), client })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_in_total_and_for_each_client_and_come_back() {
        let seats: Arc<Seats> = Arc::default();
        let client = |number: u8| IpAddr::from([192, 0, 2, number]);
        let mut held: Vec<Seat> = (0..200).map_while(|_| seats.take(client(1))).collect();
        assert_eq!(held.len(), MOST_PER_CLIENT);
        for number in 2..10 {
            held.extend((0..200).map_while(|_| seats.take(client(number))));
        }
        assert_eq!(held.len(), MOST);
        held.truncate(MOST - 1);
        held.push(seats.take(client(200)).unwrap());
        assert!(seats.take(client(201)).is_none());
        held.clear();
        assert!(seats.0.lock().unwrap().is_empty());
    }
}
