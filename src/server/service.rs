//! A door, as the server serves it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::door::Door;
use crate::net::catch_panic::catch_panic;
use crate::net::permit::ConnectionPermit;
use crate::net::{Purpose, Stream};
use crate::server::Shared;

#[derive(Debug, Clone)]
pub struct Service {
    pub(super) purpose: Purpose,
    pub(super) door: Arc<dyn AnyDoor>,
}

impl Service {
    pub fn new(purpose: Purpose, door: impl Door) -> Self {
        Self { purpose, door: Arc::new(door) }
    }
}

/// A [`Door`] of any kind. The future of a connection is part of its task, not boxed: the size of that task is the cost
/// of an idle client.
pub(super) trait AnyDoor: fmt::Debug + Send + Sync {
    fn serve(
        self: Arc<Self>,
        server: Arc<Shared>,
        stream: Stream,
        client: SocketAddr,
        permit: ConnectionPermit,
        stop: CancellationToken,
    );

    fn refuse(
        self: Arc<Self>,
        server: &Shared,
        stream: Stream,
        why: &'static str,
        permit: OwnedSemaphorePermit,
    );
}

impl<D: Door> AnyDoor for D {
    fn serve(
        self: Arc<Self>,
        server: Arc<Shared>,
        stream: Stream,
        client: SocketAddr,
        permit: ConnectionPermit,
        stop: CancellationToken,
    ) {
        let connections = server.connections.clone();
        connections.spawn(connection(self, server, stream, client, permit, stop));
    }

    fn refuse(
        self: Arc<Self>,
        server: &Shared,
        stream: Stream,
        why: &'static str,
        permit: OwnedSemaphorePermit,
    ) {
        server.connections.spawn(async move {
            Door::refuse(&*self, stream, why).await;
            drop(permit);
        });
    }
}

pub(super) async fn connection<D: Door>(
    door: Arc<D>,
    server: Arc<Shared>,
    stream: Stream,
    client: SocketAddr,
    _permit: ConnectionPermit,
    stop: CancellationToken,
) {
    if let Err(panic) = catch_panic(Door::serve(&*door, stream, client, stop)).await {
        let count = server.metrics.panic();
        tracing::error!(%client, panic, count, "a connection ended in a panic");
    }
}
