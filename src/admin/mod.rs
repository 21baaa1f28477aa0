//! A running daemon over HTTP, for operators: health, readiness, metrics, the API.
//!
//! It has little power over mail: its connections, the octets and the time of a request are bounded, a panic in it ends
//! one request, and it asks DNS by a budget of its own. It serves clients on loopback or on a unix socket, and those with
//! the token, but no page of another origin (there are no CORS headers, and without a token a name in `Host:` is refused).
//! It isn't meant for the open network: it has neither TLS nor users; a reverse proxy has both.
//!
//! In the order of a request: `listener` serves the connection, `permits` bounds how many there are, `guard` and `rate`
//! let the request in or not, `routes` is the table of all resources, `query` reads the parameters, and the handlers are
//! below `api` or beside it. An error is a `problem`, in one shape. A reload replaces the [`State`]; requests in work end
//! with the one that they began with.

mod api;
mod call;
mod client;
mod fortnight;
mod guard;
mod listener;
mod page;
mod permits;
mod problem;
mod query;
mod rate;
mod ready;
mod recent;
mod reloads;
mod routes;
mod scrape;
mod series;
mod token;
mod tops;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::api::past::LastTop;
use crate::admin::fortnight::Fortnight;
use crate::admin::listener::Http;
use crate::admin::rate::Rates;
use crate::admin::recent::{Counted, Recent};
use crate::admin::series::{BEAT, Series, Totals};
use crate::audit::Auditor;
use crate::dns::Dns;
use crate::gate::Gate;
use crate::gate::hindsight::Candidate;
use crate::metrics::Metrics;
use crate::net::listener::Registered;
use crate::net::{Endpoint, ListenError, Listener, Purpose};
use crate::relay::Relay;
use crate::server;
use crate::smtp::address::DomainName;
use crate::store::greylist::Greylist;
use crate::store::history::History;
use crate::store::permits::PermitStore;
use crate::store::shared::Fleet;
use crate::tls::Acceptor;

pub use crate::admin::api::openapi::DOCUMENT as OPENAPI;
pub use crate::admin::client::{AskError, Client, encoded};
pub use crate::admin::reloads::{Reload, Reloads};
pub use crate::admin::token::Token;

/// `[listen] admin` and `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where to listen; `None` = nowhere, but for sockets that were passed.
    pub listen: Option<Endpoint>,
    /// What metrics and the API require; `None` = nothing, and then only this machine can connect to `listen`.
    pub token: Option<Token>,
}

/// The source of all responses. A reload makes a new one.
#[derive(Debug)]
pub struct State {
    /// Which requests are let in.
    pub settings: Settings,
    /// The daemon's name servers and its cache.
    pub dns: Dns,
    /// The next hop.
    pub relay: Relay,
    /// Whether some door sends mail to the next hop; without one it is never tried.
    pub relay_is_used: bool,
    /// The server of the doors.
    pub server: server::Status,
    /// What is counted.
    pub metrics: Metrics,
    /// When the daemon started.
    pub started: SystemTime,
    /// The last reload.
    pub reloads: Reloads,
    /// The certificate, where STARTTLS is offered.
    pub tls: Option<Acceptor>,
    /// Past decisions; `None` = none are kept.
    pub history: Option<History>,
    /// `None` if no rule has the action `greylist`.
    pub greylist: Option<Greylist>,
    /// Temporary permits.
    pub permits: PermitStore,
    /// `None` without `cluster.redis`.
    pub fleet: Option<Fleet>,
    /// The daemon's own name.
    pub hostname: DomainName,
    /// Judges as the daemon does, over the same cache, but greylists and counts nothing.
    pub gate: Arc<Gate>,
    /// Another policy over the running configuration.
    pub other_policy: OtherPolicy,
    /// Audits by the shipped policies and the daemon's own, over the same cache.
    pub auditor: Auditor,
}

/// Reads keys of `[policy]` as TOML, over the running configuration: what would decide by them, or what is wrong with the text.
pub struct OtherPolicy(Box<dyn Fn(&str) -> Result<Candidate, String> + Send + Sync>);

impl OtherPolicy {
    pub fn new(read: impl Fn(&str) -> Result<Candidate, String> + Send + Sync + 'static) -> Self {
        Self(Box::new(read))
    }

    fn read(&self, text: &str) -> Result<Candidate, String> {
        (self.0)(text)
    }
}

impl fmt::Debug for OtherPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OtherPolicy")
    }
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    current: watch::Sender<Arc<State>>,
    rates: Rates,
    series: Arc<Series>,
    recent: Recent,
    top: LastTop,
    fortnight: Arc<Fortnight>,
}

impl Shared {
    fn state(&self) -> Arc<State> {
        Arc::clone(&self.current.borrow())
    }
}

/// The running server. Dropped without [`Admin::stop`], it goes on as long as the runtime.
#[derive(Debug)]
pub struct Admin {
    shared: Arc<Shared>,
    http: Arc<Http>,
    open: Vec<Open>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A listener that is served.
#[derive(Debug)]
struct Open {
    endpoint: Endpoint,
    /// As the operator wrote it, where the port may be 0; `None` for a passed socket.
    bound_as: Option<Endpoint>,
    close: CancellationToken,
}

/// What a reload does with the listener of our own; made before anything is changed, as binding can fail.
#[derive(Debug)]
pub struct Move(To);

#[derive(Debug)]
enum To {
    Stay,
    Nowhere,
    Elsewhere(Registered),
}

impl Admin {
    /// Serves these listeners; a reload may open another later.
    ///
    /// # Errors
    /// The runtime can't take a listener.
    pub fn start(state: State, listeners: Vec<Listener>) -> Result<Self, ListenError> {
        let listeners = listeners.into_iter().map(Listener::register).collect::<Result<Vec<_>, _>>()?;
        let current = watch::Sender::new(Arc::new(state));
        let (rates, series, recent) = (Rates::default(), Arc::default(), Recent::default());
        let (top, fortnight) = (LastTop::default(), Arc::default());
        let shared = Arc::new(Shared { current, rates, series, recent, top, fortnight });
        let http = Arc::new(Http::new(routes::router(Arc::clone(&shared))));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(stop.clone().run_until_cancelled_owned(sample(Arc::clone(&shared))));
        let mut admin = Self { shared, http, open: Vec::new(), tasks, stop };
        for listener in listeners {
            admin.serve(listener);
        }
        Ok(admin)
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.open.iter().map(|open| open.endpoint.clone()).collect()
    }

    /// What [`Admin::reload`] will need for this endpoint.
    ///
    /// # Errors
    /// It can't be bound.
    pub fn prepare(&self, wanted: Option<&Endpoint>) -> Result<Move, ListenError> {
        let passed = |endpoint: &Endpoint| {
            self.open.iter().any(|open| open.bound_as.is_none() && open.endpoint == *endpoint)
        };
        let wanted = wanted.filter(|endpoint| !passed(endpoint));
        let held = self.open.iter().find_map(|open| open.bound_as.as_ref());
        Ok(Move(match wanted {
            _ if wanted == held => To::Stay,
            None => To::Nowhere,
            Some(endpoint) => To::Elsewhere(Listener::bind(Purpose::Admin, endpoint)?.register()?),
        }))
    }

    /// From now on requests are answered from this state, and the new endpoint is served. Connections to the old one may
    /// finish the request in work.
    pub fn reload(&mut self, state: State, moved: Move) {
        // First of all: no client of the old endpoint may find it open under rules that were made for the new one.
        if !matches!(moved.0, To::Stay) {
            for closed in self.open.extract_if(.., |open| open.bound_as.is_some()) {
                closed.close.cancel();
            }
        }
        self.shared.current.send_replace(Arc::new(state));
        if let To::Elsewhere(listener) = moved.0 {
            self.serve(listener);
        }
    }

    /// Takes no more requests and waits a moment for those in work.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        // What is still there is a client that doesn't read; it ends with the runtime.
        tokio::time::timeout(listener::GRACE, self.tasks.wait()).await.ok();
    }

    fn serve(&mut self, listener: Registered) {
        let close = self.stop.child_token();
        self.open.push(Open {
            endpoint: listener.endpoint().clone(),
            bound_as: listener.bound_as().cloned(),
            close: close.clone(),
        });
        self.tasks.spawn(Arc::clone(&self.http).serve(listener, close, self.tasks.clone()));
    }
}

/// Samples the counters all the time, so that a page shows the time before it was opened too.
async fn sample(shared: Arc<Shared>) {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let at = beat.tick().await;
        let state = shared.state();
        let metrics = &state.metrics;
        let verdicts = metrics.verdicts().into_iter();
        let verdicts = verdicts.map(|(verdict, reason, mode, total)| ((verdict, reason, mode), total));
        let (hits, lookups) = metrics.cache_lookups();
        let totals = Totals { verdicts: verdicts.collect(), hits, lookups };
        shared.series.sample(SystemTime::now(), at, &totals);
        let dropped = state.history.as_ref().map_or(0, |history| history.count().dropped);
        shared.recent.sample(at, Counted::now(metrics, dropped));
    }
}
