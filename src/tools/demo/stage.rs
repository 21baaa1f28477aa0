//! What the tour is played on: a folder, the name server, and a gate for each policy.
//!
//! Each gate is started from a file in the folder, the very one that `rmxd check --config` can be given.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{self, Flags};
use crate::console::folder::Folder;
use crate::daemon::{Daemon, StartError};
use crate::log::{self, Log, Output};
use crate::tools::demo::tour::Policy;
use crate::zone::{Name, RData, RecordType, Server, Zone};

/// Longer than what the zones say of `twolines.test` may be cached: 5 s.
pub(super) const OLD_RECORDS_LAST: Duration = Duration::from_secs(6);

/// How long a client of somebody who tries it by hand may go on after the end.
const DRAIN: Duration = Duration::from_secs(2);

/// The first gate's port, where it is free; the others follow.
const PORT: u16 = 2525;

/// The port of the first gate's dashboard, where it is free; those of the others are any.
const DASHBOARD: u16 = 8025;

/// How often a port is looked for that nobody takes before the gate does.
const PORT_ATTEMPTS: u32 = 8;

/// hickory-server logs every question at info.
const LOG_LEVEL: &str = "info,hickory_server=warn";

/// Everything that runs.
pub(super) struct Stage {
    pub(super) folder: PathBuf,
    zone: Server,
    gates: Vec<Gate>,
    _log: Log,
}

/// One daemon.
struct Gate {
    policy: Policy,
    daemon: Daemon,
}

impl Stage {
    /// # Errors
    /// What can't be started and why.
    pub(super) async fn start(folder: &Folder) -> Result<Self, String> {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let zone = Server::start(loopback, Zone::sample()).await;
        let zone = zone.map_err(|error| format!("the name server: {error}"))?;
        let folder = folder.path().to_path_buf();
        let log = start_log(&folder.join("log"))?;
        let mut gates = Vec::new();
        for (policy, port) in Policy::ALL.into_iter().zip(PORT..) {
            let ports = (port, if port == PORT { DASHBOARD } else { 0 });
            let daemon = start_gate(policy, ports, zone.address(), &folder).await?;
            gates.push(Gate { policy, daemon });
        }
        Ok(Self { folder, zone, gates, _log: log })
    }

    /// Where a gate listens for clients of this address family; `None` if the machine hasn't got it.
    pub(super) fn gate(&self, policy: Policy, client: IpAddr) -> Option<SocketAddr> {
        let gate = self.gates.iter().find(|gate| gate.policy == policy)?;
        gate.daemon.addresses().iter().copied().find(|address| address.is_ipv4() == client.is_ipv4())
    }

    /// The page of a gate.
    pub(super) fn dashboard(&self, policy: Policy) -> Option<String> {
        let gate = self.gates.iter().find(|gate| gate.policy == policy)?;
        gate.daemon.admin().map(|address| format!("http://{address}/"))
    }

    pub(super) fn name_server(&self) -> SocketAddr {
        self.zone.address()
    }

    /// The names in the PTR records of an address, as the zones have them.
    pub(super) fn ptr(&self, client: IpAddr) -> Vec<String> {
        let zone = self.zone.zone();
        let records = zone.records(&Name::from(client), RecordType::PTR).iter();
        let names =
            records.filter_map(|record| if let RData::PTR(name) = record { Some(name) } else { None });
        names.map(|name| name.to_ascii().trim_end_matches('.').to_owned()).collect()
    }

    /// `twolines.test` makes its second line an MX host, as `rmxd audit` tells it to.
    pub(super) fn repair(&self) {
        self.zone.replace(Zone::repaired_sample());
    }

    pub(super) fn maildir(&self) -> PathBuf {
        maildir(&self.folder)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub(super) async fn stop(self) {
        let gates = self.gates.into_iter().map(|gate| gate.daemon.drain());
        futures_util::future::join_all(gates).await;
        self.zone.stop().await;
    }
}

/// The log of all gates, which would disturb the table on standard error.
fn start_log(path: &Path) -> Result<Log, String> {
    let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let settings = log::Settings { format: log::Format::Text, level: LOG_LEVEL.to_owned() };
    log::start(&settings, Output::File(file))
}

/// A gate at this port if it is free, otherwise at another; and the same for its dashboard.
async fn start_gate(
    policy: Policy,
    (port, dashboard): (u16, u16),
    zone: SocketAddr,
    folder: &Path,
) -> Result<Daemon, String> {
    let file = folder.join(policy.name()).with_extension("toml");
    let state = folder.join(format!("state-{}", policy.name()));
    std::fs::create_dir_all(&state).map_err(|error| format!("{}: {error}", state.display()))?;
    let environment = || [(OsString::from("STATE_DIRECTORY"), state.clone().into_os_string())];
    let mut attempts = 1..=PORT_ATTEMPTS;
    loop {
        let listen = listeners(port).map_err(|error| format!("no port to listen on: {error}"))?;
        let admin = loopback(dashboard);
        std::fs::write(&file, configuration(policy, (&listen, admin), zone, folder))
            .map_err(|error| format!("{}: {error}", file.display()))?;
        let loaded = config::load(Some(&file), environment(), &Flags { drain: DRAIN, ..Flags::default() });
        let settings = loaded.map_err(|problems| lines(&problems))?.settings;
        match Daemon::start(settings, Vec::new()).await {
            Ok(daemon) => return Ok(daemon),
            // Somebody else took the port meanwhile.
            Err(StartError::Listen(_) | StartError::Admin(_)) if attempts.next().is_some() => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// IPv4, and IPv6 where there is one: both at this port, or at one that is free.
fn listeners(port: u16) -> io::Result<Vec<SocketAddr>> {
    let both = |port: u16| {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr()?;
        let second = match TcpListener::bind((Ipv6Addr::LOCALHOST, first.port())) {
            Ok(listener) => Some(listener.local_addr()?),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(_no_ipv6) => None,
        };
        Ok([first].into_iter().chain(second).collect())
    };
    both(port).or_else(|_taken: io::Error| both(0))
}

/// With this port if it is free, otherwise with one that the system chooses.
fn loopback(port: u16) -> SocketAddr {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    SocketAddr::from((Ipv4Addr::LOCALHOST, if free { port } else { 0 }))
}

fn configuration(
    policy: Policy,
    (listen, admin): (&[SocketAddr], SocketAddr),
    zone: SocketAddr,
    folder: &Path,
) -> String {
    let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
    let next_hop = toml::Value::from(format!("maildir:{}", maildir(folder).display()));
    let history = folder.join(format!("history-{}", policy.name()));
    let history = toml::Value::from(history.display().to_string());
    let private_addresses = if policy == Policy::Public { "reject" } else { "accept" };
    let rules = match policy {
        Policy::Default | Policy::Public => "",
        Policy::Strict => {
            "\n[policy]\nexists_by = [\"mx\"]\nmatches_by = [\"mx\"]\n\n[policy.helo]\nexists = \"reject\"\n\n\
             [policy.ptr]\nexists = \"reject\"\n\n[policy.mail_from]\nmatches = \"reject\"\n"
        }
    };
    format!(
        r#"# The gate "{name}" of rmxd demo. Keys that are not named here have their defaults.
hostname = "mx.demo.test"

[listen]
smtp = {listen:?}
admin = "{admin}"

[relay]
next_hop = {next_hop}
domains = ["demo.test"]
{rules}
[dns]
servers = ["{zone}"]
timeout = "2s"
private_addresses = "{private_addresses}"

[history]
path = {history}

[log]
level = "{LOG_LEVEL}"
"#,
        name = policy.name(),
    )
}

fn maildir(folder: &Path) -> PathBuf {
    folder.join("mail")
}

fn lines(problems: &[config::Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
