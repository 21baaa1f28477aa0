//! Listeners: bound by us, or passed by the service manager; and their accept loop.
//!
//! A passed socket is never bound again nor closed while we run, and the connections in its queue when we end are left to
//! our successor. One of our own is closed only after the connections in its queue were accepted: for these clients the
//! connection stands already.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::net::stream::THIS_MACHINE;
use crate::net::unix::{self, SocketFile};
use crate::net::{Endpoint, OwnPlace, Purpose, Stream};

/// Connections in the kernel's queue before they are accepted.
const BACKLOG: i32 = 1024;
/// After an error of accept(): the first wait, doubled up to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Without errors for so long, trouble is over, and new trouble is news. At the limit of descriptors each connection that
/// ends lets one in, and the next fails.
const CALM: Duration = Duration::from_secs(60);

/// A socket to accept on, not yet known to the runtime.
#[derive(Debug)]
pub struct Listener {
    place: Location,
    socket: Std,
}

#[derive(Debug)]
enum Std {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A listener that the runtime knows.
#[derive(Debug)]
pub(crate) struct Registered {
    place: Location,
    socket: Tokio,
}

#[derive(Debug)]
enum Tokio {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// Where a listener is, and what for.
#[derive(Debug)]
struct Location {
    purpose: Purpose,
    endpoint: Endpoint,
    bound_as: Option<Endpoint>,
    /// A passed socket that takes IPv6 only.
    only_v6: bool,
    /// Of a unix socket of our own.
    file: Option<SocketFile>,
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// In use, not ours, or the port is privileged.
    #[error("listen.{purpose}: {endpoint}: {error}")]
    Bind {
        purpose: Purpose,
        /// As configured.
        endpoint: Endpoint,
        error: io::Error,
    },
    /// The service manager passed a socket that can't be used.
    #[error("socket {number} of those that the service manager passed: {error}")]
    Passed {
        /// From 1.
        number: usize,
        error: io::Error,
    },
    /// There is nothing to listen on.
    #[error(
        "listen.smtp is empty, no other door listens, and the service manager passed no socket either: set listen.smtp, such as \
         [\"0.0.0.0:25\"], or enable the socket: systemctl enable --now rmxd.socket"
    )]
    Nowhere,
    /// The service manager has passed a socket that takes the same connections.
    #[error(
        "listen.{purpose}: {endpoint}: the service manager passed {passed}, which has this port already: take {endpoint} out of \
         listen.{purpose} (listen.smtp = [] with rmxd.socket), or disable the socket unit"
    )]
    Twice {
        /// What the endpoint is for.
        purpose: Purpose,
        /// As configured.
        endpoint: Endpoint,
        /// The socket of the service manager.
        passed: Endpoint,
    },
}

impl Listener {
    /// Binds; `[::]` takes IPv4 as well.
    ///
    /// # Errors
    /// [`ListenError::Bind`].
    pub fn bind(purpose: Purpose, wanted: &Endpoint) -> Result<Self, ListenError> {
        let bound = match wanted {
            Endpoint::Tcp(address) => {
                bind_tcp(*address).map(|(socket, address)| (Std::Tcp(socket), Endpoint::Tcp(address), None))
            }
            Endpoint::Unix(path) => unix::bind(path, BACKLOG)
                .map(|(file, socket)| (Std::Unix(socket), wanted.clone(), Some(file))),
        };
        let bound = bound.map_err(|error| ListenError::Bind { purpose, endpoint: wanted.clone(), error });
        let (socket, endpoint, file) = bound?;
        Ok(Self {
            socket,
            place: Location { purpose, endpoint, bound_as: Some(wanted.clone()), only_v6: false, file },
        })
    }

    pub(super) fn of_passed_tcp(purpose: Purpose, socket: TcpListener) -> io::Result<Self> {
        must_listen(SockRef::from(&socket))?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let only_v6 = address.is_ipv6() && SockRef::from(&socket).only_v6()?;
        let endpoint = Endpoint::Tcp(address);
        Ok(Self {
            socket: Std::Tcp(socket),
            place: Location { purpose, endpoint, bound_as: None, only_v6, file: None },
        })
    }

    pub(super) fn of_passed_unix(purpose: Purpose, socket: UnixListener) -> io::Result<Self> {
        must_listen(SockRef::from(&socket))?;
        socket.set_nonblocking(true)?;
        let path = socket.local_addr()?.as_pathname().map(ToOwned::to_owned);
        let endpoint = Endpoint::Unix(path.unwrap_or_default());
        Ok(Self {
            socket: Std::Unix(socket),
            place: Location { purpose, endpoint, bound_as: None, only_v6: false, file: None },
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.place.endpoint
    }

    /// What its connections are for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.place.purpose
    }

    /// What a next hop is compared with.
    #[must_use]
    pub fn own_place(&self) -> OwnPlace<'_> {
        let Location { purpose, endpoint, only_v6, .. } = &self.place;
        OwnPlace { purpose: *purpose, endpoint, only_v6: *only_v6 }
    }

    /// # Errors
    /// [`ListenError::Bind`]: the runtime can't take it.
    pub(crate) fn register(self) -> Result<Registered, ListenError> {
        let Self { socket, place } = self;
        let socket = match socket {
            Std::Tcp(socket) => {
                // Accepted connections inherit it: one system call less for each.
                if let Err(error) = SockRef::from(&socket).set_tcp_nodelay(true) {
                    tracing::warn!(%error, endpoint = %place.endpoint, "TCP_NODELAY can't be set");
                }
                tokio::net::TcpListener::from_std(socket).map(Tokio::Tcp)
            }
            Std::Unix(socket) => tokio::net::UnixListener::from_std(socket).map(Tokio::Unix),
        };
        match socket {
            Ok(socket) => Ok(Registered { socket, place }),
            Err(error) => {
                Err(ListenError::Bind { purpose: place.purpose, endpoint: place.endpoint.clone(), error })
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let socket = TcpListener::from(socket);
    let address = socket.local_addr()?;
    Ok((socket, address))
}

fn must_listen(socket: SockRef<'_>) -> io::Result<()> {
    if socket.is_listener()? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it doesn't listen (Accept=yes?)"))
}

impl Registered {
    pub(crate) fn purpose(&self) -> Purpose {
        self.place.purpose
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.place.endpoint
    }

    pub(crate) fn only_v6(&self) -> bool {
        self.place.only_v6
    }

    /// As the operator wrote it, where the port may be 0; `None` for a passed socket.
    pub(crate) fn bound_as(&self) -> Option<&Endpoint> {
        self.place.bound_as.as_ref()
    }

    /// Accepts until `close` is cancelled. An error of accept() (no descriptors left) is waited out; the log has its
    /// beginning.
    pub(crate) async fn accept(&self, close: &CancellationToken, admit: impl Fn(Stream, SocketAddr)) {
        let (mut wait, mut failed) = (BACK_OFF.0, None::<Instant>);
        loop {
            let accepted = tokio::select! {
                biased; // A connection in the queue at the end is left to the successor, not refused.
                () = close.cancelled() => return,
                accepted = self.next() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    wait = BACK_OFF.0;
                    admit(stream, peer);
                }
                Err(error) => {
                    let endpoint = &self.place.endpoint;
                    if failed.replace(Instant::now()).is_none_or(|last| last.elapsed() >= CALM) {
                        tracing::warn!(%endpoint, %error, "accept failed, new connections wait until it succeeds");
                    }
                    tracing::debug!(%endpoint, %error, "the next accept in {} ms", wait.as_millis());
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = close.cancelled() => return,
                    }
                    wait = (wait * 2).min(BACK_OFF.1);
                }
            }
        }
    }

    async fn next(&self) -> io::Result<(Stream, SocketAddr)> {
        match &self.socket {
            Tokio::Tcp(listener) => listener.accept().await.map(|(stream, peer)| (Stream::Tcp(stream), peer)),
            Tokio::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), THIS_MACHINE))
            }
        }
    }

    /// Closes a listener of our own after the connections in its queue were admitted, since the end of the socket would
    /// reset them; those in the queue of a passed one are left to the successor.
    pub(crate) fn close(self, admit: impl Fn(Stream, SocketAddr)) {
        let Self { socket, mut place } = self;
        // First: after the last accept() nothing more can come by the path.
        drop(place.file.take());
        if place.bound_as.is_none() {
            return;
        }
        if let Err(error) = admit_waiting(socket, admit) {
            tracing::warn!(endpoint = %place.endpoint, %error, "connections in the queue of a closed listener are lost");
        }
    }
}

/// By the system's own accept(), since tokio's knows only of those connections that woke it.
fn admit_waiting(socket: Tokio, admit: impl Fn(Stream, SocketAddr)) -> io::Result<()> {
    match socket {
        Tokio::Tcp(listener) => {
            let listener = listener.into_std()?;
            until_empty(|| {
                let (stream, peer) = listener.accept()?;
                stream.set_nonblocking(true)?;
                admit(Stream::Tcp(TcpStream::from_std(stream)?), peer);
                Ok(())
            })
        }
        Tokio::Unix(listener) => {
            let listener = listener.into_std()?;
            until_empty(|| {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                admit(Stream::Unix(UnixStream::from_std(stream)?), THIS_MACHINE);
                Ok(())
            })
        }
    }
}

fn until_empty(mut accept: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match accept() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
