//! The sockets that connections come in by: bound by us, or passed by the service manager.
//!
//! One that was passed is never bound again nor closed while we run, and what waits in its queue when we end is left to
//! our successor. One of our own is closed only after what waits in its queue was taken: for these clients the
//! connection stands already.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that wait to be accepted, for the kernel.
const BACKLOG: i32 = 1024;

/// A socket to accept on.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    bound_as: Option<SocketAddr>,
}

/// The same, known to the runtime.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) socket: tokio::net::TcpListener,
    pub(super) address: SocketAddr,
    /// As the operator wrote it, where the port may be 0; `None` for one that was passed.
    pub(super) bound_as: Option<SocketAddr>,
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// In use, not ours, or the port is privileged.
    #[error("listen.smtp: {address}: {error}")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// What the service manager passed is of no use.
    #[error("socket {number} of those that the service manager passed: {error}")]
    Passed {
        /// From 1.
        number: usize,
        /// Why.
        error: io::Error,
    },
    /// There is nothing to listen on.
    #[error("listen.smtp is empty, and the service manager (rmxd.socket) passed no socket either")]
    Nowhere,
}

/// The sockets that were passed (`LISTEN_FDS`, sd_listen_fds(3)). Must be called before there are threads, and once:
/// they are taken, and the variables go with them.
///
/// # Errors
/// [`ListenError::Passed`]: a socket that isn't for TCP, or not for listening (`Accept=yes`).
pub fn passed() -> Result<Vec<Listener>, ListenError> {
    let mut descriptors = ListenFd::from_env();
    (0..descriptors.len())
        .filter_map(|index| {
            let taken = descriptors.take_tcp_listener(index).transpose()?;
            let listener = taken.and_then(Listener::of_passed);
            Some(listener.map_err(|error| ListenError::Passed { number: index + 1, error }))
        })
        .collect()
}

impl Listener {
    /// Binds; `[::]` takes IPv4 as well.
    ///
    /// # Errors
    /// [`ListenError::Bind`].
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
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
            Ok(Self { address: socket.local_addr()?, bound_as: Some(address), socket })
        };
        bound().map_err(|error| ListenError::Bind { address, error })
    }

    fn of_passed(socket: TcpListener) -> io::Result<Self> {
        if !SockRef::from(&socket).is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it doesn't listen (Accept=yes?)"));
        }
        socket.set_nonblocking(true)?;
        Ok(Self { address: socket.local_addr()?, bound_as: None, socket })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn register(self) -> Result<Registered, ListenError> {
        let Self { socket, address, bound_as } = self;
        // What is accepted inherits it: one system call less for each connection.
        if let Err(error) = SockRef::from(&socket).set_tcp_nodelay(true) {
            tracing::warn!(%error, %address, "TCP_NODELAY");
        }
        let socket = tokio::net::TcpListener::from_std(socket);
        let socket = socket.map_err(|error| ListenError::Bind { address, error })?;
        Ok(Registered { socket, address, bound_as })
    }
}
