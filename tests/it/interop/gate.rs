//! `rmxd serve` between the test's name server and the test's Postfix.

use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::peers;
use super::postfix::Postfix;
use super::zone::Zone;

use crate::support::log::settled;

/// A running daemon. Dropping it kills it.
pub(crate) struct Gate {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Gate {
    /// Starts one with the default policy; `more` is TOML that goes below (`[policy]`, `[limits]`). Waits for its greeting.
    pub(crate) async fn start(zone: &Zone, postfix: &Postfix, more: &str) -> Self {
        Self::start_with(zone, postfix, more, &[]).await
    }

    /// The same, with `KEY=VALUE` over what the file says.
    pub(crate) async fn start_with(zone: &Zone, postfix: &Postfix, more: &str, set: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("rmxd-gate-").tempdir().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, peers::free_port()));
        let file = folder.path().join("rmxd.toml");
        fs::write(&file, configuration(address, zone.address(), postfix.address(), more)).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(binary());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RMXD_")) {
            command.env_remove(name);
        }
        let child = command
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .args(set.iter().flat_map(|assignment| ["--set", assignment]))
            .env("NO_COLOR", "1")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut gate = Self { child, address, folder };
        peers::eventually("rmxd's greeting", Duration::from_secs(20), || gate.greets()).await;
        gate
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        settled(&self.folder.path().join("log"))
    }

    /// The most resident memory that it has had, in KiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Asks it to end and waits until it has; true when it ended by itself with 0.
    pub(crate) async fn terminate(mut self) -> bool {
        peers::signal(self.child.id(), "TERM");
        let child = &mut self.child;
        let ended = peers::eventually("rmxd's end after SIGTERM", Duration::from_secs(40), || {
            child.try_wait().unwrap()
        });
        ended.await.success()
    }

    fn greets(&mut self) -> Option<()> {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("rmxd has ended with {status}: {}", self.log());
        }
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).ok()?;
        (greeting == *b"220 ").then_some(())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- rmxd's log\n{}", self.log());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The release build when `tests/run` names one, else the one that cargo built for this test.
fn binary() -> PathBuf {
    std::env::var_os("RMXD_BIN").map_or_else(|| env!("CARGO_BIN_EXE_rmxd").into(), PathBuf::from)
}

fn configuration(listen: SocketAddr, zone: SocketAddr, relay: SocketAddr, more: &str) -> String {
    format!(
        r#"hostname = "gate.relay.test"

[listen]
smtp = ["{listen}"]
admin = ""

[relay]
next_hop = "smtp://{relay}"
identity = "xclient"

[dns]
servers = ["{zone}"]
timeout = "2s"
private_addresses = "accept"

[history]
path = ""

{more}
"#
    )
}
