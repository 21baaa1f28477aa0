//! TLS on both sides: swaks in front, a Postfix with a certificate of its own making behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

use super::gate;
use super::mail;
use super::postfix::Postfix;
use crate::support::client::on_the_wire;
use crate::support::daemon::Daemon;
use crate::support::process;
use crate::support::zone::Zone;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn mail_comes_from_swaks_by_tls_and_goes_to_postfix_by_tls() {
    let Some(postfix) = Postfix::start_with(|folder| tls_of_postfix(folder, "may")) else { return };
    let zone = Zone::start();
    let certificate = Certificate::new();
    for (number, relay_tls) in ["opportunistic", "required"].into_iter().enumerate() {
        let set = certificate.settings();
        let set = [set[0].as_str(), &set[1], &format!("relay.tls={relay_tls}")];
        let gate = gate::start_with(&zone, &postfix, "", &set).await;
        let before = postfix.mailbox("user");
        let message = mail::message(number, 200_000);
        let Some(said) = swaks(&gate, &["--tls"], &message).await else { return };
        assert!(said.status.success(), "{}", text(&said));
        assert!(text(&said).contains("=== TLS started with cipher TLSv1.3:"), "{}", text(&said));

        let files = postfix.wait_for_messages("user", number + 1, SOON).await;
        let new = files.iter().find(|file| !before.contains(file)).unwrap();
        let stored = fs::read(new).unwrap();
        mail::assert_arrived(&stored, &message, relay_tls);
        let (trace, _) = mail::split_trace(&stored);
        let trace = String::from_utf8_lossy(trace);
        assert!(trace.contains("by gate.relay.test with ESMTPS id "), "{trace}");
        assert!(trace.contains("(using TLSv1.3 with cipher TLS_"), "{trace}");
        // what XCLIENT says of the client goes by TLS too, and Postfix believes it
        let client = postfix.logged("client=mail.good.test[127.0.0.10]").await;
        assert!(!client.is_empty());
        let established = || postfix.log().matches("TLS connection established from").count();
        process::eventually("TLS to Postfix", SOON, || (established() > number).then_some(())).await;
        gate.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postfix_that_insists_on_tls_gets_it() {
    let Some(postfix) = Postfix::start_with(|folder| tls_of_postfix(folder, "encrypt")) else { return };
    let zone = Zone::start();
    for (relay_tls, delivered) in [("none", false), ("opportunistic", true)] {
        let set = format!("relay.tls={relay_tls}");
        let gate = gate::start_with(&zone, &postfix, "", &[&set]).await;
        let Some(said) = swaks(&gate, &[], &mail::message(1, 1_000)).await else { return };
        assert_eq!(said.status.success(), delivered, "{relay_tls}: {}", text(&said));
    }
    postfix.wait_for_messages("user", 1, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postfix_without_tls_gets_mail_only_where_plain_text_is_allowed() {
    let Some(postfix) = Postfix::start() else { return };
    let zone = Zone::start();
    for (relay_tls, delivered) in [("required", false), ("opportunistic", true)] {
        let set = format!("relay.tls={relay_tls}");
        let gate = gate::start_with(&zone, &postfix, "", &[&set]).await;
        let Some(said) = swaks(&gate, &[], &mail::message(1, 1_000)).await else { return };
        assert_eq!(said.status.success(), delivered, "{relay_tls}: {}", text(&said));
        assert_eq!(text(&said).contains("451 4.4.1 "), !delivered, "{}", text(&said));
        let without_tls = "does not offer STARTTLS";
        if !delivered {
            gate.logged(without_tls).await;
        }
        let log = gate.whole_log().await;
        assert_eq!(log.contains(without_tls), !delivered, "{log}");
    }
    postfix.wait_for_messages("user", 1, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_is_spoken_and_older_is_not() {
    let Some(postfix) = Postfix::start() else { return };
    let zone = Zone::start();
    let certificate = Certificate::new();
    let set = certificate.settings();
    let gate = gate::start_with(&zone, &postfix, "", &[&set[0], &set[1]]).await;
    for (protocol, delivered) in [("tlsv1_2", true), ("tlsv1_1", false)] {
        let arguments = ["--tls", "--tls-protocol", protocol];
        let Some(said) = swaks(&gate, &arguments, &mail::message(1, 1_000)).await else { return };
        assert_eq!(said.status.success(), delivered, "{protocol}: {}", text(&said));
    }
    gate.logged("TLS handshake failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_renewal_is_logged_and_a_good_one_taken_on() {
    let Some(postfix) = Postfix::start() else { return };
    let zone = Zone::start();
    let certificate = Certificate::new();
    let set = certificate.settings();
    let gate = gate::start_with(&zone, &postfix, "", &[&set[0], &set[1]]).await;
    let steps: [(&dyn Fn(), &str); 2] = [
        (
            &|| fs::write(certificate.folder.path().join("key.pem"), "half a k").unwrap(),
            "the old certificate stays in use",
        ),
        (&|| write_certificate(certificate.folder.path()), "a new certificate is in use"),
    ];
    for (step, logged) in steps {
        step();
        let end = tokio::time::Instant::now() + SOON;
        while !gate.log().contains(logged) {
            assert!(tokio::time::Instant::now() < end, "no {logged:?} in {}", gate.log());
            let Some(said) = swaks(&gate, &["--tls", "--quit-after", "TLS"], b"").await else { return };
            assert!(said.status.success(), "{}", text(&said));
        }
    }
    gate.logged("key.pem: holds no private key in PEM").await;
}

struct Certificate {
    folder: TempDir,
}

impl Certificate {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_certificate(folder.path());
        Self { folder }
    }

    fn settings(&self) -> [String; 2] {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        [format!("tls.certificate={}", path("cert.pem")), format!("tls.key={}", path("key.pem"))]
    }
}

fn write_certificate(folder: &Path) {
    let pair = rcgen::generate_simple_self_signed(["mail.relay.test".to_owned()]).unwrap();
    fs::write(folder.join("cert.pem"), pair.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
}

pub(super) fn tls_of_postfix(folder: &Path, level: &str) -> String {
    let etc = folder.join("etc");
    write_certificate(&etc);
    let etc = etc.display();
    format!(
        "smtpd_tls_security_level = {level}
smtpd_tls_cert_file = {etc}/cert.pem
smtpd_tls_key_file = {etc}/key.pem
smtpd_tls_loglevel = 1
tls_random_source = dev:/dev/urandom
"
    )
}

/// Sends one message from the exchanger of good.test; none when swaks is not installed.
async fn swaks(gate: &Daemon, more: &[&str], message: &[u8]) -> Option<Output> {
    let mut command = Command::new(process::program("swaks")?);
    let port = gate.address().port().to_string();
    command.args(["--server", "127.0.0.1", "--port", &port, "--local-interface", "127.0.0.10"]);
    command.args(["--helo", "mail.good.test", "--from", "a@good.test", "--to", "user@relay.test"]);
    command.args(["--timeout", "60", "--no-data-fixup", "--data", "-"]).args(more);
    let wire = on_the_wire(message);
    let wire = wire.strip_suffix(b"\r\n").unwrap_or(&wire).to_vec();
    Some(process::run(&mut command, wire, SOON * 3).await)
}

fn text(said: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
}
