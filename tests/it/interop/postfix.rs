//! A Postfix of the test's own: configuration, queue, log and mailboxes in a temporary folder, one loopback port.
//!
//! Its SMTP server has the lines that systemd/README.md has for master.cf. It believes XCLIENT, knows the mailboxes
//! `user` and `other` at relay.test and nobody else, delivers into a Maildir, and sends nothing anywhere. The machine's
//! own Postfix is not touched.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::process;

use crate::support::readme;

/// Debian's `nobody`: who owns the mailboxes.
const NOBODY: u32 = 65_534;

/// Its address in the guide.
const GUIDE: &str = "127.0.0.1:10025";

/// A running (or, between `stop` and `start_again`, a stopped) Postfix. Dropping it stops it.
pub(crate) struct Postfix {
    program: PathBuf,
    folder: TempDir,
    address: SocketAddr,
    running: bool,
    fences: u8,
}

impl Postfix {
    /// Starts one, or says why it can't be had.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(|_| "smtpd_tls_security_level = none\n".to_owned())
    }

    /// The same, with more lines for its main.cf, made for the folder that they may name files in.
    pub(crate) fn start_with(main_cf: impl FnOnce(&Path) -> String) -> Option<Self> {
        Self::start_as(&readme::block("master.cf"), main_cf)
    }

    /// The same, but it takes XCLIENT from nobody.
    pub(crate) fn start_without_xclient(main_cf: &str) -> Option<Self> {
        let guide = readme::block("master.cf");
        let service = guide.lines().next().unwrap();
        Self::start_as(&format!("{service}\n"), |_| main_cf.to_owned())
    }

    fn start_as(smtpd: &str, main_cf: impl FnOnce(&Path) -> String) -> Option<Self> {
        let program = process::program("postfix")?;
        let Some(owner) = numeric_id("/etc/passwd", "postfix") else {
            process::missing("there is no user postfix");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("rmxd-postfix-").tempdir().unwrap();
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            process::missing("postfix has to be started by root");
            return None;
        }
        let address = process::free_address();
        assert!(smtpd.contains(GUIDE), "{smtpd}");
        lay_out(folder.path(), &smtpd.replace(GUIDE, &address.to_string()), owner);
        let more = main_cf(folder.path());
        let file = folder.path().join("etc/main.cf");
        let whole = fs::read_to_string(&file).unwrap() + &more;
        fs::write(file, whole).unwrap();
        let mut postfix = Self { program, folder, address, running: false, fences: 0 };
        postfix.start_again();
        Some(postfix)
    }

    /// Where its SMTP server listens; the same after a restart.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts it after [`Self::stop`].
    pub(crate) fn start_again(&mut self) {
        self.control("start");
        self.running = true;
    }

    /// Stops it with all of its processes, connections included.
    pub(crate) fn stop(&mut self) {
        self.control("stop");
        self.running = false;
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path().join("log/mail.log")).unwrap_or_default())
            .into_owned()
    }

    /// Waits until the log has a line with `text`, and gives that line.
    pub(crate) async fn logged(&self, text: &str) -> String {
        let ask = || self.log().lines().find(|line| line.contains(text)).map(str::to_owned);
        process::eventually(&format!("a line with {text:?} in Postfix's log"), Duration::from_secs(10), ask)
            .await
    }

    /// How many connections its SMTP server took so far. The log comes late, so one more is made, from an address
    /// that nobody else uses, and waited for; what came before it has been written by then. Those don't count.
    pub(crate) async fn connections(&mut self) -> usize {
        self.fences += 1;
        let fence = Ipv4Addr::new(127, 9, 9, self.fences);
        let mut client = Client::connect(fence.into(), self.address).await;
        assert_eq!(client.reply().await.code, 220);
        assert_eq!(client.command("QUIT").await.code, 221);
        self.logged(&format!("disconnect from unknown[{fence}]")).await;
        let counts = |line: &&str| line.contains(": connect from ") && !line.contains("[127.9.9.");
        self.log().lines().filter(counts).count()
    }

    /// The files of a mailbox, in no order.
    pub(crate) fn mailbox(&self, user: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.folder.path().join("mail").join(user).join("new")) else {
            return Vec::new(); // made at the first delivery
        };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Waits until a mailbox has at least `count` messages, and gives their files.
    pub(crate) async fn wait_for_messages(&self, user: &str, count: usize, limit: Duration) -> Vec<PathBuf> {
        let ask = || Some(self.mailbox(user)).filter(|files| files.len() >= count);
        process::eventually(&format!("{count} message(s) for {user}"), limit, ask).await
    }

    /// Waits until nothing is left in the queue.
    pub(crate) async fn wait_for_empty_queue(&self) {
        let queue = self.folder.path().join("queue");
        let ask = || {
            ["incoming", "active", "deferred"].iter().all(|name| is_empty(&queue.join(name))).then_some(())
        };
        process::eventually("an empty queue", Duration::from_secs(60), ask).await;
    }

    fn control(&self, verb: &str) {
        let (done, said) = self.run(verb);
        assert!(done, "postfix {verb}: {said}\n{}", self.log());
    }

    /// Whether `postfix VERB` ended well, and what it said. To a file: the daemons would hold a pipe open.
    fn run(&self, verb: &str) -> (bool, String) {
        let said = self.folder.path().join("said.txt");
        let file = fs::File::create(&said).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder.path().join("etc")).arg(verb).stdin(Stdio::null());
        let status = command.stdout(file.try_clone().unwrap()).stderr(file).status();
        (status.is_ok_and(|status| status.success()), fs::read_to_string(said).unwrap_or_default())
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- Postfix's log\n{}", self.log());
        }
        if self.running {
            let (done, said) = self.run("stop");
            if !done {
                eprintln!("postfix in {} was not stopped: {said}", self.folder.path().display());
            }
        }
    }
}

/// The third field of a line of `/etc/passwd` or `/etc/group`.
pub(super) fn numeric_id(file: &str, name: &str) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

/// Whether a queue folder holds no file, however deep.
fn is_empty(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return true };
    entries.flatten().all(|entry| match entry.file_type() {
        Ok(kind) => kind.is_dir() && is_empty(&entry.path()),
        Err(_) => true, // taken meanwhile
    })
}

/// The folders with their owners, main.cf and master.cf.
fn lay_out(folder: &Path, smtpd: &str, owner: u32) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, uid) in [("etc", 0), ("queue", 0), ("log", 0), ("data", owner), ("mail", NOBODY)] {
        let path = folder.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        chown(&path, Some(uid), None).unwrap();
    }
    fs::write(folder.join("etc/main.cf"), main_cf(&folder.display().to_string())).unwrap();
    fs::write(folder.join("etc/master.cf"), master_cf(smtpd)).unwrap();
}

fn main_cf(folder: &str) -> String {
    format!(
        "compatibility_level = 3.6
config_directory = {folder}/etc
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log/mail.log
maillog_file_prefixes = {folder}/log
mail_owner = postfix
setgid_group = postdrop

myhostname = mail.relay.test
inet_interfaces = 127.0.0.1
default_process_limit = 200
inet_protocols = ipv4
mynetworks = 192.0.2.1/32
mydestination =
alias_maps =
alias_database =
biff = no
default_transport = error:nothing is sent from here
notify_classes =

smtpd_relay_restrictions = reject_unauth_destination
smtpd_peername_lookup = no
local_header_rewrite_clients =
recipient_delimiter = +

# fifty connections at one time from one address, and no pause between messages
smtpd_client_connection_count_limit = 0
in_flow_delay = 0

virtual_mailbox_domains = relay.test
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = inline:{{ {{ user@relay.test = user/ }}, {{ other@relay.test = other/ }} }}
virtual_uid_maps = static:{NOBODY}
virtual_gid_maps = static:{NOBODY}
message_size_limit = 62914560
virtual_mailbox_limit = 0
mailbox_size_limit = 0
"
    )
}

/// The SMTP server of the guide, and the services that receiving and local delivery need.
fn master_cf(smtpd: &str) -> String {
    format!(
        "{smtpd}cleanup  unix  n - n - 0 cleanup
qmgr     unix  n - n 300 1 qmgr
rewrite  unix  - - n - - trivial-rewrite
bounce   unix  - - n - 0 bounce
defer    unix  - - n - 0 bounce
trace    unix  - - n - 0 bounce
proxymap unix  - - n - - proxymap
error    unix  - - n - - error
retry    unix  - - n - - error
virtual  unix  - n n - - virtual
anvil    unix  - - n - 1 anvil
tlsmgr   unix  - - n - 1 tlsmgr
postlog  unix-dgram n - n - 1 postlogd
"
    )
}
