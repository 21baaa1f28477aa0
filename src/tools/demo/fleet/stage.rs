//! The parts of the tour of a fleet: a folder, the name server, Redis, and two gates with one Maildir behind them.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::admin::Client;
use crate::config::{self, Flags};
use crate::console::folder::Folder;
use crate::daemon::{Daemon, StartError};
use crate::log::Log;
use crate::net::Endpoint;
use crate::tools::demo::fleet::server::{self, Redis};
use crate::tools::demo::stage::{DASHBOARD, DRAIN, LOG_LEVEL, PORT, PORT_ATTEMPTS, lines, start_log};
use crate::zone::{Server, Zone};

/// `greylist.delay`, and a little more.
pub(super) const DELAY: Duration = Duration::from_secs(3);
pub(super) const OVER: Duration = Duration::from_millis(3100);

pub(in crate::tools::demo) struct Stage {
    pub(super) folder: PathBuf,
    pub(super) token: String,
    zone: Server,
    pub(super) gates: [Gate; 2],
    // Ends after the gates.
    redis: Mutex<Redis>,
    _log: Log,
}

pub(super) struct Gate {
    /// Its number in the fleet.
    pub(super) node: u8,
    daemon: Daemon,
}

impl Gate {
    pub(super) fn smtp(&self) -> Option<SocketAddr> {
        self.daemon.endpoints().iter().find_map(Endpoint::tcp)
    }

    pub(super) fn dashboard(&self) -> String {
        let address = self.daemon.admin_endpoints().iter().find_map(Endpoint::tcp);
        address.map(|address| format!("http://{address}/")).unwrap_or_default()
    }

    /// Of its API.
    pub(super) fn client(&self) -> Option<Client> {
        Client::new(&self.daemon.settings().admin)
    }

    /// Its name on the page.
    pub(super) fn name(&self) -> String {
        format!("gate {}", self.node)
    }

    /// The name of its configuration file.
    pub(super) fn file(&self) -> String {
        file_name(self.node)
    }
}

impl Stage {
    /// # Errors
    /// The part that can't be started, and why.
    pub(super) async fn open(folder: &Folder, program: PathBuf) -> Result<Self, String> {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let zone = Server::start(loopback, Zone::sample()).await;
        let zone = zone.map_err(|error| format!("the name server: {error}"))?;
        let folder = folder.path().to_path_buf();
        let log = start_log(&folder.join("log"))?;
        let redis = Redis::start(program, &folder).await?;
        let token = random_hex();
        let secret = folder.join("secret");
        std::fs::write(&secret, random_hex()).map_err(|error| format!("{}: {error}", secret.display()))?;
        let parts = Parts { folder: &folder, zone: zone.address(), token: &token };
        let gates = [start_gate(1, &parts).await?, start_gate(2, &parts).await?];
        Ok(Self { folder, token, zone, gates, redis: Mutex::new(redis), _log: log })
    }

    pub(super) fn name_server(&self) -> SocketAddr {
        self.zone.address()
    }

    pub(super) fn redis(&self) -> MutexGuard<'_, Redis> {
        self.redis.lock().unwrap_or_else(PoisonError::into_inner)
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

/// What the gates have in common.
struct Parts<'a> {
    folder: &'a Path,
    zone: SocketAddr,
    token: &'a str,
}

async fn start_gate(node: u8, parts: &Parts<'_>) -> Result<Gate, String> {
    let file = parts.folder.join(file_name(node));
    let state = parts.folder.join(format!("state-{node}"));
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("{path}: {error}")
    };
    std::fs::create_dir_all(&state).map_err(failed(&state))?;
    let environment = || [(OsString::from("STATE_DIRECTORY"), state.clone().into_os_string())];
    let mut attempts = 1..=PORT_ATTEMPTS;
    loop {
        let port = |first: u16| free(first.saturating_add(u16::from(node) - 1));
        let (smtp, admin) = (port(PORT), port(DASHBOARD));
        let (smtp, admin) = smtp
            .and_then(|smtp| Ok((smtp, admin?)))
            .map_err(|error| format!("no port to listen on: {error}"))?;
        std::fs::write(&file, configuration(node, smtp, admin, parts)).map_err(failed(&file))?;
        let flags = Flags { drain: DRAIN, ..Flags::default() };
        let loaded = config::load(Some(&file), environment(), &flags);
        let settings = loaded.map_err(|problems| lines(&problems))?.settings;
        match Daemon::start(settings, Vec::new()).await {
            Ok(daemon) => return Ok(Gate { node, daemon }),
            // Another program took a port meanwhile.
            Err(StartError::Listen(_)) if attempts.next().is_some() => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// This port if it is free, otherwise another: the gates name them to each other, so that it can't be 0.
fn free(port: u16) -> std::io::Result<SocketAddr> {
    let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr();
    bind(port).or_else(|_taken| bind(0))
}

fn configuration(node: u8, smtp: SocketAddr, admin: SocketAddr, parts: &Parts<'_>) -> String {
    let Parts { folder, zone, token } = parts;
    let quoted = |text: String| toml::Value::from(text).to_string();
    let place = |name: &str| quoted(folder.join(name).display().to_string());
    format!(
        r#"# Gate {node} of rmxd demo --fleet. All other keys have their defaults.
hostname = "gate{node}.demo.test"

[listen]
smtp = ["{smtp}"]
admin = "{admin}"

[admin]
token = "{token}"

[relay]
next_hop = {next_hop}
domains = ["demo.test"]

[policy.mail_from]
matches = "greylist"

[greylist]
delay = "{delay}"

[cluster]
redis = {redis}
node = {node}
secret = {secret}
advertise = "http://{admin}"

[dns]
servers = ["{zone}"]
timeout = "2s"
private_addresses = "accept"

[history]
path = {history}

[log]
level = "{LOG_LEVEL}"
"#,
        next_hop = quoted(format!("maildir:{}", maildir(folder).display())),
        delay = humantime::format_duration(DELAY),
        redis = quoted(format!("redis+unix:{}", server::socket(folder).display())),
        secret = place("secret"),
        history = place(&format!("history-{node}")),
    )
}

fn file_name(node: u8) -> String {
    format!("gate{node}.toml")
}

fn maildir(folder: &Path) -> PathBuf {
    folder.join("mail")
}

/// 32 octets.
fn random_hex() -> String {
    let octets: [u8; 32] = rand::random();
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
