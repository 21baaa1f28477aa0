//! A Redis server of the demo's own: a process with its socket and its log in the folder of the demo. It ends with the demo.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

/// Either is one for rmxd.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// For it to answer after its start.
const STARTED: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// For one answer.
const ANSWERED: Duration = Duration::from_secs(5);

/// The server that is installed: one in `PATH`.
pub(in crate::tools::demo) fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let places =
        |name: &&str| folders.iter().map(move |folder| folder.join(name)).find(|place| place.is_file());
    PROGRAMS.iter().find_map(places)
}

/// Dropping it kills it.
#[derive(Debug)]
pub(super) struct Redis {
    program: PathBuf,
    folder: PathBuf,
    child: Option<Child>,
}

impl Redis {
    /// # Errors
    /// It can't be started, or ends at once.
    pub(super) async fn start(program: PathBuf, folder: &Path) -> Result<Self, String> {
        let mut redis = Self { program, folder: folder.to_path_buf(), child: None };
        redis.spawn()?;
        redis.answers().await?;
        Ok(redis)
    }

    /// Starts the process; [`Redis::answers`] waits for it.
    ///
    /// # Errors
    /// It can't be started.
    pub(super) fn spawn(&mut self) -> Result<(), String> {
        let (socket, log) = (socket(&self.folder), self.folder.join("redis.log"));
        let mut command = Command::new(&self.program);
        // An empty list of times to save, and no network.
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
        command.arg("--unixsocket").arg(socket).args(["--unixsocketperm", "700"]);
        command.arg("--dir").arg(&self.folder).arg("--logfile").arg(log);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C is for the demo, which ends Redis last.
        let child = command.process_group(0).spawn();
        let child = child.map_err(|error| format!("{}: {error}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// It doesn't.
    pub(super) async fn answers(&mut self) -> Result<(), String> {
        let until = Instant::now() + STARTED;
        loop {
            if ask(&self.folder, "PING").await.is_ok() {
                return Ok(());
            }
            let ended = self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || Instant::now() >= until {
                let what = if ended { "has ended" } else { "doesn't answer" };
                return Err(format!("{} {what}; its log: {}", self.program.display(), self.last_line()));
            }
            sleep(POLL).await;
        }
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            child.kill().and_then(|()| child.wait()).ok();
        }
    }

    fn last_line(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("redis.log")).unwrap_or_default();
        log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("empty").to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) fn socket(folder: &Path) -> PathBuf {
    folder.join("redis.sock")
}

/// The texts of an answer: of a single one, or of an array (RESP 2).
///
/// # Errors
/// No connection, or no such answer.
pub(super) async fn ask(folder: &Path, command: &str) -> io::Result<Vec<String>> {
    let answer = async {
        let mut stream = BufReader::new(UnixStream::connect(socket(folder)).await?);
        stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        read(&mut stream).await
    };
    timeout(ANSWERED, answer).await?
}

async fn read(stream: &mut BufReader<UnixStream>) -> io::Result<Vec<String>> {
    let (mut texts, mut left) = (Vec::new(), 1_usize);
    while left > 0 {
        left -= 1;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let line = line.trim_end();
        let number = || line.get(1..).and_then(|number| number.parse::<usize>().ok());
        let odd = || io::Error::other(format!("not an answer of Redis: {line:?}"));
        match line.chars().next() {
            Some('+' | ':') => texts.push(line.get(1..).unwrap_or_default().to_owned()),
            Some('*') => left += number().ok_or_else(odd)?,
            Some('$') => {
                let length = u64::try_from(number().ok_or_else(odd)?).map_err(io::Error::other)?;
                let mut octets = Vec::new();
                // With its CRLF.
                stream.take(length + 2).read_to_end(&mut octets).await?;
                texts.push(String::from_utf8_lossy(&octets).trim_end().to_owned());
            }
            _ => return Err(odd()),
        }
    }
    Ok(texts)
}
