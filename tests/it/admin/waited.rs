//! `rmxd_relay_seconds` has what the next hop took, `rmxd_wait_seconds` what rmxd made the client wait, at each door, and neither
//! has the other's time. `process_*` is what the system says of the daemon.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::admin::counted::{Samples, of};
use crate::admin::{Site, text};
use crate::support::daemon::Daemon;
use crate::support::process::{self, SOON, free_address, rmxd};
use crate::support::relay::{LATER, Relay};

use super::{Ipv4Addr, Server, Zone};

/// What slow.test of the sample zones takes for each answer.
const SLOW: f64 = 0.5;
/// Of that what a client waits at least that sends RCPT behind MAIL.
const WAITED: f64 = 0.4;

fn relay_seconds(samples: &Samples, stage: &str) -> (f64, f64) {
    let name = |end: &str| format!("rmxd_relay_seconds_{end}{{stage=\"{stage}\"}}");
    (of(samples, &name("count")), of(samples, &name("sum")))
}

fn wait_seconds(samples: &Samples, door: &str, stage: &str) -> (f64, f64) {
    let name = |end: &str| format!("rmxd_wait_seconds_{end}{{door=\"{door}\",stage=\"{stage}\"}}");
    (of(samples, &name("count")), of(samples, &name("sum")))
}

/// The sum of all series of a histogram.
fn total(samples: &Samples, histogram: &str) -> f64 {
    let start = format!("{histogram}_sum");
    samples.iter().filter(|(name, _)| name.starts_with(&start)).map(|(_, value)| value).sum()
}

fn to_relay(relay: &Relay, more: &str) -> String {
    format!(
        "[relay]\nnext_hop = \"smtp://{}\"\nidentity = \"none\"\ndomains = [\"here.test\"]\n{more}",
        relay.address
    )
}

fn slow_at(relay: &Relay, starts: &[&str]) {
    for start in starts {
        let reply = match *start {
            "connect" => "(later) 220 relay.test",
            "DATA" => "(later) 354 go on",
            _ => "(later) 250 2.0.0 ok",
        };
        relay.rules.lock().unwrap().push(((*start).to_owned(), reply.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_relay_is_the_relays_time_and_no_wait_for_rmxd() {
    let later = LATER.as_secs_f64();
    let relay = Relay::start().await;
    let site = Site::start(&to_relay(&relay, "")).await;
    site.becomes(200).await;
    let before = site.samples().await;
    assert_eq!(relay_seconds(&before, "connect").0, 0.0, "a probe carries no mail: {before:#?}");
    slow_at(&relay, &["connect", "RCPT", "DATA", "."]);
    assert_eq!(site.deliver("a@good.test", "a@good.test").await, 250);
    let stage = |name: &str, count: f64| (format!("rmxd_relay_seconds_count{{stage=\"{name}\"}}"), count);
    let expected = [stage("connect", 1.0), stage("envelope", 1.0), stage("message", 1.0)];
    let expected: Vec<(&str, f64)> = expected.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    let samples = site.counts(&expected).await;
    for (stage, least) in [("connect", later), ("envelope", later), ("message", 2.0 * later)] {
        let (_, sum) = relay_seconds(&samples, stage);
        assert!(sum >= least && sum < least + later, "{stage}: {sum} {samples:#?}");
    }
    for stage in ["rcpt", "header", "connection"] {
        let (count, sum) = wait_seconds(&samples, "smtp", stage);
        assert!(count == 1.0 && sum < later, "{stage}: {count} {sum}");
    }
    assert!(total(&samples, "rmxd_wait_seconds") < later, "{samples:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_dns_is_a_wait_for_rmxd_and_not_the_relays_time() {
    let relay = Relay::start().await;
    let site = Site::start(&to_relay(&relay, "[limits]\nbanner_delay = \"700ms\"")).await;
    site.becomes(200).await;
    // Both domains are new, so that RCPT and the header block wait for DNS.
    site.deliver("a@slow.test", "a@other.slow.test").await;
    let samples = site.counts(&[("rmxd_wait_seconds_count{door=\"smtp\",stage=\"banner\"}", 1.0)]).await;
    assert!(wait_seconds(&samples, "smtp", "banner").1 >= 0.7, "{samples:#?}");
    let (count, sum) = wait_seconds(&samples, "smtp", "rcpt");
    assert!(count == 1.0 && sum >= WAITED, "{samples:#?}");
    let passed = relay_seconds(&samples, "envelope").0 == 1.0;
    let (count, sum) = wait_seconds(&samples, "smtp", "header");
    assert!(!passed || count == 1.0 && sum >= WAITED, "{samples:#?}");
    assert!(total(&samples, "rmxd_relay_seconds") < SLOW, "{samples:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_free_connection_to_the_relay_is_one_of_its_own() {
    let later = LATER.as_secs_f64();
    let relay = Relay::start().await;
    slow_at(&relay, &["."]);
    let site = Site::start(&to_relay(&relay, "max_connections = 1")).await;
    site.becomes(200).await;
    let (one, other) =
        tokio::join!(site.deliver("a@good.test", "a@good.test"), site.deliver("b@good.test", "b@good.test"));
    assert_eq!((one, other), (250, 250));
    let samples = site.counts(&[("rmxd_relay_seconds_count{stage=\"message\"}", 2.0)]).await;
    let (count, sum) = wait_seconds(&samples, "smtp", "connection");
    assert!(count == 2.0 && sum >= 0.5 * later, "{samples:#?}");
    assert!(relay_seconds(&samples, "message").1 >= 2.0 * later, "{samples:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doors_of_a_mail_server_have_their_waits_too() {
    let zone = Server::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Zone::sample()).await.unwrap();
    let (admin, smtp, milter, policy) = (free_address(), free_address(), free_address(), free_address());
    let config = text(zone.address(), admin, smtp, "");
    let doors = format!("[listen]\nmilter = [\"{milter}\"]\npolicy = [\"{policy}\"]\n");
    let daemon = Daemon::start(&config.replace("[listen]\n", &doors), &["--set", "dns.timeout=3s"]).await;
    let site = Site { daemon, admin, smtp, zone };
    let mut stream = TcpStream::connect(policy).await.unwrap();
    let request = "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=127.0.0.12\n\
                   sender=a@slow.test\nrecipient=user@here.test\ninstance=1\n\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await.unwrap();
    let samples = site.samples().await;
    let (count, sum) = wait_seconds(&samples, "policy", "rcpt");
    assert!(count == 1.0 && sum >= WAITED, "{samples:#?}");
    // Another name, since this one is in the cache now.
    let target = milter.to_string();
    let mut load = rmxd(&[
        "load",
        &target,
        "--door",
        "milter",
        "--mix",
        "clean=1",
        "--sessions",
        "1",
        "--recipient",
        "user@here.test",
        "--domain",
        "clean=new.slow.test@127.0.0.10",
    ]);
    process::run(&mut load, Vec::new(), SOON).await;
    let samples = site.counts(&[("rmxd_wait_seconds_count{door=\"milter\",stage=\"rcpt\"}", 1.0)]).await;
    assert!(wait_seconds(&samples, "milter", "rcpt").1 >= WAITED, "{samples:#?}");
    assert_eq!(total(&samples, "rmxd_relay_seconds"), 0.0, "{samples:#?}");
    assert_eq!(wait_seconds(&samples, "smtp", "rcpt"), (0.0, 0.0), "{samples:#?}");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_process_has_the_values_that_the_system_has() {
    let site = Site::start("").await;
    let before = site.samples().await;
    for _ in 0..20 {
        site.deliver("a@nodomain.test", "a@good.test").await;
    }
    let held: Vec<_> = {
        let mut held = Vec::new();
        for _ in 0..12 {
            held.push(TcpStream::connect(site.smtp).await.unwrap());
        }
        held
    };
    site.counts(&[("rmxd_connections_open", 12.0)]).await;
    let after = site.samples().await;
    let more = of(&after, "process_open_fds") - of(&before, "process_open_fds");
    assert!((10.0..=40.0).contains(&more), "{more} {}", held.len());
    assert!(of(&after, "process_max_fds") >= of(&after, "process_open_fds"));
    assert!(of(&after, "process_cpu_seconds_total") >= of(&before, "process_cpu_seconds_total"));
    #[expect(clippy::cast_precision_loss, reason = "compared roughly")]
    let memory = (site.daemon.memory() * 1024) as f64;
    let seen = of(&after, "process_resident_memory_bytes");
    assert!(seen > memory / 2.0 && seen < memory * 2.0, "{seen} {memory}");
    assert!(of(&after, "process_virtual_memory_bytes") > seen && of(&after, "process_threads") >= 2.0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let age = now.as_secs_f64() - of(&after, "process_start_time_seconds");
    assert!((-2.0..Duration::from_secs(120).as_secs_f64()).contains(&age), "{age}");
}
