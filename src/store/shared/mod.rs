//! What several gates share, in Redis (contract 8): the greylist, the permits, which nodes there are, and how many connections
//! their clients have.
//!
//! - Nothing that is read from Redis can become a refusal: an answer is a [`Relief`], which only shortens a wait that this
//!   node asks for anyway, and a permit lets in; its end, which another node has sealed, is the end of an exception.
//!   This module knows no verdict and no reply (`tests/it/layers.rs`).
//! - A session waits for one question at most `cluster.timeout`, for all of its questions three times that (`patience`), and
//!   not at all while Redis is away (`link`).
//! - Without Redis each node goes on alone, and starts without it. A crash leaves nothing to repair: every key expires.
//! - Redis holds keyed hashes and sealed texts only (`keys`).
//!
//! There is no second level for answers of DNS: measured, a hit spares 7 us against a warm resolver, a miss costs as much
//! and a round trip, and denials must not come from it.

mod connect;
mod elsewhere;
mod failure;
mod keys;
mod link;
mod nodes;
mod patience;
mod permits;
mod settings;
mod triples;
mod trouble;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::decision::Node;
use crate::metrics::{ClusterOp, Metrics};
use crate::store::permits::PermitStore;
pub use crate::store::shared::elsewhere::Elsewhere;
use crate::store::shared::keys::Keys;
pub use crate::store::shared::link::Condition;
use crate::store::shared::link::Link;
use crate::store::shared::nodes::Beacon;
pub use crate::store::shared::nodes::{OtherNode, Source};
pub use crate::store::shared::patience::Patience;
use crate::store::shared::permits::Exchange;
pub use crate::store::shared::settings::{FORMS, Host, Secret, Servers, Settings, Target};
use crate::store::shared::triples::Share;
pub use crate::store::shared::triples::{Question, Relief};

/// Passed triples that are on their way to Redis; more are dropped.
const ON_THEIR_WAY: usize = 256;
/// For a change of the permits to reach Redis before its command is answered.
const TELLING: Duration = Duration::from_secs(2);

/// Why the configuration of the fleet can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error("{0}")]
    Refused(String),
    #[error("the system's cryptography fails")]
    Cryptography,
}

/// The other gates, by way of Redis. Clones share one connection; with the last one it is closed.
#[derive(Debug, Clone)]
pub struct Fleet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: Arc<Link>,
    keys: Arc<Keys>,
    beacon: Arc<Beacon>,
    new_triples: Share,
    retries: Share,
    passed_triples: Share,
    telling: Arc<Semaphore>,
    started: Instant,
    /// `None` until the permits of this node are known, and after [`Fleet::retire`].
    permits: Mutex<Option<Sharing>>,
    _keeper: AbortOnDropHandle<()>,
    beating: AbortOnDropHandle<()>,
}

/// The permits of this node, which are shared until this is dropped.
#[derive(Debug)]
struct Sharing {
    exchange: Arc<Exchange>,
    _running: AbortOnDropHandle<()>,
}

impl Fleet {
    /// Connects, and starts what keeps the connection. A Redis that is away is no reason not to start. `elsewhere` gets the
    /// connections that clients have at the other nodes.
    ///
    /// # Errors
    /// Redis refuses this node: a wrong password, a missing right, or another kind of server.
    pub async fn start(
        settings: Settings,
        metrics: Metrics,
        elsewhere: Elsewhere,
    ) -> Result<Self, FleetError> {
        let keys = Keys::new(&settings.prefix, &settings.secret).ok_or(FleetError::Cryptography)?;
        let keys = Arc::new(keys);
        let link = Arc::new(Link::new(settings, metrics));
        match link.connect().await {
            Err(failure) if failure.is_permanent() => return Err(FleetError::Refused(failure.to_string())),
            Err(_away) => {}
            Ok(()) => try_rights(&link, &keys).await?,
        }
        let beacon = Arc::new(Beacon::new(&link, elsewhere));
        let keeper = tokio::spawn(Arc::clone(&link).keep());
        let beating = tokio::spawn(Arc::clone(&beacon).beat(Arc::clone(&link), Arc::clone(&keys)));
        Ok(Self(Arc::new(Inner {
            link,
            keys,
            beacon,
            new_triples: Share::default(),
            retries: Share::default(),
            passed_triples: Share::default(),
            telling: Arc::new(Semaphore::new(ON_THEIR_WAY)),
            started: Instant::now(),
            permits: Mutex::default(),
            _keeper: AbortOnDropHandle::new(keeper),
            beating: AbortOnDropHandle::new(beating),
        })))
    }

    /// A later configuration is in effect: only sessions from before go on with this one, and it isn't a node any more.
    pub fn retire(&self) {
        self.0.beating.abort();
        *self.permits() = None;
    }

    /// Shares the permits of this node with the others from now on, and takes theirs.
    pub fn share_permits(&self, store: &PermitStore) {
        let Inner { link, keys, .. } = &*self.0;
        self.permits().get_or_insert_with(|| {
            let exchange = Arc::new(Exchange::new(Arc::clone(link), Arc::clone(keys), store.clone()));
            let running = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&exchange).run()));
            Sharing { exchange, _running: running }
        });
    }

    /// Tells the other nodes at once what was made and removed here. `false`: they can't know all of it yet, and get it later.
    pub async fn tell_permits(&self) -> bool {
        let exchange = self.permits().as_ref().map(|sharing| Arc::clone(&sharing.exchange));
        match exchange {
            Some(exchange) => tokio::time::timeout(TELLING, exchange.share()).await.unwrap_or(false),
            None => false,
        }
    }

    fn permits(&self) -> MutexGuard<'_, Option<Sharing>> {
        self.0.permits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether both are one.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Where the beacon finds the clients with many connections here.
    pub fn set_source(&self, source: Source) {
        self.0.beacon.set_source(source);
    }

    /// The other nodes that are there.
    #[must_use]
    pub fn others(&self) -> Vec<OtherNode> {
        self.0.beacon.others()
    }

    /// These, and those that were there in the last day: they may answer although Redis is away.
    #[must_use]
    pub fn known(&self) -> Vec<OtherNode> {
        self.0.beacon.known()
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        self.0.link.settings()
    }

    #[must_use]
    pub fn node(&self) -> Node {
        self.settings().node
    }

    /// Whether Redis answers, and what is wrong.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.0.link.condition()
    }

    /// The key under which triples are hashed for Redis.
    #[must_use]
    pub fn secret_of_triples(&self) -> &[u8; 32] {
        self.0.keys.of_triples()
    }

    /// What the other nodes know of a triple that waits here; `None` = nothing. It takes as much of the client's patience as
    /// there is left, and `cluster.timeout` at most.
    pub async fn check(&self, asked: Question<'_>, patience: &Patience) -> Option<Relief> {
        let Inner { link, keys, new_triples, retries, .. } = &*self.0;
        let share = if asked.age.is_zero() { new_triples } else { retries };
        let end = patience.end(self.settings().timeout).filter(|_| self.admits(share));
        let Some(end) = end else {
            link.metrics().cluster_dropped(ClusterOp::Greylist);
            return None;
        };
        triples::check(link, keys, asked, end).await
    }

    fn admits(&self, share: &Share) -> bool {
        share.admit(self.0.started.elapsed().as_secs())
    }

    /// Says that a triple has passed here. It waits for nothing; what can't be said now is dropped and counted.
    pub fn passed(&self, hash: &[u8; 16], expire: Duration) {
        let Inner { link, telling, passed_triples, .. } = &*self.0;
        let is_possible = link.is_up() && self.admits(passed_triples);
        let Some(place) = is_possible.then(|| Arc::clone(telling).try_acquire_owned().ok()).flatten() else {
            link.metrics().cluster_dropped(ClusterOp::Greylist);
            return;
        };
        let (inner, hash) = (Arc::clone(&self.0), *hash);
        tokio::spawn(async move {
            triples::passed(&inner.link, &inner.keys, &hash, expire).await;
            drop(place);
        });
    }
}

/// Tries each command that is used, so that a missing right shows at the start.
async fn try_rights(link: &Link, keys: &Keys) -> Result<(), FleetError> {
    let refused =
        |failure: &failure::Failure| failure.is_permanent().then(|| FleetError::Refused(failure.to_string()));
    let key = keys.node(link.settings().node);
    let mut read = redis::cmd("GETRANGE");
    read.arg(&key).arg(0).arg(0);
    for command in [redis::cmd("TIME"), read] {
        let answer = link.ask(ClusterOp::Nodes, &command).await;
        if let Some(error) = answer.err().as_ref().and_then(refused) {
            return Err(error);
        }
    }
    if let Some(error) = permits::try_rights(link, keys).await.err().as_ref().and_then(refused) {
        return Err(error);
    }
    let hash: [u8; 16] = rand::random();
    // Gone at once: nobody will ask for it.
    let moment = Duration::from_millis(1);
    match triples::try_rights(
        link,
        keys,
        Question { hash: &hash, delay: moment, expire: moment, age: Duration::ZERO },
    )
    .await
    {
        Some(failure) => refused(&failure).map_or(Ok(()), Err),
        None => Ok(()),
    }
}
