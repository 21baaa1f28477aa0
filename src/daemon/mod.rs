//! Starts everything that a configuration describes, for `rmxd serve` and `rmxd demo` alike.

mod relay_probe;
mod shipped;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::admin::{self, Admin, BindError};
use crate::config::Settings;
use crate::daemon::relay_probe::Probed;
pub(crate) use crate::daemon::shipped::auditor;
use crate::dns::{Dns, SetupError, Watch};
use crate::door::Door;
use crate::gate::{Gate, Services};
use crate::metrics::Metrics;
use crate::policy::identity::Identity;
use crate::policy::rule::{Action, Rung};
use crate::relay::{Relay, RelayError};
use crate::reverse_mx::ReverseMx;
use crate::server::{self, ListenError, Listener, Moved, Server};
use crate::stats::Monitor;
use crate::store::OpenError;
use crate::store::greylist::Greylist;
use crate::store::history::{History, WeakHistory};
use crate::tls::{self, Acceptor};

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    settings: Settings,
    dns: Dns,
    watch: Watch,
    /// Stays open once it was opened: old sessions may still ask, and what it knows may be wanted again.
    greylist: Option<Greylist>,
    monitor: Monitor,
    metrics: Metrics,
    started: SystemTime,
    history: Option<History>,
    /// All that were open before: old sessions may still write there, and nobody else can.
    histories: Vec<WeakHistory>,
    relay: Probed,
    tls: Option<Acceptor>,
    server: Server,
    admin: Admin,
}

/// Why a daemon can't start, or can't go over to other settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("dns.servers: {0}")]
    Dns(#[from] SetupError),
    #[error("{0}")]
    Listen(#[from] ListenError),
    #[error("{0}")]
    Admin(#[from] BindError),
    #[error("greylist: {0}")]
    Greylist(OpenError),
    #[error("history.path: {0}")]
    History(OpenError),
    #[error("the store could not be opened: {0}")]
    StoreDied(tokio::task::JoinError),
    #[error("{0}")]
    Tls(#[from] tls::LoadError),
    #[error("relay.next_hop: {0}")]
    Relay(#[from] RelayError),
    #[error("the policies that rmxd audit asks: {0}")]
    Auditor(String),
    #[error("{0}")]
    Random(std::io::Error),
}

/// What decides, without listeners: `rmxd check` needs no more. Its greylist knows nobody, the daemon's isn't touched.
pub(crate) fn gate(settings: &Settings) -> Result<Arc<Gate>, StartError> {
    gate_over(Dns::new(settings.dns.clone())?, settings)
}

/// The same over a DNS that others use too.
pub(crate) fn gate_over(dns: Dns, settings: &Settings) -> Result<Arc<Gate>, StartError> {
    let reverse_mx = ReverseMx::new(dns, settings.reverse_mx.clone());
    let greylist = settings.greylist.clone().map(Greylist::in_memory).transpose();
    let greylist = greylist.map_err(StartError::Random)?;
    let services = Services { greylist, ..Services::default() };
    Ok(Gate::with_services(settings.gate.clone(), reverse_mx, deadline(settings), services))
}

/// What SPF is to be given (RFC 7208 4.6.4): its look-ups come one after the other.
const SPF_TIME: Duration = Duration::from_secs(20);

/// The longest way but SPF's: MX, then its host, then the same for the organisational domain, side by side with nothing.
fn deadline(settings: &Settings) -> Duration {
    let longest = settings.dns.timeout * 3;
    let asks_spf = |identity| {
        let rules = settings.gate.policy.rules(identity);
        rules.matches != Action::Off && rules.matches_by.contains(&Rung::Spf)
    };
    if Identity::ALL.into_iter().any(asks_spf) { longest.max(SPF_TIME) } else { longest }
}

impl Daemon {
    /// Binds, learns what the relay can take, and serves. A relay that is down is no obstacle; one that would make an
    /// open relay of us is (contract 1.7), and so is a Maildir that can't be written.
    pub(crate) async fn start(settings: Settings, passed: Vec<Listener>) -> Result<Self, StartError> {
        let metrics = Metrics::default();
        let dns = Dns::with_metrics(settings.dns.clone(), metrics.clone())?;
        let watch = dns.watch();
        let reverse_mx = ReverseMx::new(dns.clone(), settings.reverse_mx.clone());
        let monitor = Monitor::default();
        // Before the relay is asked: who comes meanwhile waits, and what can't be had is said at once.
        let listeners = server::listeners(&settings.server.listen, passed)?;
        let admin = settings.admin.listen.map(admin::Listener::bind).transpose()?;
        let tls = settings.tls.clone().map(Acceptor::load).transpose()?;
        let history = history(&[], &settings).await?;
        server::raise_descriptor_limit(settings.server.connections + settings.relay.max_connections);
        let relay = Probed::start(Relay::with_metrics(settings.relay.clone(), metrics.clone())).await?;
        // Last, so that a start which fails for another reason makes no file.
        let greylist = greylist(None, &settings).await?;
        let services = Services {
            greylist: greylist.clone(),
            monitor: monitor.clone(),
            metrics: metrics.clone(),
            history: history.clone(),
        };
        let gate = Gate::with_services(settings.gate.clone(), reverse_mx, deadline(&settings), services);
        let door = door(&settings, gate, &relay, tls.as_ref());
        let server = Server::start(settings.server.clone(), door, listeners, metrics.clone())?;
        let started = SystemTime::now();
        let seen = Seen {
            dns: &dns,
            relay: &relay,
            server: &server,
            metrics: &metrics,
            started,
            history: history.as_ref(),
        };
        let admin = Admin::start(seen.state(&settings)?, admin)?;
        let histories = history.iter().map(History::downgrade).collect();
        Ok(Self {
            settings,
            dns,
            watch,
            greylist,
            monitor,
            metrics,
            started,
            history,
            histories,
            relay,
            tls,
            server,
            admin,
        })
    }

    /// Goes over to other settings: new connections are served by them, open ones end as they began. What is not told
    /// otherwise goes on: the cache of DNS (unless `dns.servers` changed), the counts of connections, and the relay with
    /// its connections. What old sessions have of the relay counts against the new `relay.max_connections` too, unless
    /// `relay.next_hop` changed: then it is the old host's. While an old resolver still has sessions to serve, its limits
    /// count beside those of the new one.
    ///
    /// # Errors
    /// As [`Daemon::start`]; then nothing has changed. The same when the future is dropped before its end.
    pub(crate) async fn reload(&mut self, settings: Settings) -> Result<Moved, StartError> {
        let dns = self.dns.with_settings(settings.dns.clone()).await?;
        let reverse_mx = ReverseMx::new(dns.clone(), settings.reverse_mx.clone());
        let greylist = greylist(self.greylist.as_ref(), &settings).await?;
        let history = history(&self.histories, &settings).await?;
        let (monitor, metrics) = (self.monitor.clone(), self.metrics.clone());
        let services = Services { greylist: greylist.clone(), monitor, metrics, history: history.clone() };
        let gate = Gate::with_services(settings.gate.clone(), reverse_mx, deadline(&settings), services);
        let tls = settings.tls.clone().map(|tls| match &self.tls {
            Some(before) => before.with_settings(tls),
            None => Acceptor::load(tls),
        });
        let tls = tls.transpose()?;
        let other = if settings.relay == self.settings.relay {
            None
        } else {
            Some(self.relay.with_settings(&settings.relay).await?)
        };
        let relay = other.as_ref().unwrap_or(&self.relay);
        let door = door(&settings, gate, relay, tls.as_ref());
        let (server, metrics, started) = (&self.server, &self.metrics, self.started);
        let seen = Seen { dns: &dns, relay, server, metrics, started, history: history.as_ref() };
        let admin = seen.state(&settings)?;
        let admin_moved = self.admin.prepare(settings.admin.listen)?;
        let moved = self.server.reload(settings.server.clone(), door)?;
        // From here on nothing fails or waits.
        self.admin.reload(admin, admin_moved);
        server::raise_descriptor_limit(settings.server.connections + settings.relay.max_connections);
        if !dns.has_servers_of(&self.dns) {
            self.watch = dns.watch();
        }
        self.take_history(history, &settings);
        (self.settings, self.dns, self.tls) = (settings, dns, tls);
        if let Some(greylist) = greylist {
            greylist.take_over();
            self.greylist = Some(greylist);
        }
        if let Some(relay) = other {
            self.relay = relay;
        }
        Ok(moved)
    }

    /// From here on, what new sessions decide goes to this one.
    fn take_history(&mut self, history: Option<History>, settings: &Settings) {
        self.histories.retain(|before| before.wake().is_some());
        if let (Some(history), Some(wanted)) = (&history, &settings.history) {
            history.renew(wanted);
            self.histories.push(history.downgrade());
        }
        self.history = history;
    }

    /// What new connections are served by.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What counts refusals, before and after a reload.
    pub(crate) fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Where metrics and the API are.
    pub(crate) fn admin(&self) -> Option<SocketAddr> {
        self.admin.address()
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.server.addresses()
    }

    /// Takes no new connections and waits for the open ones; how many were cut off at the end.
    pub(crate) async fn drain(self) -> usize {
        let cut_off = self.server.drain().await;
        if let Some(greylist) = self.greylist
            && tokio::task::spawn_blocking(move || greylist.flush()).await.is_err()
        {
            tracing::error!("the greylist could not be written");
        }
        // Those too that only sessions from before a reload wrote to.
        let histories = self.histories;
        let settle = move || histories.iter().for_each(WeakHistory::settle);
        if tokio::task::spawn_blocking(settle).await.is_err() {
            tracing::error!("the history could not be written");
        }
        // Last, so that the end can be watched.
        self.admin.stop().await;
        cut_off
    }
}

/// The greylist that these settings want: that of before, or one that is opened now.
async fn greylist(before: Option<&Greylist>, settings: &Settings) -> Result<Option<Greylist>, StartError> {
    let Some(wanted) = settings.greylist.clone() else { return Ok(None) };
    if let Some(before) = before {
        return Ok(Some(before.with_settings(wanted)));
    }
    let settings = wanted.clone();
    let opened = tokio::task::spawn_blocking(move || Greylist::open(settings)).await;
    match opened.map_err(StartError::StoreDied)? {
        Ok(greylist) => Ok(Some(greylist)),
        // The defaults greylist, and whoever starts rmxd where it may not write has no other reason to write.
        Err(OpenError::Io { path, error }) if may_not_write(&error) => {
            let path = path.display();
            tracing::warn!(%path, %error, "the greylist is kept in memory only, a restart forgets it");
            Greylist::in_memory(wanted).map(Some).map_err(StartError::Random)
        }
        Err(error) => Err(StartError::Greylist(error)),
    }
}

fn may_not_write(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// The history that these settings want: one that is open, or one that is opened now.
async fn history(before: &[WeakHistory], settings: &Settings) -> Result<Option<History>, StartError> {
    let Some(wanted) = settings.history.clone() else { return Ok(None) };
    let open = before.iter().filter_map(WeakHistory::wake).find(|history| history.is_at(&wanted));
    if open.is_some() {
        return Ok(open);
    }
    let opened = tokio::task::spawn_blocking(move || History::open(&wanted)).await;
    opened.map_err(StartError::StoreDied)?.map(Some).map_err(StartError::History)
}

/// What `listen.admin` shows.
struct Seen<'a> {
    dns: &'a Dns,
    relay: &'a Probed,
    server: &'a Server,
    metrics: &'a Metrics,
    started: SystemTime,
    history: Option<&'a History>,
}

impl Seen<'_> {
    fn state(&self, settings: &Settings) -> Result<admin::State, StartError> {
        Ok(admin::State {
            settings: settings.admin.clone(),
            dns: self.dns.clone(),
            relay: self.relay.relay.clone(),
            server: self.server.status(),
            metrics: self.metrics.clone(),
            started: self.started,
            history: self.history.cloned(),
            hostname: settings.hostname.clone(),
            gate: gate_over(self.dns.clone(), settings)?,
            auditor: auditor(self.dns, settings, true).map_err(StartError::Auditor)?,
        })
    }
}

fn door(settings: &Settings, gate: Arc<Gate>, relay: &Probed, tls: Option<&Acceptor>) -> Door {
    Door {
        settings: Arc::new(settings.door.clone()),
        session: Arc::new(settings.session.clone()),
        gate,
        relay: relay.relay.clone(),
        tls: tls.cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DRAIN, Flags, load};

    #[test]
    fn spf_has_the_time_that_it_takes_where_it_is_asked_for() {
        let rows: [(&[(&str, &str)], u64); 5] = [
            (&[], 20),
            (&[("policy.matches_by", "mx,spf")], 20),
            (&[("policy.matches_by", "mx,spf"), ("dns.timeout", "10s")], 30),
            (&[("policy.matches_by", "mx,ptr")], 15),
            (&[("policy.mail_from.matches", "off")], 15),
        ];
        for (lines, seconds) in rows {
            let base = [("hostname", "gate.test"), ("relay.domains", "here.test")];
            let set = base.iter().chain(lines).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let settings = load(None, [], &Flags { set: set.collect(), drain: DRAIN }).unwrap().settings;
            assert_eq!(deadline(&settings).as_secs(), seconds, "{lines:?}");
        }
    }
}
