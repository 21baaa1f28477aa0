//! Programs as processes of their own: rmxd's commands, what else the tests need, and patience with an end.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

/// For anything that a program does at once, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Where Debian puts programs; `sbin` is not in everybody's `PATH`.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Below the ephemeral ports, so that no outgoing connection takes one while a server is stopped.
const FIRST_PORT: u16 = 12_000;
const PORTS: u16 = 8_000;

/// The `rmxd` that cargo built for the tests.
pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_rmxd")
}

/// The release build when `tests/run` names one, else [`binary`]: for tests that measure.
pub(crate) fn measured_binary() -> PathBuf {
    std::env::var_os("RMXD_BIN").map_or_else(|| binary().into(), PathBuf::from)
}

/// A program with an environment that has nothing of rmxd's, and without input.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// `rmxd` with these arguments.
pub(crate) fn rmxd(arguments: &[&str]) -> Command {
    let mut command = command(binary());
    command.args(arguments);
    command
}

/// A command of rmxd that takes a configuration: it asks this name server.
pub(crate) fn rmxd_asking(name: &str, dns: SocketAddr) -> Command {
    let mut command = rmxd(&[name]);
    let dns = format!("dns.servers={dns}");
    let base = [dns.as_str(), "dns.private_addresses=accept", "hostname=gate.test", "dns.timeout=2s"];
    command.args(base.iter().flat_map(|line| ["--set", line]));
    command
}

/// How a command of rmxd ended, and what it printed.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// Waits for its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        command.output().unwrap().into()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl From<Output> for Run {
    fn from(Output { status, stdout, stderr }: Output) -> Self {
        let text = |octets| String::from_utf8(octets).unwrap();
        Self { code: status.code(), out: text(stdout), err: text(stderr) }
    }
}

/// The program's path, or none with a word about it. None is a failure where peers are required.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    if found.is_none() {
        missing(&format!("{name} is not installed"));
    }
    found
}

/// Says why a peer can't be had; the caller skips its test.
pub(crate) fn missing(why: &str) {
    let required = std::env::var_os("RMXD_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "{why}, and RMXD_REQUIRE_PEERS=1");
    eprintln!("skipped: {why}");
}

/// A loopback port that is free for TCP and UDP now. Tests that run at one time begin at different places.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(u64::from(std::process::id()) * 37 % u64::from(PORTS)).unwrap();
    for _ in 0..PORTS {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST_PORT + start.wrapping_add(offset) % PORTS;
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST_PORT} on");
}

/// An address with such a port.
pub(crate) fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// Waits until a server listens there; a connection to it.
pub(crate) async fn accepted(address: SocketAddr) -> TcpStream {
    eventually("an open port", SOON, || TcpStream::connect(address).ok()).await
}

/// Waits until no server listens there.
pub(crate) async fn refused(address: SocketAddr) {
    eventually("a closed port", SOON, || TcpStream::connect(address).err()).await;
}

/// Runs a program to its end, with `input` on its standard input; it is killed after `limit`.
pub(crate) async fn run(command: &mut Command, input: Vec<u8>, limit: Duration) -> Output {
    let name = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let pid = child.id();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &input));
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output());
    let Ok(ended) = tokio::time::timeout(limit, waiting).await else {
        signal(pid, "KILL");
        panic!("{name}: still running after {limit:?}");
    };
    drop(writer.join());
    ended.unwrap().unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "SIG{name} to process {pid} was not sent");
}

/// Waits for a program's end.
pub(crate) async fn ended(child: &mut Child, limit: Duration) -> ExitStatus {
    eventually("its end", limit, || child.try_wait().unwrap()).await
}

/// Asks until there is an answer; panics with `what` when there is none in time.
pub(crate) async fn eventually<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
