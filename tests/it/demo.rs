//! `rmxd demo`: the tour as programs read it, and the demo as somebody uses it who tries it by hand.

mod doors;
mod fleet;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::process::{Run, rmxd, signal};
use crate::support::readme::block_of;

/// `rmxd demo` that makes its folder in here.
fn demo(scratch: &Path, arguments: &[&str]) -> Command {
    let mut command = rmxd(&["demo"]);
    command.args(arguments).env("TMPDIR", scratch);
    command
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

/// A demo in the background. Dropping it kills it.
struct Running(Child);

impl Running {
    fn start(scratch: &Path) -> Self {
        Self::start_with(scratch, &[])
    }

    fn start_with(scratch: &Path, arguments: &[&str]) -> Self {
        Self(demo(scratch, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// What it prints, up to the line that contains this.
    fn read_to(&mut self, output: &mut impl BufRead, text: &str) -> String {
        let mut read = String::new();
        while !read.lines().last().is_some_and(|line| line.contains(text)) {
            if output.read_line(&mut read).unwrap() == 0 {
                let mut complaint = String::new();
                self.0.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
                panic!("no {text:?} in {read}\n{complaint}");
            }
        }
        read
    }

    fn terminate(mut self) -> Option<i32> {
        signal(self.0.id(), "TERM");
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A line with `*` for the id of a decision.
fn masked(line: &str) -> String {
    match line.split_once("(id ") {
        Some((before, rest)) => format!("{before}(id *{}", rest.get(8..).unwrap_or_default()),
        None => line.to_owned(),
    }
}

/// The answer as it comes.
fn get(from: SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(from).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nhost: {from}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn every_message_of_the_tour_is_judged_as_expected() {
    let scratch = tempfile::tempdir().unwrap();
    let output = demo(scratch.path(), &["--once", "--json"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(is_empty(scratch.path()));

    let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let (skipped, played): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["skipped"] == true);
    assert!(skipped.iter().all(|row| row["name"] == "ipv6"), "{skipped:?}");
    assert!(played.len() >= 16, "{}", played.len());
    for row in &played {
        assert_eq!(row["as_expected"], true, "{row:#}");
        assert_eq!(row["verdict"], row["expected"]["verdict"], "{row:#}");
        assert_eq!(row["reasons"], row["expected"]["reasons"], "{row:#}");
        assert_eq!(row["delivered"], row["verdict"] == "accept", "{row:#}");
    }
    let clients: std::collections::BTreeSet<_> = played.iter().map(|row| row["client"].as_str()).collect();
    assert!(clients.len() >= 14, "{clients:?}");

    // What is promised, with the replies of the contract.
    let promised = [
        ("valid", "250 2.0.0", ""),
        ("no_such_domain", "550 5.1.8", "no_such_domain"),
        ("no_mx", "550 5.1.8", "no_mx"),
        ("null_mx", "550 5.7.27", "null_mx"),
        ("mx_private", "550 5.1.8", "mx_unroutable"),
        ("mx_without_address", "550 5.1.8", "mx_unresolvable"),
        ("several_mx", "250 2.0.0", ""),
        ("idn", "250 2.0.0", ""),
        ("bounce", "250 2.0.0", ""),
        ("spoofed_from", "550 5.7.1", "no_such_domain"),
        ("spoofed_reply_to", "450 4.7.1", "greylisted"),
        ("address_only", "250 2.0.0", "no_mx"),
        ("not_an_exchanger", "250 2.0.0", "not_an_exchanger"),
        ("dmarc_reject", "550 5.7.1", "dmarc_reject"),
        ("dmarc_pass", "250 2.0.0", ""),
        ("own_domain", "550 5.7.1", "not_an_exchanger"),
        ("two_from", "550 5.6.0", "malformed_header"),
        ("group_in_from", "550 5.7.1", "no_such_domain"),
        ("no_ptr", "250 2.0.0", "no_ptr"),
        ("exempt_recipient", "250 2.0.0", ""),
        ("dns_servfail", "451 4.4.3", "dns_error"),
        ("dns_silent", "451 4.4.3", "dns_error"),
        ("helo", "550 5.7.1", "no_such_domain"),
        ("ptr_not_confirmed", "550 5.7.25", "ptr_not_confirmed"),
        ("primary_line", "250 2.0.0", ""),
        ("backup_line", "550 5.7.1", "not_an_exchanger"),
        ("backup_line_repaired", "250 2.0.0", ""),
    ];
    for (name, reply, reason) in promised {
        let row =
            rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name} is not there"));
        assert!(row["reply"].as_str().unwrap().starts_with(reply), "{row:#}");
        assert_eq!(row["reasons"][0].as_str().unwrap_or_default(), reason, "{row:#}");
    }
}

#[test]
fn after_the_tour_it_stays_up_and_can_be_tried_by_hand() {
    let scratch = tempfile::tempdir().unwrap();
    let mut demo = Running::start(scratch.path());
    let mut output = BufReader::new(demo.0.stdout.take().unwrap());
    let table = demo.read_to(&mut output, "Try it by hand");
    assert!(table.contains("✓ all as expected"), "{table}");
    assert!(!table.contains(['\x1b', '\r']), "no colours where there is no terminal: {table}");
    assert!(table.lines().all(|line| line.chars().count() <= 130), "{table}");
    let shown: Vec<String> =
        table.lines().map(|line| masked(&line.chars().skip(28).collect::<String>())).collect();
    for line in block_of("README.md", "demo").lines() {
        assert!(shown.contains(&masked(line)), "README.md has {line:?}, and this is shown:\n{table}");
    }

    let by_hand = |line: &str| Command::new("sh").args(["-c", line.trim()]).env_clear().output().unwrap();
    let mut command = |program: &str| demo.read_to(&mut output, program).lines().last().unwrap().to_owned();
    let dashboard = command("    http://");
    let address: SocketAddr =
        dashboard.trim().trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    let shown = get(address, "/api/v1/status");
    assert!(shown.starts_with("HTTP/1.1 200") && shown.contains("\"hostname\":\"mx.demo.test\""), "{shown}");
    assert!(get(address, "/").contains("<title>rmxd</title>"));
    let check = by_hand(&command(" check --config "));
    let decided = String::from_utf8(check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(1), "{decided}");
    assert!(decided.contains("nowhere.test: NXDOMAIN"), "{decided}");
    let audit = by_hand(&command(" audit "));
    let missing = String::from_utf8(audit.stdout).unwrap();
    assert_eq!(audit.status.code(), Some(1), "{missing}");
    assert!(missing.contains("bigmail.test. 3600 IN MX 20 mx2.bigmail.test."), "{missing}");
    let explained = String::from_utf8(by_hand(&command(" explain ")).stdout).unwrap();
    assert!(explained.contains("verdict:   reject, because of "), "{explained}");
    let mail = String::from_utf8(by_hand(&command("head ")).stdout).unwrap();
    assert!(mail.contains("Authentication-Results: mx.demo.test;"), "{mail}");

    assert_eq!(demo.terminate(), Some(0));
    assert!(is_empty(scratch.path()));
}

#[test]
fn a_tour_that_is_interrupted_leaves_nothing_behind_and_says_so() {
    let scratch = tempfile::tempdir().unwrap();
    let mut demo = Running::start(scratch.path());
    let mut output = BufReader::new(demo.0.stdout.take().unwrap());
    demo.read_to(&mut output, "rmxd demo");
    assert!(!is_empty(scratch.path()));
    assert_eq!(demo.terminate(), Some(75));
    assert!(is_empty(scratch.path()));
}

#[test]
fn a_folder_that_was_named_is_kept() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("a folder");
    let mut command = demo(scratch.path(), &["--once", "--keep", folder.to_str().unwrap()]);
    assert_eq!(command.stdout(Stdio::null()).status().unwrap().code(), Some(0));
    for file in ["default.toml", "public.toml", "strict.toml"] {
        let checked = Run::of(rmxd(&["config", "check", "--config"]).arg(folder.join(file)));
        assert_eq!(checked.code, Some(0), "{}", checked.err);
    }
    assert!(fs::read_to_string(folder.join("log")).unwrap().contains("rmxd::decision"));
    assert!(!is_empty(&folder.join("mail/new")));
}
