//! The whole of `dns` against a real server on loopback.

mod answers;
mod bounds;
mod caching;
mod connections;
mod faults;
mod raw_server;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::dns::shares::{MAX_PER_CLIENT, MAX_UNDER_WAY, MAX_WAITING_PER_CLIENT};
use crate::dns::test_server::{NEGATIVE_TTL, TestServer, settings};
use crate::dns::*;
use crate::evidence::{Answer, Evidence, Freshness, RecordType, Records, Target};
use crate::metrics::{Format, Gauges};
use crate::smtp::address::DomainName;

/// On whose account it is asked, where that doesn't matter.
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const SECOND: Duration = Duration::from_secs(1);

fn question(rtype: RecordType, name: &str) -> Question {
    Question { name: DomainName::parse(name).unwrap().into(), rtype }
}

fn account(client: IpAddr) -> Account {
    Account::new(client, Budget::of(u32::MAX), Urgency::Refuses)
}

async fn mx(dns: &Dns, name: &str) -> Lookup {
    dns.ask(question(RecordType::Mx, name), &account(CLIENT)).await
}

async fn a(dns: &Dns, name: &str) -> Lookup {
    dns.ask(question(RecordType::A, name), &account(CLIENT)).await
}

fn text(lookup: &Lookup) -> String {
    format!("{} {}", lookup.evidence.freshness.name(), lookup.evidence.answer)
}

async fn text_of(dns: &Dns, name: &str) -> String {
    text(&mx(dns, name).await)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(30 * SECOND, wait).await.unwrap_or_else(|_elapsed| panic!("{what}: not in time"));
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}
