//! `rmxd serve` into a folder.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::interop::peers;
use crate::support::log::settled;

/// A running daemon. Dropping it kills it.
pub(super) struct Daemon {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Daemon {
    /// Starts one with the defaults, this name server, and `more` TOML below; with `descriptors`, it may have no more
    /// of them than these.
    pub(super) async fn start(zone: SocketAddr, descriptors: Option<u32>, more: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("rmxd-edge-").tempdir().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, peers::free_port()));
        let file = folder.path().join("rmxd.toml");
        fs::write(&file, configuration(address, zone, more)).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let limit = descriptors.map_or(String::new(), |most| format!("ulimit -n {most} && "));
        let mut command = Command::new("sh");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RMXD_")) {
            command.env_remove(name);
        }
        let child = command
            .args(["-c", &format!("{limit}exec \"$0\" serve --config \"$1\"")])
            .arg(binary())
            .arg(&file)
            .env("NO_COLOR", "1")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut daemon = Self { child, address, folder };
        peers::eventually("rmxd listens", Duration::from_secs(20), || daemon.listens()).await;
        daemon
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it logged so far.
    pub(super) fn log(&self) -> String {
        settled(&self.folder.path().join("log"))
    }

    /// Its resident memory now, in KiB.
    pub(super) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Messages that were delivered.
    pub(super) fn messages(&self) -> Vec<PathBuf> {
        let new = self.folder.path().join("mail/new");
        fs::read_dir(new).map(|files| files.map(|file| file.unwrap().path()).collect()).unwrap_or_default()
    }

    fn listens(&mut self) -> Option<()> {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("rmxd has ended with {status}: {}", self.log());
        }
        self.log().contains("listening").then_some(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("--- the end of rmxd's log\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The release build when `tests/run` names one, else the one that cargo built for this test.
fn binary() -> PathBuf {
    std::env::var_os("RMXD_BIN").map_or_else(|| env!("CARGO_BIN_EXE_rmxd").into(), PathBuf::from)
}

fn configuration(listen: SocketAddr, zone: SocketAddr, more: &str) -> String {
    format!(
        r#"hostname = "gate.relay.test"

[listen]
smtp = ["{listen}"]
admin = ""

[relay]
next_hop = "maildir:mail"

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
