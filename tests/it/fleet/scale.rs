//! Many gates in one process, each with its own connection, keys and shares, over one real Redis: what it has to do when all
//! of them are flooded, counted by itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use rmxd::decision::Node;
use rmxd::metrics::Metrics;
use rmxd::store::shared::{Elsewhere, Fleet, Patience, Question, Secret, Settings, Target};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::redis::Redis;

/// The nodes of one fleet; more gates are more fleets.
pub(crate) const FLEET: usize = 15;
/// Of new triples, of early retries and of passed ones.
pub(crate) const SHARE: f64 = 200.0;
const DELAY: Duration = Duration::from_secs(300);
const EXPIRE: Duration = Duration::from_secs(36 * 24 * 3600);
const TICK: Duration = Duration::from_millis(20);
/// Clients with many connections at each gate.
const CLIENTS: u8 = 20;

/// What was seen.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) seconds: f64,
    /// Of all gates.
    pub(crate) sessions: u64,
    /// Questions and writes that weren't sent, or had no answer in time.
    pub(crate) dropped: u64,
    /// The longest wait of a session.
    pub(crate) longest: Duration,
    /// Commands by name, as Redis counted them.
    pub(crate) commands: BTreeMap<String, u64>,
    pub(crate) keys: u64,
    /// More memory than before, in octets.
    pub(crate) memory: u64,
    /// Processor time of Redis, in seconds.
    pub(crate) processor: f64,
}

/// What gates read of each other in all, in commands a second: every two seconds the clients of each other gate of the
/// fleet, every ten seconds its 15 possible cards.
pub(crate) fn beacon_reads(gates: usize) -> f64 {
    let size = |count: usize| f64::from(u32::try_from(count).unwrap());
    let of_fleet = |size: f64| size * (0.5 * (size - 1.0) + 1.5);
    let rest = gates % FLEET;
    size(gates / FLEET) * of_fleet(size(FLEET)) + if rest > 0 { of_fleet(size(rest)) } else { 0.0 }
}

/// How many gates there are, and what they have to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) gates: usize,
    /// Sessions a second of each: of four, two are of new triples, one is an early retry, one passes.
    pub(crate) rate: u64,
    pub(crate) time: Duration,
    /// Of one question.
    pub(crate) timeout: Duration,
}

pub(crate) async fn simulate(redis: &Redis, plan: Plan) -> Seen {
    let Plan { gates, rate, time, timeout } = plan;
    let metrics: Vec<Metrics> = (0..gates).map(|_| Metrics::default()).collect();
    let fleets: Vec<Fleet> = join_all(metrics.iter().enumerate().map(|(index, metrics)| {
        Fleet::start(settings(redis, index, timeout), metrics.clone(), Elsewhere::default())
    }))
    .await
    .into_iter()
    .collect::<Result<_, _>>()
    .unwrap();
    for (index, fleet) in fleets.iter().enumerate() {
        assert!(fleet.condition().up, "{index}: {:?}", fleet.condition());
        let last = u8::try_from(index).unwrap();
        fleet.set_source(Arc::new(move || {
            (0..CLIENTS)
                .map(|client| (IpAddr::from([192, 0, last, client]), usize::from(client) + 2))
                .collect()
        }));
    }
    let before = figures(redis);
    redis.cli(&["CONFIG", "RESETSTAT"]);
    let (sessions, longest) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let began = Instant::now();
    let mut gates_ = JoinSet::new();
    for fleet in &fleets {
        gates_.spawn(gate(fleet.clone(), rate, began + time, Arc::clone(&sessions), Arc::clone(&longest)));
    }
    while let Some(ended) = gates_.join_next().await {
        ended.unwrap();
    }
    let seconds = began.elapsed().as_secs_f64();
    let commands = commands(&redis.cli(&["INFO", "commandstats"]));
    let after = figures(redis);
    Seen {
        seconds,
        sessions: sessions.load(Ordering::Relaxed),
        dropped: metrics.iter().map(Metrics::cluster_dropped_total).sum(),
        longest: Duration::from_micros(longest.load(Ordering::Relaxed)),
        commands,
        keys: redis.cli(&["DBSIZE"]).parse().unwrap(),
        memory: after.0.saturating_sub(before.0),
        processor: after.1 - before.1,
    }
}

fn settings(redis: &Redis, index: usize, timeout: Duration) -> Settings {
    Settings {
        target: Target::parse(&redis.url()).unwrap(),
        node: Node::new(u8::try_from(index % FLEET + 1).unwrap()).unwrap(),
        secret: Secret::new(&[7; 32]),
        ca: None,
        timeout,
        prefix: format!("fleet{}", index / FLEET),
        advertise: Some("10.0.0.3:8025".parse().unwrap()),
        hostname: format!("mx{index}.example.com"),
    }
}

/// The sessions of one gate.
async fn gate(fleet: Fleet, rate: u64, end: Instant, sessions: Arc<AtomicU64>, longest: Arc<AtomicU64>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut waiting: Vec<[u8; 16]> = (0..32).map(|_| rand::random()).collect();
    let mut done = 0;
    let began = Instant::now();
    let mut running = JoinSet::new();
    while Instant::now() < end {
        ticks.tick().await;
        let due = began.elapsed().as_micros() * u128::from(rate) / 1_000_000;
        let due = u64::try_from(due).unwrap().saturating_sub(done);
        let mut asked = Vec::new();
        for number in 0..due {
            match (done + number) % 4 {
                0 => fleet.passed(&rand::random(), EXPIRE),
                1 => asked.push((
                    waiting[usize::try_from(number).unwrap() % waiting.len()],
                    Duration::from_secs(1),
                )),
                _ => asked.push((rand::random(), Duration::ZERO)),
            }
        }
        done += due;
        if let Some((new, _)) = asked.iter().find(|(_, age)| age.is_zero()) {
            let place = usize::try_from(done).unwrap() % waiting.len();
            waiting[place] = *new;
        }
        let (fleet, longest) = (fleet.clone(), Arc::clone(&longest));
        running.spawn(async move {
            join_all(asked.iter().map(async |(hash, age)| {
                let began = Instant::now();
                let question = Question { hash, delay: DELAY, expire: EXPIRE, age: *age };
                fleet.check(question, &Patience::default()).await;
                longest.fetch_max(u64::try_from(began.elapsed().as_micros()).unwrap(), Ordering::Relaxed);
            }))
            .await;
        });
        while running.try_join_next().is_some() {}
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    sessions.fetch_add(done, Ordering::Relaxed);
}

/// Memory in octets, and processor time in seconds.
fn figures(redis: &Redis) -> (u64, f64) {
    let info = redis.cli(&["INFO", "everything"]);
    let of =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().trim();
    let processor = ["used_cpu_user", "used_cpu_sys"].map(|name| of(name).parse::<f64>().unwrap());
    (of("used_memory").parse().unwrap(), processor.iter().sum())
}

fn commands(info: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    info.lines().filter_map(row).collect()
}

/// The octets of a key of each kind that is there, by Redis.
pub(crate) fn octets(redis: &Redis) -> Vec<(&'static str, u64)> {
    let triples = redis.keys("fleet0:1:g:*");
    let with =
        |kind: &str| triples.iter().find(|key| redis.cli(&["--raw", "GET", key]).starts_with(kind)).cloned();
    let first = |pattern: &str| redis.keys(pattern).into_iter().next();
    let kinds = [
        ("a triple that waits (g:)", with("W")),
        ("a triple that has passed (g:)", with("P")),
        ("a gate (n:)", first("fleet0:1:n:*")),
        ("20 clients of a gate (c:)", first("fleet0:1:c:*")),
    ];
    let there = kinds.into_iter().filter_map(|(kind, key)| Some((kind, key?)));
    there.map(|(kind, key)| (kind, redis.cli(&["MEMORY", "USAGE", &key]).parse().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flooded_fleet_asks_redis_for_its_shares_and_no_more() {
    const GATES: usize = 4;
    let Some(redis) = Redis::start(&[]).await else { return };
    let plan = Plan {
        gates: GATES,
        rate: 1_600,
        time: Duration::from_secs(3),
        timeout: crate::support::process::SOON,
    };
    let seen = simulate(&redis, plan).await;
    let count = |number: u64| f64::from(u32::try_from(number).unwrap());
    let of = |name: &str| count(seen.commands.get(name).copied().unwrap_or_default());
    // A share is one of whole seconds: it may be used up just before the end of one, and again after it.
    let share = SHARE * f64::from(u32::try_from(GATES).unwrap());
    let (least, most) = (share, share * (seen.seconds.ceil() + 1.0));
    let asked = of("evalsha") + of("eval");
    assert!(asked > 2.0 * least && asked <= 2.0 * most, "{asked}: {seen:?}");
    // Of new triples, of passed ones, and of the gates themselves.
    let (written, own) = (of("set"), 4.0 * (0.6 * seen.seconds + 2.0));
    assert!(written > 2.0 * least && written <= 2.0 * most + own, "{written}: {seen:?}");
    let (read, all) = (of("getrange") - asked, beacon_reads(GATES) * (seen.seconds + 10.0));
    assert!(read <= all, "{read} of {all}: {seen:?}");
    // Whatever isn't one of the three shares is dropped.
    assert!(count(seen.dropped) + 3.0 * most >= count(seen.sessions), "{seen:?}");
    assert!(seen.dropped > seen.sessions / 4, "{seen:?}");
    let octets = octets(&redis);
    assert!(octets.len() == 4 && octets.iter().all(|(_, octets)| (50..5_000).contains(octets)), "{octets:?}");
    assert!(seen.keys > 1_000 && seen.memory / seen.keys < 500 && seen.processor > 0.0, "{seen:?}");
    assert!(seen.longest > Duration::ZERO && seen.longest < plan.timeout, "{seen:?}");
}
