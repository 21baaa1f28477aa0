//! `rmxd serve` with a Maildir behind it, for tests of the daemon as a process: its signals, its log, its end.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::interop::peers;
use crate::support::log::{settled, so_far};

/// For anything that a daemon does at once, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A running daemon. Dropping it kills it.
pub(crate) struct Daemon {
    child: Child,
    home: Home,
}

/// Where a daemon has its configuration, its log and its Maildir; it outlives the daemon.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("rmxd-daemon-").tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes the configuration as a good editor does: whole, by renaming.
    pub(crate) fn configure(&self, text: &str) {
        let new = self.path().join("rmxd.toml.new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path().join("rmxd.toml")
    }

    /// A file for standard output and error.
    pub(crate) fn log_file(&self) -> File {
        File::options().create(true).append(true).open(self.path().join("log")).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        settled(&self.path().join("log"))
    }

    fn log_so_far(&self) -> String {
        so_far(&self.path().join("log"))
    }

    /// `program` with a clean environment, the arguments of `rmxd serve` still to come.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RMXD_")) {
            command.env_remove(name);
        }
        let log = self.log_file();
        command
            .env("NO_COLOR", "1")
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    /// The messages in the Maildir.
    pub(crate) fn messages(&self) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(self.path().join("mail/new")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| !is_hidden(path)).map(|path| fs::read(path).unwrap()).collect()
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

impl Daemon {
    /// Starts one and waits until it listens.
    pub(crate) async fn start(configuration: &str, arguments: &[&str]) -> Self {
        Self::start_program(binary(), configuration, arguments).await
    }

    /// The same of another build.
    pub(crate) async fn start_program(program: &str, configuration: &str, arguments: &[&str]) -> Self {
        let home = Home::new();
        home.configure(configuration);
        let mut command = home.command(program);
        command.arg("serve").arg("--config").arg(home.file()).args(arguments);
        Self::spawn(command, home).await
    }

    /// The same for a command of the test's own.
    pub(crate) async fn spawn(mut command: Command, home: Home) -> Self {
        // as text and as JSON
        let listening =
            |log: String| log.matches(" listening ").count() + log.matches("\"listening\"").count();
        let seen = listening(home.log_so_far());
        let mut daemon = Self { child: command.spawn().unwrap(), home };
        peers::eventually("rmxd listening", SOON, || {
            daemon.assert_running();
            (listening(daemon.home.log_so_far()) > seen).then_some(())
        })
        .await;
        daemon
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    pub(crate) fn log(&self) -> String {
        self.home.log()
    }

    pub(crate) fn signal(&self, name: &str) {
        peers::signal(self.child.id(), name);
    }

    /// SIGHUP, and what was logged of it, to its last line.
    pub(crate) async fn reload(&mut self) -> String {
        let before = self.home.log_so_far().len();
        self.signal("HUP");
        peers::eventually("an end of the reload", SOON, || {
            self.assert_running();
            let log = self.home.log_so_far().split_off(before);
            let is_last =
                |line: &str| line.contains("serve: reloaded ") || line.contains("serve: not reloaded");
            log.lines().any(is_last).then_some(log)
        })
        .await
    }

    /// Waits for a line in the log.
    pub(crate) async fn logged(&self, what: &str) {
        peers::eventually(what, SOON, || self.home.log_so_far().contains(what).then_some(())).await;
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let child = &mut self.child;
        peers::eventually("rmxd's end", limit, || child.try_wait().unwrap()).await
    }

    /// SIGTERM, and what is left of it after its end, which must be a good one.
    pub(crate) async fn terminate(mut self) -> Home {
        self.signal("TERM");
        let status = self.ended(SOON * 2).await;
        assert!(status.success(), "{status}: {}", self.log());
        self.into_home()
    }

    /// What is left of one that has ended.
    pub(crate) fn into_home(mut self) -> Home {
        std::mem::replace(&mut self.home, Home::new())
    }

    fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("rmxd has ended with {status}");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- rmxd's log\n{}", self.log());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The program that cargo built for the tests.
pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_rmxd")
}

/// A free address.
pub(crate) fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, peers::free_port()))
}

/// Waits until nobody listens there.
pub(crate) async fn refused(address: SocketAddr) {
    peers::eventually("a closed port", SOON, || std::net::TcpStream::connect(address).is_err().then_some(()))
        .await;
}

/// A configuration with the Maildir `mail`; `more` is TOML that goes below.
pub(crate) fn configuration(hostname: &str, listen: &[SocketAddr], dns: SocketAddr, more: &str) -> String {
    let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
    format!(
        r#"hostname = "{hostname}"

[listen]
smtp = {listen:?}
admin = ""

[dns]
servers = ["{dns}"]
private_addresses = "accept"

[history]
path = ""

{more}
"#
    )
}
