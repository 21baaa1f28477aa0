//! `rmxd load`: with a daemon of its own, and against servers that judge wrongly, which it has to notice.

mod doors;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::support::daemon::{Daemon, any_port, configuration};
use crate::support::process::{Run, SOON, eventually, rmxd, signal};
use crate::support::zone::Zone;

/// `rmxd load` that makes its folder in here.
fn load(scratch: &Path, arguments: &str) -> Command {
    let mut command = rmxd(&["load"]);
    command.args(arguments.split_whitespace()).env("TMPDIR", scratch);
    command
}

fn run(arguments: &str) -> (Option<i32>, String, String) {
    let scratch = tempfile::tempdir().unwrap();
    let Run { code, out, err } = Run::of(&mut load(scratch.path(), arguments));
    assert!(std::fs::read_dir(scratch.path()).unwrap().next().is_none(), "something is left");
    (code, out, err)
}

fn run_json(arguments: &str) -> (Option<i32>, Value) {
    let (code, text, complaint) = run(&format!("{arguments} --json"));
    let value = serde_json::from_str(&text);
    (code, value.unwrap_or_else(|error| panic!("{error}: {text}\n{complaint}")))
}

/// The row of a class.
fn class<'a>(summary: &'a Value, name: &str) -> &'a Value {
    let rows = summary["classes"].as_array().unwrap();
    rows.iter().find(|row| row["class"] == name).unwrap_or_else(|| panic!("no {name}: {summary:#}"))
}

/// A server on a thread that answers by verb; the empty answer closes the connection.
fn scripted(answer: fn(&str) -> &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve(&stream.unwrap(), answer));
        }
    });
    address
}

fn serve(stream: &TcpStream, answer: fn(&str) -> &'static str) -> Option<()> {
    let (mut input, mut output) = (BufReader::new(stream), stream);
    let (mut line, mut data) = (String::new(), false);
    let mut verb = "connect".to_owned();
    loop {
        let reply = if data { "" } else { answer(&verb) };
        if reply.is_empty() && !data {
            return None;
        }
        data |= reply.starts_with("354");
        if !reply.is_empty() {
            output.write_all(format!("{reply}\r\n").as_bytes()).ok()?;
        }
        if verb == "QUIT" {
            return None;
        }
        line.clear();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        data &= line != ".\r\n";
        verb = line.split_whitespace().next().unwrap_or_default().to_owned();
    }
}

fn accepts(verb: &str) -> &'static str {
    match verb {
        "connect" => "220 x",
        "DATA" => "354 go on",
        "QUIT" => "221 bye",
        _ => "250 2.0.0 ok",
    }
}

fn refuses(verb: &str) -> &'static str {
    if verb == "RCPT" { "550 5.7.1 no" } else { accepts(verb) }
}

fn defers(verb: &str) -> &'static str {
    if verb == "." { "451 4.4.3 later" } else { accepts(verb) }
}

fn hangs_up(verb: &str) -> &'static str {
    if verb == "MAIL" { "" } else { accepts(verb) }
}

/// Offers PIPELINING, and wants a message even where it has refused the recipient (RFC 2920 3.1).
fn grudging(verb: &str) -> &'static str {
    match verb {
        "EHLO" => "250-x\r\n250 PIPELINING",
        "RCPT" => "550 5.7.1 no",
        "." => "554 5.5.1 no recipients",
        _ => accepts(verb),
    }
}

/// Says something that is no reply.
fn babbles(verb: &str) -> &'static str {
    if verb == "MAIL" { "hello" } else { accepts(verb) }
}

#[test]
fn a_daemon_of_its_own_judges_everybody_rightly_and_loses_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let page = scratch.path().join("report.html");
    let (code, summary) =
        run_json(&format!("--self --sessions 2000 --size 100-9000 --report {}", page.display()));
    assert_eq!(code, Some(0), "{summary:#}");
    assert_eq!(summary["problems"], serde_json::json!([]));
    assert_eq!((summary["sessions"].as_u64(), summary["total"]["failed"].as_u64()), (Some(2000), Some(0)));
    for (name, messages, column) in [
        ("clean", 300, "accepted"),
        ("spoofed", 1500, "rejected"),
        ("nomx", 40, "rejected"),
        ("nullmx", 40, "rejected"),
        ("foreign", 40, "rejected"),
        ("badhelo", 20, "rejected"),
        ("badfrom", 40, "rejected"),
        ("servfail", 20, "deferred"),
    ] {
        let row = class(&summary, name);
        assert_eq!((row[column].as_u64(), row["wrong"].as_u64()), (Some(messages), Some(0)), "{row:#}");
        let latency = &row["latency"];
        assert!(
            latency["p50"].as_u64() > Some(50) && latency["max"].as_u64() >= latency["p99"].as_u64(),
            "{row:#}"
        );
    }
    let delivery = &summary["delivery"];
    for (what, count) in [("accepted", 300), ("received", 300), ("lost", 0), ("doubled", 0), ("damaged", 0)] {
        assert_eq!(delivery[what], count, "{delivery:#}");
    }
    let daemon = &summary["daemon"];
    assert!(daemon["memory_end"].as_u64() > Some(1 << 20), "{daemon:#}");
    assert!(daemon["dns_questions"].as_u64() > Some(300), "{daemon:#}");

    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("<svg").count(), 4);
    assert!(page.contains("all as expected") && page.ends_with("</html>\n"));
}

#[test]
fn every_manner_of_client_is_judged_alike() {
    let (code, summary) = run_json(
        "--self --sessions 60 --connections 20 --mix clean=3,spoofed=2,badfrom=1 --pipelining --slow 30 --messages 3 \
         --names cold --seed 5 --set relay.identity=xclient",
    );
    assert_eq!(code, Some(0), "{summary:#}");
    assert_eq!(class(&summary, "clean")["accepted"], 90);
    assert_eq!(class(&summary, "spoofed")["rejected"], 60);
    assert_eq!(class(&summary, "badfrom")["rejected"], 30);
    assert_eq!(summary["delivery"]["received"], 90);
    assert!((5..40).contains(&summary["slow_sessions"].as_u64().unwrap()), "{summary:#}");
}

#[test]
fn a_daemon_that_judges_otherwise_fails_the_run() {
    let arguments = "--self --sessions 100 --mix clean=1,foreign=1";
    let (code, summary) = run_json(&format!("{arguments} --set policy.mail_from.matches=tag"));
    assert_eq!(code, Some(1), "{summary:#}");
    assert_eq!(
        summary["problems"],
        serde_json::json!(["50 false accepts of class foreign (expected reject 5.7.1)"])
    );
    assert_eq!(class(&summary, "foreign")["false_accepts"], 50);
    assert_eq!(summary["delivery"]["lost"], 0);
}

#[test]
fn a_server_that_judges_wrongly_fails_the_run_and_its_errors_are_named() {
    let rows: [(_, _, _, &[&str]); 7] = [
        (
            accepts as fn(&str) -> &'static str,
            "",
            1,
            &["18 false accepts of class spoofed (expected reject)"],
        ),
        (refuses, "", 1, &["2 false rejects of class clean (expected accept)"]),
        (
            defers,
            "",
            1,
            &[
                "2 deferred of class clean (expected accept)",
                "18 deferred of class spoofed (expected reject)",
            ],
        ),
        (defers, "--tolerate defer", 0, &[]),
        (hangs_up, "", 1, &["20 sessions without a verdict"]),
        (hangs_up, "--tolerate failure", 0, &[]),
        (accepts, "--expect spoofed=accept", 0, &[]),
    ];
    for (answer, options, expected, problems) in rows {
        let target = scripted(answer);
        let (code, summary) = run_json(&format!("{target} --sessions 20 --connections 4 {options}"));
        assert_eq!(summary["problems"], serde_json::json!(problems), "{options}");
        assert_eq!(code, Some(expected), "{options}");
    }
    let (code, text, _) = run(&format!("{} --sessions 20", scripted(accepts)));
    assert_eq!(code, Some(1));
    assert!(text.contains("\u{2717} 18 false accepts of class spoofed"), "{text}");
}

#[test]
fn the_reply_that_decided_is_told_with_its_place() {
    let spoofed = "--mix spoofed=1 --sessions 10 --connections 3 --messages 2 --tolerate failure";
    let rows = [
        (refuses as fn(&str) -> &'static str, "", "replies", "550 5.7.1 at RCPT", 20),
        (grudging, "--pipelining", "replies", "550 5.7.1 at RCPT", 20),
        (grudging, "--slow 100", "replies", "550 5.7.1 at RCPT", 20),
        (defers, "", "replies", "451 4.4.3 after DATA", 20),
        (hangs_up, "", "failures", "connection closed at MAIL", 10),
        (babbles, "", "failures", "unexpected reply at MAIL", 10),
    ];
    for (answer, options, list, told, count) in rows {
        let (_, summary) = run_json(&format!("{} {spoofed} {options}", scripted(answer)));
        let name = if list == "replies" { "reply" } else { "failure" };
        let [only] = summary[list].as_array().unwrap().as_slice() else { panic!("{summary:#}") };
        assert_eq!((&only[name], &only["count"]), (&told.into(), &count.into()), "{options}");
    }
}

#[test]
fn wrong_usage_and_an_absent_target_are_told_at_once() {
    let absent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rows = [
        ("192.0.2.1:25".to_owned(), 64, "add --i-own-this-host if it is yours to test"),
        ("192.0.2.1:25 --i-own-this-host".to_owned(), 64, "add --rate with at most 1000/s"),
        ("localhost".to_owned(), 64, "is not HOST:PORT"),
        (
            "--self --mix spam=1".to_owned(),
            64,
            "\"spam\" is not a class of senders; allowed are clean, spoofed,",
        ),
        ("--self --report /nowhere/at.html".to_owned(), 64, "--report /nowhere/at.html: "),
        (absent.to_string(), 75, "can't be reached: "),
        ("--self --set policy.mode=lax".to_owned(), 75, "policy.mode: \"lax\" is not allowed"),
    ];
    for (arguments, code, complaint) in rows {
        let (found, text, said) = run(&arguments);
        assert_eq!((found, text.as_str()), (Some(code), ""), "{arguments}: {said}");
        assert!(said.contains(complaint), "{arguments}: {said}");
    }
}

#[tokio::test]
async fn a_run_that_is_interrupted_tells_what_was_done_and_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = load(scratch.path(), "--self --duration 60s --rate 50 --json --set log.level=info");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    let folder = scratch.path().join(format!("rmxd-load-{}", child.id()));
    eventually("some sessions", SOON, || {
        let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        (log.matches("\"rmxd::decision\"").count() >= 10).then_some(())
    })
    .await;
    signal(child.id(), "INT");
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(75), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let summary: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&summary["interrupted"], &summary["problems"]), (&true.into(), &serde_json::json!([])));
    assert!((5..200).contains(&summary["sessions"].as_u64().unwrap()), "{summary:#}");
    assert!(!folder.exists() && began.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn the_commands_of_the_document_fit_together() {
    let scratch = tempfile::tempdir().unwrap();
    let zone = Zone::start();
    let text = configuration("gate.test", &[any_port()], zone.address(), "");
    let set = ["--set", "relay.domains=load.test", "--set", "log.level=warn,rmxd::cli=info"];
    let daemon = Daemon::start(&text, &set).await;
    let target = daemon.address();
    let all = "--mix spoofed=20,clean=20,nomx=2,nullmx=2,foreign=2,badhelo=2,badfrom=2,servfail=2";
    let mut command = load(scratch.path(), &format!("{target} --sessions 104 --json {all}"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["problems"], serde_json::json!([]), "{summary:#}");
    assert_eq!(output.status.code(), Some(0));
}
