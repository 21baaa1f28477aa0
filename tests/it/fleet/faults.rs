//! What happens to Redis, and what happens to mail then: nothing is refused for it, nothing waits long, and each trouble is
//! logged once.

use std::time::Duration;

use tokio::time::sleep;

use super::posing::Posing;
use super::redis::{Redis, Watched};
use super::{Gate, Site, USER};
use crate::support::client::Client;
use crate::support::process::{SOON, free_port};

/// `cluster.timeout` where a test measures.
const TIMEOUT: Duration = Duration::from_millis(500);
const TIMEOUT_LINE: &str = "timeout = \"500ms\"";
/// For anything else that a reply needs on a busy machine.
const MARGIN: Duration = Duration::from_millis(400);

async fn logged_once(gate: &Gate, what: &str) {
    let log = gate.daemon.whole_log().await;
    assert_eq!(log.matches(what).count(), 1, "{what:?} in {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_starts_without_redis_and_finds_it_later() {
    if crate::support::process::program("redis-server").is_none() {
        return;
    }
    let port = free_port();
    let mut site = Site::with_delay(format!("redis://127.0.0.1:{port}"), Duration::from_millis(300));
    site.cluster = TIMEOUT_LINE.to_owned();
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    let ready = one.get("/readyz").await;
    assert_eq!((&ready["ready"], &ready["cluster"]), (&true.into(), &"away".into()), "{ready}");
    assert_eq!(one.metric("rmxd_cluster_up").await, 0);
    let (reply, took) = one.send(USER).await;
    assert_eq!(reply.code, 450);
    assert!(took < MARGIN, "{took:?}");
    assert!(one.metric("rmxd_cluster_dropped_total{op=\"greylist\"}").await > 0);
    logged_once(&one, "Redis is away: this node goes on alone").await;
    let _redis = Redis::start_at(port, &[]).await.unwrap();
    one.knows(true).await;
    two.knows(true).await;
    logged_once(&one, "Redis is back").await;
    assert_eq!(one.metric("rmxd_cluster_up").await, 1);
    assert_eq!(one.code("late@here.test").await, 450);
    sleep(Duration::from_millis(400)).await;
    assert_eq!(two.code("late@here.test").await, 250);
    let status = one.get("/api/v1/status").await;
    assert_eq!(status["cluster"]["node"], 1, "{status}");
    assert_eq!(status["cluster"]["redis"], format!("redis://127.0.0.1:{port}/0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_costs_three_questions_their_time_out_and_then_nothing() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let mut site = Site::new(redis.url());
    site.cluster = TIMEOUT_LINE.to_owned();
    let gate = site.gate(1).await;
    assert_eq!(gate.code("first@here.test").await, 450);
    redis.signal("STOP");
    let mut waits = Vec::new();
    for number in 0..20 {
        let (reply, took) = gate.send(&format!("user{number}@here.test")).await;
        assert_eq!(reply.code, 450, "{}", reply.text);
        waits.push(took);
    }
    let slow = waits.iter().filter(|took| **took >= TIMEOUT).count();
    // The beacon of the nodes may have asked one of the three.
    assert!((1..=3).contains(&slow), "{waits:?}");
    assert!(waits.iter().all(|took| *took < TIMEOUT * 2 + MARGIN), "{waits:?}");
    assert!(waits.iter().skip(3).all(|took| *took < TIMEOUT), "{waits:?}");
    logged_once(&gate, "Redis is away: this node goes on alone").await;
    redis.signal("CONT");
    gate.knows(true).await;
    logged_once(&gate, "Redis is back").await;
}

/// Each question has its answer in time, so that the breaker stays closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_costs_a_connection_three_times_the_time_out_in_all() {
    let server = Posing::start();
    let mut site = Site::new(format!("redis://{}", server.address()));
    site.cluster = TIMEOUT_LINE.to_owned();
    let gate = site.gate(1).await;
    server.slows("EVALSHA", Duration::from_millis(300));
    let before = server.asked("EVALSHA");
    let mut client = Client::greeted(super::CLIENT, gate.smtp, "mail.good.test").await;
    let began = tokio::time::Instant::now();
    for message in 0..3 {
        client.command(&format!("MAIL FROM:<{}>", super::SENDER)).await;
        for number in 0..6 {
            let reply = client.command(&format!("RCPT TO:<user{message}x{number}@here.test>")).await;
            assert_eq!(reply.code, 450, "{}", reply.text);
        }
        client.command("RSET").await;
    }
    let (took, asked) = (began.elapsed(), server.asked("EVALSHA") - before);
    assert!(took >= TIMEOUT * 3 && took < TIMEOUT * 3 + MARGIN, "{took:?}");
    assert!((3..=5).contains(&asked), "{asked}");
    assert!(gate.is_up().await);
    // Another connection asks again.
    assert_eq!(gate.code(USER).await, 450);
    assert_eq!(server.asked("EVALSHA") - before, asked + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_before_the_start_delays_it_for_two_seconds_at_most() {
    let Some(redis) = Redis::start(&[]).await else { return };
    redis.signal("STOP");
    let mut site = Site::new(redis.url());
    site.cluster = TIMEOUT_LINE.to_owned();
    let began = tokio::time::Instant::now();
    let gate = site.gate(1).await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let (reply, took) = gate.send(USER).await;
    assert!(reply.code == 450 && took < TIMEOUT, "{took:?} {}", reply.text);
    redis.signal("CONT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_comes_back_loses_nothing_that_the_gates_know() {
    let Some(mut redis) = Redis::start(&[]).await else { return };
    let mut site = Site::with_delay(redis.url(), Duration::from_secs(2));
    site.cluster = TIMEOUT_LINE.to_owned();
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    assert_eq!((one.code(USER).await, two.code(USER).await), (450, 450));
    redis.kill();
    for number in 0..10 {
        let (reply, took) = one.send(&format!("user{number}@here.test")).await;
        assert_eq!(reply.code, 450, "{}", reply.text);
        assert!(took < TIMEOUT + MARGIN, "{took:?}");
    }
    sleep(Duration::from_secs(2)).await;
    assert_eq!((one.code(USER).await, two.code(USER).await), (250, 250), "both knew it");
    redis.again().await;
    one.knows(true).await;
    logged_once(&one, "Redis is away: this node goes on alone").await;
    logged_once(&one, "Redis is back").await;
    // Scripts are gone with the server.
    assert_eq!(one.code("new@here.test").await, 450);
    assert_eq!(redis.keys("rmxd:1:g:*").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_is_flushed_the_gates_go_on_with_what_they_know() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let site = Site::with_delay(redis.url(), Duration::from_secs(2));
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    assert_eq!((one.code(USER).await, two.code(USER).await), (450, 450));
    redis.cli(&["FLUSHALL"]);
    redis.cli(&["SCRIPT", "FLUSH"]);
    // An early retry says again since when it waits: the others need not begin anew.
    assert_eq!(one.code(USER).await, 450);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(site.gate(3).await.code(USER).await, 250);
    assert_eq!((one.code(USER).await, two.code(USER).await), (250, 250));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_memory_takes_no_writes_and_reads_count() {
    let Some(redis) = Redis::start(&["--maxmemory-policy", "noeviction"]).await else { return };
    let site = Site::with_delay(redis.url(), Duration::from_millis(300));
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    assert_eq!(one.code(USER).await, 450);
    sleep(Duration::from_millis(400)).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    writes_are_dropped_and_reads_count(&two).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(two.code("after@here.test").await, 450);
    logged_once(&two, "Redis takes writes again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_no_writes_and_reads_count() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let site = Site::with_delay(redis.url(), Duration::from_millis(300));
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    assert_eq!(one.code(USER).await, 450);
    sleep(Duration::from_millis(400)).await;
    let nowhere = free_port().to_string();
    redis.cli(&["REPLICAOF", "127.0.0.1", &nowhere]);
    writes_are_dropped_and_reads_count(&two).await;
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(two.code("after@here.test").await, 450);
    logged_once(&two, "Redis takes writes again").await;
}

async fn writes_are_dropped_and_reads_count(gate: &Gate) {
    assert_eq!(gate.code(USER).await, 250, "what Redis knows counts");
    assert_eq!(gate.code("new@here.test").await, 450);
    assert_eq!(gate.code("newer@here.test").await, 450);
    assert!(gate.is_up().await, "it is not away");
    assert!(gate.metric("rmxd_cluster_dropped_total{op=\"greylist\"}").await >= 2);
    logged_once(gate, "Redis takes no writes: what this node learns stays here").await;
    let status = gate.get("/api/v1/status").await;
    assert!(status["cluster"]["detail"].as_str().unwrap().contains("takes no writes"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_the_new_master_is_asked_for() {
    let Some(mut watched) = Watched::start(None).await else { return };
    let site = Site::with_delay(watched.url(), Duration::from_millis(300));
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    assert_eq!(one.code(USER).await, 450);
    watched.master.kill();
    assert_eq!(one.code("meanwhile@here.test").await, 450);
    watched.failed_over().await;
    for gate in [&one, &two] {
        gate.daemon.logged("Redis is away").await;
        gate.knows(true).await;
    }
    assert_eq!(two.code(USER).await, 250, "the replica had it");
    assert_eq!(one.code("later@here.test").await, 450);
    sleep(Duration::from_millis(400)).await;
    assert_eq!(two.code("later@here.test").await, 250);
    logged_once(&one, "Redis is away: this node goes on alone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_changes_is_an_error_once_and_no_reason_to_refuse() {
    let Some(mut redis) = Redis::start(&["--requirepass", "one"]).await else { return };
    redis.asked_with(&["-a", "one", "--no-auth-warning"]);
    let site = Site::new(format!("redis://:one@127.0.0.1:{}", redis.port()));
    let gate = site.gate(1).await;
    redis.cli(&["CONFIG", "SET", "requirepass", "two"]);
    redis.asked_with(&["-a", "two"]);
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let began = tokio::time::Instant::now();
    while !gate.daemon.log().contains("Redis refuses this node") {
        assert!(began.elapsed() < SOON, "{}", gate.daemon.log());
        assert_eq!(gate.code(USER).await, 450);
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_secs(2)).await;
    logged_once(&gate, "Redis refuses this node: it goes on alone").await;
    redis.cli(&["CONFIG", "SET", "requirepass", "one"]);
    gate.knows(true).await;
    logged_once(&gate, "Redis is back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_new_triples_leaves_redis_in_peace() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let site = Site::new(redis.url());
    let gate = site.gate(1).await;
    let mut tasks = tokio::task::JoinSet::new();
    let smtp = gate.smtp;
    for client in 0..20 {
        tasks.spawn(async move {
            let mut client_ = Client::greeted(super::CLIENT, smtp, "mail.good.test").await;
            client_.command(&format!("MAIL FROM:<{}>", super::SENDER)).await;
            for number in 0..50 {
                let code = client_.command(&format!("RCPT TO:<u{client}x{number}@here.test>")).await.code;
                assert!(code == 450 || code == 421, "{code}");
            }
        });
    }
    let began = tokio::time::Instant::now();
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    let keys = redis.keys("rmxd:1:g:*").len();
    assert!(keys > 0 && keys <= 200 * seconds, "{keys} keys in {seconds} s");
}

/// Of one triple again and again, before its delay is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_early_retries_leaves_redis_in_peace() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let site = Site::new(redis.url());
    let gate = site.gate(1).await;
    assert_eq!(gate.code(USER).await, 450);
    let began = tokio::time::Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    let smtp = gate.smtp;
    for _ in 0..10 {
        tasks.spawn(async move {
            let mut client = Client::greeted(super::CLIENT, smtp, "mail.good.test").await;
            client.command(&format!("MAIL FROM:<{}>", super::SENDER)).await;
            let line = format!("RCPT TO:<{USER}>\r\n");
            client.send(line.repeat(80)).await;
            for _ in 0..80 {
                assert_eq!(client.reply().await.code, 450);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let seconds = began.elapsed().as_secs() + 2;
    let info = redis.cli(&["INFO", "commandstats"]);
    let asked = info
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse().ok());
    let asked: u64 = asked.unwrap();
    assert!(asked <= 200 * seconds, "{asked} questions in {seconds} s");
    assert!(asked + gate.metric("rmxd_cluster_dropped_total{op=\"greylist\"}").await > 800);
}
