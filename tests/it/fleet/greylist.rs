//! The greylist that gates share.

use std::time::Duration;

use tokio::time::sleep;

use super::redis::Redis;
use super::{Site, USER};

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_waited_at_one_gate_passes_at_another() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let site = Site::with_delay(redis.url(), Duration::from_secs(2));
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    assert_eq!(one.code(USER).await, 450);
    let early = two.send(USER).await.0;
    assert_eq!(early.code, 450, "the delay is not over: {}", early.text);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(two.code(USER).await, 250);
    assert_eq!(one.code(USER).await, 250);
    assert_eq!(two.code("other@here.test").await, 450, "another recipient");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_the_delay_is_what_another_gate_says() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let site = Site::with_delay(redis.url(), Duration::from_secs(3600));
    let one = site.gate(1).await;
    assert_eq!(one.code(USER).await, 450);
    // As if the first attempt had been half an hour ago.
    let keys = redis.keys("rmxd:1:g:*");
    let [key] = keys.as_slice() else { panic!("{keys:?}") };
    let since: u64 = redis.cli(&["--raw", "GET", key]).strip_prefix('W').unwrap().parse().unwrap();
    redis.cli(&["SET", key, &format!("W{}", since - 1_800_000)]);
    let reply = site.gate(2).await.send(USER).await.0;
    let rest = reply.text.split("try again in ").nth(1).and_then(|rest| rest.split(' ').next());
    let seconds: u64 = rest.unwrap().parse().unwrap_or_else(|error| panic!("{error}: {}", reply.text));
    assert!((1700..=1800).contains(&seconds), "{}", reply.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_passed_at_one_gate_passes_at_once_at_another() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let site = Site::with_delay(redis.url(), Duration::from_millis(300));
    let one = site.gate(1).await;
    assert_eq!(one.code(USER).await, 450);
    sleep(Duration::from_millis(400)).await;
    assert_eq!(one.code(USER).await, 250);
    let keys = redis.keys("rmxd:1:g:*");
    let [key] = keys.as_slice() else { panic!("{keys:?}") };
    for _ in 0..100 {
        if redis.cli(&["--raw", "GET", key]) == "P" {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(redis.cli(&["--raw", "GET", key]), "P");
    assert_eq!(site.gate(2).await.code(USER).await, 250);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_expire_and_name_nobody() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let site = Site::new(redis.url());
    let one = site.gate(1).await;
    assert_eq!(one.code(USER).await, 450);
    let triples = redis.keys("rmxd:1:g:*");
    assert_eq!(triples.len(), 1);
    for key in redis.keys("*") {
        let left: i64 = redis.cli(&["--raw", "PTTL", &key]).parse().unwrap();
        assert!(left > 0, "{key} never expires");
        let value = redis.cli(&["--no-raw", "GET", &key]);
        for word in ["good.test", "here.test", "ann", "127.0.0.11"] {
            assert!(!key.contains(word) && !value.contains(word), "{key}: {value}");
        }
    }
    assert_eq!(triples[0].len(), "rmxd:1:g:".len() + 32, "{}", triples[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_with_another_secret_or_prefix_share_nothing() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let mut site = Site::with_delay(redis.url(), Duration::from_millis(300));
    let one = site.gate(1).await;
    assert_eq!(one.code(USER).await, 450);
    sleep(Duration::from_millis(400)).await;
    site.cluster = "prefix = \"other\"".to_owned();
    assert_eq!(site.gate(2).await.code(USER).await, 450);
    site.cluster.clear();
    let (home, smtp, admin) = site.prepare(3);
    std::fs::write(home.path().join("secret"), [b'x'; 40]).unwrap();
    let daemon = crate::support::daemon::Daemon::spawn(home.serve(), home).await;
    assert_eq!(super::Gate { daemon, smtp, admin }.code(USER).await, 450);
    assert_eq!(site.gate(4).await.code(USER).await, 250);
}
