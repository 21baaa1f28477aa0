//! A stock Postfix that asks rmxd by one of its doors, with the lines of the guide.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::postfix::Postfix;
use crate::support::client::Client;
use crate::support::daemon::{Daemon, Home};
use crate::support::process::SOON;
use crate::support::readme;
use crate::support::zone::Zone;

/// The address of mail.good.test, which is the exchanger of good.test.
pub(super) const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
/// A bot.
pub(super) const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 12));
/// Postfix's queue folder in the guide.
const QUEUE: &str = "/var/spool/postfix";

/// The name server, Postfix, and what rmxd is started from.
pub(super) struct Site {
    pub(super) zone: Zone,
    pub(super) postfix: Postfix,
    queue: PathBuf,
    /// The word of the guide's blocks, and the name of the socket.
    door: &'static str,
}

impl Site {
    /// With rmxd as a milter. `main_cf` makes its lines from those of the guide.
    pub(super) fn with_milter(main_cf: impl FnOnce(String) -> String) -> Option<Self> {
        Self::start("milter", main_cf)
    }

    /// With rmxd as a policy service. `main_cf` makes its lines from those of the guide.
    pub(super) fn with_policy_service(main_cf: impl FnOnce(String) -> String) -> Option<Self> {
        Self::start("policy", main_cf)
    }

    fn start(door: &'static str, main_cf: impl FnOnce(String) -> String) -> Option<Self> {
        let mut queue = PathBuf::new();
        let postfix = Postfix::start_with(|folder| {
            queue = folder.join("queue");
            main_cf(readme::block(&format!("main.cf {door}"))) + "smtpd_tls_security_level = none\n"
        })?;
        let site = Self { zone: Zone::start(), postfix, queue, door };
        // As in the guide, but for the owner: here rmxd is root.
        let folder = site.folder();
        fs::create_dir(&folder).unwrap();
        chown(&folder, None, Some(group_of_postfix())).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o2750)).unwrap();
        Some(site)
    }

    /// The folder of the sockets, which Postfix reaches from its chroot.
    fn folder(&self) -> PathBuf {
        self.queue.join("rmxd")
    }

    /// The socket of the door.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder().join(self.door)
    }

    /// The configuration of the guide, with `mode = "enforce"`.
    pub(super) fn home(&self) -> Home {
        let guide = readme::block(&format!("toml {}", self.door));
        assert!(guide.contains(QUEUE) && guide.contains("mode = \"monitor\""), "{guide}");
        let text = guide.replace(QUEUE, &self.queue.display().to_string()).replace("monitor", "enforce");
        let dns = self.zone.address();
        Home::with(&format!(
            "{text}\n[dns]\nservers = [\"{dns}\"]\ntimeout = \"2s\"\nprivate_addresses = \"accept\"\n"
        ))
    }

    /// rmxd once it listens, started with these arguments too.
    pub(super) async fn rmxd(&self, arguments: &[&str]) -> Daemon {
        self.rmxd_at(self.home(), arguments).await
    }

    /// The same where it was before.
    pub(super) async fn rmxd_at(&self, home: Home, arguments: &[&str]) -> Daemon {
        let mut command = home.serve();
        command.args(["--set", "listen.admin="]).args(arguments);
        self.launch(command, home).await
    }

    /// The same by a command of the test's own.
    pub(super) async fn launch(&self, command: Command, home: Home) -> Daemon {
        let listened = home.log().matches("listening address=unix:").count();
        let daemon = Daemon::launch(command, home);
        daemon.logged_times("listening address=unix:", listened + 1).await;
        let metadata = fs::metadata(self.socket()).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o7777, metadata.gid()), (0o660, group_of_postfix()));
        daemon
    }

    /// A client of Postfix that has said EHLO.
    pub(super) async fn client(&self, from: IpAddr) -> Client {
        Client::greeted(from, self.postfix.address(), "mail.good.test").await
    }

    /// The last reply to a message, without its id.
    pub(super) async fn send(&self, from: IpAddr, sender: &str, message: &str) -> String {
        let reply = self.client(from).await.deliver(sender, "user@relay.test", message.as_bytes()).await;
        without_id(&reply.text)
    }

    /// The messages in the mailbox, in no order, as they were delivered.
    pub(super) async fn delivered(&self, count: usize) -> Vec<String> {
        let paths = self.postfix.wait_for_messages("user", count, SOON).await;
        paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }
}

/// A reply without rmxd's id.
pub(super) fn without_id(text: &str) -> String {
    text.split_once(" (id ").map_or(text, |(text, _)| text).to_owned()
}

fn group_of_postfix() -> u32 {
    let text = fs::read_to_string(Path::new("/etc/group")).unwrap();
    let line = text.lines().find(|line| line.starts_with("postfix:")).unwrap();
    line.split(':').nth(2).unwrap().parse().unwrap()
}
