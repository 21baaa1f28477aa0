//! One session of the plan after another, by one of the connections of a run.

mod failure;
mod milter;
mod policy;
mod smtp;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::net::Endpoint;
use crate::policy::door::DoorName;
use crate::tools::load::ledger::Ledger;
use crate::tools::load::outcome::MessageResult;
use crate::tools::load::plan::{Plan, Session};

/// The gate to test, by its door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Smtp(SocketAddr),
    Milter(Endpoint),
    Policy(Endpoint),
}

impl Target {
    pub(super) fn door(&self) -> DoorName {
        match self {
            Self::Smtp(_) => DoorName::Smtp,
            Self::Milter(_) => DoorName::Milter,
            Self::Policy(_) => DoorName::Policy,
        }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        match self {
            Self::Smtp(address) => Endpoint::Tcp(*address),
            Self::Milter(endpoint) | Self::Policy(endpoint) => endpoint.clone(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint().fmt(f)
    }
}

#[derive(Debug, Clone)]
pub(super) struct SessionOptions {
    pub(super) target: Target,
    pub(super) pipelining: bool,
    /// For each reply, and for the connection.
    pub(super) timeout: Duration,
    /// Of messages, with --self and a sink.
    pub(super) ledger: Option<Arc<Ledger>>,
}

/// What consecutive sessions share.
#[derive(Debug, Default)]
pub(super) struct Client {
    buffers: smtp::Buffers,
    policy: policy::Kept,
}

impl Client {
    /// Plays a session; `began` is the time at which it was due. Calls `report` for each message.
    pub(super) async fn play(
        &mut self,
        options: &SessionOptions,
        plan: &Plan,
        session: &Session<'_>,
        began: Instant,
        report: impl FnMut(MessageResult),
    ) {
        match &options.target {
            Target::Smtp(target) => {
                smtp::play(*target, options, plan, session, &mut self.buffers, began, report).await;
            }
            Target::Milter(target) => milter::play(target, options, plan, session, began, report).await,
            Target::Policy(target) => {
                policy::play(target, options, plan, session, &mut self.policy, began, report).await;
            }
        }
    }
}

/// Ports above the privileged ones.
const PORTS: u64 = 64_000;

/// The client of a session as the mail server names it; the port tells one session from another.
fn client_of(session: &Session<'_>) -> SocketAddr {
    let address = session.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let port = u16::try_from(1024 + session.number % PORTS).unwrap_or(1024);
    SocketAddr::new(address, port)
}

/// `load@` and the sender's domain.
fn sender_of(session: &Session<'_>) -> String {
    let mut sender = b"load@".to_vec();
    session.sender.domain.write(session.name, &mut sender);
    String::from_utf8_lossy(&sender).into_owned()
}

fn helo_of(session: &Session<'_>) -> String {
    let mut helo = Vec::new();
    session.sender.helo.write(session.name, &mut helo);
    String::from_utf8_lossy(&helo).into_owned()
}
