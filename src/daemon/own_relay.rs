//! Refuses a next hop that is a listener of rmxd itself, by its name too and with the sockets that the service manager passed.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::config::Settings;
use crate::net::own::reached;
use crate::net::{OwnListener, OwnPlace};
use crate::relay::NextHop;

/// How long a start or a reload waits for the addresses of a name. A name that isn't found in this time is no obstacle: the
/// next hop may be unreachable for now.
const LIMIT: Duration = Duration::from_secs(5);

const PASSED: &str = " (a socket that the service manager passed)";

/// `listeners` are those of the daemon: bound or passed.
///
/// # Errors
/// A connection to the next hop reaches one of them.
pub(super) async fn refuse<'a>(
    settings: &Settings,
    listeners: impl IntoIterator<Item = OwnPlace<'a>>,
) -> Result<(), OwnListener> {
    let next_hop = &settings.relay.next_hop;
    let targets = addresses(next_hop).await;
    if let Some(own) = settings.own_relay(&targets) {
        return Err(own);
    }
    let Some(OwnPlace { purpose, endpoint, .. }) = reached(&targets, listeners) else { return Ok(()) };
    let configured = settings.server.listen.iter().any(|(_, configured)| configured == endpoint);
    let origin = if configured || settings.admin.listen.as_ref() == Some(endpoint) { "" } else { PASSED };
    Err(OwnListener { next_hop: next_hop.to_string(), purpose, endpoint: endpoint.clone(), origin })
}

/// The addresses of the next hop as the system knows them; none for a Maildir, or if the name can't be looked up.
pub async fn addresses(next_hop: &NextHop) -> Vec<SocketAddr> {
    let NextHop::Smtp { host, port } = next_hop else { return Vec::new() };
    match timeout(LIMIT, lookup_host((host.as_str(), *port))).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}
