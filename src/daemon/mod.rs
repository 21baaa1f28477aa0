//! From settings to a running daemon: `rmxd serve`, `rmxd demo`, the commands that only judge, tests and benches all
//! build it here.

mod certificate;
mod error;
mod gate;
mod own_relay;
mod parts;
mod permits;
mod relay_probe;
mod shipped;
mod sockets;
mod stores;

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use crate::admin::{Admin, Reload, Reloads};
use crate::config::Settings;
pub use crate::daemon::error::StartError;
pub use crate::daemon::gate::{door_over, gate, gate_over, gate_with_permits, gate_with_services};
pub use crate::daemon::own_relay::addresses as relay_addresses;
use crate::daemon::parts::{Observers, Parts};
use crate::daemon::relay_probe::ProbedRelay;
pub use crate::daemon::shipped::auditor;
use crate::daemon::sockets::Sockets;
use crate::daemon::stores::Stores;
use crate::dns::{Dns, Watch};
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::net::{Endpoint, Listener, Purpose};
use crate::relay::Relay;
use crate::server::{self, Moved, Server};
use crate::stats::Monitor;
use crate::store::shared::Elsewhere;
use crate::tls::Acceptor;

#[derive(Debug)]
pub struct Daemon {
    parts: Parts,
    observers: Observers,
    stores: Stores,
    watch: Watch,
    /// The gate of the settings in effect, for connections that outlive a reload.
    current: watch::Sender<Arc<Gate>>,
    server: Server,
    admin: Admin,
    /// Looks after the certificate in use.
    certificate: Option<DropGuard>,
    /// Ends permits in time.
    _permits: DropGuard,
}

impl Daemon {
    /// Binds the listeners, probes the relay, and serves. A relay that is down doesn't stop the start. A relay that
    /// would make rmxd an open relay does (contract 1.7), and so does a Maildir that can't be written. `passed` are the
    /// sockets that the service manager passed.
    ///
    /// # Errors
    /// The reason why the daemon can't start.
    pub async fn start(settings: Settings, passed: Vec<Listener>) -> Result<Self, StartError> {
        let metrics = Metrics::default();
        let dns = Dns::with_metrics(settings.dns.clone(), metrics.clone())?;
        let watch = dns.watch();
        // Before the probe of the relay: clients wait in the queue meanwhile, and an error appears at once.
        let sockets = Sockets::open(&settings, passed)?;
        let tls = settings.tls.clone().map(|tls| Acceptor::with_metrics(tls, metrics.clone())).transpose()?;
        let mut stores = Stores::new(&settings);
        let history = stores.history(&settings).await?;
        raise_descriptor_limit(&settings);
        let relay = Relay::with_metrics(settings.relay.clone(), metrics.clone());
        let (relay, ()) = tokio::try_join!(
            async { ProbedRelay::start(relay, sockets.take_mail()).await.map_err(StartError::from) },
            async {
                let listeners = sockets.all().filter(|_| sockets.take_mail());
                own_relay::refuse(&settings, listeners).await.map_err(StartError::from)
            },
        )?;
        // Last, so that a start that fails for another reason creates no file.
        let (started, elsewhere) = (SystemTime::now(), Elsewhere::default());
        let reloads = Reloads::started(started);
        let observers = Observers { monitor: Monitor::default(), metrics, started, reloads, elsewhere };
        let fleet = stores.fleet(&settings, &observers).await?;
        let greylist = stores.greylist(&settings).await?.map(|greylist| greylist.with_fleet(fleet.clone()));
        let permits = stores.permits().await?;
        let parts = Parts { settings, dns, relay, tls, greylist, history, permits, fleet };
        let gate = parts.gate(&observers);
        let current = watch::Sender::new(Arc::clone(&gate));
        let services = parts.services(gate, &current, &observers);
        let server = (parts.settings.server.clone(), observers.metrics.clone(), observers.elsewhere.clone());
        let server = Server::start(server.0, services, sockets.doors, server.1, server.2)?;
        parts.tell_fleet(&server);
        let admin = Admin::start(parts.admin(&observers, server.status())?, sockets.admin)?;
        stores.take_over(&parts);
        let certificate = parts.tls.clone().map(certificate::watch);
        let permits = permits::watch(parts.permits.clone());
        Ok(Self { parts, observers, stores, watch, current, server, admin, certificate, _permits: permits })
    }

    /// Replaces the settings: new connections use them, and open ones keep the old ones. Parts whose settings stay the
    /// same go on: the cache of DNS (unless `dns.servers` changed), the counts of connections, and the relay with its
    /// connections. The relay's connections of old sessions count against the new `relay.max_connections` too, unless
    /// `relay.next_hop` changed: then they are connections to the old host. While an old resolver still has sessions to
    /// serve, its limits count beside those of the new one.
    ///
    /// # Errors
    /// As [`Daemon::start`]; nothing has changed then. The same holds if the future is dropped before its end.
    pub async fn reload(&mut self, settings: Settings) -> Result<Moved, StartError> {
        let parts = self.parts_of(settings).await?;
        let settings = &parts.settings;
        sockets::require_token(&self.admin.endpoints(), settings)?;
        let state = parts.admin(&self.observers, self.server.status())?;
        let admin = self.admin.prepare(settings.admin.listen.as_ref())?;
        let gate = parts.gate(&self.observers);
        let services = parts.services(Arc::clone(&gate), &self.current, &self.observers);
        let moved = self.server.reload(settings.server.clone(), services)?;
        // From here on nothing fails or waits.
        parts.tell_fleet(&self.server);
        self.current.send_replace(gate);
        self.admin.reload(state, admin);
        raise_descriptor_limit(settings);
        if !parts.dns.has_servers_of(&self.parts.dns) {
            self.watch = parts.dns.watch();
        }
        self.stores.take_over(&parts);
        self.certificate = parts.tls.clone().map(certificate::watch);
        self.parts = parts;
        Ok(moved)
    }

    /// What became of the last reload; `None` before the first.
    #[must_use]
    pub fn last_reload(&self) -> Option<Reload> {
        self.observers.reloads.last()
    }

    /// For the status of the daemon; the caller knows why a configuration can't even be read.
    pub fn note_reload(&self, reload: Reload) {
        self.observers.reloads.note(reload);
    }

    /// The parts for other settings, with those that go on.
    async fn parts_of(&self, settings: Settings) -> Result<Parts, StartError> {
        let before = &self.parts;
        let passed = self.server.passed().filter(|_| self.server.was_passed(Purpose::Smtp));
        own_relay::refuse(&settings, passed).await?;
        let dns = before.dns.with_settings(settings.dns.clone()).await?;
        let fleet = self.stores.fleet(&settings, &self.observers).await?;
        let greylist =
            self.stores.greylist(&settings).await?.map(|greylist| greylist.with_fleet(fleet.clone()));
        let history = self.stores.history(&settings).await?;
        let tls = settings.tls.clone().map(|tls| match &before.tls {
            Some(before) => before.with_settings(tls),
            None => Acceptor::with_metrics(tls, self.observers.metrics.clone()),
        });
        let tls = tls.transpose()?;
        let is_used = self.server.was_passed(Purpose::Smtp)
            || settings.server.listen.iter().any(|(purpose, _)| *purpose == Purpose::Smtp);
        let relay = if settings.relay == before.settings.relay && is_used == before.relay.is_used() {
            before.relay.clone()
        } else {
            before.relay.with_settings(&settings.relay, is_used).await?
        };
        let permits = before.permits.clone();
        Ok(Parts { settings, dns, relay, tls, greylist, history, permits, fleet })
    }

    /// The settings in effect for new connections.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.parts.settings
    }

    /// Counts refusals, from the start on; a reload doesn't reset it.
    #[must_use]
    pub fn monitor(&self) -> &Monitor {
        &self.observers.monitor
    }

    /// The endpoints of metrics and the API.
    #[must_use]
    pub fn admin_endpoints(&self) -> Vec<Endpoint> {
        self.admin.endpoints()
    }

    /// The endpoints of the doors.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.server.endpoints()
    }

    /// Takes no new connections and waits for the open ones. Returns how many were still open at the end of the drain
    /// time.
    pub async fn drain(self) -> usize {
        let cut_off = self.server.drain().await;
        self.stores.write().await;
        // Last, so that an operator can watch the drain.
        self.admin.stop().await;
        cut_off
    }
}

fn raise_descriptor_limit(settings: &Settings) {
    server::raise_descriptor_limit(settings.server.connections + settings.relay.max_connections);
}
