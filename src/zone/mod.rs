//! The embedded DNS server that `rmxd zone`, `rmxd demo`, `rmxd load` and the tests share.
//!
//! It serves zones from memory over UDP and TCP. A caller can replace the zones while it runs, and names can misbehave on
//! purpose (SERVFAIL, REFUSED, silence, delay). It is no public name server: no recursion, no transfers, no DNSSEC, no
//! rate limits. Only this module uses hickory-server.

mod answer;
mod data;
pub mod generated;
mod handler;
mod lexer;
mod master;
mod sample;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_server::Server as Listener;
use tokio::net::{TcpListener, UdpSocket};

pub use data::{Behaviour, Zone};
pub use handler::{Question, Questions};
pub use hickory_server::proto::rr::{Name, RData, RecordType, rdata};
pub use master::ZoneError;
pub use sample::{Row, sample_rows};

/// A TCP connection without a question for this long is closed.
const TCP_IDLE: Duration = Duration::from_secs(30);

/// Responses that one slow TCP client may leave unread.
const TCP_BACKLOG: usize = 4096;

/// How many random ports are tried until one is free for both UDP and TCP.
const PORT_ATTEMPTS: usize = 16;

/// Requested size of the UDP receive buffer, large enough for a burst of questions; the system may give less.
const UDP_BUFFER: usize = 4 << 20;

/// A running server. Dropping it ends it at once; [`Server::stop`] also waits for the end.
pub struct Server {
    address: SocketAddr,
    shared: Arc<handler::Shared>,
    listener: Listener<handler::Handler>,
}

impl Server {
    /// Listens on UDP and TCP. Port 0 means a random port that is free for both.
    pub async fn start(listen: SocketAddr, zone: Zone) -> io::Result<Self> {
        let (udp, tcp) = bind(listen).await?;
        if let Err(error) = socket2::SockRef::from(&udp).set_recv_buffer_size(UDP_BUFFER) {
            tracing::debug!(%error, "the UDP receive buffer keeps the system's default size");
        }
        let address = udp.local_addr()?;
        let shared = Arc::new(handler::Shared::new(zone));
        let mut listener = Listener::new(handler::Handler(Arc::clone(&shared)));
        listener.register_socket(udp);
        listener.register_listener(tcp, TCP_IDLE, TCP_BACKLOG);
        Ok(Self { address, shared, listener })
    }

    /// The same for UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The zones that it serves. To change a few records, clone them, change them and call [`Server::replace`].
    pub fn zone(&self) -> Arc<Zone> {
        self.shared.zone()
    }

    pub fn replace(&self, zone: Zone) {
        self.shared.replace(zone);
    }

    pub fn questions(&self) -> Questions {
        self.shared.questions()
    }

    /// Ends the server and waits until its sockets are closed.
    pub async fn stop(mut self) {
        if let Err(error) = self.listener.shutdown_gracefully().await {
            tracing::debug!(%error, "the zone server ended with an error");
        }
    }
}

async fn bind(listen: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut attempts = if listen.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let tcp = TcpListener::bind(listen).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((udp, tcp)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

/// The name in lower case, without the final dot, with its A-labels.
fn text(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    match text.strip_suffix('.') {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests;
