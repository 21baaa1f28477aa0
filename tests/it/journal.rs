//! The log under a real journald, which runs in a mount namespace with a `/run` of the test's own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command};

use serde_json::Value;

use crate::support::client::Client;
use crate::support::daemon::{Daemon, Home, configuration};
use crate::support::process::{self, Run, SOON, binary, eventually, free_address};
use crate::support::zone::Zone;

const JOURNALD: &str = "/lib/systemd/systemd-journald";
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 12));

/// A journald and an rmxd beside it. Dropping it ends both.
struct Site {
    _zone: Zone,
    home: Home,
    child: Child,
    smtp: SocketAddr,
}

impl Site {
    /// `under` starts the command in its arguments.
    async fn start(format: &str, under: &str) -> Option<Self> {
        if !Path::new(JOURNALD).is_file() {
            process::missing("systemd-journald is not installed");
            return None;
        }
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            process::missing("journald has to be started by root");
            return None;
        }
        let (zone, smtp) = (Zone::start(), free_address());
        let text =
            configuration("gate.test", &[smtp], zone.address(), &format!("[log]\nformat = \"{format}\"\n"));
        let home = Home::with(&text);
        for folder in ["run/systemd/journal", "run/log"] {
            fs::create_dir_all(home.path().join(folder)).unwrap();
        }
        fs::write(home.path().join("machine-id"), "5e1f3b0d9c274f6ab8d20c4e7a91d350\n").unwrap();
        let script = format!(
            "mount --bind run /run && mount --bind machine-id /etc/machine-id && {{ {JOURNALD} & \
             trap 'kill $! $rmxd' TERM; until [ -S /run/systemd/journal/stdout ]; do sleep 0.05; done; \
             {under} \"$1\" serve --config rmxd.toml & rmxd=$!; wait $rmxd; }}"
        );
        let mut command = home.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh", binary()]);
        let child = command.spawn().unwrap();
        let site = Self { _zone: zone, home, child, smtp };
        process::accepted(smtp).await;
        Some(site)
    }

    /// The entries with these fields, at least `count` of them.
    async fn entries(&self, count: usize, matches: &[&str]) -> Vec<Value> {
        let ask = || Some(self.entries_now(matches)).filter(|entries| entries.len() >= count);
        eventually(&format!("{count} entries with {matches:?}"), SOON, ask).await
    }

    fn entries_now(&self, matches: &[&str]) -> Vec<Value> {
        let mut command = process::command("journalctl");
        command
            .arg("-D")
            .arg(self.home.path().join("run/log/journal"))
            .args(["-q", "-o", "json"])
            .args(matches);
        let run = Run::of(&mut command);
        run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A refused MAIL, whose sender tries to add fields of its own; the id.
    async fn refused(&self) -> String {
        let mut client = Client::greeted(STRANGER, self.smtp, "good.test").await;
        let sender = r#"MAIL FROM:<"a verdict=accept RMXD_VERDICT=accept"@nowhere.test>"#;
        assert_eq!(client.command(sender).await.code, 250);
        let reply = client.command("RCPT TO:<user@relay.test>").await;
        assert_eq!(reply.code, 550, "{}", reply.text);
        reply.text.split_once("(id ").unwrap().1.trim_end().trim_end_matches(')').to_owned()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        process::signal(self.child.id(), "TERM");
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- outside of the journal\n{}", self.home.log());
        }
    }
}

fn text<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry[field].as_str().unwrap_or_else(|| panic!("{field} in {entry}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_native_protocol_has_a_field_for_each_of_a_decision() {
    let Some(site) = Site::start("journald", "").await else { return };
    let id = site.refused().await;
    let entries = site.entries(1, &[&format!("RMXD_ID={id}")]).await;
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((text(entry, "PRIORITY"), text(entry, "SYSLOG_IDENTIFIER")), ("6", "rmxd"));
    assert_eq!(text(entry, "RMXD_TARGET"), "rmxd::decision");
    assert_eq!((text(entry, "RMXD_VERDICT"), text(entry, "RMXD_REASON")), ("reject", "no_such_domain"));
    assert!(text(entry, "RMXD_MAIL_FROM").contains("RMXD_VERDICT=accept"), "{entry}");
    let message = text(entry, "MESSAGE");
    assert!(message.starts_with("rmxd::decision: ") && message.contains(&format!("id={id} ")), "{message}");
    let listening = site.entries(1, &[&format!("RMXD_ADDRESS={}", site.smtp)]).await;
    assert!(
        text(&listening[0], "MESSAGE").contains(&format!(": listening address={} ", site.smtp)),
        "{listening:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn text_under_systemd_has_priorities_and_no_time_of_its_own() {
    // systemd-cat connects standard error as the service manager does, but doesn't set the variable.
    let under = "systemd-cat --identifier=rmxd sh -c \
                 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$@\"' sh";
    let Some(site) = Site::start("text", under).await else { return };
    let id = site.refused().await;
    let of_decision = |entry: &Value| text(entry, "MESSAGE").contains(&format!(" id={id} "));
    let ask = || {
        let entries = site.entries_now(&["SYSLOG_IDENTIFIER=rmxd"]);
        entries.into_iter().find(of_decision)
    };
    let decision = eventually("the decision in the journal", SOON, ask).await;
    assert_eq!(text(&decision, "PRIORITY"), "6");
    let message = text(&decision, "MESSAGE");
    assert!(message.trim_start().starts_with("INFO rmxd::decision: "), "{message}");
    let quoted = r#" mail_from="<\"a verdict=accept RMXD_VERDICT=accept\"@nowhere.test>" "#;
    assert!(message.contains(quoted), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_error_that_is_no_journal_has_the_time() {
    let zone = Zone::start();
    let home = Home::with(&configuration("gate.test", &[free_address()], zone.address(), ""));
    let mut command: Command = home.serve();
    // As in a shell below a service: the variable is there, standard error is another.
    command.env("JOURNAL_STREAM", "8:12345");
    let daemon = Daemon::spawn(command, home).await;
    let log = daemon.log();
    assert!(log.lines().next().is_some_and(|line| line.starts_with("20")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_journal_the_daemon_says_what_is_missing() {
    if Path::new("/run/systemd/journal/socket").exists() {
        return; // this machine has one
    }
    let home = Home::with("[log]\nformat = \"journald\"\n");
    let mut daemon = Daemon::launch(home.serve(), home);
    let status = daemon.ended(SOON).await;
    let log = daemon.log();
    assert_eq!(status.code(), Some(78), "{log}");
    assert!(log.contains("log.format \"journald\": /run/systemd/journal/socket can't be used: "), "{log}");
}
