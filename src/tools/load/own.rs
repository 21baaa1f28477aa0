//! `--self`: a name server with a crowd of senders, a sink, and between them a daemon of its own, as a child process.
//!
//! A process of its own, so that its memory and processor time are the daemon's alone. It is ended by its id, whichever way
//! the run ends, and stands in its own process group: Ctrl-C is for the run, which then ends the daemon.

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

/// How long the daemon may take to listen.
const START: Duration = Duration::from_secs(20);

/// How long it may take to end; its own drain time is shorter.
const END: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(10);

/// The recipients' domain.
pub(super) const RECIPIENT: &str = "load@load.test";

/// Everything that runs for `--self`.
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
        let zone = Server::start(loopback, Zone::crowd(domains)).await;
        let zone = zone.map_err(|error| format!("the name server: {error}"))?;
        let ledger = Arc::new(Ledger::default());
        let sink = Sink::start(Arc::clone(&ledger)).await.map_err(|error| format!("the sink: {error}"))?;
        let configuration = configuration(zone.address(), sink.address(), connections);
        let daemon = Daemon::spawn(&folder, &configuration, set)?;
        let mut own = Self { address: loopback, ledger, daemon, zone, _sink: sink, _folder: folder };
        own.address = own.daemon.listening().await?;
        Ok(own)
    }

    /// The daemon's process.
    pub(super) fn pid(&self) -> u32 {
        self.daemon.child.id()
    }

    /// Questions that the name server was asked.
    pub(super) fn questions(&self) -> u64 {
        self.zone.questions().total
    }

    /// Ends all of it. The daemon has to end in order.
    ///
    /// # Errors
    /// How the daemon ended instead, with the end of its log.
    pub(super) async fn stop(mut self) -> Result<(), String> {
        let ended = self.daemon.stop().await;
        self.zone.stop().await;
        ended
    }
}

/// Strict enough that each class of senders has one verdict. Decisions are neither logged nor kept unless `--set` says so:
/// the disk would be what is measured.
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

    /// Where it listens, once it does.
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
                return Err(format!("the daemon doesn't listen after {waited}{}", self.said()));
            }
            sleep(POLL).await;
        }
    }

    async fn stop(&mut self) -> Result<(), String> {
        if let Some(status) = self.status() {
            return Err(self.ended(status));
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let told = pid.map(|pid| kill_process(pid, Signal::TERM));
        let began = Instant::now();
        while told == Some(Ok(())) && began.elapsed() < END {
            match self.status() {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.ended(status)),
                None => sleep(POLL).await,
            }
        }
        Err(format!("the daemon doesn't end when told to{}", self.said()))
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn ended(&self, status: ExitStatus) -> String {
        format!("the daemon ended by itself ({status}){}", self.said())
    }

    /// The end of its log.
    fn said(&self) -> String {
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
        // Both fail only when it is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The address in the line that tells of it.
fn address(line: &str) -> Option<SocketAddr> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| event.get(name).or_else(|| event.get("fields")?.get(name))?.as_str();
    if field("message")? == "listening" { field("address")?.parse().ok() } else { None }
}
