//! Somebody who can write into Redis, and hasn't the secret: greylisted mail can be delayed or pass, and nothing else happens.

use std::time::Duration;

use super::redis::Redis;
use super::{Site, USER};

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_key_of_a_triple_holds_the_mail_waits_or_passes() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let site = Site::with_delay(redis.url(), Duration::from_secs(3600));
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    assert_eq!(one.code(USER).await, 450);
    let keys = redis.keys("rmxd:1:g:*");
    let [key] = keys.as_slice() else { panic!("{keys:?}") };
    let huge = "9".repeat(3 << 20);
    let place = redis.place("huge");
    std::fs::write(&place, &huge).unwrap();
    let load = format!("redis-cli -p {} -x SET {key} <{place}", redis.port());
    let set = |value: &str| redis.cli(&["SET", key, value]);
    let rows: Vec<(&str, Box<dyn Fn()>)> = vec![
        ("empty", Box::new(|| drop(set("")))),
        ("a reply", Box::new(|| drop(set("550 5.7.1 no")))),
        ("a word", Box::new(|| drop(set("REJECT")))),
        ("not a number", Box::new(|| drop(set("Wx")))),
        ("negative", Box::new(|| drop(set("W-1")))),
        ("not an integer", Box::new(|| drop(set("W1e3")))),
        ("a future", Box::new(|| drop(set("W99999999999999")))),
        ("too long a number", Box::new(|| drop(set(&format!("W{}", "9".repeat(40)))))),
        ("P and more", Box::new(|| drop(set("P 550")))),
        (
            "a NUL",
            Box::new(|| drop(redis.cli(&["EVAL", "redis.call('SET', KEYS[1], '\\0\\255')", "1", key]))),
        ),
        ("a list", Box::new(|| drop((redis.cli(&["DEL", key]), redis.cli(&["LPUSH", key, "P"]))))),
        ("a hash", Box::new(|| drop((redis.cli(&["DEL", key]), redis.cli(&["HSET", key, "P", "P"]))))),
        (
            "a huge one",
            Box::new(|| {
                redis.cli(&["DEL", key]);
                let loaded = crate::support::process::command("sh").args(["-c", &load]).output().unwrap();
                assert!(loaded.status.success(), "{loaded:?}");
            }),
        ),
    ];
    for (name, write) in rows {
        write();
        let (reply, took) = two.send(USER).await;
        assert_eq!(reply.code, 450, "{name}: {}", reply.text);
        assert!(reply.text.contains("is greylisted, try again in "), "{name}: {}", reply.text);
        // Never longer than it would be alone.
        assert!(!reply.text.contains("day") && !reply.text.contains("2 hours"), "{name}: {}", reply.text);
        assert!(took < Duration::from_secs(2), "{name}: {took:?}");
    }
    redis.cli(&["DEL", key]);
    redis.cli(&["SET", key, "P"]);
    assert_eq!(two.code(USER).await, 250, "what the writer lets pass");
    redis.cli(&["SET", key, "W99999999999999"]);
    assert_eq!(two.code(USER).await, 250, "it has passed here");
    assert_eq!(one.code(USER).await, 450);
    let log = two.daemon.whole_log().await;
    assert_eq!(log.matches("a key in Redis has a value that rmxd didn't write").count(), 1, "{log}");
}

/// A value that a node sealed long ago, or for another key, is nobody's word either.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_the_secret_speaks_for_a_node() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let mut site = Site::new(redis.url());
    site.cluster = "[limits]\nconnections_per_client = 4".to_owned();
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    one.sees(&[2]).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(crate::support::client::Client::greeted(super::CLIENT, one.smtp, "mail.good.test").await);
    }
    redis.has("rmxd:1:c:1").await;
    // What node 1 said, as if node 3 had; texts of one's own for other nodes; other types; a huge one.
    for (from, to) in [("n:1", "n:3"), ("c:1", "c:3"), ("c:1", "c:2"), ("c:1", "n:4")] {
        redis.cli(&["COPY", &format!("rmxd:1:{from}"), &format!("rmxd:1:{to}"), "REPLACE"]);
    }
    let card = "{\"name\":\"evil\",\"version\":\"1\",\"advertise\":\"127.0.0.1:9\",\"instance\":1}";
    redis.cli(&["SET", "rmxd:1:n:5", card]);
    redis.cli(&["SET", "rmxd:1:c:5", "127.0.0.11 1000"]);
    redis.cli(&["LPUSH", "rmxd:1:n:6", card]);
    redis.cli(&["EVAL", "redis.call('SET', KEYS[1], string.rep('x', 50000000))", "1", "rmxd:1:n:7"]);
    // A new gate reads all of them at its start.
    let three = site.gate(8).await;
    three.sees(&[1, 2]).await;
    let others = three.get("/api/v1/status").await["cluster"]["others"].clone();
    assert_eq!(others.as_array().unwrap().len(), 2, "{others}");
    assert!(!others.to_string().contains("evil"), "{others}");
    let log = three.daemon.whole_log().await;
    assert_eq!(log.matches("a key in Redis has a value that rmxd didn't write").count(), 1, "{log}");
    assert!(three.is_up().await, "{log}");
    assert_eq!(two.code(USER).await, 450);
    drop(held);
}
