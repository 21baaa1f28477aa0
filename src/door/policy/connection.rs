//! One connection of Postfix: octets to requests, and answers in the same order.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::delegation::{Malformed, Reader};
use crate::door::policy::PolicyDoor;
use crate::door::policy::dialogue::Dialogue;
use crate::metrics::Metrics;
use crate::net::catch_panic::catch_panic;

/// For the next request, whole, and for Postfix to take the answers. Postfix closes after 300 s by default.
const IDLE: Duration = Duration::from_secs(3600);
/// After the last request about a message, until its outcome is recorded.
const QUIET: Duration = Duration::from_secs(10);
/// Octets of one read.
const READ: usize = 4096;
/// Answers are written when so many octets wait, if not before.
const MOST_ANSWERS: usize = 16 * 1024;

pub(super) struct Connection<S> {
    stream: S,
    reader: Reader,
    input: BytesMut,
    answers: Vec<u8>,
    dialogue: Dialogue,
    metrics: Metrics,
    stop: CancellationToken,
}

/// Why a connection ends.
enum Ended {
    /// Postfix closed it.
    Gone,
    /// Nothing came, or nothing was taken, for an hour.
    Idle,
    /// The daemon ends.
    Stopping,
    /// This is no policy client.
    Malformed(Malformed),
    Broken(io::Error),
}

/// What happened while nothing was there to be answered.
enum Waited {
    Read,
    Quiet,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    pub(super) fn new(stream: S, door: PolicyDoor, stop: CancellationToken) -> Self {
        let (reader, input, answers) = (Reader::default(), BytesMut::new(), Vec::new());
        let PolicyDoor { gate, metrics } = door;
        Self { stream, reader, input, answers, dialogue: Dialogue::new(gate), metrics, stop }
    }

    pub(super) async fn serve(mut self) {
        match self.run().await {
            Ended::Gone | Ended::Stopping => {}
            Ended::Idle => {
                tracing::debug!(target: "rmxd::door", door = "policy", "closed, silent for an hour")
            }
            Ended::Malformed(error) => {
                tracing::warn!(target: "rmxd::door", door = "policy", %error, "closed: not a request of Postfix");
            }
            Ended::Broken(error) => {
                tracing::debug!(target: "rmxd::door", door = "policy", %error, "the connection broke");
            }
        }
    }

    async fn run(&mut self) -> Ended {
        let mut until = Instant::now() + IDLE;
        loop {
            let served = self.answer().await;
            // What was asked before a fault has its answer.
            let flushed = self.flush().await;
            match flushed.and(served) {
                Ok(false) => {} // octets one by one don't prolong the time
                Ok(true) => until = Instant::now() + IDLE,
                Err(ended) => return ended,
            }
            if let Err(ended) = self.wait(until).await {
                return ended;
            }
        }
    }

    /// Answers each request that has come whole; true if there was one.
    async fn answer(&mut self) -> Result<bool, Ended> {
        let mut any = false;
        loop {
            let (request, length) = match self.reader.next(&self.input) {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(any),
                Err(error) => {
                    // A closed connection alone would leave the message to Postfix's default_action.
                    self.dialogue.fail(&mut self.answers);
                    return Err(Ended::Malformed(error));
                }
            };
            any = true;
            let before = self.answers.len();
            // Boxed: the future of a panic's guard would hold the answer's on the stack of each.
            let answered = catch_panic(Box::pin(self.dialogue.answer(&request, &mut self.answers))).await;
            if let Err(panic) = answered {
                let count = self.metrics.panic();
                tracing::error!(target: "rmxd::door", door = "policy", panic, count, "an answer ended in a panic");
                self.answers.truncate(before);
                self.dialogue.fail(&mut self.answers);
            }
            self.input.advance(length);
            if self.answers.len() >= MOST_ANSWERS {
                self.flush().await?;
            }
        }
    }

    /// Waits until a request may be whole, or the daemon ends while none has begun.
    async fn wait(&mut self, until: Instant) -> Result<(), Ended> {
        while let Waited::Quiet = self.more(until).await? {
            self.dialogue.settle();
        }
        Ok(())
    }

    async fn more(&mut self, until: Instant) -> Result<Waited, Ended> {
        let is_between = self.input.is_empty();
        if is_between {
            self.input = BytesMut::new(); // an idle connection holds no memory
        }
        self.input.reserve(READ);
        let quiet = self.dialogue.is_open().then(|| Instant::now() + QUIET).filter(|quiet| *quiet < until);
        let read = tokio::select! {
            biased;
            read = timeout_at(quiet.unwrap_or(until), self.stream.read_buf(&mut self.input)) => read,
            () = self.stop.cancelled(), if is_between => return Err(Ended::Stopping),
        };
        match read {
            Ok(Ok(0)) => Err(Ended::Gone),
            Ok(Ok(_octets)) => Ok(Waited::Read),
            Ok(Err(error)) => Err(Ended::Broken(error)),
            Err(_elapsed) if quiet.is_some() => Ok(Waited::Quiet),
            Err(_elapsed) => Err(Ended::Idle),
        }
    }

    /// Writes the answers, all of one read at one time.
    async fn flush(&mut self) -> Result<(), Ended> {
        if self.answers.is_empty() {
            return Ok(());
        }
        match timeout(IDLE, self.stream.write_all(&self.answers)).await {
            Ok(Ok(())) => {
                self.answers = Vec::new();
                Ok(())
            }
            Ok(Err(error)) => Err(Ended::Broken(error)),
            Err(_elapsed) => Err(Ended::Idle),
        }
    }
}
