//! The harness that starts `rmxd serve`, a process with a folder of its own: its signals, its log, its mail, its end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::process::{self, SOON, binary, eventually};

/// A running daemon. Dropping it kills it.
pub(crate) struct Daemon {
    child: Child,
    home: Home,
    /// What the log had before.
    begins: usize,
}

/// Where a daemon has its configuration, its log and its Maildir; it outlives the daemon.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("rmxd-daemon-").tempdir().unwrap())
    }

    pub(crate) fn with(configuration: &str) -> Self {
        let home = Self::new();
        home.configure(configuration);
        home
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

    /// A program in this folder that writes to the log.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let log = File::options().create(true).append(true).open(self.path().join("log")).unwrap();
        let mut command = process::command(program);
        command.current_dir(self.path()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    /// `rmxd serve` with the configuration.
    pub(crate) fn serve(&self) -> Command {
        self.serve_with(binary())
    }

    /// The same of another build.
    pub(crate) fn serve_with(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command(program);
        command.arg("serve").arg("--config").arg(self.file());
        command
    }

    /// `rmxd serve` with a socket of this name passed as the service manager does it.
    pub(crate) fn serve_with_socket(&self, name: &str, socket: impl Into<OwnedFd>) -> Command {
        let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve --config \"$@\"";
        let mut command = self.command("sh");
        command.env("LISTEN_FDNAMES", name).stdin(Stdio::from(socket.into()));
        command.args(["-c", script, binary()]).arg(self.file());
        command
    }

    /// What the log has now: all of it once the daemon has ended.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path().join("log")).unwrap_or_default()).into_owned()
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
        let home = Home::with(configuration);
        let mut command = home.serve();
        command.args(arguments);
        Self::spawn(command, home).await
    }

    /// The same of the build that is measured.
    pub(crate) async fn start_measured(configuration: &str, arguments: &[&str]) -> Self {
        let home = Home::with(configuration);
        let mut command = home.serve_with(process::measured_binary());
        command.args(arguments);
        Self::spawn(command, home).await
    }

    /// The same for a command of the test's own.
    pub(crate) async fn spawn(command: Command, home: Home) -> Self {
        let mut daemon = Self::launch(command, home);
        daemon.listens().await;
        daemon
    }

    /// Starts one that may never listen.
    pub(crate) fn launch(mut command: Command, home: Home) -> Self {
        let begins = home.log().len();
        Self { child: command.spawn().unwrap(), home, begins }
    }

    /// Waits until it listens, and gives [`Self::address`].
    pub(crate) async fn listens(&mut self) -> SocketAddr {
        eventually("rmxd listening", SOON, || {
            self.assert_running();
            self.listening()
        })
        .await
    }

    fn listening(&self) -> Option<SocketAddr> {
        // as text and as JSON
        let log = self.home.log().split_off(self.begins);
        let is_told = |line: &&str| line.contains(" listening ") || line.contains("\"listening\"");
        // a line may not be whole yet
        let line = log.split_inclusive('\n').filter(|line| line.ends_with('\n')).find(is_told)?;
        let (_, from) = line.split_once("address").unwrap_or_else(|| panic!("{line}"));
        let from = from.trim_start_matches(['=', ':', '"']);
        let end = from.find([' ', '"', '\n']).unwrap_or(from.len());
        Some(from.split_at(end).0.parse().unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    /// Where it listens; of several addresses the first.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listening().expect("it listens")
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// What it has logged up to now. What it logs last may come a moment later: an assertion needs
    /// [`Self::logged`] or [`Self::whole_log`], unless the daemon has ended.
    pub(crate) fn log(&self) -> String {
        self.home.log()
    }

    /// Waits until the log has this; the log then.
    pub(crate) async fn logged(&self, what: &str) -> String {
        self.logged_times(what, 1).await
    }

    /// Waits until the log has this so many times at least; the log then.
    pub(crate) async fn logged_times(&self, what: &str, times: usize) -> String {
        let wanted = format!("{times} times {what:?} in the log");
        eventually(&wanted, SOON, || Some(self.log()).filter(|log| log.matches(what).count() >= times)).await
    }

    /// Waits until the log has this so many times at least; the log with all that was logged up to then.
    pub(crate) async fn settled(&self, what: &str, times: usize) -> String {
        self.logged_times(what, times).await;
        self.whole_log().await
    }

    /// The log with all that was logged before this call: the daemon is asked for a report, which comes behind it and isn't
    /// part of what is given.
    pub(crate) async fn whole_log(&self) -> String {
        let reports = |log: &str| {
            let texts =
                log.match_indices("occasion=asked").chain(log.match_indices("\"occasion\":\"asked\""));
            texts.map(|(at, _)| at).collect::<Vec<_>>()
        };
        let before = reports(&self.log()).len();
        self.signal("USR1");
        eventually("a report", SOON, || {
            let mut log = self.log();
            let report = *reports(&log).get(before)?;
            let line = log.get(..report)?.rfind('\n').map_or(0, |end| end + 1);
            log.truncate(line);
            Some(log)
        })
        .await
    }

    pub(crate) fn signal(&self, name: &str) {
        process::signal(self.child.id(), name);
    }

    /// SIGHUP, and what was logged of it, to its last line.
    pub(crate) async fn reload(&mut self) -> String {
        let before = self.home.log().len();
        self.signal("HUP");
        eventually("an end of the reload", SOON, || {
            self.assert_running();
            let log = self.home.log().split_off(before);
            let ends = ["serve: reloaded ", "serve: not reloaded", "\"message\":\"reloaded\""];
            log.lines().any(|line| ends.iter().any(|end| line.contains(end))).then_some(log)
        })
        .await
    }

    /// Resident memory now, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most resident memory that it has had, in KiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// A line of proc_pid_status(5).
    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self, limit: Duration) -> ExitStatus {
        process::ended(&mut self.child, limit).await
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
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = self.log();
            let first = log.lines().count().saturating_sub(100);
            let end: Vec<&str> = log.lines().skip(first).collect();
            eprintln!("--- the end of rmxd's log\n{}", end.join("\n"));
        }
    }
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

/// Any free port of loopback; [`Daemon::address`] names it then.
pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
