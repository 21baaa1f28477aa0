//! `rmxd schema`: what the commands print with `--json`, and the log, are as their schemas say.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::daemon::{Daemon, any_port, configuration};
use crate::support::process::{Run, rmxd, rmxd_asking};
use crate::support::schema::conforms;
use crate::support::zone::Zone;

fn schema(name: &str) -> Value {
    let run = Run::of(&mut rmxd(&["schema", name]));
    assert_eq!(run.code, Some(0), "{run:?}");
    run.json()
}

pub(crate) fn assert_conforms(name: &str, value: &Value) {
    let schema = schema(name);
    conforms(&schema, &schema, value).unwrap_or_else(|what| panic!("{name}: {what}: {value:#}"));
}

/// All properties of the schema that some value has.
fn fields(values: &[Value]) -> BTreeSet<String> {
    values.iter().flat_map(|value| value.as_object().unwrap().keys().cloned()).collect()
}

#[test]
fn every_name_has_a_schema_and_others_are_refused() {
    let run = Run::of(&mut rmxd(&["schema", "nothing"]));
    assert_eq!(run.code, Some(64), "{run:?}");
    let (_, names) = run.err.split_once("possible values: ").unwrap();
    let (names, _) = names.split_once(']').unwrap();
    for name in names.split(", ") {
        let schema = schema(name);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
        assert!(schema["title"].is_string(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_in_history_explain_and_log_are_as_described() {
    let zone = Zone::start();
    let more =
        "[relay]\ndomains = [\"here.test\"]\n[log]\nformat = \"json\"\n[policy.helo]\nexists = \"tag\"\n";
    let text = configuration("gate.test", &[any_port()], zone.address(), more);
    let daemon = Daemon::start(&text, &["--set", "history.path=decisions"]).await;
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
    let rows = [
        ("mail.good.test", "a@good.test", "From: a@good.test\r\nReply-To: b@good.test\r\n\r\nHello\r\n"),
        ("nowhere.test", "a@good.test", "From: a@good.test\r\n\r\nHello\r\n"),
        ("mail.good.test", "a@nomx.test", "From: a@good.test\r\n\r\nHello\r\n"),
        ("mail.good.test", "a@broken.test", "From: a@good.test\r\n\r\nHello\r\n"),
        ("mail.good.test", "a@good.test", "Subject: no author\r\n\r\nHello\r\n"),
    ];
    for (helo, sender, message) in rows {
        let mut client = Client::greeted(from, daemon.address(), helo).await;
        client.deliver(sender, "user@here.test", message.as_bytes()).await;
    }
    let log = daemon.settled("\"rmxd::decision\"", rows.len()).await;
    let home = daemon.terminate().await;

    let events: Vec<Value> = log
        .lines()
        .filter(|line| line.contains("\"rmxd::decision\""))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for event in &events {
        assert_conforms("log", event);
    }
    let found = fields(&events);
    for field in ["identity", "rule", "reason", "domain", "ptr", "tags", "reply_to", "evidence", "octets"] {
        assert!(found.contains(field), "{field}: {found:?}");
    }
    let command = |arguments: &[&str]| {
        let mut command = rmxd(arguments);
        command.arg("--config").arg(home.file()).args(["--set", "history.path=decisions", "--json"]);
        Run::of(command.current_dir(home.path())).json()
    };
    let history = command(&["history"]);
    assert_eq!(history.as_array().unwrap().len(), rows.len());
    assert_conforms("history", &history);
    let mut usual = rmxd(&["history", "--would", "--json", "--set", "history.path=decisions"]);
    let usual = Run::of(usual.env("RMXD_CONFIG", home.file()).current_dir(home.path())).json();
    assert_conforms("would", &usual);
    let hindsight = command(&[
        "history",
        "--would",
        "--history",
        "decisions",
        "--set",
        "policy.on_dns_error=accept",
        "--set",
        "policy.helo.exists=reject",
        "--set",
        "policy.mail_from.exists=tag",
    ]);
    assert_conforms("hindsight", &hindsight);
    for part in ["totals", "senders", "learn"] {
        assert!(!hindsight[part].as_array().unwrap().is_empty(), "{part}: {hindsight:#}");
    }
    for event in &events {
        assert_conforms("explain", &command(&["explain", event["id"].as_str().unwrap()]));
    }

    // The test can fail.
    let schema = schema("history");
    for (field, value) in [("verdict", json!("maybe")), ("more", json!(1)), ("rcpts", json!("one"))] {
        let mut spoiled = history.clone();
        spoiled[0][field] = value;
        assert!(conforms(&schema, &schema, &spoiled).is_err(), "{field}");
    }
    let mut spoiled = history.clone();
    spoiled[0].as_object_mut().unwrap().remove("outcome");
    assert!(conforms(&schema, &schema, &spoiled).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_commands_print_what_is_described() {
    let zone = Zone::start();
    let asking = |name: &str, arguments: &[&str]| {
        let mut command = rmxd_asking(name, zone.address());
        Run::of(command.args(arguments).arg("--json")).json()
    };
    let senders =
        [("127.0.0.10", "a@good.test"), ("127.0.0.12", "a@nomx.test"), ("127.0.0.22", "a@broken.test")];
    for (client, sender) in senders {
        let arguments =
            ["--client", client, "--mail-from", sender, "--from", sender, "--helo", "mail.good.test"];
        assert_conforms("check", &asking("check", &arguments));
    }
    for (domain, egress) in
        [("good.test", "127.0.0.10"), ("nomx.test", "127.0.0.12"), ("treasury.test", "127.0.3.2")]
    {
        assert_conforms("audit", &asking("audit", &[domain, "--egress", egress]));
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("mail.log");
    let lines = "Nov 23 12:00:00 mx postfix/smtpd[1]: 4F2A1B3C01: client=mail.good.test[127.0.0.10]\n\
                 Nov 23 12:00:01 mx postfix/qmgr[3]: 4F2A1B3C01: from=<ann@good.test>, size=1, nrcpt=1 (queue active)\n\
                 Nov 23 12:00:02 mx postfix/smtpd[1]: 4F2A1B3C02: client=unknown[127.0.0.12]\n\
                 Nov 23 12:00:02 mx postfix/qmgr[3]: 4F2A1B3C02: from=<a@nomx.test>, size=1, nrcpt=1 (queue active)\n\
                 Nov 23 12:00:06 mx postfix/smtpd[1]: 4F2A1B3C04: client=unknown[127.0.0.22]\n\
                 Nov 23 12:00:06 mx postfix/qmgr[3]: 4F2A1B3C04: from=<b@broken.test>, size=1, nrcpt=1 (queue active)\n";
    fs::write(&log, lines).unwrap();
    let replayed = asking("replay", &[log.to_str().unwrap()]);
    assert!(replayed["senders"][0].is_object() && replayed["in_dns_trouble"][0].is_object(), "{replayed:#}");
    assert_conforms("replay", &replayed);
    assert_conforms("config", &Run::of(&mut rmxd(&["config", "show", "--json"])).json());
    assert_conforms("zone", &Run::of(&mut rmxd(&["zone", "--list", "--json"])).json());
    for door in ["smtp", "policy"] {
        let arguments = ["load", "--self", "--door", door, "--sessions", "100", "--json"];
        assert_conforms("load", &Run::of(&mut rmxd(&arguments)).json());
    }
    assert_conforms("demo", &Run::of(&mut rmxd(&["demo", "--once", "--json"])).json());
}
