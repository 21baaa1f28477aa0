//! What one Redis has to do for many gates that are flooded: `cargo bench --bench fleet -- --gates 15 --rate 5000`.
//!
//! The gates' own code in one process over a real redis-server, which counts what it is asked and what it holds. Beside each
//! figure is the one that the arithmetic in `benches/README.md` gives.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program for the terminal"
)]

#[allow(dead_code, reason = "the integration tests use more of it")]
#[path = "../../tests/it/support/process.rs"]
mod process;
mod support {
    pub(crate) use crate::process;
}
#[allow(dead_code, reason = "the integration tests use more of it")]
#[path = "../../tests/it/fleet/redis.rs"]
mod redis;
#[path = "../../tests/it/fleet/scale.rs"]
mod scale;

use std::time::Duration;

use clap::Parser as _;

use redis::Redis;
use scale::{Plan, SHARE, beacon_reads, octets, simulate};

#[derive(clap::Parser)]
struct Arguments {
    /// More than 15 are several fleets in one Redis, each with its own prefix
    #[arg(long, default_value_t = 15)]
    gates: usize,
    /// Sessions a second of each gate
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// cluster.timeout in ms: on a machine that is too busy with the gates themselves, they soon go alone
    #[arg(long, default_value_t = 100)]
    timeout: u64,
    /// maxmemory of Redis, with allkeys-lru; 0 = none
    #[arg(long, default_value = "0")]
    maxmemory: String,
    /// That of cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn main() {
    let arguments = Arguments::parse();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let memory = ["--maxmemory", &arguments.maxmemory, "--maxmemory-policy", "allkeys-lru"];
        let redis = Redis::start(&memory).await.expect("redis-server");
        let plan = Plan {
            gates: arguments.gates,
            rate: arguments.rate,
            time: Duration::from_secs(arguments.seconds),
            timeout: Duration::from_millis(arguments.timeout),
        };
        let seen = simulate(&redis, plan).await;
        let gates = arguments.gates as f64;
        let a_second = |count: u64| count as f64 / seen.seconds;
        let of = |name: &str| a_second(seen.commands.get(name).copied().unwrap_or_default());
        println!(
            "{} gates, {:.0} sessions a second in all, {:.1} s",
            arguments.gates,
            a_second(seen.sessions),
            seen.seconds
        );
        println!("operations a second             seen   computed");
        let row = |name: &str, seen: f64, computed: f64| println!("  {name:<26} {seen:9.0} {computed:9.0}");
        let asked = of("evalsha") + of("eval");
        row("scripts", asked, 2.0 * SHARE * gates);
        row("SET", of("set"), (2.0 * SHARE + 0.6) * gates);
        row("GETRANGE of beacons", of("getrange") - asked, beacon_reads(arguments.gates));
        let all: u64 = seen.commands.values().sum();
        println!("  all, with those of scripts {:9.0}", a_second(all));
        println!("dropped: {:.0} a second", a_second(seen.dropped));
        println!("longest wait of a session: {:.1} ms", seen.longest.as_secs_f64() * 1000.0);
        println!(
            "keys: {}, {:.0} octets each with the tables",
            seen.keys,
            seen.memory as f64 / seen.keys as f64
        );
        for (kind, octets) in octets(&redis) {
            println!("  {kind}: {octets}");
        }
        println!("processor of Redis: {:.0} %", 100.0 * seen.processor / seen.seconds);
        println!("commands: {:?}", seen.commands);
    });
}
