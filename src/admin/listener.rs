//! The connections of the admin server: how long they last, and how large a request may be.
//!
//! The time for a request head is bounded, idle connections included, and so are its octets; the kernel cuts off a peer
//! that doesn't read its response. A request without a permit gets 503. hyper answers what isn't HTTP.

use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::permits::{ConnectionPermit, Connections, Phase, RequestPermit};
use crate::net::Stream;
use crate::net::listener::Registered;

/// For the head of a request, and for the next one to begin.
const HEAD: Duration = Duration::from_secs(10);
/// The head's octets; hyper has 8 KiB as its least.
const HEAD_OCTETS: usize = 16 << 10;
/// How long a connection is used at most.
const LIFE: Duration = Duration::from_secs(300);
/// For the request in work when a connection, or the daemon, ends.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// For a peer that doesn't read.
const STUCK: Duration = Duration::from_secs(30);

const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// The address that a request comes from; 127.0.0.1 by a unix socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Serves connections by HTTP.
#[derive(Debug)]
pub(super) struct Http {
    router: Router,
    connections: Arc<Connections>,
}

impl Http {
    pub(super) fn new(router: Router) -> Self {
        Self { router, connections: Arc::default() }
    }

    /// Serves a listener until `close` is cancelled. Connections that wait in its queue then are dropped.
    pub(super) async fn serve(
        self: Arc<Self>,
        listener: Registered,
        close: CancellationToken,
        tasks: TaskTracker,
    ) {
        let admit = |stream: Stream, peer: std::net::SocketAddr| match self.connections.permit(peer.ip()) {
            Some(permit) => {
                tasks.spawn(Arc::clone(&self).connection(stream, peer.ip(), permit, close.clone()));
            }
            None => {
                tracing::debug!(peer = %peer.ip(), "too many connections to listen.admin");
                // As much as the socket's buffer takes; the client may be slow.
                stream.try_write(FULL).ok();
            }
        };
        listener.accept(&close, admit).await;
    }

    async fn connection(
        self: Arc<Self>,
        stream: Stream,
        peer: IpAddr,
        permit: ConnectionPermit,
        close: CancellationToken,
    ) {
        if let Err(error) = stream.limit_unacknowledged(STUCK) {
            tracing::debug!(%error, "TCP_USER_TIMEOUT");
        }
        let permit = Arc::new(permit);
        let of_connection = Arc::clone(&permit);
        let limited = from_fn(move |request, next| limit_requests(Arc::clone(&of_connection), request, next));
        let router = self.router.clone().layer(Extension(Peer(peer.to_canonical()))).layer(limited);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_OCTETS);
        let service = TowerToHyperService::new(router);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = connection.as_mut() => return log_end(ended),
            () = permit.replaced.notified() => {
                tracing::debug!(%peer, "another connection to listen.admin replaces one without a request");
                return;
            }
            () = sleep(LIFE) => {}
            () = close.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        if let Ok(ended) = timeout(GRACE, connection).await {
            log_end(ended);
        }
    }
}

/// Serves a request if it gets a permit.
async fn limit_requests(permit: Arc<ConnectionPermit>, request: Request, next: Next) -> Response {
    let health = matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics");
    let Some(permit) = RequestPermit::take(permit, if health { Phase::Health } else { Phase::Other }) else {
        let headers = [(RETRY_AFTER, "1"), (CONNECTION, "close")];
        return (StatusCode::SERVICE_UNAVAILABLE, headers).into_response();
    };
    next.run(request).await.map(|body| Body::new(Permitted { body, _permit: permit }))
}

/// A client that left or was silent is no trouble of the operator.
fn log_end(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to listen.admin ended");
    }
}

/// The body of a response, with its permit until hyper has taken it all.
struct Permitted {
    body: Body,
    _permit: RequestPermit,
}

impl HttpBody for Permitted {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
