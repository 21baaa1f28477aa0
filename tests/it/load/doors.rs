//! `rmxd load` as the mail server of a milter and of a policy service.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::json;
use tempfile::TempDir;

use super::{class, run, run_json};

#[test]
fn a_daemon_of_its_own_judges_everybody_rightly_at_each_door() {
    let rows = [
        ("milter", 600, "continue at the end of the message", "451 4.4.3 at RCPT"),
        ("policy", 2000, "DUNNO at RCPT", "DEFER_IF_PERMIT 4.4.3 at RCPT"),
    ];
    for (door, sessions, accepted, deferred) in rows {
        let (code, summary) =
            run_json(&format!("--self --door {door} --sessions {sessions} --connections 20"));
        assert_eq!((code, &summary["problems"]), (Some(0), &json!([])), "{summary:#}");
        assert_eq!((&summary["door"], &summary["total"]["failed"]), (&json!(door), &json!(0)));
        let mut classes = vec![
            ("spoofed", "rejected", "reject 5.1.8"),
            ("nomx", "rejected", "reject 5.1.8"),
            ("nullmx", "rejected", "reject 5.7.27"),
            ("foreign", "rejected", "reject 5.7.1"),
            ("badhelo", "rejected", "reject 5.7.1"),
            ("badfrom", "rejected", "reject 5.7.1"),
            ("servfail", "deferred", "defer 4.4.3"),
            ("clean", "accepted", "accept"),
        ];
        classes.retain(|row| (door, row.0) != ("policy", "badfrom"));
        assert_eq!(summary["classes"].as_array().unwrap().len(), classes.len(), "{summary:#}");
        for (name, column, expected) in classes {
            let row = class(&summary, name);
            assert!(row[column].as_u64() > Some(0), "{row:#}");
            assert_eq!((&row["expected"], &row["wrong"]), (&json!(expected), &json!(0)), "{row:#}");
        }
        let replies = summary["replies"].as_array().unwrap();
        for (name, reply) in [("clean", accepted), ("servfail", deferred)] {
            assert!(replies.iter().any(|row| row["class"] == name && row["reply"] == reply), "{replies:#?}");
        }
        assert_eq!(summary["delivery"], json!(null));
        let outcomes = &summary["outcomes"];
        assert_eq!(outcomes["passed"], summary["total"]["accepted"], "{outcomes:#}");
        let refused = summary["total"]["rejected"].as_u64().zip(summary["total"]["deferred"].as_u64());
        assert_eq!(outcomes["refused"].as_u64(), refused.map(|(rejected, deferred)| rejected + deferred));
        assert!(summary["daemon"]["dns_questions"].as_u64() > Some(100), "{summary:#}");
    }
}

#[test]
fn several_messages_share_a_session_and_large_ones_come_in_pieces() {
    let scratch = tempfile::tempdir().unwrap();
    let page = scratch.path().join("report.html");
    let (code, text, err) = run(&format!(
        "--self --door milter --sessions 30 --messages 3 --mix clean=2,badfrom=1 --size 0-200000 --report {}",
        page.display()
    ));
    assert_eq!(code, Some(0), "{text}\n{err}");
    assert!(text.starts_with("rmxd load: a daemon of its own as a milter at unix:/"), "{text}");
    let counted = "60 messages accepted, 60 counted as passed by the daemon; 30 refused or deferred, 30 counted as refused.";
    assert!(text.contains(counted), "{text}");
    assert!(std::fs::read_to_string(page).unwrap().contains(counted));
    let (code, summary) =
        run_json("--self --door policy --sessions 30 --messages 3 --mix clean=2,spoofed=1 --names cold");
    assert_eq!((code, &summary["outcomes"]["passed"]), (Some(0), &json!(60)), "{summary:#}");
}

#[test]
fn a_daemon_that_judges_otherwise_or_does_not_count_fails_the_run() {
    for door in ["milter", "policy"] {
        let arguments = format!("--self --door {door} --sessions 100 --mix clean=1,foreign=1");
        let (code, summary) = run_json(&format!("{arguments} --set policy.mail_from.matches=tag"));
        let problems = json!(["50 false accepts of class foreign (expected reject 5.7.1)"]);
        assert_eq!((code, &summary["problems"]), (Some(1), &problems), "{summary:#}");
        assert_eq!(summary["outcomes"]["passed"], 100);
        let (code, summary) = run_json(&format!("{arguments} --set listen.admin="));
        let problems = json!(["the daemon has no metrics: listen.admin is not set"]);
        assert_eq!((code, &summary["problems"]), (Some(1), &problems), "{summary:#}");
    }
}

/// A server at a unix socket, with a thread for each connection.
fn served(serve: fn(UnixStream) -> Option<()>) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    (folder, format!("unix:{}", path.display()))
}

/// A filter of version 2 that continues whatever comes.
fn continues(mut stream: UnixStream) -> Option<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).ok()?;
        let mut packet = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut packet).ok()?;
        match packet[0] {
            b'O' => stream.write_all(b"\0\0\0\x0dO\0\0\0\x02\0\0\0\x3f\0\0\0\0").ok()?,
            b'D' | b'A' => {}
            b'Q' => return None,
            _ => stream.write_all(b"\0\0\0\x01c").ok()?,
        }
    }
}

/// One request; `None` at the end.
fn request(stream: &mut UnixStream) -> Option<()> {
    let mut last = [0, 0];
    while last != *b"\n\n" {
        let mut octet = [0];
        stream.read_exact(&mut octet).ok()?;
        last = [last[1], octet[0]];
    }
    Some(())
}

fn always_dunno(mut stream: UnixStream) -> Option<()> {
    loop {
        request(&mut stream)?;
        stream.write_all(b"action=DUNNO\n\n").ok()?;
    }
}

fn dunno_once(mut stream: UnixStream) -> Option<()> {
    request(&mut stream)?;
    stream.write_all(b"action=DUNNO\n\n").ok()
}

fn always_550(mut stream: UnixStream) -> Option<()> {
    loop {
        request(&mut stream)?;
        stream.write_all(b"action=550 5.7.1 no\n\n").ok()?;
    }
}

fn babbles(mut stream: UnixStream) -> Option<()> {
    stream.write_all(b"hello\n\n\n\n").ok()?;
    request(&mut stream)
}

fn closes(stream: UnixStream) -> Option<()> {
    drop(stream);
    None
}

#[test]
fn a_server_that_judges_wrongly_fails_the_run_and_its_errors_are_named() {
    let accepts = json!(["18 false accepts of class spoofed (expected reject)"]);
    let rejects = json!(["2 false rejects of class clean (expected accept)"]);
    let failed = json!(["20 sessions without a verdict"]);
    let rows = [
        (continues as fn(UnixStream) -> Option<()>, "milter", "", 1, accepts.clone()),
        (continues, "milter", "--expect spoofed=accept --messages 2", 0, json!([])),
        (always_dunno, "policy", "", 1, accepts.clone()),
        // Postfix connects again too
        (dunno_once, "policy", "", 1, accepts),
        (always_550, "policy", "", 1, rejects),
        (closes, "policy", "", 1, failed.clone()),
        (closes, "milter", "", 1, failed.clone()),
        (babbles, "policy", "", 1, failed.clone()),
        (babbles, "milter", "", 1, failed),
        (babbles, "milter", "--tolerate failure", 0, json!([])),
    ];
    for (serve, door, options, expected, problems) in rows {
        let (_folder, target) = served(serve);
        let (code, summary) =
            run_json(&format!("{target} --door {door} --sessions 20 --connections 4 {options}"));
        assert_eq!((code, &summary["problems"]), (Some(expected), &problems), "{door} {options} {summary:#}");
        assert_eq!((&summary["target"], &summary["door"]), (&json!(target), &json!(door)));
    }
}

#[test]
fn what_makes_no_sense_at_a_door_is_told_at_once() {
    let rows = [
        (
            "unix:/nowhere/socket",
            64,
            "the SMTP door has no unix socket: give HOST:PORT, or --door milter or policy",
        ),
        (
            "unix:/nowhere/socket --door milter",
            75,
            "unix:/nowhere/socket can't be reached: nothing listens there",
        ),
        ("unix:nowhere --door policy", 64, "\"unix:nowhere\": must name a unix socket by its absolute path"),
        ("192.0.2.1:8891 --door milter", 64, "add --i-own-this-host if it is yours to test"),
        ("192.0.2.1:8892 --door policy --i-own-this-host", 64, "add --rate with at most 1000/s"),
        ("--self --door milter --pipelining", 64, "--pipelining is about clients of SMTP"),
        ("--self --door policy --slow 10", 64, "--slow is about clients of SMTP"),
        ("--self --door policy --size 4KiB", 64, "--size has no effect with --door policy"),
        ("--self --door policy --mix clean=1,badfrom=1", 64, "--mix: the class badfrom needs the header"),
        (
            "127.0.0.1:1 --door policy --domain badfrom=a.test",
            64,
            "--domain: the class badfrom needs the header",
        ),
        ("--self --door policy --expect badfrom=accept", 64, "--expect: the class badfrom needs the header"),
    ];
    for (arguments, code, complaint) in rows {
        let (found, text, said) = run(arguments);
        assert_eq!((found, text.as_str()), (Some(code), ""), "{arguments}: {said}");
        assert!(said.contains(complaint), "{arguments}: {said}");
    }
}
