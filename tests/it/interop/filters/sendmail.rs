//! A real Sendmail with rmxd as its milter: its line and rmxd's configuration are those of systemd/README.md.
//!
//! Debian's package can't be installed beside Postfix, so `tests/run` unpacks it below target/. It is started in namespaces
//! of its own, with a host name, a name server and a `/run` of the test's. It delivers everything into a folder and sends
//! nothing anywhere.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rmxd::zone::Server;
use tempfile::TempDir;

use super::delivered::{Delivered, RECEIVED};
use super::forged::forged;
use super::site::{OURS, USER, names, rmxd, treasury, without_id};
use super::{EXCHANGER, STRANGER};
use crate::support::client::Client;
use crate::support::daemon::Daemon;
use crate::support::process::{self, SOON, eventually};
use crate::support::readme;

/// The folder of the socket in the guide.
const RUN: &str = "/run/rmxd";
/// Stands for the user rmxd.
const NOBODY: u32 = 65_534;
/// What Sendmail itself calls away.
const AWAY: &str = "451 4.3.2 Please try again later";

/// The name server, a running Sendmail, and what rmxd is started from. Dropping it ends them.
struct Site {
    dns: Server,
    child: Child,
    folder: TempDir,
    address: SocketAddr,
}

impl Site {
    /// Starts one, or says why it can't be had.
    async fn start() -> Option<Self> {
        let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("peers/sendmail");
        let program = unpacked.join("usr/libexec/sendmail/sendmail");
        if !program.is_file() {
            process::missing("Sendmail is not unpacked below target/peers (tests/run does it)");
            return None;
        }
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            process::missing("Sendmail has to be started by root");
            return None;
        }
        let dns = names("").await;
        let folder = tempfile::Builder::new().prefix("rmxd-sendmail-").tempdir().unwrap();
        let address = process::free_address();
        lay_out(folder.path(), &unpacked, address, dns.address().ip());
        let said = File::create(folder.path().join("said")).unwrap();
        let script = "mount --bind \"$0/resolv.conf\" /etc/resolv.conf && mount --bind \"$0/hosts\" /etc/hosts && \
                      mount -t tmpfs -o mode=755 none /run && mkdir /run/rmxd && mount --bind \"$0/rmxd\" /run/rmxd && \
                      hostname mail.relay.test && exec \"$1\" -C \"$0/sendmail.cf\" -bD";
        let child = Command::new("unshare")
            .args(["--mount", "--uts", "--pid", "--fork", "--kill-child", "--propagation", "private"])
            .args(["sh", "-c", script])
            .args([folder.path(), &program])
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap();
        let site = Self { dns, child, folder, address };
        process::accepted(address).await;
        Some(site)
    }

    /// rmxd with the configuration of the guide, with `mode = "enforce"`, and more TOML.
    async fn rmxd(&self, more: &str) -> Daemon {
        let folder = self.folder.path().join("rmxd");
        let daemon = rmxd("toml sendmail", (RUN, &folder), self.dns.address(), more).await;
        chown(folder.join("milter"), Some(NOBODY), Some(NOBODY)).unwrap();
        daemon
    }

    /// The last reply to a message in a session of its own, without the id.
    async fn send(&self, from: IpAddr, sender: &str, message: impl AsRef<[u8]>) -> String {
        let mut client = Client::greeted(from, self.address, "mail.good.test").await;
        let reply = client.deliver(sender, USER, message.as_ref()).await;
        without_id(&reply.text)
    }

    /// The only message that was delivered; it is taken away.
    async fn arrived(&self) -> Delivered {
        let folder = self.folder.path().join("mail/new");
        let path =
            eventually("a message", SOON, || fs::read_dir(&folder).unwrap().next()).await.unwrap().path();
        let octets = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        Delivered::read(&octets)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = fs::read_to_string(self.folder.path().join("said"));
            eprintln!("--- Sendmail has said\n{}", said.unwrap_or_default());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn lay_out(folder: &Path, unpacked: &Path, address: SocketAddr, dns: IpAddr) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, mode, owner) in
        [("queue", 0o700, 0), ("rmxd", 0o755, NOBODY), ("mail", 0o755, 0), ("mail/new", 0o755, 0)]
    {
        let path = folder.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(owner), None).unwrap();
    }
    let program = "#!/bin/sh\nnew=$(mktemp \"$1/XXXXXX\") && cat >\"$new\" && mv \"$new\" \"$1/new\"\n";
    for (name, text) in [
        ("deliver", program.to_owned()),
        ("hosts", "127.0.0.1 mail.relay.test localhost\n".to_owned()),
        ("resolv.conf", format!("nameserver {dns}\noptions timeout:2 attempts:1\n")),
        ("switch", "hosts files dns\naliases files\n".to_owned()),
        ("sendmail.mc", macros(&folder.display(), address)),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    fs::set_permissions(folder.join("deliver"), fs::Permissions::from_mode(0o755)).unwrap();
    let cf = unpacked.join("usr/share/sendmail/cf");
    let run = Command::new(unpacked.join("usr/bin/m4"))
        .arg(format!("-D_CF_DIR_={}/", cf.display()))
        .args([cf.join("m4/cf.m4"), folder.join("sendmail.mc")])
        .output()
        .unwrap();
    assert!(run.status.success() && run.stderr.is_empty(), "{run:?}");
    fs::write(folder.join("sendmail.cf"), run.stdout).unwrap();
}

/// The macro file: the line of the guide, and a site that takes mail for relay.test, whatever the load of the machine.
fn macros(folder: &std::path::Display<'_>, address: SocketAddr) -> String {
    let define = [
        ("confDOMAIN_NAME", "mail.relay.test".to_owned()),
        ("QUEUE_DIR", format!("{folder}/queue")),
        ("confPID_FILE", format!("{folder}/pid")),
        ("STATUS_FILE", format!("{folder}/status")),
        ("HELP_FILE", String::new()),
        ("ALIAS_FILE", String::new()),
        ("confSERVICE_SWITCH_FILE", format!("{folder}/switch")),
        ("confTO_IDENT", "0".to_owned()),
        ("confEIGHT_BIT_HANDLING", "pass8".to_owned()),
        ("confQUEUE_LA", "1000".to_owned()),
        ("confREFUSE_LA", "1000".to_owned()),
    ];
    let define: String =
        define.iter().map(|(name, value)| format!("define(`{name}', `{value}')dnl\n")).collect();
    let features = ["nouucp', `reject", "nocanonify", "no_default_msa", "accept_unresolvable_domains"];
    let features: String = features.iter().map(|name| format!("FEATURE(`{name}')dnl\n")).collect();
    format!(
        "OSTYPE(`linux')dnl
{define}{features}DAEMON_OPTIONS(`Name=MTA, Family=inet, Addr={}, Port={}')dnl
RELAY_DOMAIN(`relay.test')dnl
{}MAILER(`local')dnl
MAILER_DEFINITIONS
Mfolder, P={folder}/deliver, F=lsuhn8:S, S=EnvFromL/HdrFromL, R=EnvToL/HdrToL, T=DNS/RFC822/X-Unix, A=deliver {folder}/mail $u
LOCAL_RULE_0
R$+ < @ $+ >\t$#folder $: $1
",
        address.ip(),
        address.port(),
        readme::block("sendmail.mc")
    )
}

const HEADER: &str = "From: service@treasury.test\r\nTo: user@relay.test\r\nSubject: one  two\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn sendmail_carries_out_each_verdict() {
    let Some(site) = Site::start().await else { return };
    let rmxd = site.rmxd("[policy.mail_from]\nexists_by = [\"mx\"]\nexists = \"reject\"\n").await;
    let from = |author: &str| format!("From: {author}\r\nSubject: x\r\n\r\nHello\r\n");
    let signed = treasury().sign(HEADER, &"Hello\r\n".repeat(300_000));
    let rows = [
        (
            "a@nowhere.test",
            from("a@nowhere.test"),
            "550 5.1.8 <user@relay.test>... <a@nowhere.test>: nowhere.test does not exist",
        ),
        (
            "a@broken.test",
            from("a@good.test"),
            "451 4.4.3 <a@broken.test>: broken.test can't be looked up now",
        ),
        ("a@good.test", from("b@nowhere.test"), "550 5.7.1 <b@nowhere.test>: nowhere.test does not exist"),
        ("a@good.test", "Subject: x\r\n\r\nHello\r\n".to_owned(), "550 5.6.0 "),
        (
            "b@treasury.test",
            format!("{signed}x\r\n"),
            "550 5.7.1 <service@treasury.test>: treasury.test asks to reject mail that neither its SPF nor its DKIM vouches \
             for",
        ),
        ("b@treasury.test", signed.clone(), "250 2.0.0 "),
    ];
    for (sender, message, expected) in &rows {
        let reply = site.send(STRANGER, sender, message).await;
        assert!(reply.starts_with(expected), "{sender}: {reply}");
    }
    let results = site.arrived().await.field(&format!("Authentication-Results: {OURS};")).unwrap();
    assert!(results.contains("; dkim=pass header.d=treasury.test header.s=sel;"), "{results}");
    // Mail of this machine, which comes by SMTP too.
    let reply = site.send(Ipv4Addr::LOCALHOST.into(), "root@nomx.test", from("root@nomx.test")).await;
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    let log = rmxd.settled("outcome=passed", 2).await;
    assert_eq!(log.matches("outcome=refused").count(), 5, "{log}");
    assert_eq!(log.matches("door=milter queue=").count(), 7, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sendmail_delivers_has_our_results_in_front_and_no_forged_ones() {
    let Some(site) = Site::start().await else { return };
    let _rmxd = site.rmxd("").await;
    let kept: [&[u8]; 12] = [
        b"Authentication-Results: mx.other.test; spf=pass smtp.mailfrom=other.test",
        b"authentication-results:mx.other.test;spf=pass",
        b"AUTHENTICATION-RESULTS:   mx.other.test;   spf=pass",
        b"Authentication-Results:\tmx.other.test;\tspf=pass",
        b"Authentication-Results:\r\n\tmx.other.test;\r\n  spf=pass",
        b"Authentication-Results: gate.relay.test.evil.test; dkim=pass",
        b"X-Authentication-Results: gate.relay.test; dkim=pass",
        b"X-None:none",
        b"X-Empty:",
        b"X-Dup: 1",
        b"x-dup:2",
        b"X-Eight: \xe4",
    ];
    let mut message =
        b"From: a@good.test\r\nTo: Some One <user@relay.test>\r\nSubject:  two  blanks\r\n".to_vec();
    let mut left: Vec<Vec<u8>> = message
        .split(|&octet| octet == b'\n')
        .map(|line| line.trim_ascii_end().to_vec())
        .filter(|line| !line.is_empty())
        .collect();
    for (forged, kept) in forged().iter().zip(kept.iter().cycle()) {
        message.extend([forged, &b"\r\n"[..], kept, b"\r\n"].concat());
        left.push(kept.to_vec());
    }
    message.extend(b"\r\nbody \xe4\r\n..\r\n");
    let reply = site.send(EXCHANGER, "a@good.test", &message).await;
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    let delivered = site.arrived().await;
    let ours = delivered.fields().first().unwrap().clone();
    assert!(ours.starts_with(&format!("Authentication-Results: {OURS};\n\tx-reverse-mx=pass (")), "{ours}");
    assert!(ours.ends_with(";\n\tiprev=pass policy.iprev=127.0.0.10"), "{ours}");
    let expected = [vec![ours.into_bytes(), RECEIVED.into()], left].concat();
    delivered.assert_fields(&expected, "forged ones between");
    assert_eq!(delivered.body(), "body \\xe4\n..\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn sendmail_greylists_and_mail_waits_while_rmxd_is_away() {
    let Some(site) = Site::start().await else { return };
    let message = "From: a@good.test\r\nSubject: x\r\n\r\nHello\r\n";
    assert_eq!(site.send(EXCHANGER, "a@good.test", message).await, AWAY, "not started yet");
    let policy = "[policy.mail_from]\nexists = \"greylist\"\n[greylist]\ndelay = \"2s\"\n";
    let rmxd = site.rmxd(policy).await;
    assert!(site.send(EXCHANGER, "a@good.test", message).await.starts_with("250 2.0.0 "));
    let reply = site.send(EXCHANGER, "a@nomx.test", message).await;
    assert!(
        reply.starts_with(
            "450 4.7.1 <user@relay.test>... <a@nomx.test>: nomx.test is greylisted, try again in "
        ),
        "{reply}"
    );
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert!(site.send(EXCHANGER, "a@nomx.test", message).await.starts_with("250 2.0.0 "));

    // It ends within a message.
    let mut client = Client::greeted(EXCHANGER, site.address, "mail.good.test").await;
    for line in ["MAIL FROM:<a@good.test>", "RCPT TO:<user@relay.test>"] {
        assert_eq!(client.command(line).await.code, 250);
    }
    rmxd.signal("KILL");
    let mut rmxd = rmxd;
    rmxd.ended(SOON).await;
    let reply = client.command("DATA").await;
    let reply = if reply.code == 354 {
        client.send(format!("{message}.\r\n")).await;
        client.reply().await
    } else {
        reply
    };
    assert!(reply.is_transient(), "{}", reply.text);
    for sender in ["a@good.test", "a@nowhere.test"] {
        assert_eq!(site.send(EXCHANGER, sender, message).await, AWAY, "{sender}");
    }
    let _rmxd = site.rmxd(policy).await;
    assert!(site.send(EXCHANGER, "a@good.test", message).await.starts_with("250 2.0.0 "));
    for _message in 0..3 {
        site.arrived().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_messages_of_a_session_with_sendmail_have_verdicts_of_their_own() {
    let Some(site) = Site::start().await else { return };
    let rmxd = site.rmxd("").await;
    let signed = treasury().sign(HEADER, "Hello\r\n");
    let broken = signed.replace("Hello", "HELLO");
    let good = "From: a@good.test\r\nSubject: x\r\n\r\nHello\r\n";
    let mut client = Client::greeted(STRANGER, site.address, "mail.good.test").await;
    let rows = [
        ("b@treasury.test", &signed, 250),
        ("a@nowhere.test", &signed, 550),
        ("b@treasury.test", &broken, 550),
        ("a@good.test", &good.to_owned(), 250),
        ("a@good.test", &good.replace("good", "nowhere"), 550),
        ("", &good.to_owned(), 250),
    ];
    for round in 0..2 {
        for (sender, message, code) in &rows {
            let reply = client.deliver(sender, USER, message.as_bytes()).await;
            assert_eq!(reply.code, *code, "{sender}: {}", reply.text);
            if round == 1 || *sender == "a@nowhere.test" {
                assert_eq!(client.command("RSET").await.code, 250);
            }
        }
        // A recipient alone, and a greeting in between.
        assert_eq!(client.command("MAIL FROM:<a@good.test>").await.code, 250);
        assert_eq!(client.command("RCPT TO:<user@relay.test>").await.code, 250);
        assert_eq!(client.command("EHLO mail.good.test").await.code, 250);
    }
    assert_eq!(client.command("QUIT").await.code, 221);
    for _message in 0..6 {
        assert_eq!(site.arrived().await.body(), "Hello\n");
    }
    let log = rmxd.settled("outcome=not_completed", 2).await;
    assert_eq!(
        (log.matches("outcome=passed").count(), log.matches("outcome=refused").count()),
        (6, 6),
        "{log}"
    );
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
}
