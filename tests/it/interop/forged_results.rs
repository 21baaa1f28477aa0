//! Results in our name that a client forges: through rmxd and a Postfix to OpenDMARC, which writes into its history what it
//! believes, and to SpamAssassin's parser. Neither may believe one that came through rmxd; both believe some without it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::gate;
use super::postfix::Postfix;
use crate::support::client::{Client, deliver_all};
use crate::support::process;
use crate::support::zone::Zone;

const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const LIMIT: Duration = Duration::from_secs(60);
/// Nothing is refused: forged results go in every mode.
const POLICY: &str = "[policy]\nmode = \"monitor\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn no_reader_behind_believes_a_result_that_a_client_forged_in_our_name() {
    let (Some(program), Some(perl)) = (process::program("opendmarc"), process::program("perl")) else {
        return;
    };
    let spamassassin =
        Command::new(&perl).args(["-MMail::SpamAssassin::Plugin::AuthRes", "-e", "1"]).output();
    if !spamassassin.is_ok_and(|run| run.status.success()) {
        process::missing("Mail::SpamAssassin is not installed");
        return;
    }
    let opendmarc = OpenDmarc::start(&program).await;
    let milter = opendmarc.address;
    let Some(postfix) = Postfix::start_with(|_| {
        format!(
            "smtpd_tls_security_level = none\nsmtpd_milters = inet:{milter}\nmilter_default_action = tempfail\n"
        )
    }) else {
        return;
    };
    let zone = Zone::start();
    let gate = gate::start(&zone, &postfix, POLICY).await;
    let fields = fields();
    for (address, domain) in [(postfix.address(), "direct.test"), (gate.address(), "forged.test")] {
        let rest = "From: a@good.test\r\nTo: user@relay.test\r\n\r\nbody\r\n";
        let text = format!("; dkim=pass header.d={domain}\r\n{rest}");
        let messages: Vec<_> = fields.iter().map(|field| [field, text.as_bytes()].concat()).collect();
        let replies = deliver_all(EXCHANGER, address, ("a@good.test", "user@relay.test"), &messages).await;
        assert_eq!(replies.len(), fields.len());
        for (field, reply) in fields.iter().zip(replies) {
            assert!(reply.is_positive(), "{}: {}", field.escape_ascii(), reply.text);
        }
    }
    let mut client = Client::greeted(EXCHANGER, gate.address(), "mail.good.test").await;
    let honest = b"Authentication-Results: mx.other.test; dkim=pass header.d=kept.test\r\nFrom: a@good.test\r\n\r\nbody\r\n";
    assert!(client.deliver("a@good.test", "user@relay.test", honest).await.is_positive());

    let files = postfix.wait_for_messages("user", 2 * fields.len() + 1, LIMIT).await;
    let history = opendmarc.history();
    let believed =
        |domain: &str| history.lines().filter(|line| line.starts_with(&format!("dkim {domain} "))).count();
    assert!(believed("direct.test") >= 20, "OpenDMARC believes too little without rmxd: {history}");
    assert_eq!(believed("forged.test"), 0, "{history}");

    let names: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/interop/readers/authres.pl");
    let run = process::run(Command::new(perl).arg(script), names.into(), LIMIT).await;
    let text = String::from_utf8_lossy(&run.stdout);
    assert_eq!(text.lines().count(), files.len(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(text.contains("direct.test"), "SpamAssassin believes nothing without rmxd");
    assert!(!text.contains("forged.test"), "{text}");
    let kept = files
        .iter()
        .filter(|file| fs::read_to_string(file).is_ok_and(|text| text.contains("header.d=kept.test")));
    assert_eq!(kept.count(), 1, "results of others stay");
}

/// Our name in every spelling: each thing that a reader may leave out, at each place.
pub(super) fn fields() -> Vec<Vec<u8>> {
    let name = "Authentication-Results";
    let mut fields = Vec::new();
    let gaps = [
        " ", "\t", "\r\n ", "(c)", " (c) ", "(a(b)c)", "(\\))", "\"", "\"\"", "\\", "\u{b}", "\u{c}",
        "\u{1}", "\u{7f}", ")", "\u{ad}", "\u{200b}",
    ];
    for gap in gaps {
        for value in [
            format!("{gap}gate.relay.test"),
            format!("ga{gap}te.relay.test"),
            format!("gate{gap}.relay.test"),
            format!("gate.{gap}relay.test"),
            format!("gate.relay.test{gap}"),
            format!("{gap}gate{gap}.{gap}relay.{gap}test{gap}"),
        ] {
            fields.push(format!("{name}: {value}").into_bytes());
        }
    }
    for value in [
        "gate.relay.test",
        "GATE.Relay.test",
        "gate.relay.test.",
        "gate.relay.test 1",
        "gate.relay.test 1 ",
        "gate.relay.test/1",
        "\"gate.relay.test\"",
        "\"gate\".relay.test",
        "g\u{ff41}te.relay.test",
        "gate\u{3002}relay\u{3002}test",
        "(a;b) gate.relay.test",
        "(a\\)gate.relay.test",
        "(a(b)gate.relay.test",
        "=?utf-8?Q?gate.relay.test?=",
    ] {
        fields.push(format!("{name}: {value}").into_bytes());
    }
    for name in [
        "authentication-results",
        "Authentication-Results ",
        "Authentication-Results\t",
        "ARC-Authentication-Results: i=1; x",
    ] {
        fields.push(format!("{name}: gate.relay.test").into_bytes());
    }
    fields.push(b"ARC-Authentication-Results: i=1; gate.relay.test".to_vec());
    fields.push(b"Authentication-Results: ga\xffte.relay.test".to_vec());
    fields
}

/// Debian's opendmarc with a zone of its own. Dropping it ends it.
struct OpenDmarc {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl OpenDmarc {
    async fn start(program: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("rmxd-opendmarc-").tempdir().unwrap();
        let address = process::free_address();
        let path = folder.path().display();
        let configuration = format!(
            "AuthservID gate.relay.test\nTrustedAuthservIDs gate.relay.test\nSocket inet:{}@127.0.0.1\nHistoryFile {path}/history\n\
             PidFile {path}/pid\nTestDNSData {path}/dns\nIgnoreHosts {path}/ignore\nSyslog false\n",
            address.port()
        );
        fs::write(folder.path().join("conf"), configuration).unwrap();
        fs::write(folder.path().join("dns"), "_dmarc.good.test v=DMARC1; p=none\n").unwrap();
        fs::write(folder.path().join("ignore"), "192.0.2.1\n").unwrap();
        let mut command = Command::new(program);
        command.arg("-f").arg("-c").arg(folder.path().join("conf"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let started = Self { child, address, folder };
        process::accepted(address).await;
        started
    }

    fn history(&self) -> String {
        fs::read_to_string(self.folder.path().join("history")).unwrap_or_default()
    }
}

impl Drop for OpenDmarc {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
