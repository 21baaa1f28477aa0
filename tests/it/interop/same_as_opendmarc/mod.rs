//! The results of DMARC beside those of Debian's opendmarc, over the same zone and the same messages.
//!
//! The messages stand in `messages.table`, the records of their owners in `owners.zone`, and the public suffixes that
//! opendmarc knows in `suffixes.list`. opendmarc follows RFC 7489 and stands behind a Postfix and an opendkim that verifies
//! signatures; it evaluates SPF itself. Where RFC 9989 has another result, the row has both and the reason.
//! With `RMXD_SHOW_RESULTS` set, the test prints the results that the milters write into each message.

mod row;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rmxd::zone::{Server, Zone};
use serde_json::Value;

use super::opendkim_and_opendmarc::{Milters, Programs, Settings, name_server};
use super::postfix::Postfix;
use crate::dkim::opendkim::OpenDkim;
use crate::support::client::{Client, Reply};
use crate::support::process::{Run, rmxd_asking};
use row::Row;

/// The exit status of a refusal for now.
const EX_TEMPFAIL: i32 = 75;
/// In the results that the milters write and that opendmarc believes.
const AUTHSERV_ID: &str = "gate.relay.test";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LIMIT: Duration = Duration::from_secs(60);
/// What the issue of DMARC asks for.
const FEWEST_ROWS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn dmarc_has_the_results_of_opendmarc_but_for_what_the_table_gives_reasons_for() {
    let Some(programs) = Programs::find() else { return };
    let Some(rsa) = OpenDkim::new(2048) else { return };
    let rows = row::table(&rsa);
    assert!(rows.len() >= FEWEST_ROWS, "{} rows", rows.len());
    let dns = Server::start(name_server(), Zone::parse(&row::zone(&rsa), None).unwrap()).await.unwrap();
    let settings =
        Settings { opendkim: AUTHSERV_ID, opendmarc: AUTHSERV_ID, trusted: AUTHSERV_ID, own_spf: true };
    let milters = Milters::start(&programs, &settings, dns.address(), &row::file("suffixes.list")).await;
    let [opendkim, opendmarc] = milters.addresses;
    let Some(postfix) = Postfix::start_with(|_| {
        format!(
            "smtpd_tls_security_level = none\nsmtpd_milters = inet:{opendkim}, inet:{opendmarc}\n\
             milter_default_action = tempfail\n"
        )
    }) else {
        return;
    };
    let theirs = results_of_opendmarc(&postfix, &rows).await;

    let (mut wrong, mut differing) = (Vec::new(), Vec::new());
    for row in &rows {
        let ours = result_of_rmxd(dns.address(), row);
        let theirs = &theirs[&row.name];
        if ours != row.expected {
            wrong.push(format!("{}: rmxd has {ours:?}, RFC 9989 {:?}", row.name, row.expected));
        }
        if *theirs != row.opendmarc {
            wrong.push(format!("{}: opendmarc has {theirs:?}, not {:?}", row.name, row.opendmarc));
        }
        if !row.reason.is_empty() {
            differing.push(format!("{:28} | {ours:18} | {theirs:18} | {}", row.name, row.reason));
        }
    }
    println!("{:28} | rmxd               | opendmarc          | reason\n{}", "message", differing.join("\n"));
    println!("{} messages, {} of them with a difference", rows.len(), differing.len());
    assert!(
        wrong.is_empty(),
        "{} of {} messages:\n{}\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n"),
        milters.history()
    );
}

/// What `rmxd check` says of the From: domain where only SPF and DKIM count.
fn result_of_rmxd(dns: SocketAddr, row: &Row) -> String {
    let folder = tempfile::Builder::new().prefix("rmxd-row-").tempdir().unwrap();
    let file = folder.path().join("message.eml");
    fs::write(&file, &row.message).unwrap();
    let mut command = rmxd_asking("check", dns);
    for setting in ["policy.from.matches=dmarc", "policy.from.matches_by=spf,dkim", "policy.mode=monitor"] {
        command.args(["--set", setting]);
    }
    command.args(["--json", "--client", &row.client, "--helo", &row.helo, "--mail-from", &row.mail_from]);
    let run = Run::of(command.arg("--message").arg(file));
    assert!(matches!(run.code, Some(0 | 1 | EX_TEMPFAIL)), "{}: {run:?}", row.name);
    let report = run.json();
    let findings = report["findings"].as_array().unwrap();
    let of_from = findings.iter().filter(|it| it["identity"] == "from" && it["rule"] == "matches");
    let results: Vec<String> = of_from.map(|finding| in_short(&finding["dmarc"])).collect();
    results.join(", ")
}

/// `pass`, `none`, `fail reject`.
fn in_short(dmarc: &Value) -> String {
    let text = |name: &str| dmarc[name].as_str().unwrap_or("-");
    match text("result") {
        "fail" => format!("fail {}", text("request")),
        other => other.to_owned(),
    }
}

/// The same of opendmarc, by the names of the rows: from the field that it adds to the message.
async fn results_of_opendmarc(postfix: &Postfix, rows: &[Row]) -> BTreeMap<String, String> {
    let mut results = BTreeMap::new();
    let mut taken = 0;
    // one after the other: with six at one time a milter ended, and Postfix refused the rest for now
    for row in rows {
        let reply = deliver(postfix.address(), row).await;
        if reply.is_positive() {
            taken += 1;
        } else {
            results.insert(row.name.clone(), format!("refused: {}", reply.text));
        }
    }
    for file in postfix.wait_for_messages("user", taken, LIMIT).await {
        let text = String::from_utf8(fs::read(file).unwrap()).unwrap().replace("\n\t", " ");
        let name = text.lines().find_map(|line| line.strip_prefix("X-Row: ")).unwrap();
        if std::env::var_os("RMXD_SHOW_RESULTS").is_some() {
            let shown = text.lines().filter(|line| line.starts_with("Authentication-Results: "));
            println!("{name}\n{}", shown.map(|line| format!("    {line}\n")).collect::<String>());
        }
        let added = format!("Authentication-Results: {AUTHSERV_ID}; dmarc=");
        let result = text.lines().find_map(|line| line.strip_prefix(&added)).map_or("-", |result| result);
        results.insert(name.to_owned(), shortened(result));
    }
    results
}

/// Delivers the message of a row in the name of its client.
async fn deliver(to: SocketAddr, row: &Row) -> Reply {
    let mut client = Client::greeted(HERE, to, "gate.relay.test").await;
    let identity = format!("XCLIENT NAME=[UNAVAILABLE] ADDR={} HELO={}", row.client, row.helo);
    assert_eq!(client.command(&identity).await.code, 220);
    assert_eq!(client.command(&format!("EHLO {}", row.helo)).await.code, 250);
    client.deliver(&row.mail_from, "user@relay.test", row.message.as_bytes()).await
}

/// `fail (p=reject dis=none) header.from=good.test` as `fail reject`.
fn shortened(result: &str) -> String {
    let (word, rest) = result.split_once(' ').unwrap_or((result, ""));
    if word != "fail" {
        return word.to_owned();
    }
    let request = rest.strip_prefix("(p=").and_then(|rest| rest.split([' ', ')']).next());
    format!("fail {}", request.unwrap_or("-"))
}
