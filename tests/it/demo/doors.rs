//! `rmxd demo --door milter` and `--door policy`: the frames, the verdicts, and the demo as it is tried by hand.

use std::fs;
use std::io::BufReader;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Running, demo, get, is_empty};
use crate::interop::postfix::Postfix;
use crate::support::client::Client;
use crate::support::process::{Run, rmxd};
use crate::support::readme::block;

/// The sessions as programs read them.
fn sessions(door: &str) -> Vec<Value> {
    let scratch = tempfile::tempdir().unwrap();
    let ran = Run::of(&mut demo(scratch.path(), &["--door", door, "--once", "--json"]));
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
    assert!(is_empty(scratch.path()));
    let sessions: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
    assert!(sessions.len() >= 8, "{}", sessions.len());
    for session in &sessions {
        assert_eq!((&session["as_expected"], &session["door"]), (&json!(true), &json!(door)), "{session:#}");
        assert_eq!(session["error"], Value::Null);
    }
    sessions
}

fn session<'a>(sessions: &'a [Value], name: &str) -> &'a Value {
    sessions.iter().find(|session| session["name"] == name).unwrap_or_else(|| panic!("{name} is not there"))
}

/// `RCPT <you@demo.test>`, one line for each frame.
fn frames(session: &Value) -> String {
    let text = |frame: &Value, name: &str| frame[name].as_str().unwrap().to_owned();
    let lines = session["frames"].as_array().unwrap().iter();
    lines
        .map(|frame| format!("{} {} {}\n", text(frame, "from"), text(frame, "name"), text(frame, "text")))
        .collect()
}

/// Where, verdict, reason, and the reply without its id.
fn decisions(session: &Value) -> Vec<String> {
    let text = |decision: &Value, name: &str| decision[name].as_str().unwrap_or("-").to_owned();
    let decisions = session["decisions"].as_array().unwrap().iter();
    decisions
        .map(|decision| {
            let reply = text(decision, "reply");
            let reply = reply.split(" (id ").next().unwrap().to_owned();
            format!(
                "{}: {} {} {reply}",
                text(decision, "at"),
                text(decision, "verdict"),
                text(decision, "reason")
            )
        })
        .collect()
}

#[test]
fn a_milter_is_shown_with_its_frames_and_verdicts() {
    let sessions = sessions("milter");
    let valid = session(&sessions, "valid");
    let shown = frames(valid);
    let expected = "\
        postfix CONNECT [127.0.0.10] port 40001\nrmxd continue \npostfix HELO mail.good.test\n\
        postfix MAIL <ann@good.test>\nrmxd continue \npostfix RCPT <you@demo.test>\nrmxd continue \npostfix DATA ";
    assert!(shown.contains(expected), "{shown}");
    assert!(
        shown.contains("rmxd delete Authentication-Results number 1\nrmxd insert before all fields:\n"),
        "{shown}"
    );
    assert!(shown.contains("x-reverse-mx=pass (mx) smtp.mailfrom=good.test"), "{shown}");
    assert!(shown.ends_with("postfix QUIT the session is over\n"), "{shown}");
    let mail = |name: &str| {
        let frames = session(&sessions, name)["frames"].as_array().unwrap();
        frames.iter().find(|frame| frame["name"] == "MAIL").unwrap()["macros"].clone()
    };
    assert_eq!((mail("user"), mail("valid")), (json!("(auth_authen=boss)"), json!("")));
    assert!(
        frames(session(&sessions, "header")).contains("postfix ABORT the transaction is over\npostfix MAIL")
    );
    assert!(
        frames(session(&sessions, "monitor")).contains("rmxd log verdict=reject outcome=passed mode=monitor")
    );
    let you = "RCPT you@demo.test";
    let rows: [(&str, Vec<String>); 8] = [
        ("valid", vec![format!("{you}: accept - -"), "the end of the message: accept - -".to_owned()]),
        (
            "spoofed",
            vec![format!(
                "{you}: reject no_such_domain 550 5.1.8 <ann@nowhere.test>: nowhere.test does not exist"
            )],
        ),
        (
            "header",
            vec![
                format!("{you} (message 1): accept - -"),
                "the end of the header (message 1): reject no_such_domain 550 5.7.1 <it@bank-login.test>: \
                 bank-login.test does not exist"
                    .to_owned(),
                format!("{you} (message 2): accept - -"),
                "the end of the message (message 2): accept - -".to_owned(),
            ],
        ),
        (
            "greylisted",
            vec![format!(
                "{you}: defer greylisted 450 4.7.1 <ann@good.test>: good.test is greylisted, try again in 2 seconds"
            )],
        ),
        (
            "greylisted_again",
            vec![format!("{you}: accept - -"), "the end of the message: accept - -".to_owned()],
        ),
        (
            "dns_error",
            vec![format!(
                "{you}: defer dns_error 451 4.4.3 <ann@broken.test>: broken.test can't be looked up now"
            )],
        ),
        ("user", vec![format!("{you}: accept - -"), "the end of the message: accept - -".to_owned()]),
        (
            "monitor",
            vec![format!("{you}: accept no_such_domain -"), "the end of the message: accept - -".to_owned()],
        ),
    ];
    for (name, expected) in rows {
        assert_eq!(decisions(session(&sessions, name)), expected, "{name}");
    }
    let edits = |name: &str| {
        session(&sessions, name)["decisions"].as_array().unwrap().last().unwrap()["edits"].clone()
    };
    let insert = "insert before all fields: Authentication-Results";
    assert_eq!(edits("valid"), json!(["delete number 1 of: Authentication-Results", insert]));
    assert_eq!((edits("recipients"), edits("user")), (json!([insert]), json!([])));
}

#[test]
fn a_policy_service_is_shown_with_its_requests_and_answers() {
    let sessions = sessions("policy");
    let shown = frames(session(&sessions, "valid"));
    assert!(
        shown.starts_with("postfix request request=smtpd_access_policy  protocol_state=RCPT  "),
        "{shown}"
    );
    assert!(shown.ends_with("rmxd answer action=DUNNO\n"), "{shown}");
    let recipients = session(&sessions, "recipients");
    let instance = |frame: &Value| {
        let text = frame["text"].as_str().unwrap().to_owned();
        text.split("instance=").nth(1).unwrap().split(' ').next().unwrap().to_owned()
    };
    let asked: Vec<&Value> =
        recipients["frames"].as_array().unwrap().iter().filter(|frame| frame["name"] == "request").collect();
    assert_eq!((asked.len(), instance(asked[0])), (2, instance(asked[1])));
    let spoofed = &session(&sessions, "spoofed")["frames"][1];
    assert!(
        spoofed["text"].as_str().unwrap().starts_with("action=550 5.1.8 nowhere.test does not exist (id ")
    );
    let effect = "Postfix replies 550 5.1.8 <ann@nowhere.test>: Sender address rejected: nowhere.test does not exist (id ";
    assert!(spoofed["effect"].as_str().unwrap().starts_with(effect), "{spoofed:#}");
    let you = "RCPT you@demo.test";
    let rows: [(&str, Vec<String>); 6] = [
        ("header", vec![format!("{you} (message 1): accept - -"), format!("{you} (message 2): accept - -")]),
        (
            "recipients",
            vec![
                format!("{you}: reject no_such_domain 550 5.1.8 nowhere.test does not exist"),
                "RCPT postmaster@demo.test: accept - -".to_owned(),
            ],
        ),
        (
            "greylisted",
            vec![format!(
                "{you}: defer greylisted 450 4.7.1 good.test is greylisted, try again in 2 seconds"
            )],
        ),
        ("greylisted_again", vec![format!("{you}: accept - -")]),
        ("dns_error", vec![format!("{you}: defer dns_error 450 4.4.3 broken.test can't be looked up now")]),
        ("monitor", vec![format!("{you}: accept no_such_domain -")]),
    ];
    for (name, expected) in rows {
        assert_eq!(decisions(session(&sessions, name)), expected, "{name}");
    }
}

#[test]
fn the_tour_of_a_door_ends_with_the_lines_of_the_guide_and_stays_up() {
    for (door, own) in [
        ("milter", "smtpd_milters = { inet:127.0.0.1:"),
        ("policy", "check_policy_service { inet:127.0.0.1:"),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let mut demo = Running::start_with(scratch.path(), &["--door", door]);
        let mut output = BufReader::new(demo.0.stdout.take().unwrap());
        let page = demo.read_to(&mut output, "Try it by hand");
        assert!(page.contains("✓ all as expected"), "{page}");
        assert!(!page.contains(['\x1b', '\r', '✗']), "{page}");
        assert!(page.lines().all(|line| line.chars().count() <= 120 && line.trim_end() == line), "{page}");
        for info in [format!("main.cf {door}"), format!("toml {door}")] {
            let indented: String =
                block(&info).lines().map(|line| format!("    {line}").trim_end().to_owned() + "\n").collect();
            assert!(page.contains(&indented), "{info} of the guide is not in {page}");
        }

        let mut command =
            |text: &str| demo.read_to(&mut output, text).lines().last().unwrap().trim().to_owned();
        let socket = command("unix:/");
        assert!(socket.ends_with(&format!("/{door}")), "{socket}");
        let load = command(" load --door ").replace("1000", "100");
        let played = Command::new("sh").args(["-c", &load]).env_clear().output().unwrap();
        let text = String::from_utf8(played.stdout).unwrap();
        assert!(played.status.success() && text.contains("✓ all as expected"), "{load}\n{text}");
        command(own);
        let explain = command(" explain ");
        let explained = Command::new("sh").args(["-c", &explain]).env_clear().output().unwrap();
        let text = String::from_utf8(explained.stdout).unwrap();
        assert!(text.contains("verdict:   reject, because of "), "{explain}\n{text}");
        let dashboard = command("http://");
        let address = dashboard.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
        assert!(get(address, "/").contains("<title>rmxd</title>"));
        assert_eq!(demo.terminate(), Some(0));
        assert!(is_empty(scratch.path()));
    }
}

/// A stock Postfix whose main.cf has the line that the demo prints, which begins with `line`; it refuses with these words.
async fn postfix_replies(door: &str, line: &str, words: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let mut demo = Running::start_with(scratch.path(), &["--door", door]);
    let mut output = BufReader::new(demo.0.stdout.take().unwrap());
    demo.read_to(&mut output, "Try it by hand");
    let line = demo.read_to(&mut output, line).lines().last().unwrap().trim().to_owned() + "\n";
    let Some(postfix) = Postfix::start_with(|_| line) else { return };
    for (client, sender, expected) in
        [([127, 0, 0, 11], "ann@nowhere.test", words), ([127, 0, 0, 10], "ann@good.test", "250 2.0.0 ")]
    {
        let mut client = Client::greeted(IpAddr::from(client), postfix.address(), "mail.good.test").await;
        let message = format!("From: {sender}\r\n\r\nHello\r\n");
        let reply = client.deliver(sender, "user@relay.test", message.as_bytes()).await;
        assert!(reply.text.starts_with(expected), "{door}: {}", reply.text);
    }
    assert_eq!(demo.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postfix_with_the_milter_of_the_demo_has_its_replies() {
    let words = "550 5.1.8 <ann@nowhere.test>: nowhere.test";
    postfix_replies("milter", "smtpd_milters = ", words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postfix_with_the_policy_service_of_the_demo_has_its_replies() {
    let words = "550 5.1.8 <ann@nowhere.test>: Sender address rejected: nowhere.test";
    postfix_replies("policy", "smtpd_sender_restrictions = ", words).await;
}

#[test]
fn a_folder_that_was_named_is_kept_and_another_door_is_wrong_usage() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("a folder");
    let mut command =
        demo(scratch.path(), &["--door", "milter", "--once", "--keep", folder.to_str().unwrap()]);
    assert_eq!(command.stdout(Stdio::null()).status().unwrap().code(), Some(0));
    for file in ["enforce.toml", "monitor.toml"] {
        let checked = Run::of(rmxd(&["config", "check", "--config"]).arg(folder.join(file)));
        assert_eq!(checked.code, Some(0), "{}", checked.err);
    }
    assert!(fs::read_to_string(folder.join("log")).unwrap().contains("door=milter"));
    let wrong = Run::of(&mut demo(scratch.path(), &["--door", "imap"]));
    assert_eq!((wrong.code, wrong.err.contains("possible values: smtp, milter, policy")), (Some(64), true));
}
