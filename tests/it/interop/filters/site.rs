//! A Postfix with rmxd as a milter, other filters beside it as the test wants them, and a name server for all of them.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rmxd::zone::{Server, Zone};

use super::delivered::Delivered;
use crate::dkim::signer::Signer;
use crate::interop::opendkim_and_opendmarc::name_server;
use crate::interop::postfix::{Postfix, numeric_id};
use crate::support::client::Client;
use crate::support::daemon::{Daemon, Home};
use crate::support::process::{SOON, eventually};
use crate::support::readme;

/// The name in our results.
pub(super) const OURS: &str = "gate.relay.test";
/// Where everything goes.
pub(super) const USER: &str = "user@relay.test";
/// The hostname of the guide.
const GUIDE: &str = "mx.example.com";
/// Postfix's queue folder in the guide.
const QUEUE: &str = "/var/spool/postfix";

pub(super) struct Site {
    pub(super) dns: Server,
    pub(super) postfix: Postfix,
    queue: PathBuf,
    seen: HashSet<PathBuf>,
}

/// A name server with the sample zones, a key of treasury.test, and more records.
pub(super) async fn names(more: &str) -> Server {
    let key = treasury().record();
    let records = format!("$ORIGIN test.\n$TTL 60\nsel._domainkey.treasury TXT \"{key}\"\n{more}");
    let mut zone = Zone::sample();
    zone.merge(Zone::parse(&records, None).unwrap());
    Server::start(name_server(), zone).await.unwrap()
}

/// Signs for a domain that asks to reject what nobody vouches for.
pub(super) fn treasury() -> Signer {
    Signer::new("treasury.test", 7)
}

impl Site {
    /// `milters` makes the value of `smtpd_milters` of the one that the guide has.
    pub(super) fn start(dns: Server, milters: impl FnOnce(&str) -> String) -> Option<Self> {
        Self::start_with(dns, milters, |_| "smtpd_tls_security_level = none\n".to_owned())
    }

    /// The same with more lines for main.cf, made for Postfix's folder.
    pub(super) fn start_with(
        dns: Server,
        milters: impl FnOnce(&str) -> String,
        more: impl FnOnce(&Path) -> String,
    ) -> Option<Self> {
        let guide = readme::block("main.cf milter");
        let rmxd = guide.trim().strip_prefix("smtpd_milters = ").expect("one line");
        let milters = milters(rmxd);
        let lines = format!("smtpd_milters = {milters}\nmilter_default_action = tempfail\n");
        Self::start_as(dns, |folder| lines + &more(folder))
    }

    /// With these lines for main.cf.
    pub(super) fn start_as(dns: Server, main_cf: impl FnOnce(&Path) -> String) -> Option<Self> {
        let mut queue = PathBuf::new();
        let postfix = Postfix::start_with(|folder| {
            queue = folder.join("queue");
            main_cf(folder)
        })?;
        let folder = queue.join("rmxd");
        // As in the guide, but for the owner: here rmxd is root.
        fs::create_dir(&folder).unwrap();
        chown(&folder, None, numeric_id("/etc/group", "postfix")).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o2750)).unwrap();
        Some(Self { dns, postfix, queue, seen: HashSet::new() })
    }

    /// rmxd with the configuration of the guide, with `mode = "enforce"`, and more TOML.
    pub(super) async fn rmxd(&self, more: &str) -> Daemon {
        self.rmxd_as("toml milter", more).await
    }

    /// The same with that block of the guide.
    pub(super) async fn rmxd_as(&self, block: &str, more: &str) -> Daemon {
        rmxd(block, (QUEUE, &self.queue), self.dns.address(), more).await
    }

    pub(super) async fn client(&self, from: IpAddr) -> Client {
        Client::greeted(from, self.postfix.address(), "mail.good.test").await
    }

    /// The last reply to a message in a session of its own, without the id.
    pub(super) async fn send(&self, from: IpAddr, sender: &str, message: impl AsRef<[u8]>) -> String {
        let reply = self.client(from).await.deliver(sender, USER, message.as_ref()).await;
        without_id(&reply.text)
    }

    /// The message that has come into the mailbox since this was asked last.
    pub(super) async fn arrived(&mut self) -> Delivered {
        let seen = &self.seen;
        let new = || self.postfix.mailbox("user").into_iter().find(|path| !seen.contains(path));
        let path = eventually("a message for user", SOON, new).await;
        let text = fs::read(&path).unwrap();
        self.seen.insert(path);
        Delivered::read(&text)
    }
}

/// rmxd with that block of the guide, with `mode = "enforce"`, another folder in place of the guide's, and more TOML.
pub(super) async fn rmxd(
    block: &str,
    (guides, folder): (&str, &Path),
    dns: SocketAddr,
    more: &str,
) -> Daemon {
    let guide = readme::block(block);
    assert!(guide.contains(guides) && guide.contains(GUIDE) && guide.contains("\"monitor\""), "{guide}");
    let text = guide.replace(guides, &folder.display().to_string()).replace("monitor", "enforce");
    let home = Home::with(&format!(
        "{}\n[dns]\nservers = [\"{dns}\"]\ntimeout = \"2s\"\nprivate_addresses = \"accept\"\n{more}",
        text.replace(GUIDE, OURS)
    ));
    let mut command = home.serve();
    command.args(["--set", "listen.admin="]);
    let daemon = Daemon::launch(command, home);
    daemon.logged("listening address=unix:").await;
    daemon
}

pub(super) fn without_id(text: &str) -> String {
    text.split_once(" (id ").map_or(text, |(text, _)| text).to_owned()
}
