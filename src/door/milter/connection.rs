//! One milter connection: octets to events, and the answers to all events of one read in one write.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::door::milter::MilterDoor;
use crate::door::milter::dialogue::{Dialogue, Next, OutOfOrder};
use crate::milter::{BadLength, Event, Malformed, Packet};
use crate::net::catch_panic::catch_panic;

/// For the next event; Postfix waits for its client for up to 5 minutes, and a client may go on for long.
const IDLE: Duration = Duration::from_secs(2 * 3600);
/// For the mail server to take the answers.
const TAKING: Duration = Duration::from_secs(300);
/// After the daemon was asked to end, for a session between two messages.
const LAST: Duration = Duration::from_secs(3);
/// Octets of one read. Most packets of a body are of 64 KiB.
const READ: usize = 16 * 1024;
/// Answers are written when so many octets wait, if not before.
const MOST_ANSWERS: usize = 64 * 1024;

pub(super) struct Connection<S> {
    stream: S,
    input: BytesMut,
    answers: Vec<u8>,
    dialogue: Dialogue,
    door: MilterDoor,
    stop: CancellationToken,
}

/// Why a connection ends.
enum Ended {
    /// The mail server ended the session or closed the connection.
    Gone,
    /// Nothing came for two hours, or nothing was taken.
    Idle,
    /// The daemon ends.
    Stopping,
    /// The peer breaks the protocol.
    Broken(Broken),
    Lost(io::Error),
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Length(#[from] BadLength),
    #[error(transparent)]
    Packet(#[from] Malformed),
    #[error(transparent)]
    Order(#[from] OutOfOrder),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    pub(super) fn new(stream: S, door: MilterDoor, stop: CancellationToken) -> Self {
        let dialogue = Dialogue::new(door.clone());
        Self { stream, input: BytesMut::new(), answers: Vec::new(), dialogue, door, stop }
    }

    pub(super) async fn serve(mut self) {
        match self.run().await {
            Ended::Gone | Ended::Stopping => {}
            Ended::Idle => {
                tracing::debug!(target: "rmxd::door", door = "milter", "closed, silent for two hours");
            }
            Ended::Broken(error) => {
                tracing::warn!(target: "rmxd::door", door = "milter", %error, "closed: not the milter protocol");
            }
            Ended::Lost(error) => {
                tracing::debug!(target: "rmxd::door", door = "milter", %error, "the connection broke");
            }
        }
    }

    async fn run(&mut self) -> Ended {
        loop {
            let served = self.answer().await;
            // What came before a fault has its answer.
            let flushed = self.flush().await;
            if let Err(ended) = served.and(flushed) {
                return ended;
            }
            if let Err(ended) = self.more().await {
                return ended;
            }
        }
    }

    /// Carries out each event that has come whole.
    async fn answer(&mut self) -> Result<(), Ended> {
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_ref();
        let mut result = Ok(());
        while let Some((packet, length)) = match Packet::first(rest) {
            Ok(found) => found,
            Err(error) => {
                result = Err(Ended::Broken(error.into()));
                None
            }
        } {
            rest = rest.get(length..).unwrap_or_default();
            result = self.event(packet).await;
            if result.is_err() {
                break;
            }
        }
        let taken = input.len() - rest.len();
        self.input = input;
        self.input.advance(taken);
        result
    }

    async fn event(&mut self, packet: Packet<'_>) -> Result<(), Ended> {
        let event = Event::parse(packet).map_err(|error| Ended::Broken(error.into()))?;
        let before = self.answers.len();
        // Boxed: the future of a panic's guard would hold the event's on the stack of each.
        let carried_out = catch_panic(Box::pin(self.dialogue.take(&event, &mut self.answers))).await;
        match carried_out {
            Ok(Ok(Next::Event)) => {}
            Ok(Ok(Next::End)) => return Err(Ended::Gone),
            Ok(Err(error)) => return Err(Ended::Broken(error.into())),
            Err(panic) => {
                let count = self.door.metrics.panic();
                tracing::error!(target: "rmxd::door", door = "milter", panic, count, "a step ended in a panic");
                self.answers.truncate(before);
                self.dialogue.fail(&event, &mut self.answers);
            }
        }
        if self.answers.len() >= MOST_ANSWERS { self.flush().await } else { Ok(()) }
    }

    /// Waits for more octets, or for the end of the daemon between two messages.
    async fn more(&mut self) -> Result<(), Ended> {
        let is_between = self.input.is_empty() && !self.dialogue.is_open();
        if self.input.is_empty() {
            self.input = BytesMut::new(); // an idle connection holds no memory
        }
        let until = Instant::now() + IDLE;
        self.input.reserve(READ);
        let read = tokio::select! {
            biased;
            read = timeout_at(until, self.stream.read_buf(&mut self.input)) => read,
            () = stopped(&self.stop), if is_between => return Err(Ended::Stopping),
        };
        match read {
            Ok(Ok(0)) => Err(Ended::Gone),
            Ok(Ok(_octets)) => Ok(()),
            Ok(Err(error)) => Err(Ended::Lost(error)),
            Err(_elapsed) => Err(Ended::Idle),
        }
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        if self.answers.is_empty() {
            return Ok(());
        }
        match timeout(TAKING, self.stream.write_all(&self.answers)).await {
            Ok(Ok(())) => {
                self.answers = Vec::new();
                Ok(())
            }
            Ok(Err(error)) => Err(Ended::Lost(error)),
            Err(_elapsed) => Err(Ended::Idle),
        }
    }
}

/// The next message of a session that is under way finds its door; a session that only waits is given up.
async fn stopped(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LAST).await;
}
