//! Programs that the tests need, free ports, and patience with an end.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Where Debian puts programs; `sbin` is not in everybody's `PATH`.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Below the ephemeral ports, so that no outgoing connection takes one while a server is stopped.
const FIRST_PORT: u16 = 12_000;
const PORTS: u16 = 8_000;

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
