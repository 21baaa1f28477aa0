//! The parts of the demo: a folder, the name server, and a gate for each policy.
//!
//! Each gate is started from a configuration file in the folder, which `rmxd check --config` can use as well.

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

/// Longer than the TTL of the records of `twolines.test`, 5 s.
pub(super) const OLD_RECORDS_LAST: Duration = Duration::from_secs(6);

/// For open connections of users at the end.
pub(super) const DRAIN: Duration = Duration::from_secs(2);

/// Port of the first gate if it is free; the others follow.
pub(super) const PORT: u16 = 2525;

/// Port of the dashboard of the first gate if it is free; the others get any port.
pub(super) const DASHBOARD: u16 = 8025;

/// Tries to get a port that no other program takes before the gate binds it.
pub(super) const PORT_ATTEMPTS: u32 = 8;

/// hickory-server logs every query at info.
pub(super) const LOG_LEVEL: &str = "info,hickory_server=warn";

pub(super) struct Stage {
    pub(super) folder: PathBuf,
    zone: Server,
    gates: Vec<Gate>,
    _log: Log,
}

struct Gate {
    policy: Policy,
    daemon: Daemon,
}

impl Stage {
    pub(super) async fn open(folder: &Folder) -> Result<Self, String> {
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

    /// The address of a gate for clients of this address family; `None` if the machine lacks the family.
    pub(super) fn gate(&self, policy: Policy, client: IpAddr) -> Option<SocketAddr> {
        let gate = self.gates.iter().find(|gate| gate.policy == policy)?;
        let mut addresses = gate.daemon.endpoints().into_iter().filter_map(|endpoint| endpoint.tcp());
        addresses.find(|address| address.is_ipv4() == client.is_ipv4())
    }

    pub(super) fn dashboard(&self, policy: Policy) -> Option<String> {
        let gate = self.gates.iter().find(|gate| gate.policy == policy)?;
        let mut addresses = gate.daemon.admin_endpoints().into_iter().filter_map(|endpoint| endpoint.tcp());
        addresses.next().map(|address| format!("http://{address}/"))
    }

    pub(super) fn name_server(&self) -> SocketAddr {
        self.zone.address()
    }

    /// The names in the PTR records of an address.
    pub(super) fn ptr(&self, client: IpAddr) -> Vec<String> {
        let zone = self.zone.zone();
        let records = zone.records(&Name::from(client), RecordType::PTR).iter();
        let names =
            records.filter_map(|record| if let RData::PTR(name) = record { Some(name) } else { None });
        names.map(|name| name.to_ascii().trim_end_matches('.').to_owned()).collect()
    }

    /// Adds the MX record for the second line of `twolines.test` that `rmxd audit` proposes.
    pub(super) fn repair(&self) {
        self.zone.replace(Zone::repaired_sample());
    }

    pub(super) fn maildir(&self) -> PathBuf {
        maildir(&self.folder)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub(super) async fn close(self) {
        let gates = self.gates.into_iter().map(|gate| gate.daemon.drain());
        futures_util::future::join_all(gates).await;
        self.zone.stop().await;
    }
}

/// The log of all gates goes to a file, since on standard error it would mix with the table.
pub(super) fn start_log(path: &Path) -> Result<Log, String> {
    let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let settings = log::Settings { format: log::Format::Text, level: LOG_LEVEL.to_owned() };
    log::start(&settings, Output::File(file))
}

/// Starts a gate at this port if it is free, otherwise at another one; the same for its dashboard.
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
            // Another program took the port meanwhile.
            Err(StartError::Listen(_)) if attempts.next().is_some() => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// IPv4, and IPv6 if the machine has it, both at this port, or at a free one.
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

/// With this port if it is free, otherwise with port 0.
pub(super) fn loopback(port: u16) -> SocketAddr {
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
        Policy::Default => {
            "\n[[policy.senders]]\ndomains = [\"demo.test\", \".demo.test\"]\nmatches = \"reject\"\n"
        }
        Policy::Public => "",
        Policy::Strict => {
            "\n[policy]\nexists_by = [\"mx\"]\nmatches_by = [\"mx\"]\n\n[policy.helo]\nexists = \"reject\"\n\n\
             [policy.ptr]\nexists = \"reject\"\n\n[policy.mail_from]\nmatches = \"reject\"\n"
        }
    };
    format!(
        r#"# The gate "{name}" of rmxd demo. All other keys have their defaults.
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

pub(super) fn lines(problems: &[config::Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
