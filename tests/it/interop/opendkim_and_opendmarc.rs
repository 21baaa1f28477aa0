//! Debian's opendkim and opendmarc as milters that ask a name server of the test: each in a mount namespace with an
//! `/etc/resolv.conf` of its own, since the resolvers of opendmarc and of its SPF library take no other.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use tempfile::TempDir;

use crate::support::process;

/// A shell's words that start a program with another resolv.conf.
const IN_NAMESPACE: &str = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";

/// The programs.
pub(super) struct Programs {
    opendkim: PathBuf,
    opendmarc: PathBuf,
    unshare: PathBuf,
}

impl Programs {
    /// `None` where one of them isn't there, or no namespace can be had.
    pub(super) fn find() -> Option<Self> {
        let opendkim = process::program("opendkim")?;
        let opendmarc = process::program("opendmarc")?;
        let unshare = process::program("unshare")?;
        let tried = Command::new(&unshare)
            .args(["--mount", "sh", "-c", IN_NAMESPACE, "/etc/resolv.conf", "true"])
            .output();
        if !tried.is_ok_and(|run| run.status.success()) {
            process::missing("there are no mount namespaces");
            return None;
        }
        Some(Self { opendkim, opendmarc, unshare })
    }
}

/// What the results of both are called, and what opendmarc takes over.
pub(super) struct Settings {
    /// The authserv-id of opendkim.
    pub(super) opendkim: &'static str,
    /// The authserv-id of opendmarc, which believes results of this name.
    pub(super) opendmarc: &'static str,
    /// The other name that opendmarc believes.
    pub(super) trusted: &'static str,
    /// opendmarc evaluates SPF itself and takes it from no result.
    pub(super) own_spf: bool,
}

/// A loopback address that no other run of the tests takes at this time, and the port that resolvers ask.
pub(super) fn name_server() -> SocketAddr {
    static STARTED: AtomicU8 = AtomicU8::new(53);
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, STARTED.fetch_add(1, Ordering::Relaxed), high, low], 53))
}

/// Both, running. Dropping them ends them.
pub(super) struct Milters {
    children: Vec<Child>,
    /// For `smtpd_milters`, in the order in which they have to stand.
    pub(super) addresses: [SocketAddr; 2],
    folder: TempDir,
}

impl Milters {
    /// `dns` listens on port 53. `suffixes` is the list of public suffixes of opendmarc.
    pub(super) async fn start(
        programs: &Programs,
        settings: &Settings,
        dns: SocketAddr,
        suffixes: &Path,
    ) -> Self {
        assert_eq!(dns.port(), 53, "resolv.conf knows no other port");
        let folder = tempfile::Builder::new().prefix("rmxd-milters-").tempdir().unwrap();
        let addresses = [process::free_address(), process::free_address()];
        let mut milters = Self { children: Vec::new(), addresses, folder };
        let path = milters.folder.path().display().to_string();
        let [opendkim, opendmarc] = addresses.map(|address| address.port());
        milters.write("resolv.conf", &format!("nameserver {}\noptions timeout:2 attempts:1\n", dns.ip()));
        milters.write("unbound.conf", &unbound(dns.ip()));
        milters.write("ignore", "192.0.2.1\n");
        milters.write(
            "opendkim",
            &format!(
                "Mode v\nSocket inet:{opendkim}@127.0.0.1\nAuthservID {}\nAlwaysAddARHeader yes\n\
                 InternalHosts {path}/ignore\nPeerList {path}/ignore\nResolverConfiguration {path}/unbound.conf\n\
                 On-Default accept\nOn-DNSError accept\nOn-KeyNotFound accept\nDNSTimeout 3\nMinimumKeyBits 1024\n\
                 Syslog no\nRequireSafeKeys no\nPidFile {path}/opendkim.pid\n",
                settings.opendkim
            ),
        );
        milters.write(
            "opendmarc",
            &format!(
                "Socket inet:{opendmarc}@127.0.0.1\nAuthservID {}\nTrustedAuthservIDs {}\n\
                 IgnoreHosts {path}/ignore\nHistoryFile {path}/history\nRecordAllMessages true\n\
                 SPFIgnoreResults {own_spf}\nSPFSelfValidate {own_spf}\nPublicSuffixList {}\n\
                 RejectFailures false\nPidFile {path}/opendmarc.pid\nSyslog false\n",
                settings.opendmarc,
                settings.trusted,
                suffixes.display(),
                own_spf = settings.own_spf,
            ),
        );
        for (name, program, option) in
            [("opendkim", &programs.opendkim, "-x"), ("opendmarc", &programs.opendmarc, "-c")]
        {
            let at = |name: &str| milters.folder.path().join(name);
            let mut command = Command::new(&programs.unshare);
            command.args(["--mount", "sh", "-c", IN_NAMESPACE]).arg(at("resolv.conf"));
            command.arg(program).args(["-f", option]).arg(at(name));
            milters.children.push(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
        }
        for address in addresses {
            drop(process::accepted(address).await);
        }
        milters
    }

    /// What opendmarc noted of each message.
    pub(super) fn history(&self) -> String {
        fs::read_to_string(self.folder.path().join("history")).unwrap_or_default()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }
}

impl Drop for Milters {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The resolver of opendkim: all from this server, loopback and `.test` included.
fn unbound(dns: IpAddr) -> String {
    format!(
        "server:\n  do-not-query-localhost: no\n  local-zone: \"test.\" nodefault\n  module-config: \"iterator\"\n\
         stub-zone:\n  name: \"test.\"\n  stub-addr: {dns}\n  stub-first: no\n"
    )
}
