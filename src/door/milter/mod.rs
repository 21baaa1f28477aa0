//! The milter door (contract 7.2): Postfix or Sendmail has the client, reports each step of the session, and carries out
//! the verdict.
//!
//! One connection is one SMTP session, under the settings with which it began. What goes wrong here is answered with a
//! temporary failure: a closed connection would leave the rest of the session to the mail server's `default_action`. Only
//! a peer that breaks the protocol is closed.

mod client;
mod connection;
mod dialogue;
mod edits;
mod settings;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::door::Door;
use crate::door::milter::connection::Connection;
pub use crate::door::milter::settings::{Results, Settings};
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::net::Stream;
use crate::policy::rule::{Action, Rung};
use crate::smtp::address::DomainName;

/// What all connections share.
#[derive(Debug, Clone)]
pub struct MilterDoor {
    pub settings: Settings,
    /// The name in our results (RFC 8601 2.5).
    pub hostname: DomainName,
    /// Largest header block in octets.
    pub header_block: usize,
    /// Makes the decisions.
    pub gate: Arc<Gate>,
    /// Counts panics.
    pub metrics: Metrics,
}

impl MilterDoor {
    /// Whether a DKIM signature can count under the policy, so that the body is needed.
    fn needs_body(&self) -> bool {
        self.gate.policy().all_rules().any(|rules| match rules.matches {
            Action::Off => false,
            Action::Dmarc => true,
            Action::Tag | Action::Greylist | Action::Defer | Action::Reject => {
                rules.matches_by.contains(&Rung::Dkim)
            }
        })
    }

    /// Serves one session until the mail server ends it, breaks the protocol, or is silent for two hours. After `stop` is
    /// cancelled, it ends when it is silent for a moment between two messages.
    pub async fn serve<S>(&self, stream: S, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        Connection::new(stream, self.clone(), stop).serve().await;
    }
}

impl Door for MilterDoor {
    fn serve(
        &self,
        stream: Stream,
        _peer: SocketAddr,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send {
        Self::serve(self, stream, stop)
    }

    /// The protocol has no answer without an event: the mail server does what its `default_action` says.
    fn refuse(&self, stream: Stream, _why: &str) -> impl Future<Output = ()> + Send {
        drop(stream);
        std::future::ready(())
    }
}
