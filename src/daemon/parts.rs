//! The parts that serve new connections: a start and a reload build the doors and the admin server's state from them
//! alike.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::admin::{self, OtherPolicy};
use crate::config::Settings;
use crate::daemon::gate::{gate_with_permits, gate_with_services, smtp_door};
use crate::daemon::relay_probe::ProbedRelay;
use crate::daemon::{StartError, auditor};
use crate::dns::Dns;
use crate::door::{MilterDoor, PolicyDoor};
use crate::gate::hindsight::Candidate;
use crate::gate::{Gate, Services};
use crate::metrics::Metrics;
use crate::net::Purpose;
use crate::server::{self, Server, Service};
use crate::stats::Monitor;
use crate::store::greylist::Greylist;
use crate::store::history::History;
use crate::store::permits::PermitStore;
use crate::store::shared::{Elsewhere, Fleet};
use crate::tls::Acceptor;

/// Settings and the parts built from them. A reload builds new ones.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) settings: Settings,
    pub(super) dns: Dns,
    pub(super) relay: ProbedRelay,
    pub(super) tls: Option<Acceptor>,
    pub(super) greylist: Option<Greylist>,
    pub(super) history: Option<History>,
    pub(super) permits: PermitStore,
    pub(super) fleet: Option<Fleet>,
}

/// Counters that live from the start to the end.
#[derive(Debug)]
pub(super) struct Observers {
    pub(super) monitor: Monitor,
    pub(super) metrics: Metrics,
    pub(super) started: SystemTime,
    pub(super) reloads: admin::Reloads,
    /// Connections at the other nodes of a fleet.
    pub(super) elsewhere: Elsewhere,
}

impl Parts {
    pub(super) fn gate(&self, observers: &Observers) -> Arc<Gate> {
        let services = Services {
            greylist: self.greylist.clone(),
            monitor: observers.monitor.clone(),
            metrics: observers.metrics.clone(),
            history: self.history.clone(),
            permits: Some(self.permits.clone()),
            node: self.settings.node,
        };
        gate_with_services(self.dns.clone(), &self.settings, services)
    }

    /// Lets the fleet know which clients have many connections here, and shares the permits with it.
    pub(super) fn tell_fleet(&self, server: &Server) {
        if let Some(fleet) = &self.fleet {
            fleet.set_source(server.busy_clients());
            fleet.share_permits(&self.permits);
        }
    }

    /// All doors; those without a listener serve nobody. `current` has the gate of the settings in effect.
    pub(super) fn services(
        &self,
        gate: Arc<Gate>,
        current: &watch::Sender<Arc<Gate>>,
        observers: &Observers,
    ) -> Vec<Service> {
        let milter = MilterDoor {
            settings: self.settings.milter,
            hostname: self.settings.hostname.clone(),
            header_block: self.settings.door.header_block,
            gate: Arc::clone(&gate),
            metrics: observers.metrics.clone(),
        };
        let smtp = smtp_door(&self.settings, gate, self.relay.relay.clone(), self.tls.clone());
        let policy = PolicyDoor::new(current.subscribe(), observers.metrics.clone());
        vec![
            Service::new(Purpose::Smtp, smtp),
            Service::new(Purpose::Milter, milter),
            Service::new(Purpose::Policy, policy),
        ]
    }

    /// The state from which the admin server replies.
    ///
    /// # Errors
    /// As [`gate_with_permits`] and [`auditor`].
    pub(super) fn admin(
        &self,
        observers: &Observers,
        server: server::Status,
    ) -> Result<admin::State, StartError> {
        let settings = &self.settings;
        Ok(admin::State {
            settings: settings.admin.clone(),
            dns: self.dns.clone(),
            relay: self.relay.relay.clone(),
            relay_is_used: self.relay.is_used(),
            server,
            metrics: observers.metrics.clone(),
            started: observers.started,
            reloads: observers.reloads.clone(),
            tls: self.tls.clone(),
            history: self.history.clone(),
            greylist: self.greylist.clone(),
            permits: self.permits.clone(),
            fleet: self.fleet.clone(),
            hostname: settings.hostname.clone(),
            gate: gate_with_permits(self.dns.clone(), settings, Some(self.permits.clone()))?,
            other_policy: other_policy(settings),
            auditor: auditor(&self.dns, settings, true).map_err(StartError::Auditor)?,
        })
    }
}

/// The keys of `[policy]` in a text, over these settings.
fn other_policy(settings: &Settings) -> OtherPolicy {
    let (base, running) = (settings.base.clone(), settings.gate.clone());
    OtherPolicy::new(move |text| {
        let base = base.as_ref().ok_or("this daemon has no configuration to put it over")?;
        let (gate, reverse_mx) = base.with_policy(text, &running).map_err(|problems| {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            problems.join("; ")
        })?;
        Ok(Candidate::new(&gate, &reverse_mx))
    })
}
