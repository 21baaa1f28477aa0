//! What a client can make rmxd ask, and what a flood of questions costs an honest client: `cargo bench --bench starved`.
//!
//! The questions that a silent connection, MAIL with RCPT, and a whole message cost with the worst zone, counted at the name
//! server for each shipped configuration; then the honest client's times beside 60 networks whose names are all silent.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program for the terminal"
)]

#[allow(dead_code, reason = "the integration tests use more of it")]
#[path = "../../tests/it/support/client.rs"]
mod client;
#[allow(dead_code, reason = "the integration tests use more of it")]
#[path = "../../tests/it/support/daemon.rs"]
mod daemon;
#[allow(dead_code, reason = "the integration tests use more of it")]
#[path = "../../tests/it/support/process.rs"]
mod process;
mod support {
    pub(crate) use crate::{client, process};
}

#[path = "../../tests/it/dns_load/flood.rs"]
mod flood;
#[path = "../../tests/it/dns_load/responder.rs"]
mod responder;
#[path = "../../tests/it/dns_load/worst.rs"]
mod worst;

use daemon::{Daemon, any_port, configuration};
use flood::{Flood, honest_messages};
use responder::Responder;
use worst::{ENVELOPE, PROFILES, five, gate, message};

fn main() {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        budgets().await;
        flooded().await;
    });
}

async fn budgets() {
    let (from, reply_to) = (five("from"), five("reply"));
    let names = |of: &'static [String]| of.iter().map(String::as_str).collect::<Vec<_>>();
    let (from, reply_to) = (names(from.leak()), names(reply_to.leak()));
    for profile in PROFILES {
        let dns = Responder::start(worst::worst).await;
        let gate = gate(profile, dns.address);
        let (_, [silent, envelope, whole]) = message(&gate, &dns, ENVELOPE, [&from, &reply_to]).await;
        println!(
            "{profile}: questions of a silent connection {silent}, to RCPT {envelope}, of a message {whole}"
        );
    }
}

async fn flooded() {
    let dns = Responder::start(flood::zone).await;
    let daemon = Daemon::start(&configuration("gate.test", &[any_port()], dns.address, ""), &[]).await;
    let flood = Flood::start(daemon.address());
    flood.filled().await;
    let honest = honest_messages(daemon.address()).await;
    println!("beside {} flooding connections of 60 networks: {honest}", flood.connections());
}
