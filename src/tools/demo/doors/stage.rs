//! The parts of the tour of a door: a folder, the name server, a gate for each policy with the door at a unix socket.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{self, Flags};
use crate::console::folder::Folder;
use crate::daemon::{Daemon, StartError};
use crate::log::Log;
use crate::net::Endpoint;
use crate::policy::door::DoorName;
use crate::tools::demo::doors::scene::Policy;
use crate::tools::demo::stage::{DASHBOARD, DRAIN, LOG_LEVEL, PORT_ATTEMPTS, lines, loopback, start_log};
use crate::zone::{Server, Zone};

/// `greylist.delay`, and a little more.
pub(super) const DELAY: Duration = Duration::from_secs(2);
pub(super) const OVER: Duration = Duration::from_millis(2100);

/// The ports for a Postfix if they are free.
const MILTER_PORT: u16 = 8891;
const POLICY_PORT: u16 = 8892;

pub(in crate::tools::demo) struct Stage {
    pub(super) door: DoorName,
    pub(super) folder: PathBuf,
    zone: Server,
    gates: Vec<(Policy, Daemon)>,
    _log: Log,
}

impl Stage {
    /// # Errors
    /// The part that can't be started, and why.
    pub(super) async fn open(folder: &Folder, door: DoorName) -> Result<Self, String> {
        let zone = Server::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Zone::sample()).await;
        let zone = zone.map_err(|error| format!("the name server: {error}"))?;
        let folder = folder.path().to_path_buf();
        let log = start_log(&folder.join("log"))?;
        let mut gates = Vec::new();
        for policy in Policy::ALL {
            gates.push((policy, start_gate(policy, door, zone.address(), &folder).await?));
        }
        Ok(Self { door, folder, zone, gates, _log: log })
    }

    /// The unix socket of a gate.
    pub(super) fn socket(&self, policy: Policy) -> Endpoint {
        Endpoint::Unix(socket(policy, self.door, &self.folder))
    }

    /// The port of the first gate.
    pub(super) fn port(&self) -> Option<SocketAddr> {
        let (_, daemon) = self.gates.first()?;
        daemon.endpoints().iter().find_map(Endpoint::tcp)
    }

    pub(super) fn dashboard(&self) -> Option<String> {
        let (_, daemon) = self.gates.first()?;
        let address = daemon.admin_endpoints().iter().find_map(Endpoint::tcp)?;
        Some(format!("http://{address}/"))
    }

    pub(super) fn name_server(&self) -> SocketAddr {
        self.zone.address()
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub(super) async fn close(self) {
        let gates = self.gates.into_iter().map(|(_, daemon)| daemon.drain());
        futures_util::future::join_all(gates).await;
        self.zone.stop().await;
    }
}

async fn start_gate(
    policy: Policy,
    door: DoorName,
    zone: SocketAddr,
    folder: &Path,
) -> Result<Daemon, String> {
    let file = folder.join(policy.name()).with_extension("toml");
    let state = folder.join(format!("state-{}", policy.name()));
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("{path}: {error}")
    };
    std::fs::create_dir_all(&state).map_err(failed(&state))?;
    let environment = || [(OsString::from("STATE_DIRECTORY"), state.clone().into_os_string())];
    let mut attempts = 1..=PORT_ATTEMPTS;
    loop {
        std::fs::write(&file, configuration(policy, door, zone, folder)).map_err(failed(&file))?;
        let flags = Flags { drain: DRAIN, ..Flags::default() };
        let loaded = config::load(Some(&file), environment(), &flags);
        let settings = loaded.map_err(|problems| lines(&problems))?.settings;
        match Daemon::start(settings, Vec::new()).await {
            Ok(daemon) => return Ok(daemon),
            // Another program took a port meanwhile.
            Err(StartError::Listen(_)) if attempts.next().is_some() => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn configuration(policy: Policy, door: DoorName, zone: SocketAddr, folder: &Path) -> String {
    let quoted = |text: String| toml::Value::from(text).to_string();
    let mut listen = vec![quoted(Endpoint::Unix(socket(policy, door, folder)).to_string())];
    let mut admin = String::new();
    if policy == Policy::Enforce {
        let port = if door == DoorName::Policy { POLICY_PORT } else { MILTER_PORT };
        listen.push(quoted(loopback(port).to_string()));
        admin = loopback(DASHBOARD).to_string();
    }
    format!(
        r#"# The gate "{mode}" of rmxd demo --door {door}. All other keys have their defaults.
hostname = "mx.demo.test"

[listen]
smtp = []
{door} = [{listen}]
admin = "{admin}"

[policy]
mode = "{mode}"

[policy.mail_from]
matches = "greylist"

[[policy.senders]]
domains = ["demo.test", ".demo.test"]
matches = "reject"

[greylist]
delay = "{delay}"

[dns]
servers = ["{zone}"]
timeout = "2s"
private_addresses = "accept"

[history]
path = {history}

[log]
level = "{LOG_LEVEL}"
"#,
        mode = policy.name(),
        door = door.name(),
        listen = listen.join(", "),
        delay = humantime::format_duration(DELAY),
        history = quoted(folder.join(format!("history-{}", policy.name())).display().to_string()),
    )
}

fn socket(policy: Policy, door: DoorName, folder: &Path) -> PathBuf {
    match policy {
        Policy::Enforce => folder.join(door.name()),
        Policy::Monitor => folder.join(format!("{}-{}", door.name(), policy.name())),
    }
}
