//! `--self`: a name server with generated senders, a sink, and between them a daemon as a child process.
//!
//! The daemon is a process of its own, so that its memory and processor time can be measured. It is ended by its id, however
//! the run ends, and has its own process group: Ctrl-C goes to the run only, which then ends the daemon.

mod daemon;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::console::folder::Folder;
use crate::tools::load::ledger::Ledger;
use crate::tools::load::own::daemon::Daemon;
use crate::tools::load::sink::Sink;
use crate::zone::{Server, Zone};

pub(super) const RECIPIENT: &str = "load@load.test";

pub(super) struct Own {
    pub(super) address: SocketAddr,
    pub(super) ledger: Arc<Ledger>,
    daemon: Daemon,
    zone: Server,
    _sink: Sink,
    _folder: Folder,
}

impl Own {
    /// With this many valid domains, for this many connections; `set` goes to the daemon as `--set`.
    ///
    /// # Errors
    /// What can't be started, and why.
    pub(super) async fn start(domains: u32, connections: usize, set: &[String]) -> Result<Self, String> {
        let folder = Folder::new("load", None)?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let zone = Server::start(loopback, Zone::generated(domains)).await;
        let zone = zone.map_err(|error| format!("the name server: {error}"))?;
        let ledger = Arc::new(Ledger::default());
        let sink = Sink::start(Arc::clone(&ledger)).await.map_err(|error| format!("the sink: {error}"))?;
        let configuration = configuration(zone.address(), sink.address(), connections);
        let daemon = Daemon::spawn(&folder, &configuration, set)?;
        let mut own = Self { address: loopback, ledger, daemon, zone, _sink: sink, _folder: folder };
        own.address = own.daemon.listening().await?;
        Ok(own)
    }

    pub(super) fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// DNS queries at the name server.
    pub(super) fn questions(&self) -> u64 {
        self.zone.questions().total
    }

    /// # Errors
    /// The daemon didn't end with success; the text has the end of its log.
    pub(super) async fn stop(mut self) -> Result<(), String> {
        let ended = self.daemon.stop().await;
        self.zone.stop().await;
        ended
    }
}

/// Strict enough that each class of senders has one verdict. Without `--set`, decisions are neither logged nor kept: otherwise
/// the run would measure the disk.
fn configuration(zone: SocketAddr, sink: SocketAddr, connections: usize) -> String {
    let connections = connections.saturating_add(100);
    format!(
        r#"hostname = "mx.load.test"

[listen]
smtp = ["127.0.0.1:0"]
admin = ""

[relay]
next_hop = "smtp://{sink}"
identity = "none"
domains = ["load.test"]

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
