//! Starts everything that a configuration describes, for `rmxd serve` and `rmxd demo` alike.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::dns::{Dns, SetupError};
use crate::door::Door;
use crate::gate::Gate;
use crate::relay::{NextHop, Relay, RelayError};
use crate::reverse_mx::ReverseMx;
use crate::server;

/// How often the relay is asked what it can take, while it is up and while it is down. Every transaction learns it
/// too, so this matters for quiet hours only.
const PROBE: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(15));

/// A running daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    addresses: Vec<SocketAddr>,
    stop: CancellationToken,
    server: JoinHandle<usize>,
}

/// Why a daemon can't start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("dns.servers: {0}")]
    Dns(#[from] SetupError),
    #[error("listen.smtp: {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("relay.next_hop: {0}")]
    Relay(RelayError),
}

/// What decides, without listeners: `rmxd check` needs no more.
pub(super) fn gate(settings: &Settings) -> Result<Arc<Gate>, SetupError> {
    let dns = Dns::new(settings.dns.clone())?;
    // The longest way: MX, then its host, then the same for the organisational domain, side by side with nothing.
    let deadline = settings.dns.timeout * 3;
    Ok(Gate::new(settings.gate.clone(), ReverseMx::new(dns, settings.reverse_mx.clone()), deadline))
}

impl Daemon {
    /// Binds, learns what the relay can take, and serves. A relay that is down is no obstacle; one that would make an
    /// open relay of us is (DESIGN 1.6), and so is a Maildir that can't be written.
    pub(super) async fn start(settings: &Settings) -> Result<Self, StartError> {
        let gate = gate(settings)?;
        let mut listeners = Vec::new();
        for address in &settings.server.listen {
            let bound = server::bind(*address);
            listeners.push(bound.map_err(|error| StartError::Listen { address: *address, error })?);
        }
        server::raise_descriptor_limit(settings.server.connections + settings.relay.max_connections);
        let relay = Relay::new(settings.relay.clone());
        let reached = match relay.probe().await {
            Ok(_) => true,
            Err(error) if is_final(&settings.relay.next_hop, &error) => return Err(StartError::Relay(error)),
            Err(error) => {
                tracing::warn!(%error, "the relay can't be used yet; mail is deferred until it can");
                false
            }
        };
        let stop = CancellationToken::new();
        tokio::spawn(keep_probing(relay.clone(), reached, stop.clone()));
        let door = Door {
            settings: Arc::new(settings.door.clone()),
            session: Arc::new(settings.session.clone()),
            gate,
            relay,
        };
        let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let server = tokio::spawn(server::run(settings.server.clone(), listeners, door, stop.clone()));
        Ok(Self { addresses, stop, server })
    }

    /// Where it listens.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes no new connections and waits for the open ones; how many were cut off at the end.
    pub(super) async fn drain(self) -> usize {
        self.stop.cancel();
        self.server.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the server died");
            0
        })
    }
}

/// Whether waiting can't help.
fn is_final(next_hop: &NextHop, error: &RelayError) -> bool {
    matches!(error, RelayError::NoXclient) || matches!(next_hop, NextHop::Maildir(_))
}

async fn keep_probing(relay: Relay, mut reached: bool, stop: CancellationToken) {
    loop {
        let wait = if reached { PROBE.0 } else { PROBE.1 };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        match relay.probe().await {
            Ok(_) if !reached => {
                tracing::info!("the relay can be used now");
                reached = true;
            }
            Ok(_) => {}
            Err(error) if reached => {
                tracing::warn!(%error, "the relay can't be used any more; mail is deferred");
                reached = false;
            }
            Err(error) => tracing::debug!(%error, "the relay can't be used yet"),
        }
    }
}
