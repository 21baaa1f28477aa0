//! `--self`: a name server with generated senders, a sink, and between them a daemon as a child process.
//!
//! The daemon is a process of its own, so that its memory and processor time can be measured. It is ended by its id, however
//! the run ends, and has its own process group: Ctrl-C goes to the run only, which then ends the daemon.

use std::fmt::Write as _;
use std::fs::{File, read_to_string};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::console::folder::Folder;
use crate::tools::load::ledger::Ledger;
use crate::tools::load::sink::Sink;
use crate::zone::{Server, Zone};

/// For the daemon to listen.
const START: Duration = Duration::from_secs(20);

/// For the daemon to end; its drain time is shorter.
const END: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(10);

pub(super) const RECIPIENT: &str = "load@load.test";

pub(super) struct Own {
    pub(super) address: SocketAddr,
    pub(super) ledger: Arc<Ledger>,
    daemon: Daemon,
    zone: Server,
    _sink: Sink,
    _folder: Folder,
}

impl Own {
    /// With this many valid domains, for this many connections; `set` goes to the daemon as `--set`.
    ///
    /// # Errors
    /// What can't be started, and why.
    pub(super) async fn start(domains: u32, connections: usize, set: &[String]) -> Result<Self, String> {
        let folder = Folder::new("load", None)?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let zone = Server::start(loopback, Zone::generated(domains)).await;
        let zone = zone.map_err(|error| format!("the name server: {error}"))?;
        let ledger = Arc::new(Ledger::default());
        let sink = Sink::start(Arc::clone(&ledger)).await.map_err(|error| format!("the sink: {error}"))?;
        let configuration = configuration(zone.address(), sink.address(), connections);
        let daemon = Daemon::spawn(&folder, &configuration, set)?;
        let mut own = Self { address: loopback, ledger, daemon, zone, _sink: sink, _folder: folder };
        own.address = own.daemon.listening().await?;
        Ok(own)
    }

    pub(super) fn pid(&self) -> u32 {
        self.daemon.child.id()
    }

    /// DNS queries at the name server.
    pub(super) fn questions(&self) -> u64 {
        self.zone.questions().total
    }

    /// # Errors
    /// The daemon didn't end with success; the text has the end of its log.
    pub(super) async fn stop(mut self) -> Result<(), String> {
        let ended = self.daemon.stop().await;
        self.zone.stop().await;
        ended
    }
}

/// Strict enough that each class of senders has one verdict. Without `--set`, decisions are neither logged nor kept: otherwise
/// the run would measure the disk.
fn configuration(zone: SocketAddr, sink: SocketAddr, connections: usize) -> String {
    let connections = connections.saturating_add(100);
    format!(
        r#"hostname = "mx.load.test"

[listen]
smtp = ["127.0.0.1:0"]
admin = ""

[relay]
next_hop = "smtp://{sink}"
identity = "none"
domains = ["load.test"]

[policy]
exists_by = ["mx"]
matches_by = ["mx"]

[policy.helo]
exists = "reject"

[policy.reply_to]
exists = "reject"

[policy.mail_from]
matches = "reject"

[dns]
servers = ["{zone}"]
private_addresses = "accept"

[limits]
connections = {connections}
connections_per_client = {connections}

[history]
path = ""

[log]
format = "json"
level = "warn,rmxd::cli::serve=info"
"#
    )
}

/// The child process. Dropping it kills it.
struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    fn spawn(folder: &Folder, configuration: &str, set: &[String]) -> Result<Self, String> {
        let (file, log) = (folder.path().join("rmxd.toml"), folder.path().join("log"));
        let named = |path: &PathBuf, error: std::io::Error| format!("{}: {error}", path.display());
        std::fs::write(&file, configuration).map_err(|error| named(&file, error))?;
        let stderr = File::create(&log).map_err(|error| named(&log, error))?;
        let program = std::env::current_exe().map_err(|error| format!("the program itself: {error}"))?;
        let mut command = Command::new(&program);
        command.args(["serve", "--drain", "5s", "--config"]).arg(&file);
        for assignment in set {
            command.args(["--set", assignment]);
        }
        command.env_clear().current_dir(folder.path()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().map_err(|error| named(&program, error))?;
        Ok(Self { child, log })
    }

    /// Waits until the daemon listens.
    async fn listening(&mut self) -> Result<SocketAddr, String> {
        let began = Instant::now();
        loop {
            let log = read_to_string(&self.log).unwrap_or_default();
            if let Some(address) = log.lines().find_map(address) {
                return Ok(address);
            }
            if let Some(status) = self.status() {
                return Err(self.ended(status));
            }
            if began.elapsed() > START {
                let waited = humantime::format_duration(START);
                return Err(format!("the daemon doesn't listen after {waited}{}", self.log_end()));
            }
            sleep(POLL).await;
        }
    }

    async fn stop(&mut self) -> Result<(), String> {
        if let Some(status) = self.status() {
            return Err(self.ended(status));
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let sent = pid.map(|pid| kill_process(pid, Signal::TERM));
        let began = Instant::now();
        while sent == Some(Ok(())) && began.elapsed() < END {
            match self.status() {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.ended(status)),
                None => sleep(POLL).await,
            }
        }
        Err(format!("the daemon didn't end after SIGTERM{}", self.log_end()))
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn ended(&self, status: ExitStatus) -> String {
        format!("the daemon ended by itself ({status}){}", self.log_end())
    }

    fn log_end(&self) -> String {
        let log = read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let mut text = String::new();
        for line in lines.iter().rev().take(10).rev() {
            // Writing to a string can't fail.
            write!(text, "\n    {line}").ok();
        }
        if text.is_empty() { text } else { format!("; its log ends with:{text}") }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only if the process has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The address in a log line "listening".
fn address(line: &str) -> Option<SocketAddr> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| event.get(name).or_else(|| event.get("fields")?.get(name))?.as_str();
    if field("message")? == "listening" { field("address")?.parse().ok() } else { None }
}
