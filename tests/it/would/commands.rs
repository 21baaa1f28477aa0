//! `rmxd history --would --config FILE` and `/api/v1/would?config=`: the commands beside a daemon.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use crate::admin::Site;
use crate::schema::assert_conforms;
use crate::support::client::Client;
use crate::support::daemon::{Daemon, Home, any_port, configuration};
use crate::support::process::{Run, SOON, eventually, rmxd};
use crate::support::zone::Zone;

const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 12));
const MORE: &str = "[relay]\ndomains = [\"here.test\"]\n";

/// A daemon that has decided on four messages: one taken, two refused for their envelope, one for its header.
async fn site(zone: &Zone) -> Daemon {
    let text = configuration("gate.test", &[any_port()], zone.address(), MORE);
    let daemon = Daemon::start(&text.replace("path = \"\"", "path = \"decisions\""), &[]).await;
    for (from, sender, author) in [
        (EXCHANGER, "a@good.test", "a@good.test"),
        (STRANGER, "a@nomx.test", "a@nomx.test"),
        (STRANGER, "b@nomx.test", "b@nomx.test"),
        (EXCHANGER, "a@good.test", "a@nowhere.test"),
    ] {
        let message = format!("From: {author}\r\n\r\nHello\r\n");
        let mut client = Client::greeted(from, daemon.address(), "mail.good.test").await;
        client.deliver(sender, "user@here.test", message.as_bytes()).await;
    }
    let all =
        || Some(run(daemon.home(), "history --json")).filter(|run| run.json().as_array().unwrap().len() == 4);
    eventually("four decisions in the history", SOON, all).await;
    daemon
}

/// By the daemon's configuration as the usual one.
fn run(home: &Home, arguments: &str) -> Run {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut command = rmxd(&arguments);
    Run::of(command.env("RMXD_CONFIG", home.file()).env("TZ", "XYZ-5:45").current_dir(home.path()))
}

/// The daemon's configuration with more, in a file beside it.
fn tried(home: &Home, name: &str, more: &str) {
    let usual = std::fs::read_to_string(home.file()).unwrap();
    std::fs::write(home.path().join(name), format!("{usual}{more}")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_configuration_is_tried_on_the_decisions_of_the_past() {
    let zone = Zone::start();
    let daemon = site(&zone).await;
    let home = daemon.home();

    tried(home, "same.toml", "");
    let same = run(home, "history --would --config same.toml");
    assert_eq!((same.code, same.err.as_str()), (Some(1), ""), "{same:?}");
    assert!(same.out.starts_with("What same.toml would have done with 4 decisions\n"), "{}", same.out);
    assert!(same.out.contains(" XYZ, from decisions\n"), "{}", same.out);
    assert!(same.out.contains("\n4 the same, 0 changed, 0 can't be known\n"), "{}", same.out);

    tried(
        home,
        "other.toml",
        "[policy.mail_from]\nexists = \"tag\"\n[policy.from]\nexists = \"tag\"\nmatches = \"tag\"\n[policy.reply_to]\nexists = \"tag\"\n[policy.helo]\nexists = \"reject\"\n",
    );
    let other = run(home, "history --would --config other.toml --json");
    assert_eq!((other.code, other.err.as_str()), (Some(0), ""), "{other:?}");
    let json = other.json();
    assert_conforms("hindsight", &json);
    assert_eq!((&json["decisions"], &json["changed"], &json["unknown"]), (&json!(4), &json!(1), &json!(2)));
    // The exchanger's HELO name is that of its PTR record, which was looked up.
    let learn = json["learn"].as_array().unwrap();
    assert!(learn.iter().any(|row| row["set"] == "policy.helo.exists = \"tag\""), "{json:#}");

    tried(
        home,
        "loose.toml",
        "[policy]\nmalformed = \"tag\"\n[policy.mail_from]\nexists = \"tag\"\n[policy.from]\nexists = \"defer\"\n",
    );
    let loose = run(home, "history --would --config loose.toml");
    assert_eq!((loose.code, loose.err.as_str()), (Some(0), ""), "{loose:?}");
    for part in [
        "\n1 the same, 1 changed, 2 can't be known\n",
        "Not taken either way, but otherwise\n",
        "envelope taken so far, header not seen",
        "policy.mode = \"monitor\"",
    ] {
        assert!(loose.out.contains(part), "no {part:?} in {}", loose.out);
    }
    let row = loose.out.lines().find(|line| line.starts_with("nowhere.test ")).unwrap();
    assert!(
        row.contains(" deferred ") && row.contains(" from.exists ") && row.contains(" no_such_domain "),
        "{row}"
    );
    let id = row.split_whitespace().last().unwrap();
    let explained = run(home, &format!("explain {id}"));
    assert!(explained.out.contains("\nfrom:      a@nowhere.test\n"), "{explained:?}");
    let filtered = run(home, "history --would --config loose.toml --domain nomx.test --json").json();
    assert_eq!((&filtered["decisions"], &filtered["unknown"]), (&json!(2), &json!(2)));
    assert_eq!(filtered["senders"][0]["why"], "header_not_seen");
    let set = run(home, "history --would --config loose.toml --set policy.mode=monitor --json").json();
    assert_eq!((&set["changed"], &set["unknown"]), (&json!(3), &json!(0)), "{set:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exempt_recipient_beside_one_that_would_be_refused_gets_the_mail() {
    let zone = Zone::start();
    let text = configuration("gate.test", &[any_port()], zone.address(), MORE);
    let text = text.replace("path = \"\"", "path = \"decisions\"");
    let tags = "[policy.mail_from]\nexists = \"tag\"\n[policy.from]\nexists = \"tag\"\nmatches = \"tag\"\n";
    let daemon = Daemon::start(&format!("{text}{tags}"), &[]).await;
    let mut client = Client::greeted(STRANGER, daemon.address(), "mail.good.test").await;
    let envelope = [
        ("MAIL FROM:<a@nomx.test>", "250"),
        ("RCPT TO:<user@here.test>", "250"),
        ("RCPT TO:<postmaster@here.test>", "250"),
        ("DATA", "354"),
        ("From: a@nomx.test\r\n\r\nHello\r\n.", "250"),
    ];
    client.talk(&envelope).await;
    let home = daemon.home();
    let kept = || Some(run(home, "history --json")).filter(|run| run.json().as_array().unwrap().len() == 1);
    eventually("a decision in the history", SOON, kept).await;

    std::fs::write(home.path().join("enforce.toml"), text).unwrap();
    let would = run(home, "history --would --config enforce.toml");
    assert_eq!((would.code, would.err.as_str()), (Some(0), ""), "{would:?}");
    let legend = "\nOf several recipients, those that are exempt there get the mail where its envelope is refused for the others.\n";
    assert!(would.out.contains("\n0 the same, 1 changed, 0 can't be known\n"), "{}", would.out);
    assert_eq!(would.out.matches(legend).count(), 1, "{}", would.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_wrong_or_has_another_history_is_no_silent_matter() {
    let zone = Zone::start();
    let daemon = site(&zone).await;
    let home = daemon.home();

    tried(home, "wrong.toml", "[policy.helo]\nexists = \"refuse\"\n");
    let wrong = run(home, "history --would --config wrong.toml");
    let lines = std::fs::read_to_string(home.path().join("wrong.toml")).unwrap().lines().count();
    assert_eq!((wrong.code, wrong.out.as_str()), (Some(78), ""), "{wrong:?}");
    assert!(
        wrong
            .err
            .starts_with(&format!("wrong.toml:{lines}:1: policy.helo.exists: \"refuse\" is not allowed")),
        "{wrong:?}"
    );
    let missing = run(home, "history --would --config missing.toml");
    assert_eq!(missing.code, Some(78), "{missing:?}");

    let elsewhere = std::fs::read_to_string(home.file()).unwrap().replace("\"decisions\"", "\"others\"");
    std::fs::write(home.path().join("elsewhere.toml"), &elsewhere).unwrap();
    let noted = run(home, "history --would --config elsewhere.toml");
    let note = "rmxd: note: history.path is others in elsewhere.toml; the decisions are read from decisions (--history names another)\n";
    assert_eq!((noted.code, noted.err.as_str()), (Some(1), note), "{noted:?}");
    let named = run(home, "history --would --config elsewhere.toml --history decisions");
    assert_eq!((named.code, named.err.as_str()), (Some(1), ""), "{named:?}");
    let nothing = run(home, "history --would --config elsewhere.toml --history others");
    assert_eq!(
        (nothing.code, nothing.err.as_str()),
        (Some(75), "rmxd: there is no history in others\n"),
        "{nothing:?}"
    );
    std::fs::write(home.path().join("none.toml"), elsewhere.replace("\"others\"", "\"\"")).unwrap();
    let none = run(home, "history --would --config none.toml");
    assert!(none.err.starts_with("rmxd: note: history.path is empty in none.toml; "), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_tries_keys_of_policy_over_the_running_configuration() {
    let site = Site::remembering("[relay]\ndomains = [\"here.test\"]\n").await;
    assert_eq!(site.deliver("a@good.test", "a@good.test").await, 250);
    assert_eq!(site.deliver("a@nomx.test", "a@good.test").await, 550);
    let ask = async |text: &str| -> (u16, Value) {
        let query: String = text.bytes().map(|octet| format!("%{octet:02x}")).collect();
        let answer = site.get(&format!("/api/v1/would?config={query}")).await;
        (answer.status, answer.json())
    };
    let (code, same) = ask("[policy]\n").await;
    assert_eq!((code, &same["decisions"], &same["whole"]), (200, &json!(2), &json!(true)), "{same:#}");
    assert_eq!((&same["changed"], &same["unknown"]), (&json!(0), &json!(0)), "{same:#}");
    let (_, tagged) = ask("policy.mail_from.exists = \"tag\"").await;
    assert_eq!((&tagged["unknown"], &tagged["senders"][0]["domain"]), (&json!(1), &json!("nomx.test")));
    let (_, senders) =
        ask("[[policy.senders]]\ndomains = [\"good.test\"]\nexists = \"off\"\nmatches = \"off\"\n").await;
    assert_eq!(senders["changed"], 0, "{senders:#}");

    for (text, what) in [
        ("policy.from.matches = \"no\"", "config: config:1:13: policy.from.matches: \"no\" is not allowed: "),
        ("policy.form.matches = \"tag\"", "config: config:1:8: policy.form: no such key; [policy] has "),
        ("[policy\n", "config: config:1:"),
        (
            "[exempt]\nfiles = [\"/etc/passwd\"]",
            "config: config:2:1: exempt.files: is not allowed here: only keys below policy",
        ),
        (
            "tls.key = \"/etc/shadow\"",
            "config: config:1:5: tls.key: is not allowed here: only keys below policy",
        ),
    ] {
        let (code, problem) = ask(text).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(code == 400 && detail.starts_with(what), "{text}: {code} {detail}");
    }
    let answer = site.get(&format!("/api/v1/would?config={}", "x".repeat(8193))).await;
    assert_eq!(
        (answer.status, &answer.json()["detail"]),
        (400, &json!("config: has more than 8192 octets, the limit"))
    );
}
