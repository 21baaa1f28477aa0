//! One session of the plan after another, by one of the connections of a run.

mod smtp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::tools::load::ledger::Ledger;
use crate::tools::load::outcome::MessageResult;
use crate::tools::load::plan::{Plan, Session};

#[derive(Debug, Clone)]
pub(super) struct SessionOptions {
    pub(super) target: SocketAddr,
    pub(super) pipelining: bool,
    /// For each reply, and for the connection.
    pub(super) timeout: Duration,
    /// Of messages, with --self.
    pub(super) ledger: Option<Arc<Ledger>>,
}

/// What consecutive sessions share.
#[derive(Debug, Default)]
pub(super) struct Client {
    buffers: smtp::Buffers,
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
        smtp::play(options.target, options, plan, session, &mut self.buffers, began, report).await;
    }
}
