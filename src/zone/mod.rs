//! The embedded DNS server that `rmxd zone`, `rmxd demo`, `rmxd load` and the tests share.
//!
//! It serves zones from memory over UDP and TCP, can be given other ones while it runs, and can misbehave on
//! purpose (SERVFAIL, REFUSED, silence, delay). It is no name server for the world: no recursion, no transfers,
//! no DNSSEC, no rate limits. Only this module and its files name hickory-server.

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

/// A TCP client that asks nothing for this long is cut.
const TCP_IDLE: Duration = Duration::from_secs(30);

/// Responses that may wait for one slow TCP client.
const TCP_BACKLOG: usize = 4096;

/// How often a port is drawn that has to be free for both UDP and TCP.
const PORT_DRAWS: usize = 16;

/// Wanted size of the UDP receive buffer, so that a burst of questions isn't dropped; the system may give less.
const UDP_BUFFER: usize = 4 << 20;

/// A running server. Dropped, it ends at once; [`Server::stop`] also waits for the end.
pub struct Server {
    address: SocketAddr,
    shared: Arc<handler::Shared>,
    listener: Listener<handler::Handler>,
}

impl Server {
    /// Listens on UDP and TCP. Port 0 draws one that is free for both.
    pub async fn start(listen: SocketAddr, zone: Zone) -> io::Result<Self> {
        let (udp, tcp) = bind(listen).await?;
        if let Err(error) = socket2::SockRef::from(&udp).set_recv_buffer_size(UDP_BUFFER) {
            tracing::debug!(%error, "the UDP receive buffer keeps its size");
        }
        let address = udp.local_addr()?;
        let shared = Arc::new(handler::Shared::new(zone));
        let mut listener = Listener::new(handler::Handler(Arc::clone(&shared)));
        listener.register_socket(udp);
        listener.register_listener(tcp, TCP_IDLE, TCP_BACKLOG);
        Ok(Self { address, shared, listener })
    }

    /// Where it listens, on UDP and TCP alike.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The zones as they are served now; to change a few records, clone, change and [`Server::replace`].
    pub fn zone(&self) -> Arc<Zone> {
        self.shared.zone()
    }

    /// Serves these zones from now on.
    pub fn replace(&self, zone: Zone) {
        self.shared.replace(zone);
    }

    /// What was asked so far.
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
    let mut draws = if listen.port() == 0 { PORT_DRAWS } else { 1 };
    loop {
        draws -= 1;
        let tcp = TcpListener::bind(listen).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((udp, tcp)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && draws > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

/// A name as people write it: lower case, without the final dot, A-labels left as they are.
fn text(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    match text.strip_suffix('.') {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests;
