//! The doors over their listeners: limits, TLS by the door's settings, reload, drain.
//!
//! A reload replaces the settings and services for new connections; open ones keep theirs. At the end the listeners
//! close first, then the open connections are signalled, so that a client that gets a 421 can't connect again. Open
//! connections may finish their transaction until the drain time is over.

mod admission;
mod descriptors;
mod listening;
mod service;
mod status;
mod strangers;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::net::listener::Registered;
use crate::net::permit::ConnectionCounts;
use crate::net::{Endpoint, ListenError, Listener, OwnPlace, Purpose};
pub use crate::server::descriptors::raise_descriptor_limit;
pub use crate::server::listening::DoorListener;
use crate::server::listening::Listening;
pub use crate::server::service::Service;
pub use crate::server::status::Status;
use crate::server::strangers::Strangers;
use crate::store::shared::{Elsewhere, Source};

/// Before the end of the drain time, when sessions of a milter whose socket was passed are asked to end: enough for
/// those between two messages.
const LAST_MOMENTS: Duration = Duration::from_secs(5);
/// Most refused clients that get a reply at one time; other connections are closed without one.
const REFUSALS: usize = 64;

/// The limits, and the peers that are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Endpoints of the doors, besides the sockets that were passed.
    pub listen: Vec<(Purpose, Endpoint)>,
    /// Most connections at one time, of all doors.
    pub connections: usize,
    /// Most connections of one client of the SMTP door at one time: an IPv4 address, an IPv6 /64.
    pub connections_per_client: usize,
    /// Load balancers, which must announce their clients by a PROXY header.
    pub trusted_proxy: Vec<IpNet>,
    /// Gateways, which may announce their clients by XCLIENT, so that `connections_per_client` doesn't apply to them.
    pub trusted_xclient: Vec<IpNet>,
    /// Mail servers that may connect to the doors `milter` and `policy`, besides this machine.
    pub trusted_postfix: Vec<IpNet>,
    /// Time that open connections have after SIGTERM.
    pub drain: Duration,
}

/// A running server. If it is dropped without [`Server::drain`], it runs as long as the runtime.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    open: Vec<Open>,
    loops: TaskTracker,
}

#[derive(Debug)]
struct Open {
    purpose: Purpose,
    endpoint: Endpoint,
    /// The endpoint in the operator's spelling; `None` for a passed socket.
    bound_as: Option<Endpoint>,
    only_v6: bool,
    close: CancellationToken,
}

/// The changes of a reload.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Endpoints that have a listener now.
    pub opened: Vec<Endpoint>,
    /// Endpoints that have no listener any more.
    pub closed: Vec<Endpoint>,
}

impl Server {
    /// Serves these listeners until [`Server::drain`], each with the service of its purpose.
    ///
    /// # Errors
    /// The runtime can't take a listener.
    pub fn start(
        settings: Settings,
        services: Vec<Service>,
        listeners: Vec<Listener>,
        metrics: Metrics,
        elsewhere: Elsewhere,
    ) -> Result<Self, ListenError> {
        let listeners = listeners.into_iter().map(Listener::register).collect::<Result<Vec<_>, _>>()?;
        let shared = Arc::new(Shared {
            current: watch::Sender::new(Arc::new(Current { settings, services })),
            counts: Arc::default(),
            listening: Listening::default(),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            connections: TaskTracker::new(),
            strangers: Strangers::default(),
            metrics,
            elsewhere,
            close: CancellationToken::new(),
            stop: CancellationToken::new(),
            stop_milters: CancellationToken::new(),
        });
        let mut server = Self { shared, open: Vec::new(), loops: TaskTracker::new() };
        for listener in listeners {
            server.serve(listener);
        }
        Ok(server)
    }

    /// Gives the clients of the SMTP door that have a tenth of `connections_per_client` at least.
    #[must_use]
    pub fn busy_clients(&self) -> Source {
        let shared = Arc::downgrade(&self.shared);
        Arc::new(move || {
            let Some(shared) = shared.upgrade() else { return Vec::new() };
            let least = shared.current.borrow().settings.connections_per_client.div_ceil(10);
            shared.counts.of_clients(least)
        })
    }

    /// The endpoints of the listeners.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.open.iter().map(|open| open.endpoint.clone()).collect()
    }

    /// The sockets that were passed; they stay open whatever the settings are.
    pub fn passed(&self) -> impl Iterator<Item = OwnPlace<'_>> {
        let passed = self.open.iter().filter(|open| open.bound_as.is_none());
        passed.map(|open| OwnPlace { purpose: open.purpose, endpoint: &open.endpoint, only_v6: open.only_v6 })
    }

    /// Whether a socket was passed for this purpose.
    #[must_use]
    pub fn was_passed(&self, purpose: Purpose) -> bool {
        self.passed().any(|passed| passed.purpose == purpose)
    }

    /// The state of the server; it stays readable after the end.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(&self.shared)
    }

    /// Puts these settings and services into effect for new connections; open ones keep theirs. The counts of
    /// connections go on.
    ///
    /// # Errors
    /// A new endpoint can't be bound, or none would be left; nothing is changed then.
    pub fn reload(&mut self, settings: Settings, services: Vec<Service>) -> Result<Moved, ListenError> {
        let held: Vec<_> = self
            .open
            .iter()
            .map(|open| (open.purpose, open.bound_as.as_ref().unwrap_or(&open.endpoint)))
            .collect();
        let bound = bind_missing(&settings, &held)?;
        let bound = bound.into_iter().map(Listener::register).collect::<Result<Vec<_>, _>>()?;
        let wanted: HashSet<(Purpose, Endpoint)> = settings.listen.iter().cloned().collect();
        let is_kept = |open: &Open| {
            open.bound_as.as_ref().is_none_or(|bound_as| wanted.contains(&(open.purpose, bound_as.clone())))
        };
        if bound.is_empty() && !self.open.iter().any(is_kept) {
            return Err(ListenError::Nowhere);
        }
        let mut moved = Moved::default();
        let closed: Vec<Open> = self.open.extract_if(.., |open| !is_kept(open)).collect();
        self.shared.current.send_replace(Arc::new(Current { settings, services }));
        for closed in closed {
            closed.close.cancel();
            moved.closed.push(closed.endpoint);
        }
        for listener in bound {
            moved.opened.push(listener.endpoint().clone());
            self.serve(listener);
        }
        Ok(moved)
    }

    /// Takes no more connections and waits for the open ones to end, at most `settings.drain`. Returns how many were
    /// still open then.
    ///
    /// Within a session of SMTP a mail server doesn't begin again with a milter: if we end between two messages, all
    /// further ones get its `default_action`. New sessions get it too while there is no socket, so that an early end is
    /// best then. At a socket that the service manager holds they wait, Postfix for 30 s (`milter_command_timeout`). So
    /// sessions under way may last for `settings.drain` then, which is 30 s too.
    pub async fn drain(self) -> usize {
        let new_milters_wait = self.was_passed(Purpose::Milter);
        self.shared.close.cancel();
        self.loops.close();
        self.loops.wait().await;
        self.shared.stop.cancel();
        let connections = &self.shared.connections;
        connections.close();
        let drain = self.shared.current.borrow().settings.drain;
        let end = Instant::now() + drain;
        if new_milters_wait {
            let hold_on = drain.saturating_sub(LAST_MOMENTS);
            timeout(hold_on, connections.wait()).await.unwrap_or_default();
        }
        self.shared.stop_milters.cancel();
        match timeout_at(end, connections.wait()).await {
            Ok(()) => 0,
            Err(_elapsed) => connections.len(),
        }
    }

    fn serve(&mut self, listener: Registered) {
        let close = self.shared.close.child_token();
        self.open.push(Open {
            purpose: listener.purpose(),
            endpoint: listener.endpoint().clone(),
            bound_as: listener.bound_as().cloned(),
            only_v6: listener.only_v6(),
            close: close.clone(),
        });
        let server = Arc::clone(&self.shared);
        self.loops.spawn(async move {
            let purpose = listener.purpose();
            let admit = |stream, peer| server.admit(purpose, stream, peer);
            let accepting = server.listening.begin(purpose, listener.endpoint().clone(), close.clone());
            listener.accept(&close, admit).await;
            drop(accepting);
            listener.close(admit);
        });
    }
}

/// All listeners of the doors: the passed ones, and new ones for the other endpoints of the settings.
///
/// # Errors
/// An endpoint can't be bound, a passed socket has its port, or there is none.
pub fn listeners(settings: &Settings, passed: Vec<Listener>) -> Result<Vec<Listener>, ListenError> {
    let held: Vec<_> = passed.iter().map(|listener| (listener.purpose(), listener.endpoint())).collect();
    let bound = bind_missing(settings, &held).map_err(|error| passed_already(error, &held))?;
    let listeners: Vec<_> = passed.into_iter().chain(bound).collect();
    if listeners.is_empty() { Err(ListenError::Nowhere) } else { Ok(listeners) }
}

/// Names the passed socket that an endpoint collides with.
fn passed_already(error: ListenError, passed: &[(Purpose, &Endpoint)]) -> ListenError {
    let ListenError::Bind { purpose, endpoint, error } = error else { return error };
    let collides = |other: &&Endpoint| match (endpoint.tcp(), other.tcp()) {
        (Some(one), Some(other)) => {
            let any = one.ip().is_unspecified() || other.ip().is_unspecified();
            one.port() == other.port() && (any || one.ip() == other.ip())
        }
        (Some(_) | None, None) | (None, Some(_)) => **other == endpoint,
    };
    let passed = passed.iter().map(|(_, endpoint)| *endpoint).find(collides);
    match passed.cloned() {
        Some(passed) if error.kind() == io::ErrorKind::AddrInUse => {
            ListenError::Twice { purpose, endpoint, passed }
        }
        Some(_) | None => ListenError::Bind { purpose, endpoint, error },
    }
}

/// Binds the endpoints that aren't held yet: all or none.
fn bind_missing(settings: &Settings, held: &[(Purpose, &Endpoint)]) -> Result<Vec<Listener>, ListenError> {
    let missing = settings.listen.iter().filter(|(purpose, endpoint)| !held.contains(&(*purpose, endpoint)));
    missing.map(|(purpose, endpoint)| Listener::bind(*purpose, endpoint)).collect()
}

/// The settings and services for new connections.
#[derive(Debug)]
struct Current {
    settings: Settings,
    services: Vec<Service>,
}

impl Current {
    fn service(&self, purpose: Purpose) -> Option<&Service> {
        self.services.iter().find(|service| service.purpose == purpose)
    }
}

/// State that all listeners and connections share.
#[derive(Debug)]
struct Shared {
    current: watch::Sender<Arc<Current>>,
    counts: Arc<ConnectionCounts>,
    listening: Listening,
    refusals: Arc<Semaphore>,
    connections: TaskTracker,
    strangers: Strangers,
    metrics: Metrics,
    /// Connections at the other nodes of a fleet.
    elsewhere: Elsewhere,
    /// Closes the listeners.
    close: CancellationToken,
    /// Signals the connections to end, once no listener is left.
    stop: CancellationToken,
    /// The same for the sessions of a milter, then or later.
    stop_milters: CancellationToken,
}
