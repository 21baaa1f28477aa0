//! A network of the test's own, with loopback only, which loses packets to and from Redis.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use crate::support::process::{self, Run};

/// Set in the process that has a network of its own.
const OWN: &str = "RMXD_TEST_OWN_NETWORK";

/// Whether this process has a network of its own. Otherwise the test of this name is run in one, where that is possible.
pub(super) fn is_own(test: &str) -> bool {
    if std::env::var_os(OWN).is_some() {
        return true;
    }
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        process::missing("a network namespace has to be made by root");
        return false;
    }
    let programs = ["unshare", "ip", "nft"].map(process::program);
    let [Some(unshare), Some(_), Some(_)] = programs else { return false };
    if !can_lose(&unshare) {
        eprintln!("skipped: the kernel loses no packets: it has no nf_tables with numgen");
        return false;
    }
    let mut inner = isolated(&unshare, std::env::current_exe().unwrap());
    let run = Run::of(inner.args([test, "--exact", "--nocapture"]).env(OWN, "1"));
    eprintln!("{}{}", run.out, run.err);
    assert!(run.code == Some(0) && run.out.contains("1 passed"), "{:?}", run.code);
    false
}

/// What starts a program in a network of its own. The environment stays: it says where the tests find things.
fn isolated(unshare: &std::path::Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(unshare);
    command.args(["--net", "sh", "-c", "ip link set lo up; exec \"$@\"", "sh"]).arg(program);
    command.stdin(Stdio::null());
    command
}

fn can_lose(unshare: &std::path::Path) -> bool {
    let tried = isolated(unshare, "nft").arg(rules(1, 30)).output().unwrap();
    tried.status.success()
}

fn rules(port: u16, percent: u8) -> String {
    let some = if percent < 100 { format!("numgen random mod 100 < {percent}") } else { String::new() };
    let lose = format!("{some} counter drop");
    format!(
        "table inet lossy {{ chain input {{ type filter hook input priority 0; \
         tcp dport {port} {lose}; tcp sport {port} {lose}; }}; }}"
    )
}

/// Loses packets until it is dropped.
pub(super) struct Lossy;

impl Lossy {
    /// So many of a hundred packets to and from this port.
    pub(super) fn start(port: u16, percent: u8) -> Self {
        assert!(std::env::var_os(OWN).is_some(), "this is the network of the machine");
        nft(&rules(port, percent));
        Self
    }

    /// The packets that were lost.
    pub(super) fn eaten(&self) -> u64 {
        let listed = nft("list table inet lossy");
        listed
            .split("counter packets ")
            .skip(1)
            .filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok())
            .sum()
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        nft("delete table inet lossy");
    }
}

fn nft(text: &str) -> String {
    let mut child = process::command("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let run = Run::from(child.wait_with_output().unwrap());
    assert_eq!(run.code, Some(0), "{text}: {run:?}");
    run.out
}
