//! Two gates under load, and one Redis to which something happens: good mail isn't refused, waits only where its triple is
//! new, and no session waits longer for Redis than it may.

mod network;
mod traffic;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use self::traffic::{Load, Session};
use super::redis::{Redis, Watched};
use super::{Gate, Site};
use crate::support::process::{SOON, eventually, free_port};

/// `cluster.timeout`, and all that a session may wait.
const TIMEOUT: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_millis(1500);
/// For anything else that a reply needs on a busy machine.
const MARGIN: Duration = Duration::from_millis(400);
/// Of the greylist.
const DELAY: Duration = Duration::from_secs(1);
/// Sessions of each kind at each gate that show what holds for a while.
const SOME: usize = 5;

/// Two gates with their load.
struct Scene {
    _site: Site,
    one: Gate,
    two: Gate,
    load: Load,
    /// When both gates knew that Redis was away.
    alone: Vec<(Instant, Instant)>,
}

impl Scene {
    /// Both gates know some triples as passed; sessions of each kind have been there.
    async fn begin(url: String) -> Self {
        let mut site = Site::with_delay(url, DELAY);
        site.cluster = format!("timeout = \"{}ms\"", TIMEOUT.as_millis());
        let (one, two) = (site.gate(1).await, site.gate(2).await);
        assert!(one.is_up().await && two.is_up().await);
        let load = Load::start([one.smtp, two.smtp]).await;
        let scene = Self { _site: site, one, two, load, alone: Vec::new() };
        scene.load.some(SOME).await;
        scene
    }

    fn gates(&self) -> [&Gate; 2] {
        [&self.one, &self.two]
    }

    /// Waits until both know that Redis is away, and shows that nobody waits for it then.
    async fn is_alone(&mut self) {
        for gate in self.gates() {
            gate.knows(false).await;
        }
        // Questions from before have ended with that.
        let (began, before) = (Instant::now(), self.asked().await);
        self.load.some(SOME).await;
        assert_eq!(self.asked().await, before, "a question was asked while Redis was away");
        self.alone.push((began, Instant::now()));
    }

    async fn is_back(&self) {
        for gate in self.gates() {
            gate.knows(true).await;
        }
    }

    /// Questions about triples that each gate has sent.
    async fn asked(&self) -> [u64; 2] {
        [self.one.requests("greylist").await, self.two.requests("greylist").await]
    }

    /// Ends the load, and checks each session.
    async fn end(self) {
        self.load.some(SOME).await;
        let sessions = self.load.stop().await;
        for session in &sessions {
            let Session { kind, code, text, waited, .. } = session;
            assert_eq!(*code, kind.code(), "{kind:?}: {text}");
            assert!(*waited < PATIENCE + MARGIN, "{session:?}");
        }
        for (began, ended) in self.alone {
            let during: Vec<_> =
                sessions.iter().filter(|session| session.began >= began && session.ended <= ended).collect();
            assert!(during.len() > SOME, "{}", during.len());
            for session in during {
                assert!(session.waited < TIMEOUT, "{session:?}");
            }
        }
        // The gates share again.
        let late = "late@here.test";
        assert_eq!(self.one.code(late).await, 450);
        sleep(DELAY).await;
        assert_eq!(self.two.code(late).await, 250);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_and_comes_back() {
    let Some(mut redis) = Redis::start(&[]).await else { return };
    let mut scene = Scene::begin(redis.url()).await;
    redis.kill();
    scene.is_alone().await;
    redis.again().await;
    scene.is_back().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_hangs_for_a_while() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let mut scene = Scene::begin(redis.url()).await;
    redis.signal("STOP");
    scene.is_alone().await;
    redis.signal("CONT");
    scene.is_back().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_redis_is_full() {
    let Some(redis) = Redis::start(&["--maxmemory-policy", "noeviction"]).await else { return };
    let scene = Scene::begin(redis.url()).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    takes_no_writes(&scene).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_becomes_a_replica() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let scene = Scene::begin(redis.url()).await;
    let nowhere = free_port().to_string();
    redis.cli(&["REPLICAOF", "127.0.0.1", &nowhere]);
    takes_no_writes(&scene).await;
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    scene.end().await;
}

async fn takes_no_writes(scene: &Scene) {
    scene.load.some(SOME).await;
    for gate in scene.gates() {
        gate.daemon.logged("Redis takes no writes: what this node learns stays here").await;
        assert!(gate.is_up().await, "it is not away");
        assert!(gate.metric("rmxd_cluster_dropped_total{op=\"greylist\"}").await > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_flushed_again_and_again() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let scene = Scene::begin(redis.url()).await;
    for _ in 0..3 {
        redis.cli(&["FLUSHALL"]);
        redis.cli(&["SCRIPT", "FLUSH"]);
        scene.load.some(2).await;
        for gate in scene.gates() {
            assert!(gate.is_up().await);
        }
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_makes_another_master() {
    let Some(mut watched) = Watched::start(None).await else { return };
    let scene = Scene::begin(watched.url()).await;
    watched.master.kill();
    for gate in scene.gates() {
        gate.daemon.logged("Redis is away").await;
    }
    watched.failed_over().await;
    scene.is_back().await;
    for gate in scene.gates() {
        let log = gate.daemon.whole_log().await;
        assert!(log.matches("Redis is away").count() == 1 && !log.contains("ERROR"), "{log}");
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_loses_packets() {
    const NAME: &str = "fleet::load::the_network_loses_packets";
    if !network::is_own(NAME) {
        return;
    }
    let Some(redis) = Redis::start(&[]).await else { return };
    let mut scene = Scene::begin(redis.url()).await;
    let lossy = network::Lossy::start(redis.port(), 30);
    scene.load.some(2 * SOME).await;
    assert!(lossy.eaten() > 10, "{}", lossy.eaten());
    drop(lossy);
    scene.is_back().await;
    scene.load.some(SOME).await;
    let nothing_passes = network::Lossy::start(redis.port(), 100);
    scene.is_alone().await;
    assert!(nothing_passes.eaten() > 0);
    drop(nothing_passes);
    scene.is_back().await;
    scene.end().await;
}
