//! A real Exim behind rmxd: its lines and rmxd's are those of systemd/README.md.
//!
//! Debian's package can't be installed beside Postfix, so `tests/run` unpacks it below target/. Exim knows its user by name
//! only: it is started in a mount namespace whose passwd and group have that user. It delivers into a Maildir and sends
//! nothing anywhere.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::mail;
use crate::support::client::Client;
use crate::support::daemon::{Daemon, configuration};
use crate::support::process::{self, SOON, free_address};
use crate::support::readme;
use crate::support::zone::Zone;

/// Its address in the guide.
const GUIDE: &str = "127.0.0.1.10025";
/// A number that nobody has.
const USER: u32 = 64_999;
const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));

/// A running Exim. Dropping it ends it.
struct Exim {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
}

impl Exim {
    /// Starts one, or says why it can't be had.
    async fn start() -> Option<Self> {
        let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("peers/exim");
        let program = unpacked.join("usr/sbin/exim4");
        if !program.is_file() {
            process::missing("Exim is not unpacked below target/peers (tests/run does it)");
            return None;
        }
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            process::missing("Exim has to be started by root");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("rmxd-exim-").tempdir().unwrap();
        let address = process::free_address();
        lay_out(folder.path(), &program, address);
        let said = File::create(folder.path().join("said")).unwrap();
        let script = "mount --bind \"$0/passwd\" /etc/passwd && mount --bind \"$0/group\" /etc/group && \
                      exec \"$1\" -C \"$0/exim.conf\" -bdf";
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .args([folder.path(), &program])
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap();
        let exim = Self { child, folder, address };
        process::accepted(address).await;
        Some(exim)
    }

    fn delivered(&self) -> usize {
        fs::read_dir(self.folder.path().join("mail/new")).map_or(0, Iterator::count)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log/mainlog")).unwrap_or_default()
    }

    /// Messages that wait for the next queue run since too many came in one connection.
    fn waiting(&self) -> usize {
        self.log().matches("no immediate delivery: more than 10 messages received in one connection").count()
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- Exim's log\n{}", self.log());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn lay_out(folder: &Path, program: &Path, address: SocketAddr) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["spool", "log", "mail"] {
        let path = folder.join(name);
        fs::create_dir(&path).unwrap();
        chown(&path, Some(USER), Some(USER)).unwrap();
    }
    for (file, line) in [
        ("passwd", format!("Debian-exim:x:{USER}:{USER}::/nonexistent:/usr/sbin/nologin\n")),
        ("group", format!("Debian-exim:x:{USER}:\n")),
    ] {
        let all = fs::read_to_string(PathBuf::from("/etc").join(file)).unwrap();
        fs::write(folder.join(file), all + &line).unwrap();
    }
    let guide = readme::block("exim4.conf");
    assert!(guide.contains(GUIDE), "{guide}");
    let guide = guide.replace(GUIDE, &format!("{}.{}", address.ip(), address.port()));
    fs::write(folder.join("exim.conf"), configuration_of_exim(&guide, &folder.display(), program)).unwrap();
}

fn configuration_of_exim(guide: &str, folder: &std::path::Display<'_>, program: &Path) -> String {
    format!(
        "{guide}exim_path = {}
primary_hostname = mail.relay.test
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/exim.pid
notifier_socket =
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts =
keep_environment =
acl_smtp_rcpt = accept
acl_smtp_data = accept

begin routers
local:
  driver = accept
  transport = maildir

begin transports
maildir:
  driver = appendfile
  directory = {folder}/mail
  maildir_format
",
        program.display()
    )
}

/// Sends 25 messages, one client after the other.
async fn send(exim: &Exim, lines: &str) {
    let (zone, address) = (Zone::start(), free_address());
    let lines =
        lines.replace("127.0.0.1:10025", &exim.address.to_string()).replace("example.com", "relay.test");
    let _daemon = Daemon::start(&configuration("gate.test", &[address], zone.address(), &lines), &[]).await;
    for number in 0..25 {
        let mut client = Client::greeted(EXCHANGER, address, "mail.good.test").await;
        let reply = client.deliver("a@good.test", "user@relay.test", &mail::message(number, 100)).await;
        assert_eq!(reply.code, 250, "{}", reply.text);
        assert_eq!(client.command("QUIT").await.code, 221);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_the_guide_has_it_exim_delivers_all_mail_at_once() {
    let Some(exim) = Exim::start().await else { return };
    send(&exim, &readme::block("toml exim")).await;
    process::eventually("25 messages", SOON, || (exim.delivered() >= 25).then_some(())).await;
    assert_eq!((exim.delivered(), exim.waiting()), (25, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_hundred_messages_a_connection_exim_leaves_most_to_the_next_queue_run() {
    let Some(exim) = Exim::start().await else { return };
    let lines = readme::block("toml exim");
    let key = "messages_per_connection = 10\n";
    assert!(lines.contains(key), "{lines}");
    send(&exim, &lines.replace(key, "messages_per_connection = 100\n")).await;
    let settled = || (exim.delivered() + exim.waiting() >= 25).then_some(());
    process::eventually("10 delivered, 15 that wait", SOON, settled).await;
    assert_eq!((exim.delivered(), exim.waiting()), (10, 15));
}
