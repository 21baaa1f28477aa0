//! What a client can make rmxd ask, and what a flood of questions costs an honest client: `cargo bench --bench starved`.
//!
//! The questions that a silent connection, MAIL with RCPT, and a whole message cost with the worst zone, counted at the name
//! server for each shipped configuration; then the honest client's times beside 60 networks whose names are all silent.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program for the terminal"
)]

#[path = "../../tests/it/dns_load/flood.rs"]
mod flood;
#[path = "../../tests/it/dns_load/responder.rs"]
mod responder;
#[path = "../../tests/it/dns_load/worst.rs"]
mod worst;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::sleep;

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
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let _daemon = Daemon(
        Command::new(env!("CARGO_BIN_EXE_rmxd"))
            .args([
                "serve",
                "--set",
                "hostname=gate.test",
                "--set",
                "listen.admin=",
                "--set",
                "history.path=",
            ])
            .args([
                "--set",
                &format!("listen.smtp={address}"),
                "--set",
                &format!("dns.servers={}", dns.address),
            ])
            .args(["--set", "dns.private_addresses=accept", "--set", "relay.next_hop=maildir:mail"])
            .env_clear()
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    while TcpStream::connect(address).is_err() {
        sleep(Duration::from_millis(20)).await;
    }
    let flood = Flood::start(address);
    let honest = honest_messages(address).await;
    println!("beside {} flooding connections of 60 networks: {honest}", flood.connections());
}

/// Dropping it kills it.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
