//! The real binary: started, talked to, signalled, and its end awaited.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::support::log::{settled, so_far};

/// For anything that is expected; far more than it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The binary with nothing of rmxd's in its environment, and no system-wide configuration.
pub(crate) fn rmxd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rmxd"));
    command.args(arguments).env_clear().env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// A running `rmxd serve`. Dropping it kills it.
pub(crate) struct Daemon {
    child: Child,
    folder: TempDir,
}

impl Daemon {
    /// Starts one with these lines of configuration, `KEY=VALUE` as for `--set`, and flags; it may fail to. Without a
    /// DNS server of its own it has one that doesn't answer, so that none outside of this machine is asked.
    pub(crate) fn spawn(lines: &[&str], flags: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("rmxd-serve-").tempdir().unwrap();
        std::fs::write(
            folder.path().join("rmxd.toml"),
            "hostname = 'gate.test'\nlisten.smtp = ['127.0.0.1:0']\nlisten.admin = ''\ndns.servers = ['127.0.0.1:9']\n",
        )
        .unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = rmxd(&["serve", "--config", "rmxd.toml"]);
        for line in lines {
            command.args(["--set", line]);
        }
        let child =
            command.args(flags).current_dir(folder.path()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { child, folder }
    }

    /// The same, and waits until it listens.
    pub(crate) async fn start(lines: &[&str], flags: &[&str]) -> (Self, SocketAddr) {
        let mut daemon = Self::spawn(lines, flags);
        let began = Instant::now();
        loop {
            let log = daemon.log();
            // as text and as JSON
            let line = log.lines().find(|line| line.contains("listening"));
            if let Some(at) = line.and_then(|line| line.find("127.0.0.1:").map(|at| line.split_at(at).1)) {
                let end = at.find([' ', '"']).unwrap_or(at.len());
                return (daemon, at.split_at(end).0.parse().unwrap());
            }
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "it doesn't listen: {ended:?}\n{log}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Its folder: the Maildir `mail` and the log.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        settled(&self.folder.path().join("log"))
    }

    /// Messages in its Maildir.
    pub(crate) fn delivered(&self) -> Vec<PathBuf> {
        let new = self.folder.path().join("mail/new");
        std::fs::read_dir(new).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// Sends it SIGTERM.
    pub(crate) fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end; its exit code.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "it doesn't end\n{}", self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the log has this.
    pub(crate) async fn logs(&self, text: &str) {
        let began = Instant::now();
        while !so_far(&self.folder.path().join("log")).contains(text) {
            assert!(began.elapsed() < PATIENCE, "no {text} in the log\n{}", self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Resident memory in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An SMTP client on a socket.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects from this address and reads the greeting.
    pub(crate) async fn connect(from: &str, to: SocketAddr) -> (Self, String) {
        let socket = TcpSocket::new_v4().unwrap();
        let from: IpAddr = from.parse().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        let stream = timeout(PATIENCE, socket.connect(to)).await.unwrap().unwrap();
        let mut client = Self(BufReader::new(stream));
        let greeting = client.reply().await;
        (client, greeting)
    }

    /// The last line of the next reply, without its CRLF; empty when the connection is closed.
    pub(crate) async fn reply(&mut self) -> String {
        loop {
            let mut line = Vec::new();
            let read = timeout(PATIENCE, self.0.read_until(b'\n', &mut line)).await.unwrap();
            let line = String::from_utf8(line).unwrap();
            if read.is_err() || line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end().to_owned();
            }
        }
    }

    pub(crate) async fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.0.write_all(octets.as_ref()).await.unwrap();
    }

    /// Sends a command and reads the reply.
    pub(crate) async fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n")).await;
        self.reply().await
    }

    /// Sends commands; each must be answered as the code in front of it says.
    pub(crate) async fn talk(&mut self, dialogue: &[(&str, &str)]) {
        for (line, expected) in dialogue {
            let reply = self.ask(line).await;
            assert!(reply.starts_with(expected), "{line}: {reply}");
        }
    }
}
