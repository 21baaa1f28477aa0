//! The daemon of `--self`: a process of its own.

use std::fmt::Write as _;
use std::fs::{File, read_to_string};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::console::folder::Folder;
use crate::net::{Endpoint, Purpose};

/// For the daemon to listen.
const START: Duration = Duration::from_secs(20);

/// For the daemon to end; its drain time is shorter.
const END: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(10);

/// The child process. Dropping it kills it.
pub(super) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub(super) fn spawn(folder: &Folder, configuration: &str, set: &[String]) -> Result<Self, String> {
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

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where metrics are.
    pub(super) fn admin(&self) -> Option<Endpoint> {
        let log = read_to_string(&self.log).unwrap_or_default();
        log.lines().find_map(|line| logged(line, "metrics and API", Purpose::Admin))
    }

    /// Waits until the daemon listens at its door.
    pub(super) async fn listening(&mut self, door: Purpose) -> Result<Endpoint, String> {
        let began = Instant::now();
        loop {
            let log = read_to_string(&self.log).unwrap_or_default();
            if let Some(endpoint) = log.lines().find_map(|line| logged(line, "listening", door)) {
                return Ok(endpoint);
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

    pub(super) async fn stop(&mut self) -> Result<(), String> {
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

/// The endpoint in a log line with this message.
fn logged(line: &str, message: &str, purpose: Purpose) -> Option<Endpoint> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| event.get(name).or_else(|| event.get("fields")?.get(name))?.as_str();
    if field("message")? == message { Endpoint::parse(field("address")?, purpose).ok() } else { None }
}
