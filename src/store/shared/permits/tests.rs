//! The exchange of permits without a server: clocks, and what a script may return. `tests/it/fleet/permits.rs` has it with
//! servers.

use redis::Value;

use super::*;
use crate::decision::Node;
use crate::metrics::Metrics;
use crate::store::permits::Clock;
use crate::store::shared::{Secret, Settings, Target};

fn exchange() -> Exchange {
    let settings = Settings {
        target: Target::parse("redis://127.0.0.1:1").unwrap(),
        node: Node::of_a_test(1),
        secret: Secret::new(&[1; 32]),
        ca: None,
        timeout: Duration::from_millis(100),
        prefix: "rmxd".to_owned(),
        advertise: None,
        hostname: "gate1.test".to_owned(),
    };
    let keys = Keys::new(&settings.prefix, &settings.secret).unwrap();
    let link = Link::new(settings, Metrics::default());
    Exchange::new(Arc::new(link), Arc::new(keys), PermitStore::in_memory(Clock::default()))
}

#[test]
fn the_clock_of_redis_counts_unless_it_is_far_off_or_came_late() {
    let (exchange, mut state) = (exchange(), State::default());
    let now = SystemTime::now();
    let second = Duration::from_secs(1);
    let mut ahead = |took: Duration, server: SystemTime| {
        exchange.set_clock(&mut state, now, took, server);
        (exchange.store.ahead(), state.wrong_clock)
    };
    assert_eq!(ahead(Duration::ZERO, now + second / 5), (0, false), "that is the time of an answer");
    assert_eq!(ahead(second / 5, now + 61 * second), (60_900, false));
    assert_eq!(ahead(Duration::ZERO, now + 61 * second), (60_900, false), "so it was");
    assert_eq!(ahead(Duration::ZERO, now - 10 * second), (-10_000, false));
    assert_eq!(ahead(second, now), (-10_000, false), "late");
    assert_eq!(ahead(Duration::ZERO, now + 3601 * second), (-10_000, true));
    assert_eq!(ahead(Duration::ZERO, now - 100_000 * second), (-10_000, true));
    assert_eq!(ahead(Duration::ZERO, now + 3599 * second), (3_599_000, false));
}

#[tokio::test]
async fn while_redis_is_away_nothing_is_shared_and_nothing_waits() {
    let exchange = exchange();
    assert!(exchange.share().await, "nothing was made");
    exchange.store.lacking(&[1]);
    assert!(!exchange.share().await);
    assert_eq!(exchange.link.metrics().cluster_dropped_total(), 1);
}

#[test]
fn milliseconds_are_those_of_the_server() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(5000);
    assert_eq!([by_server(now, 0), by_server(now, 7), by_server(now, -5001)], [5000, 5007, 0]);
}

fn text(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

#[test]
fn an_answer_that_no_script_gives_is_none() {
    let name = "0123456789abcdef".repeat(2);
    let all = |count: i64, names: &str| {
        Value::Array(vec![text("7"), text("12"), text("500000"), Value::Int(count), text(names)])
    };
    let found = scripts::names(&all(2, &(name.clone() + &name))).unwrap();
    assert_eq!(
        (found.number.as_slice(), found.fields.as_ref().map(Vec::len), found.odd),
        (&b"7"[..], Some(2), false)
    );
    assert_eq!(found.time, SystemTime::UNIX_EPOCH + Duration::from_millis(12_500));
    assert!(scripts::names(&all(3, &name)).unwrap().odd, "names of another length");
    for count in [-1, 32_769, i64::MAX] {
        assert_eq!(scripts::names(&all(count, "")).unwrap().fields, None, "{count}");
    }
    for answer in [
        Value::Nil,
        Value::Int(1),
        Value::Array(Vec::new()),
        Value::Array(vec![text("7"), text("-1"), text("0"), Value::Int(0), text("")]),
        Value::Array(vec![text("7"), text("18446744073709551615"), text("0"), Value::Int(0), text("")]),
        Value::Array(vec![Value::Nil, text("1"), text("0"), Value::Int(0), text("")]),
    ] {
        assert_eq!(scripts::names(&answer), None, "{answer:?}");
        assert_eq!(scripts::written(&answer), None, "{answer:?}");
    }
    let written = scripts::written(&Value::Array(vec![text("6"), text("7")]));
    assert_eq!(written, Some((b"6".to_vec(), b"7".to_vec())));
}
