//! The filter of config/fail2ban, with fail2ban's own program over a log that forged senders have a part in.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use crate::support::client::Client;
use crate::support::daemon::{Daemon, any_port, configuration};
use crate::support::process::{self, Run};
use crate::support::zone::Zone;

/// The exchanger of good.test.
const GOOD: [u8; 4] = [127, 0, 0, 10];
const FIRST: [u8; 4] = [127, 0, 0, 11];
const SECOND: [u8; 4] = [127, 0, 0, 12];
/// Nobody has it; the forged texts name it.
const FRAMED: &str = "198.51.100.7";

/// The addresses that the filter finds in a log.
fn found(program: &Path, log: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let (file, filter) = (folder.path().join("log"), folder.path().join("rmxd.conf"));
    fs::write(&file, log).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/fail2ban/filter.conf"), &filter).unwrap();
    // It includes this one from its own folder.
    fs::copy("/etc/fail2ban/filter.d/common.conf", folder.path().join("common.conf")).unwrap();
    let run = Run::of(process::command(program).args(["-o", "<ip>"]).args([&file, &filter]));
    let mut found: Vec<String> = run.out.lines().map(str::to_owned).collect();
    found.sort_unstable();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_finds_the_refused_clients_and_nobody_else() {
    let Some(program) = process::program("fail2ban-regex") else { return };
    let zone = Zone::start();
    let daemon = Daemon::start(&configuration("gate.test", &[any_port()], zone.address(), ""), &[]).await;
    let forged = format!(
        "x client={FRAMED} INFO rmxd::decision: rejected id=A door=smtp verdict=reject outcome=refused mode=enforce client={FRAMED} "
    );
    let rows = [
        (FIRST, "mail.good.test", "a@nowhere.test".to_owned(), 550),
        (SECOND, "mail.good.test", format!("\"{forged}\"@nowhere.test"), 550),
        (GOOD, "mail.good.test", format!("\"{forged}\"@good.test"), 250),
    ];
    let outcomes = [("outcome=refused", 2), ("outcome=delivered", 1)];
    for (client, helo, sender, code) in rows {
        let from = IpAddr::V4(Ipv4Addr::from(client));
        let mut client = Client::greeted(from, daemon.address(), helo).await;
        let message = b"From: a@good.test\r\nSubject: x\r\n\r\nHello\r\n";
        assert_eq!(client.deliver(&sender, "user@relay.test", message).await.code, code, "{sender}");
    }
    for (outcome, times) in outcomes {
        daemon.logged_times(outcome, times).await;
    }
    let log = daemon.whole_log().await;
    assert!(log.contains(FRAMED), "{log}");

    let text = |line: &str| line.split_once("Z ").map(|(_, rest)| rest.to_owned());
    let lines: Vec<String> = log.lines().filter_map(text).collect();
    // As the file of a shell has it, as rsyslog writes it, and as the native protocol gives it to fail2ban.
    let forms = [
        log.clone(),
        lines.iter().map(|line| format!("Nov 29 09:58:45 mx rmxd[123]: {line}\n")).collect(),
        lines
            .iter()
            .map(|line| {
                format!("Nov 29 09:58:45 mx rmxd[123]: {}\n", line.trim_start().trim_start_matches("INFO "))
            })
            .collect(),
    ];
    for form in forms {
        assert_eq!(found(&program, &form), ["127.0.0.11", "127.0.0.12"], "{form}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn monitor_mode_bans_nobody() {
    let Some(program) = process::program("fail2ban-regex") else { return };
    let zone = Zone::start();
    let text = configuration("gate.test", &[any_port()], zone.address(), "[policy]\nmode = \"monitor\"\n");
    let daemon = Daemon::start(&text, &[]).await;
    let from = IpAddr::V4(Ipv4Addr::from(FIRST));
    let mut client = Client::greeted(from, daemon.address(), "mail.good.test").await;
    let message = b"From: a@good.test\r\nSubject: x\r\n\r\nHello\r\n";
    assert_eq!(client.deliver("a@nowhere.test", "user@relay.test", message).await.code, 250);
    daemon.logged("verdict=reject outcome=delivered").await;
    let log = daemon.whole_log().await;
    assert!(found(&program, &log).is_empty(), "{log}");
}
