//! Somebody who can write into Redis, and hasn't the secret: greylisted mail can be delayed or pass, and nothing else happens.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::posing::Posing;
use super::redis::Redis;
use super::{CLIENT, Gate, Site, USER};
use crate::support::client::Client;
use crate::support::process::SOON;

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
        held.push(Client::greeted(CLIENT, one.smtp, "mail.good.test").await);
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

/// Values of other times and other keys, and times of their own to live.
#[tokio::test(flavor = "multi_thread")]
async fn a_triple_that_is_repeated_moved_or_expires_waits_or_passes() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let site = Site::with_delay(redis.url(), Duration::from_secs(3600));
    let (one, two, three) = (site.gate(1).await, site.gate(2).await, site.gate(3).await);
    assert_eq!(one.code(USER).await, 450);
    let keys = redis.keys("rmxd:1:g:*");
    let [key] = keys.as_slice() else { panic!("{keys:?}") };
    redis.cli(&["COPY", key, "kept"]);
    for time in ["-1", "0", "1"] {
        redis.cli(&["PEXPIRE", key, time]);
        let reply = two.send(USER).await.0;
        assert_eq!(reply.code, 450, "{time}: {}", reply.text);
        redis.cli(&["COPY", "kept", key, "REPLACE"]);
    }
    // What a gate says later has its time to live again.
    redis.cli(&["SET", key, "P"]);
    assert_eq!(redis.cli(&["PTTL", key]), "-1");
    assert_eq!(two.code(USER).await, 250);
    assert!(redis.cli(&["PTTL", key]).parse::<i64>().unwrap() > 0);
    // Another triple, by the value of this one.
    assert_eq!(one.code("other@here.test").await, 450);
    let other = redis.keys("rmxd:1:g:*").into_iter().find(|other| other != key).unwrap();
    redis.cli(&["COPY", key, &other, "REPLACE"]);
    assert_eq!(three.code("other@here.test").await, 250);
    // The first attempt of long ago.
    redis.cli(&["SET", key, "W1"]);
    assert_eq!(three.code(USER).await, 250);
    for gate in [&one, &two, &three] {
        assert!(gate.is_up().await);
    }
}

/// The codes of so many greetings at one time; nothing but 220 and 421 is possible.
async fn greetings(gate: &Gate, from: IpAddr, count: usize) -> Vec<u16> {
    let mut clients = Vec::new();
    let mut codes = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(from, gate.smtp).await;
        codes.push(client.reply().await.code);
        clients.push(client);
    }
    assert!(codes.iter().all(|code| matches!(code, 220 | 421)), "{codes:?}");
    codes
}

async fn has_room(gate: &Gate, what: &str) {
    let began = Instant::now();
    while greetings(gate, CLIENT, 4).await != [220; 4] {
        assert!(began.elapsed() < SOON, "{what}: the client is still counted");
        sleep(Duration::from_millis(200)).await;
    }
}

/// The counts of connections: none of one's own making, and a true one for a few seconds at most.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_a_node_had_once_do_not_count_for_long() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let mut site = Site::new(redis.url());
    site.cluster = "[limits]\nconnections_per_client = 4".to_owned();
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    two.sees(&[1]).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(Client::greeted(CLIENT, one.smtp, "mail.good.test").await);
    }
    let began = Instant::now();
    while greetings(&two, CLIENT, 1).await != [421] {
        assert!(began.elapsed() < SOON, "the other gate doesn't count them");
        sleep(Duration::from_millis(100)).await;
    }
    redis.cli(&["COPY", "rmxd:1:c:1", "kept"]);
    redis.cli(&["PERSIST", "kept"]);
    drop(held);
    // It is repeated ten times a second, and never expires.
    let mut times = 0;
    let repeats = async {
        loop {
            redis.cli(&["COPY", "kept", "rmxd:1:c:1", "REPLACE"]);
            times += 1;
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = has_room(&two, "an old count") => {}
        () = repeats => {}
    }
    assert!(times > 1, "{times}");
    // What the node has sealed as something else, other types, a huge one, one's own words, and nothing.
    let huge = "redis.call('SET', KEYS[1], string.rep('9', 50000000))";
    let rows: [&[&str]; 6] = [
        &["COPY", "rmxd:1:n:1", "rmxd:1:c:1", "REPLACE"],
        &[
            "EVAL",
            "redis.call('DEL', KEYS[1]); redis.call('LPUSH', KEYS[1], '127.0.0.11 9')",
            "1",
            "rmxd:1:c:1",
        ],
        &["EVAL", "redis.call('DEL', KEYS[1]); redis.call('HSET', KEYS[1], 'a', 'b')", "1", "rmxd:1:c:1"],
        &["EVAL", huge, "1", "rmxd:1:c:1"],
        &["SET", "rmxd:1:c:1", "127.0.0.11 1000\n"],
        &["PEXPIRE", "rmxd:1:c:1", "-1"],
    ];
    for row in rows {
        redis.cli(row);
        let before = two.requests("connections").await;
        let began = Instant::now();
        while two.requests("connections").await < before + 2 {
            assert!(began.elapsed() < SOON, "{row:?}: nothing is read");
            assert_eq!(greetings(&two, CLIENT, 4).await, [220; 4], "{row:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }
    assert!(one.is_up().await && two.is_up().await);
}

/// Whatever a server says, of the time and of triples: the mail waits or passes, and nothing ends.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_poses_as_redis_can_only_let_mail_pass() {
    let server = Posing::start();
    let site = Site::with_delay(format!("redis://{}", server.address()), Duration::from_secs(3600));
    let gate = site.gate(1).await;
    assert!(gate.is_up().await, "{}", gate.daemon.log());
    let text = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let list = |parts: &[String]| format!("*{}\r\n{}", parts.len(), parts.concat());
    let answer = |kind: &str, rest: &str, error: &str| list(&[text(kind), text(rest), text(error)]);
    let answers = [
        (answer("W", "-1", ""), 450),
        (answer("W", "99999999999999999999999", ""), 450),
        (answer("W", &u64::MAX.to_string(), ""), 450),
        (answer("W", "1e3", ""), 450),
        (answer("R", "550", "550 5.7.1 no"), 450),
        (answer("N", "0", "OOM no"), 450),
        (answer("N", "0", &"550 ".repeat(100_000)), 450),
        (list(&[]), 450),
        (list(&[list(&[]), list(&[text("P")]), text("")]), 450),
        (text("550 5.7.1 refused"), 450),
        ("$-1\r\n".to_owned(), 450),
        (":550\r\n".to_owned(), 450),
        ("-ERR 550 5.7.1 refused\r\n".to_owned(), 450),
        ("+P\r\n".to_owned(), 450),
        (answer("W", "0", ""), 250),
        (answer("P", "0", ""), 250),
    ];
    for (number, (answer, code)) in answers.into_iter().enumerate() {
        server.answers("EVALSHA", &answer);
        let reply = gate.send(&format!("user{number}@here.test")).await.0;
        assert_eq!(reply.code, code, "{answer:.100}: {}", reply.text);
        assert!(
            !reply.text.contains("day") && !reply.text.contains("2 hours"),
            "{answer:.100}: {}",
            reply.text
        );
    }
    server.answers("EVALSHA", &answer("N", "0", ""));
    // Each beat has the next time.
    let times = [
        list(&[text("0"), text("0")]),
        list(&[text(&u64::MAX.to_string()), text(&u64::MAX.to_string())]),
        list(&[text("-5"), text("yesterday")]),
        list(&[text("4000000000"), text("999999")]),
        list(&[]),
        text("noon"),
    ];
    for (number, time) in times.iter().enumerate() {
        let before = server.asked("TIME");
        server.answers("TIME", time);
        let began = Instant::now();
        while server.asked("TIME") < before + 1 {
            assert!(began.elapsed() < SOON, "the time is never asked for");
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(gate.code(&format!("later{number}@here.test")).await, 450, "{time}");
    }
    assert!(gate.is_up().await);
    assert_eq!(gate.code("user14@here.test").await, 250, "what has passed passes");
    let log = gate.daemon.whole_log().await;
    assert!(!log.contains("panic"), "{log}");
}
