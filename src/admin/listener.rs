//! The socket and its connections: how many, how long, how large.
//!
//! Where too many are open, a new connection replaces the oldest one that has sent no whole head (or doesn't read its
//! answer): half requests can't keep anybody out. Health answers and all others have separate places, so that neither takes those of
//! the other; a request without a place is answered 503. The time for a head is bounded, idle connections included, and
//! so are its octets; a peer that doesn't read the answer is cut off by the kernel. hyper answers what isn't HTTP.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::policy::client::client_network;

/// Connections at one time: file descriptors are wanted for mail.
const MOST: usize = 128;
/// Those of one client; a browser opens six.
const MOST_PER_CLIENT: usize = 32;
/// Requests that are being answered, of all clients and of one: health, and everything else. Together they are fewer than
/// the connections, so that there is always one to replace.
const HEALTH: Places = Places { all: 24, one: 8 };
const OTHERS: Places = Places { all: 80, one: 20 };
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
        seat: Seat,
        close: CancellationToken,
    ) {
        if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(Some(STUCK)) {
            tracing::debug!(%error, "TCP_USER_TIMEOUT");
        }
        let seat = Arc::new(seat);
        let places = Arc::clone(&seat);
        let placed = from_fn(move |request, next| placed(Arc::clone(&places), request, next));
        let router = self.router.clone().layer(Extension(Peer(peer.to_canonical()))).layer(placed);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_OCTETS);
        let service = TowerToHyperService::new(router);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = connection.as_mut() => return told(ended),
            () = seat.replaced.notified() => {
                tracing::debug!(%peer, "a connection to listen.admin without a request made way for another");
                return;
            }
            () = sleep(LIFE) => {}
            () = close.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        if let Ok(ended) = timeout(GRACE, connection).await {
            told(ended);
        }
    }
}

/// Answers a request, if there is a place for it.
async fn placed(seat: Arc<Seat>, request: Request, next: Next) -> Response {
    let health = matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics");
    let Some(place) = Place::take(seat, if health { Phase::Health } else { Phase::Other }) else {
        let headers = [(RETRY_AFTER, "1"), (CONNECTION, "close")];
        return (StatusCode::SERVICE_UNAVAILABLE, headers).into_response();
    };
    next.run(request).await.map(|body| Body::new(Placed { body, _place: place }))
}

/// That a client left or was silent is nobody's trouble here.
fn told(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to listen.admin ended");
    }
}

/// An answer that has its place until hyper has taken it all.
struct Placed {
    body: Body,
    _place: Place,
}

impl HttpBody for Placed {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How many at one time.
struct Places {
    all: usize,
    one: usize,
}

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has sent no whole head since its last answer.
    Head,
    /// A health answer is made.
    Health,
    /// Another answer is made.
    Other,
}

/// The connections there are.
#[derive(Debug, Default)]
struct Seats(Mutex<Seated>);

#[derive(Debug, Default)]
struct Seated {
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

/// The place of one connection.
#[derive(Debug)]
struct Seat {
    seats: Arc<Seats>,
    number: u64,
    /// Another connection has it now.
    replaced: Arc<Notify>,
}

/// The place of one request, until its answer was made.
struct Place(Arc<Seat>);

impl Seats {
    /// A place, if need be the one of a connection without a request.
    fn take(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let client = client_network(address);
        let mut seated = self.seated();
        let own = seated.count(|connection| connection.client == client);
        if own >= MOST_PER_CLIENT {
            seated.replace_oldest(client)?;
        } else if seated.connections.len() >= MOST {
            let client = seated.client_with_most_heads()?;
            seated.replace_oldest(client)?;
        }
        let (number, replaced) = (seated.next_turn(), Arc::new(Notify::new()));
        let connection =
            Connection { client, phase: Phase::Head, since: number, replaced: Arc::clone(&replaced) };
        seated.connections.insert(number, connection);
        Some(Seat { seats: Arc::clone(self), number, replaced })
    }

    fn seated(&self) -> MutexGuard<'_, Seated> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seated {
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
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.seated().connections.remove(&self.number);
    }
}

impl Place {
    fn take(seat: Arc<Seat>, phase: Phase) -> Option<Self> {
        let mut seated = seat.seats.seated();
        let places = if phase == Phase::Health { HEALTH } else { OTHERS };
        let client = seated.connections.get(&seat.number)?.client;
        let all = seated.count(|connection| connection.phase == phase);
        let own = seated.count(|connection| connection.phase == phase && connection.client == client);
        if all >= places.all || own >= places.one {
            return None;
        }
        seated.enter(seat.number, phase);
        drop(seated);
        Some(Self(seat))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.seats.seated().enter(self.0.number, Phase::Head);
    }
}

impl Seated {
    fn enter(&mut self, number: u64, phase: Phase) {
        let since = self.next_turn();
        if let Some(connection) = self.connections.get_mut(&number) {
            (connection.phase, connection.since) = (phase, since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    fn is_replaced(seat: &Seat) -> bool {
        !seat.seats.seated().connections.contains_key(&seat.number)
    }

    #[test]
    fn a_new_connection_replaces_the_oldest_without_a_request() {
        let seats: Arc<Seats> = Arc::default();
        let own: Vec<Seat> = (0..MOST_PER_CLIENT).filter_map(|_| seats.take(client(1))).collect();
        let newest = seats.take(client(1)).unwrap();
        assert!(is_replaced(&own[0]) && !is_replaced(&own[1]) && !is_replaced(&newest));
        let many: Vec<Seat> =
            (0..1000).filter_map(|number| seats.take(client(2 + (number % 200) as u8))).collect();
        assert_eq!((many.len(), seats.seated().connections.len()), (1000, MOST));
        assert!(many[999 - 90..].iter().all(|seat| !is_replaced(seat)));
        drop((own, newest, many));
        assert!(seats.seated().connections.is_empty());
    }

    #[test]
    fn health_has_places_that_no_other_request_and_no_half_one_can_take() {
        let seats: Arc<Seats> = Arc::default();
        let seat = |number| Arc::new(seats.take(client(number)).unwrap());
        let mut busy = Vec::new();
        for number in 1..=8 {
            busy.extend((0..30).map_while(|_| Place::take(seat(number), Phase::Other)));
        }
        assert_eq!(busy.len(), OTHERS.all);
        assert_eq!(
            busy.iter()
                .filter(|place| place.0.seats.seated().connections[&place.0.number].client == client(1))
                .count(),
            OTHERS.one
        );
        for number in 0..200 {
            seat(100 + number % 100);
            let place = Place::take(seat(1), Phase::Health);
            assert!(place.is_some());
        }
        let health: Vec<Place> = (1..=3)
            .flat_map(|number| {
                (0..20).map_while(|_| Place::take(seat(number), Phase::Health)).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(health.len(), HEALTH.all);
        assert!(seats.take(client(9)).is_some(), "there is always a connection to replace");
        assert!(busy.iter().chain(&health).all(|place| !is_replaced(&place.0)));
    }
}
