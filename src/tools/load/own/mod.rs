//! `--self`: a name server with generated senders, a sink, and between them a daemon as a child process. A milter and a
//! policy service have no sink behind them: there the daemon's own counters are compared.
//!
//! The daemon is a process of its own, so that its memory and processor time can be measured. It is ended by its id, however
//! the run ends, and has its own process group: Ctrl-C goes to the run only, which then ends the daemon.

mod daemon;
mod outcomes;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::console::folder::Folder;
use crate::net::{Endpoint, Purpose};
use crate::policy::door::DoorName;
use crate::tools::load::client::Target;
use crate::tools::load::ledger::Ledger;
use crate::tools::load::own::daemon::Daemon;
pub(super) use crate::tools::load::own::outcomes::Outcomes;
use crate::tools::load::sink::Sink;
use crate::zone::{Server, Zone};

pub(super) const RECIPIENT: &str = "load@load.test";

/// For the daemon to count the last messages, and the time between two looks.
const COUNTED: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);

pub(super) struct Own {
    pub(super) target: Target,
    /// Of the door for SMTP.
    pub(super) ledger: Option<Arc<Ledger>>,
    daemon: Daemon,
    zone: Server,
    _sink: Option<Sink>,
    _folder: Folder,
}

impl Own {
    /// With this many valid domains, for this many connections; `set` goes to the daemon as `--set`.
    ///
    /// # Errors
    /// What can't be started, and why.
    pub(super) async fn start(
        door: DoorName,
        domains: u32,
        connections: usize,
        set: &[String],
    ) -> Result<Self, String> {
        let folder = Folder::new("load", None)?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let zone = Server::start(loopback, Zone::generated(domains)).await;
        let zone = zone.map_err(|error| format!("the name server: {error}"))?;
        let (mut ledger, mut sink) = (None, None);
        if door == DoorName::Smtp {
            let of_sink = Arc::clone(ledger.insert(Arc::new(Ledger::default())));
            sink = Some(Sink::start(of_sink).await.map_err(|error| format!("the sink: {error}"))?);
        }
        let paths = paths(door, sink.as_ref().map(Sink::address), folder.path());
        let configuration = configuration(&paths, zone.address(), connections);
        let mut daemon = Daemon::spawn(&folder, &configuration, set)?;
        let purpose = match door {
            DoorName::Smtp => Purpose::Smtp,
            DoorName::Milter => Purpose::Milter,
            DoorName::Policy => Purpose::Policy,
        };
        let target = match (door, daemon.listening(purpose).await?) {
            (DoorName::Smtp, Endpoint::Tcp(address)) => Target::Smtp(address),
            (DoorName::Policy, endpoint) => Target::Policy(endpoint),
            (DoorName::Milter | DoorName::Smtp, endpoint) => Target::Milter(endpoint),
        };
        Ok(Self { target, ledger, daemon, zone, _sink: sink, _folder: folder })
    }

    pub(super) fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// DNS queries at the name server.
    pub(super) fn questions(&self) -> u64 {
        self.zone.questions().total
    }

    /// What the daemon counted, once it has counted so many messages, or after a while without.
    ///
    /// # Errors
    /// The metrics can't be read.
    pub(super) async fn outcomes(&self, messages: u64) -> Result<Outcomes, String> {
        let admin = self.daemon.admin().ok_or("the daemon has no metrics: listen.admin is not set")?;
        let began = Instant::now();
        loop {
            let outcomes = Outcomes::read(&admin, self.target.door()).await?;
            if outcomes.total() >= messages || began.elapsed() > COUNTED {
                return Ok(outcomes);
            }
            sleep(POLL).await;
        }
    }

    /// # Errors
    /// The daemon didn't end with success; the text has the end of its log.
    pub(super) async fn stop(mut self) -> Result<(), String> {
        let ended = self.daemon.stop().await;
        self.zone.stop().await;
        ended
    }
}

/// The part of the configuration about the way of the messages.
fn paths(door: DoorName, sink: Option<SocketAddr>, folder: &Path) -> String {
    let Some(sink) = sink else {
        let socket = |name: &str| toml::Value::from(format!("unix:{}", folder.join(name).display()));
        let (name, socket, admin) = (door.name(), socket(door.name()), socket("admin"));
        return format!("[listen]\nsmtp = []\n{name} = [{socket}]\nadmin = {admin}\n");
    };
    format!(
        r#"[listen]
smtp = ["127.0.0.1:0"]
admin = ""

[relay]
next_hop = "smtp://{sink}"
identity = "none"
domains = ["load.test"]
"#
    )
}

/// Strict enough that each class of senders has one verdict. Without `--set`, decisions are neither logged nor kept: otherwise
/// the run would measure the disk.
fn configuration(paths: &str, zone: SocketAddr, connections: usize) -> String {
    let connections = connections.saturating_add(100);
    format!(
        r#"hostname = "mx.load.test"

{paths}
[policy]
exists_by = ["mx"]
matches_by = ["mx"]

[policy.helo]
exists = "reject"

[policy.reply_to]
exists = "reject"

[policy.mail_from]
matches = "reject"

[dns]
servers = ["{zone}"]
private_addresses = "accept"

[limits]
connections = {connections}
connections_per_client = {connections}

[history]
path = ""

[log]
format = "json"
level = "warn,rmxd::cli::serve=info"
"#
    )
}
