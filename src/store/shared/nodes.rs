//! The beacon: each node says every two seconds that it is there and how many connections its clients have, and reads what
//! the others say. All of it is sealed, with the time by the server's clock, so that a writer without the secret can't speak
//! for a node, nor repeat what one said long ago.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, Value};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior};

use crate::decision::Node;
use crate::metrics::ClusterOp;
use crate::smtp::escape::OneLine;
use crate::store::shared::elsewhere::{self, Elsewhere};
use crate::store::shared::failure::Failure;
use crate::store::shared::keys::Keys;
use crate::store::shared::link::Link;

const BEAT: Duration = Duration::from_secs(2);
/// Beats between two times that a node says who it is.
const CARD_BEATS: u64 = 5;
/// How long a key stays without its node, in seconds.
const CARD_TTL: u64 = 30;
const CONNECTIONS_TTL: u64 = 10;
/// Octets of a value that are read.
const LONGEST_CARD: usize = 2 << 10;
const LONGEST_CONNECTIONS: usize = 64 << 10;
/// What the seal adds, and a little more.
const SEAL: usize = 64;
/// How long a node that is gone is known.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Octets of a name that are shown.
const LONGEST_NAME: usize = 255;

/// Another one for each start of the program: a reload is no other gate.
static INSTANCE: LazyLock<u64> = LazyLock::new(rand::random);

/// Another node of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherNode {
    pub node: Node,
    /// Its host name.
    pub name: String,
    /// Its version of rmxd.
    pub version: String,
    /// Where it answers for its decisions.
    pub advertise: Option<SocketAddr>,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Card {
    name: String,
    version: String,
    advertise: Option<SocketAddr>,
    instance: u64,
}

/// Gives the clients with many connections here, by their networks.
pub type Source = Arc<dyn Fn() -> Vec<(IpAddr, usize)> + Send + Sync>;

pub(super) struct Beacon {
    card: Card,
    state: Mutex<State>,
    elsewhere: Elsewhere,
}

#[derive(Default)]
struct State {
    source: Option<Source>,
    others: Vec<OtherNode>,
    /// Those that were there in the last day, each with its last time.
    seen: BTreeMap<Node, (OtherNode, Instant)>,
    /// The server's time of the first beat.
    began: Option<u64>,
    /// Another gate with this node's number was logged.
    doubled: bool,
    /// The last text about connections wasn't empty.
    told: bool,
}

impl fmt::Debug for Beacon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beacon").field("card", &self.card).finish_non_exhaustive()
    }
}

impl Beacon {
    pub(super) fn new(link: &Link, elsewhere: Elsewhere) -> Self {
        let settings = link.settings();
        let card = Card {
            name: settings.hostname.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            advertise: settings.advertise,
            instance: *INSTANCE,
        };
        Self { card, state: Mutex::default(), elsewhere }
    }

    pub(super) fn set_source(&self, source: Source) {
        self.state().source = Some(source);
    }

    pub(super) fn others(&self) -> Vec<OtherNode> {
        self.state().others.clone()
    }

    /// Those that are there, and those that were in the last day.
    pub(super) fn known(&self) -> Vec<OtherNode> {
        let state = self.state();
        state
            .seen
            .values()
            .filter(|(_, last)| last.elapsed() < REMEMBERED)
            .map(|(other, _)| other.clone())
            .collect()
    }

    /// Beats until it is cancelled.
    pub(super) async fn beat(self: Arc<Self>, link: Arc<Link>, keys: Arc<Keys>) {
        let mut beats = tokio::time::interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut left = 0;
        loop {
            beats.tick().await;
            if !link.is_up() {
                (left, self.state().others) = (0, Vec::new());
                continue;
            }
            let Some(now) = time(&link).await else { continue };
            if left == 0 {
                self.exchange_cards(&link, &keys, now).await;
                left = CARD_BEATS;
            }
            left -= 1;
            self.exchange_connections(&link, &keys, now).await;
        }
    }

    async fn exchange_cards(&self, link: &Link, keys: &Keys, now: u64) {
        let own = link.settings().node;
        let cards = join_all(Node::of_a_fleet().map(async |node| {
            let text =
                read(link, keys, ClusterOp::Nodes, &keys.node(node), LONGEST_CARD, now, CARD_TTL).await;
            text.and_then(|(at, text)| Some((node, at, serde_json::from_slice::<Card>(&text).ok()?)))
        }));
        let cards: Vec<(Node, u64, Card)> = cards.await.into_iter().flatten().collect();
        self.note_cards(own, now, cards);
        let text = serde_json::to_vec(&self.card).unwrap_or_default();
        write(link, keys, ClusterOp::Nodes, &keys.node(own), now, &text, CARD_TTL).await;
    }

    fn note_cards(&self, own: Node, now: u64, cards: Vec<(Node, u64, Card)>) {
        let mut state = self.state();
        let began = *state.began.get_or_insert(now);
        let is_double = |(node, at, card): &&(Node, u64, Card)| {
            *node == own && card.instance != self.card.instance && *at > began
        };
        if let Some((.., card)) = cards.iter().find(is_double)
            && !std::mem::replace(&mut state.doubled, true)
        {
            let other = OneLine(&card.name).to_string();
            tracing::error!(
                node = own.number(),
                other,
                "another gate has this cluster.node too: ids will not be unique"
            );
        }
        let others = cards.into_iter().filter(|(node, ..)| *node != own);
        state.others = others.map(|(node, _, card)| card.of(node)).collect();
        let seen: Vec<_> =
            state.others.iter().map(|other| (other.node, (other.clone(), Instant::now()))).collect();
        state.seen.extend(seen);
    }

    async fn exchange_connections(&self, link: &Link, keys: &Keys, now: u64) {
        let own = link.settings().node;
        let source = self.state().source.clone();
        let clients = source.map(|source| source()).unwrap_or_default();
        let text = elsewhere::written(clients, LONGEST_CONNECTIONS - SEAL);
        let told = std::mem::replace(&mut self.state().told, !text.is_empty());
        // Once more after the last client, so that nobody counts it any longer.
        if told || !text.is_empty() {
            let key = keys.connections(own);
            write(link, keys, ClusterOp::Connections, &key, now, text.as_bytes(), CONNECTIONS_TTL).await;
        }
        let others = self.others();
        let texts = join_all(others.iter().map(|other| {
            let key = keys.connections(other.node);
            async move {
                // Told two seconds ago at most, and read every two seconds.
                let fresh = 2 * BEAT.as_secs();
                read(link, keys, ClusterOp::Connections, &key, LONGEST_CONNECTIONS, now, fresh).await
            }
        }));
        let mut clients = HashMap::new();
        for (_, text) in texts.await.into_iter().flatten() {
            elsewhere::add(&text, &mut clients);
        }
        self.elsewhere.tell(clients);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Card {
    fn of(self, node: Node) -> OtherNode {
        let short = |text: &str| OneLine(text).to_string().chars().take(LONGEST_NAME).collect();
        let (name, version) = (short(&self.name), short(&self.version));
        OtherNode { node, name, version, advertise: self.advertise }
    }
}

/// Milliseconds since 1970 by the server's clock.
async fn time(link: &Link) -> Option<u64> {
    let answer = link.ask(ClusterOp::Nodes, &redis::cmd("TIME")).await.ok()?;
    let (seconds, micros): (u64, u64) = redis::from_redis_value(answer).ok()?;
    Some(seconds.saturating_mul(1000).saturating_add(micros / 1000))
}

async fn write(link: &Link, keys: &Keys, op: ClusterOp, key: &str, now: u64, text: &[u8], ttl: u64) {
    let Some(sealed) = keys.seal(key, now, text) else { return };
    let mut set = redis::cmd("SET");
    set.arg(key).arg(sealed).arg("EX").arg(ttl);
    let answer = link.ask(op, &set).await;
    link.note_write(op, answer.as_ref().err());
}

/// The time and the text of a key that a node sealed at most `fresh` seconds ago.
async fn read(
    link: &Link,
    keys: &Keys,
    op: ClusterOp,
    key: &str,
    longest: usize,
    now: u64,
    fresh: u64,
) -> Option<(u64, Vec<u8>)> {
    let octets = match link.ask(op, &range(key, longest)).await {
        Ok(Value::BulkString(octets)) if octets.is_empty() => return None,
        Ok(Value::BulkString(octets)) => octets,
        // Of another type.
        Ok(_) | Err(Failure::Refused(_)) => Vec::new(),
        Err(_logged) => return None,
    };
    let Some(sealed) = keys.open(key, &octets) else {
        link.note_nonsense(op, key);
        return None;
    };
    Some(sealed).filter(|(at, _)| is_fresh(*at, now, fresh))
}

/// Whether a text of this time counts now. Another master of a cluster has another clock, so it may be of a later time too.
fn is_fresh(at: u64, now: u64, seconds: u64) -> bool {
    now.abs_diff(at) <= seconds.saturating_mul(1000)
}

/// Never more than this of a value: somebody may have written a huge one.
fn range(key: &str, longest: usize) -> Cmd {
    let mut get = redis::cmd("GETRANGE");
    get.arg(key).arg(0).arg(longest);
    get
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_long_ago_counts_no_more_whatever_the_clock_says() {
        const NOW: u64 = 1_764_000_000_000;
        let rows = [
            (NOW, true),
            (NOW - 30_000, true),
            (NOW - 30_001, false),
            (NOW + 30_000, true),
            (NOW + 30_001, false),
            (0, false),
            (u64::MAX, false),
        ];
        for (at, expected) in rows {
            assert_eq!(is_fresh(at, NOW, CARD_TTL), expected, "{at}");
            assert_eq!(is_fresh(NOW, at, CARD_TTL), expected, "{at}");
        }
        assert!(
            is_fresh(NOW - 4_000, NOW, 2 * BEAT.as_secs()) && !is_fresh(NOW - 4_001, NOW, 2 * BEAT.as_secs())
        );
    }
}
