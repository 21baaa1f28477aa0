//! What an operator sees of a running daemon over HTTP: health, readiness, metrics, the API.
//!
//! It has little power over mail: its connections, the octets and the time of a request are bounded, a panic in it ends
//! one request, and it asks DNS by a budget of its own. It speaks to loopback or to who has the token, never to a page of
//! another origin (there are no CORS headers, and a name in `Host:` is refused where no token is). It isn't meant for the open
//! network: there is no TLS and there are no users; a reverse proxy has both.
//!
//! In the order of a request: `listener` takes the connection, `guard` and `rate` let the request in or not, `routes`
//! is the table of all there is, `query` reads the parameters, and the handlers stand below `api` or beside it. What goes
//! wrong is a `problem`, in one shape. A reload swaps the [`State`]; requests under way end with the one they began with.

mod api;
mod call;
mod guard;
mod listener;
mod page;
mod problem;
mod query;
mod rate;
mod ready;
mod routes;
mod scrape;
mod series;
mod token;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::api::past::LastTop;
use crate::admin::listener::{Door, Registered};
use crate::admin::rate::Rates;
use crate::admin::series::{BEAT, Series, Totals};
use crate::audit::Auditor;
use crate::dns::Dns;
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::server;
use crate::smtp::address::DomainName;
use crate::store::history::History;

pub use crate::admin::listener::{BindError, Listener};
pub use crate::admin::token::Token;

/// `[listen] admin` and `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where to listen; `None` = nowhere.
    pub listen: Option<SocketAddr>,
    /// What must be shown for metrics and the API; `None` = nothing, and then `listen` is loopback.
    pub token: Option<Token>,
}

/// What requests are answered from. A reload makes a new one.
#[derive(Debug)]
pub struct State {
    /// Who is let in.
    pub settings: Settings,
    /// The daemon's name servers and its cache.
    pub dns: Dns,
    /// The next hop.
    pub relay: Relay,
    /// The listeners for mail.
    pub server: server::Status,
    /// What is counted.
    pub metrics: Metrics,
    /// When the daemon started.
    pub started: SystemTime,
    /// Past decisions; `None` = none are kept.
    pub history: Option<History>,
    /// What the daemon calls itself.
    pub hostname: DomainName,
    /// Judges as the daemon does, over the same cache, and remembers nothing: nobody is greylisted or counted by it.
    pub gate: Arc<Gate>,
    /// Audits by the shipped policies and the daemon's own, over the same cache.
    pub auditor: Auditor,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    current: watch::Sender<Arc<State>>,
    rates: Rates,
    series: Series,
    top: LastTop,
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
    door: Arc<Door>,
    open: Option<Open>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A listener that is served.
#[derive(Debug)]
struct Open {
    address: SocketAddr,
    /// As the operator wrote it, where the port may be 0.
    bound_as: SocketAddr,
    close: CancellationToken,
}

/// What a reload does with the listener; made before anything is changed, as binding can fail.
#[derive(Debug)]
pub struct Move(To);

#[derive(Debug)]
enum To {
    Stay,
    Nowhere,
    Elsewhere(Registered),
}

impl Admin {
    /// Serves this listener, if there is one; a reload may open it later.
    ///
    /// # Errors
    /// The runtime can't take the listener.
    pub fn start(state: State, listener: Option<Listener>) -> Result<Self, BindError> {
        let current = watch::Sender::new(Arc::new(state));
        let (rates, series, top) = (Rates::default(), Series::default(), LastTop::default());
        let shared = Arc::new(Shared { current, rates, series, top });
        let door = Arc::new(Door::new(routes::router(Arc::clone(&shared))));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(stop.clone().run_until_cancelled_owned(sample(Arc::clone(&shared))));
        let mut admin = Self { shared, door, open: None, tasks, stop };
        if let Some(listener) = listener {
            admin.serve(listener.register()?);
        }
        Ok(admin)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.open.as_ref().map(|open| open.address)
    }

    /// What [`Admin::reload`] will need for this address.
    ///
    /// # Errors
    /// It can't be bound.
    pub fn prepare(&self, wanted: Option<SocketAddr>) -> Result<Move, BindError> {
        let held = self.open.as_ref().map(|open| open.bound_as);
        Ok(Move(match wanted {
            _ if wanted == held => To::Stay,
            None => To::Nowhere,
            Some(address) => To::Elsewhere(Listener::bind(address)?.register()?),
        }))
    }

    /// Answers from this state and listens there from now on. Connections to the old address may finish the request that
    /// is under way.
    pub fn reload(&mut self, state: State, moved: Move) {
        // First of all: who came by the old address must not find it open under rules that were made for the new one.
        if !matches!(moved.0, To::Stay) {
            self.close();
        }
        self.shared.current.send_replace(Arc::new(state));
        if let To::Elsewhere(listener) = moved.0 {
            self.serve(listener);
        }
    }

    /// Takes no more requests and waits a moment for those that are under way.
    pub async fn stop(mut self) {
        self.close();
        self.stop.cancel();
        self.tasks.close();
        // What is still there is a client that doesn't read; it ends with the runtime.
        tokio::time::timeout(listener::GRACE, self.tasks.wait()).await.ok();
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            open.close.cancel();
        }
    }

    fn serve(&mut self, listener: Registered) {
        let close = self.stop.child_token();
        self.open =
            Some(Open { address: listener.address, bound_as: listener.bound_as, close: close.clone() });
        self.tasks.spawn(Arc::clone(&self.door).accept_loop(listener, close, self.tasks.clone()));
    }
}

/// Looks at the counters as long as it is let, whether anybody asks or not: a page that is opened shows what was before.
async fn sample(shared: Arc<Shared>) {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let at = beat.tick().await;
        let metrics = shared.state().metrics.clone();
        let verdicts = metrics.verdicts().into_iter();
        let verdicts = verdicts.map(|(verdict, reason, mode, total)| ((verdict, reason, mode), total));
        let (hits, lookups) = metrics.cache_lookups();
        let totals = Totals { verdicts: verdicts.collect(), hits, lookups };
        shared.series.sample(SystemTime::now(), at, &totals);
    }
}
