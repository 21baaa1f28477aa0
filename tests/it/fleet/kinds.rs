//! Each kind of server that `cluster.redis` can name, and what stops a start.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::permits::TWO_SECONDS;
use super::redis::{Redis, Tls, Watched, cluster};
use super::{Site, USER};
use crate::support::daemon::Daemon;
use crate::support::process::SOON;

const DELAY: Duration = Duration::from_millis(300);

/// Greylisted at one gate, passed at the other; a permit of one at the other, and its removal.
async fn shares(site: &Site) {
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    assert_eq!(one.allow_this(&json!({ "domain": "a.test" })).await["shared"], true, "{}", one.daemon.log());
    two.has(&[1], TWO_SECONDS).await;
    assert_eq!(two.remove(&json!(1)).await.status, 204);
    one.has(&[], TWO_SECONDS).await;
    assert!(one.is_up().await && two.is_up().await, "{}", one.daemon.log());
    // Several, so that they are on several nodes of a cluster.
    let users: Vec<String> = (0..8).map(|number| format!("user{number}@here.test")).collect();
    for user in &users {
        assert_eq!(one.code(user).await, 450);
    }
    sleep(DELAY * 2).await;
    for user in &users {
        assert_eq!(two.code(user).await, 250, "{user}: {}", two.daemon.log());
    }
    for gate in [&one, &two] {
        let log = gate.daemon.whole_log().await;
        assert!(!log.contains("ERROR"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_server() {
    let Some(redis) = Redis::start(&[]).await else { return };
    shares(&Site::with_delay(format!("{}/3", redis.url()), DELAY)).await;
    assert_eq!(redis.keys("*").len(), 0, "database 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket() {
    let Some(redis) = Redis::start(&["--unixsocket", "{}/socket"]).await else { return };
    shares(&Site::with_delay(format!("redis+unix:{}", redis.place("socket")), DELAY)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_three_nodes() {
    let Some(nodes) = cluster(None).await else { return };
    nodes.iter().for_each(|node| allow(node, "+cluster|slots"));
    let hosts: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    shares(&Site::with_delay(format!("redis+cluster://rmxd:p4ss@{}", hosts.join(",")), DELAY)).await;
    let counts: Vec<usize> = nodes.iter().map(|node| node.keys("rmxd:1:g:*").len()).collect();
    assert!(counts.iter().filter(|count| **count > 0).count() > 1, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_a_sentinel_watches() {
    let Some(watched) = Watched::start(None).await else { return };
    allow(&watched.master, "+role");
    let url = watched.url().replace("://", "://rmxd:p4ss@");
    shares(&Site::with_delay(url, DELAY)).await;
}

/// The least rights, as "Several gates" in the guide has them.
const RIGHTS: &[&str] = &[
    "ACL",
    "SETUSER",
    "rmxd",
    "on",
    ">p4ss",
    "~rmxd:1:*",
    "resetchannels",
    "-@all",
    "+ping",
    "+select",
    "+time",
    "+getrange",
    "+set",
    "+eval",
    "+evalsha",
];

/// For permits.
const MORE_RIGHTS: &[&str] = &[
    "ACL", "SETUSER", "rmxd", "+hlen", "+hkeys", "+hstrlen", "+hget", "+hset", "+hdel", "+pexpire", "+unlink",
];

/// Gives the user its rights, and this one more.
fn allow(redis: &Redis, more: &str) {
    assert_eq!(redis.cli(&[RIGHTS, &[more]].concat()), "OK");
    assert_eq!(redis.cli(MORE_RIGHTS), "OK");
}

#[test]
fn the_guide_has_these_rights() {
    let guide = include_str!("../../../systemd/README.md");
    for rights in [RIGHTS, MORE_RIGHTS] {
        assert!(guide.contains(&rights.join(" ").replace("p4ss", "PASSWORD")), "{rights:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_least_rights() {
    let Some(mut redis) = Redis::start(&["--requirepass", "other"]).await else { return };
    redis.asked_with(&["-a", "other", "--no-auth-warning"]);
    allow(&redis, "+ping");
    let url = format!("redis://rmxd@127.0.0.1:{}", redis.port());
    let mut site = Site::with_delay(url, DELAY);
    let password = redis.place("password");
    std::fs::write(&password, "p4ss\n").unwrap();
    site.cluster = format!("password = \"{password}\"");
    shares(&site).await;
    assert_eq!(redis.cli(&["ACL", "LOG"]), "", "a command was refused");
}

/// A site with the certificates of these servers.
fn trusting(tls: &Tls, url: impl Into<String>) -> Site {
    let mut site = Site::with_delay(url, DELAY);
    site.cluster = format!("ca = \"{}\"", tls.ca());
    site
}

/// Of an authority that isn't known: as away, and never in plain text.
async fn is_away_for_strangers(url: &str) {
    let site = Site::with_delay(url, DELAY);
    let stranger = site.gate(3).await;
    assert!(!stranger.is_up().await);
    assert_eq!(stranger.code(USER).await, 450);
    let log = stranger.daemon.whole_log().await;
    assert!(log.contains("Redis is away") && log.contains("invalid peer certificate"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_a_certificate_of_ones_own() {
    let tls = Tls::new();
    let Some(redis) = Redis::start_over(&tls, &[]).await else { return };
    let url = format!("rediss://127.0.0.1:{}", redis.port());
    shares(&trusting(&tls, &url)).await;
    is_away_for_strangers(&url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_three_nodes_over_tls() {
    let tls = Tls::new();
    let Some(nodes) = cluster(Some(&tls)).await else { return };
    nodes.iter().for_each(|node| allow(node, "+cluster|slots"));
    let hosts: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    let url = format!("rediss+cluster://rmxd:p4ss@{}", hosts.join(","));
    shares(&trusting(&tls, &url)).await;
    let counts: Vec<usize> = nodes.iter().map(|node| node.keys("rmxd:1:g:*").len()).collect();
    assert!(counts.iter().filter(|count| **count > 0).count() > 1, "{counts:?}");
    is_away_for_strangers(&url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_by_a_sentinel_over_tls() {
    let tls = Tls::new();
    let Some(mut watched) = Watched::start(Some(&tls)).await else { return };
    [&watched.master, &watched.replica].into_iter().for_each(|redis| allow(redis, "+role"));
    let url = watched.url().replace("://", "://rmxd:p4ss@");
    shares(&trusting(&tls, &url)).await;
    is_away_for_strangers(&url).await;
    let site = trusting(&tls, &url);
    let (one, two) = (site.gate(4).await, site.gate(5).await);
    assert_eq!(one.code("before@here.test").await, 450);
    watched.master.kill();
    watched.failed_over().await;
    for gate in [&one, &two] {
        gate.daemon.logged("Redis is back").await;
    }
    assert_eq!(two.code("before@here.test").await, 250, "the replica had it");
    assert_eq!(one.code("after@here.test").await, 450);
    sleep(DELAY * 2).await;
    assert_eq!(two.code("after@here.test").await, 250);
}

/// At a start or later: the master may be one that is down just now.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_down_is_away_and_no_mistake() {
    let Some(mut watched) = Watched::start(None).await else { return };
    let site = Site::with_delay(watched.url(), DELAY);
    let before = site.gate(1).await;
    watched.replica.kill();
    watched.master.kill();
    crate::support::process::eventually("a Sentinel that knows", SOON, || {
        watched.sentinel.cli(&["SENTINEL", "MASTER", "main"]).contains("s_down").then_some(())
    })
    .await;
    let after = site.gate(2).await;
    after.daemon.logged("the Sentinels know no master that is up").await;
    watched.master.again().await;
    for gate in [&before, &after] {
        gate.daemon.logged("Redis is back").await;
        let log = gate.daemon.whole_log().await;
        assert!(!log.contains("ERROR") && log.matches("Redis is away").count() == 1, "{log}");
    }
}

/// The scheme says whether it is encrypted; the wrong one is away, whatever stands there.
#[tokio::test(flavor = "multi_thread")]
async fn plain_text_and_tls_do_not_meet() {
    let tls = Tls::new();
    let Some(encrypted) = Redis::start_over(&tls, &[]).await else { return };
    let plain = Watched::start(None).await.unwrap();
    let sentinel = plain.sentinel.port();
    let rows = [
        Site::new(format!("redis://127.0.0.1:{}", encrypted.port())),
        trusting(&tls, format!("rediss://127.0.0.1:{}", plain.master.port())),
        trusting(&tls, format!("rediss+cluster://127.0.0.1:{}", plain.master.port())),
        trusting(&tls, format!("rediss+sentinel://127.0.0.1:{sentinel}/main")),
    ];
    for site in rows {
        let gate = site.gate(1).await;
        assert!(!gate.is_up().await, "{}", site.redis);
        assert_eq!(gate.code(USER).await, 450, "{}", site.redis);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_operator_can_mend_stops_the_start() {
    let Some(mut redis) = Redis::start(&["--requirepass", "other"]).await else { return };
    redis.asked_with(&["-a", "other", "--no-auth-warning"]);
    let port = redis.port();
    assert_eq!(redis.cli(&[&RIGHTS[..RIGHTS.len() - 2], &["+ping"]].concat()), "OK");
    // All but one of those for permits: each of them is tried.
    for right in &MORE_RIGHTS[3..] {
        let user = format!("without{}", right.replace('+', "_"));
        let own = |word: &&str| if *word == "rmxd" { user.clone() } else { (*word).to_owned() };
        for rights in [RIGHTS, MORE_RIGHTS] {
            let rights: Vec<String> = rights.iter().filter(|it| *it != right).map(own).collect();
            assert_eq!(redis.cli(&rights.iter().map(String::as_str).collect::<Vec<_>>()), "OK");
        }
    }
    let watched = Watched::start(None).await.unwrap();
    let sentinel = watched.sentinel.port();
    let rows = [
        (format!("redis://127.0.0.1:{port}"), "NOAUTH"),
        (format!("redis://:wrong@127.0.0.1:{port}"), "Password authentication failed"),
        (format!("redis://:other@127.0.0.1:{port}/99"), "DB index is out of range"),
        (format!("redis://rmxd:p4ss@127.0.0.1:{port}"), "NOPERM"),
        (format!("redis+cluster://:other@127.0.0.1:{port}"), "cluster support disabled"),
        (format!("redis+sentinel://127.0.0.1:{sentinel}/none"), "Master with given name not found"),
    ];
    let lacking = MORE_RIGHTS[3..].iter().map(|right| {
        let right = right.trim_start_matches('+');
        (format!("redis://without_{right}:p4ss@127.0.0.1:{port}"), right)
    });
    for (url, why) in rows.into_iter().chain(lacking) {
        let (home, ..) = Site::new(&url).prepare(1);
        let mut daemon = Daemon::launch(home.serve(), home);
        let status = daemon.ended(SOON).await;
        let log = daemon.log();
        assert_eq!(status.code(), Some(78), "{url}: {log}");
        assert!(log.contains("cluster.redis: ") && log.contains(why), "{url}: {log}");
        assert!(!log.contains(":other@") && !log.contains("p4ss"), "{log}");
    }
}
