//! The policy service (contract 7.3): Postfix has the client, asks for a verdict on helo, ptr and mail_from, and carries it
//! out.
//!
//! A connection of Postfix outlives sessions of SMTP and reloads, so that each transaction begins under the settings in
//! effect. At the end an idle connection is closed with the listeners, as at the SMTP door: Postfix then connects again,
//! a second later, and finds the next daemon; a connection that is held to the end of the drain time would keep that
//! daemon from starting.

mod connection;
mod dialogue;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::door::Door;
use crate::door::policy::connection::Connection;
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::net::Stream;

/// What all connections share.
#[derive(Debug, Clone)]
pub struct PolicyDoor {
    /// Makes the decisions, by the settings in effect.
    gate: watch::Receiver<Arc<Gate>>,
    /// Counts panics.
    metrics: Metrics,
}

impl PolicyDoor {
    /// A door that judges by the gate that is current when a transaction begins.
    #[must_use]
    pub fn new(gate: watch::Receiver<Arc<Gate>>, metrics: Metrics) -> Self {
        Self { gate, metrics }
    }

    /// Answers requests until Postfix closes the connection, sends something else, or is silent for an hour. After `stop` is
    /// cancelled, a request that has come is answered first.
    pub async fn serve<S>(&self, stream: S, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        Connection::new(stream, self.clone(), stop).serve().await;
    }
}

impl Door for PolicyDoor {
    fn serve(
        &self,
        stream: Stream,
        _peer: SocketAddr,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send {
        Self::serve(self, stream, stop)
    }

    /// The protocol has no answer without a request: Postfix does what its `default_action` says.
    fn refuse(&self, stream: Stream, _why: &str) -> impl Future<Output = ()> + Send {
        drop(stream);
        std::future::ready(())
    }
}
