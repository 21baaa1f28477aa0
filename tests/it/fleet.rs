//! Several gates over one Redis (contract 8), with real servers: what one has learnt counts at the others, and whatever
//! happens to Redis, no mail is refused for it and none waits long.

mod decisions;
mod faults;
mod greylist;
mod kinds;
mod load;
mod nodes;
mod page;
mod permits;
mod posing;
mod redis;
mod scale;
mod writer;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::admin::http::Request;
use crate::support::client::{Client, Reply};
use crate::support::daemon::{Daemon, Home, configuration};
use crate::support::process::free_address;
use crate::support::zone::Zone;

/// An address in the network of good.test's exchanger, and no exchanger itself: greylisted.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
const SENDER: &str = "ann@good.test";
const USER: &str = "user@here.test";
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef\n";
const TOKEN: &str = "s3cret";

/// Where gates stand: what they have in common.
struct Site {
    zone: Zone,
    redis: String,
    /// More lines of `[cluster]`, and below it.
    cluster: String,
    delay: Duration,
}

struct Gate {
    daemon: Daemon,
    smtp: SocketAddr,
    admin: SocketAddr,
}

impl Site {
    fn new(redis: impl Into<String>) -> Self {
        Self::with_delay(redis, Duration::from_secs(60))
    }

    fn with_delay(redis: impl Into<String>, delay: Duration) -> Self {
        Self { zone: Zone::start(), redis: redis.into(), cluster: String::new(), delay }
    }

    /// The folder and the addresses of a gate that isn't started.
    fn prepare(&self, node: u8) -> (Home, SocketAddr, SocketAddr) {
        let (smtp, admin, home) = (free_address(), free_address(), Home::new());
        std::fs::write(home.path().join("secret"), SECRET).unwrap();
        home.configure(&self.text(node, smtp, admin));
        (home, smtp, admin)
    }

    fn text(&self, node: u8, smtp: SocketAddr, admin: SocketAddr) -> String {
        let Self { redis, cluster, delay, .. } = self;
        let more = format!(
            "[relay]\ndomains = [\"here.test\"]\n[policy.mail_from]\nmatches = \"greylist\"\nmatches_by = [\"mx\"]\n\
             [greylist]\ndelay = \"{}ms\"\n[admin]\ntoken = \"{TOKEN}\"\n\
             [cluster]\nredis = \"{redis}\"\nnode = {node}\nsecret = \"secret\"\nadvertise = \"http://{admin}\"\n{cluster}",
            delay.as_millis()
        );
        let text = configuration(&format!("gate{node}.test"), &[smtp], self.zone.address(), &more);
        text.replace("admin = \"\"", &format!("admin = \"{admin}\""))
            .replace("path = \"\"", "path = \"decisions\"")
    }

    async fn gate(&self, node: u8) -> Gate {
        let (home, smtp, admin) = self.prepare(node);
        let daemon = Daemon::spawn(home.serve(), home).await;
        Gate { daemon, smtp, admin }
    }
}

impl Gate {
    /// The reply to RCPT or to the message, and how long it took.
    async fn send(&self, recipient: &str) -> (Reply, Duration) {
        let message = format!("From: {SENDER}\r\n\r\nHello\r\n");
        let mut client = Client::greeted(CLIENT, self.smtp, "mail.good.test").await;
        let began = Instant::now();
        let reply = client.deliver(SENDER, recipient, message.as_bytes()).await;
        (reply, began.elapsed())
    }

    async fn code(&self, recipient: &str) -> u16 {
        self.send(recipient).await.0.code
    }

    async fn get(&self, target: &str) -> Value {
        let answer =
            Request::get(target).with("Authorization", &format!("Bearer {TOKEN}")).send(self.admin).await;
        answer.json()
    }

    async fn metrics(&self) -> String {
        let request = Request::get("/metrics").with("Authorization", &format!("Bearer {TOKEN}"));
        request.send(self.admin).await.text().to_owned()
    }

    async fn metric(&self, sample: &str) -> u64 {
        let metrics = self.metrics().await;
        let line = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {sample}: {metrics}")).parse().unwrap()
    }

    /// Questions to Redis of this kind, whatever became of them.
    async fn requests(&self, op: &str) -> u64 {
        let start = format!("rmxd_cluster_requests_total{{op=\"{op}\",");
        let metrics = self.metrics().await;
        let lines = metrics.lines().filter(|line| line.starts_with(&start));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Waits until these other nodes are there.
    async fn sees(&self, nodes: &[u8]) {
        let mut seen = Value::Null;
        for _ in 0..600 {
            seen = self.get("/api/v1/status").await["cluster"]["others"].clone();
            let found: Vec<_> =
                seen.as_array().unwrap().iter().map(|other| other["node"].as_u64().unwrap()).collect();
            if nodes.iter().map(|node| u64::from(*node)).eq(found) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("after 30 s the gate sees {seen} and not {nodes:?}");
    }

    async fn is_up(&self) -> bool {
        self.get("/readyz").await["cluster"] == "up"
    }

    /// Waits until it knows that Redis is up, or away.
    async fn knows(&self, up: bool) {
        for _ in 0..600 {
            if self.is_up().await == up {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("after 30 s the gate does not know that Redis is {}", if up { "up" } else { "away" });
    }
}
