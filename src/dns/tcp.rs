//! Questions over TCP (RFC 7766): a few connections to one server, each with many questions on it.
//!
//! A question takes a connection that has nothing to do, else a new one, else the one with the fewest questions. A
//! connection without any message while a question waited is dropped; the questions on it are asked again on another. So are
//! those whose connection the server closed after an answer. A question on a connection that was used
//! before waits half of its time for it, so that a dead one costs no answer.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::dns::packet::Packet;
use crate::dns::unreached;
use crate::evidence::DnsFailure;

/// Connections to one server: fewer than unbound takes by default, which is 10.
const MAX_CONNECTIONS: usize = 8;
/// How long a connection without a question is kept.
const IDLE: Duration = Duration::from_secs(10);
/// How often an id is drawn that no other question on the connection has.
const ID_DRAWS: usize = 16;

/// The connections to one server.
#[derive(Debug)]
pub(super) struct Tcp {
    server: SocketAddr,
    connections: Mutex<Vec<Arc<Connection>>>,
}

#[derive(Debug)]
struct Connection {
    frames: mpsc::UnboundedSender<Vec<u8>>,
    state: Mutex<State>,
    retired: Notify,
}

#[derive(Debug)]
struct State {
    waiting: HashMap<u16, oneshot::Sender<Vec<u8>>>,
    /// When the latest message came.
    last_received: Option<Instant>,
    used: Instant,
    end: Option<End>,
}

/// Why a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It couldn't be made, or the server closed it before any answer.
    Useless(DnsFailure),
    /// The server closed it after an answer.
    Closed,
    /// It was silent for too long, or had nothing to do.
    Retired,
}

/// Why a question has no answer yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unanswered {
    /// Nothing came on the connection while it waited.
    Silence,
    /// Others were answered meanwhile: it is the question that takes long.
    Late,
    Ended(End),
}

impl Tcp {
    pub(super) fn new(server: SocketAddr) -> Self {
        Self { server, connections: Mutex::default() }
    }

    /// Asks, until then at the latest.
    pub(super) async fn ask(&self, packet: &Packet, until: Instant) -> Result<Vec<u8>, DnsFailure> {
        let mut was_silent = false;
        while Instant::now() < until {
            let connection = self.connection(was_silent);
            match connection.exchange(packet, was_silent, until).await {
                Ok(message) if packet.is_answered_by(&message) => return Ok(message),
                Ok(_) => {
                    connection.retire();
                    return Err(DnsFailure::Broken);
                }
                Err(Unanswered::Ended(End::Useless(failure))) => return Err(failure),
                Err(Unanswered::Late) => break,
                Err(Unanswered::Silence) => was_silent = true,
                Err(Unanswered::Ended(End::Closed | End::Retired)) => {}
            }
        }
        Err(DnsFailure::Timeout)
    }

    /// One for the next question, a new one if that is wanted and there may be more.
    fn connection(&self, new: bool) -> Arc<Connection> {
        let mut connections = locked(&self.connections);
        connections.retain(|connection| connection.state().end.is_none());
        let load = |connection: &Arc<Connection>| connection.state().waiting.len();
        let calmest = connections.iter().min_by_key(|connection| load(connection));
        match calmest {
            Some(calmest) if connections.len() >= MAX_CONNECTIONS || !new && load(calmest) == 0 => {
                Arc::clone(calmest)
            }
            Some(_) | None => {
                let connection = Connection::open(self.server);
                connections.push(Arc::clone(&connection));
                connection
            }
        }
    }
}

impl Connection {
    fn open(server: SocketAddr) -> Arc<Self> {
        let (frames, to_send) = mpsc::unbounded_channel();
        let state = State { waiting: HashMap::new(), last_received: None, used: Instant::now(), end: None };
        let connection = Arc::new(Self { frames, state: Mutex::new(state), retired: Notify::new() });
        let driven = Arc::clone(&connection);
        tokio::spawn(async move {
            let end = tokio::select! {
                (error, failure) = driven.run(server, to_send) => {
                    tracing::debug!(%server, %error, "a DNS connection over TCP has ended");
                    if driven.state().last_received.is_some() { End::Closed } else { End::Useless(failure) }
                }
                () = driven.until_idle() => End::Retired,
                () = driven.retired.notified() => End::Retired,
            };
            driven.end(end);
        });
        connection
    }

    /// One question. It waits half of its time for a connection that was used before, unless it has done so already.
    async fn exchange(
        &self,
        packet: &Packet,
        was_silent: bool,
        until: Instant,
    ) -> Result<Vec<u8>, Unanswered> {
        let sent = Instant::now();
        let mut waiting = self.send(packet).map_err(Unanswered::Ended)?;
        let doubtful = waiting.was_used && !was_silent;
        let patience = if doubtful { sent + (until - sent) / 2 } else { until };
        for end in [patience, until] {
            match timeout_at(end, &mut waiting.answer).await {
                Ok(Ok(message)) => return Ok(message),
                Ok(Err(_)) => {
                    let end = self.state().end.unwrap_or(End::Useless(DnsFailure::Broken));
                    return Err(Unanswered::Ended(end));
                }
                Err(_) if self.state().last_received.is_none_or(|last_received| last_received < sent) => {
                    self.retire();
                    return Err(Unanswered::Silence);
                }
                Err(_) => {}
            }
        }
        Err(Unanswered::Late)
    }

    fn send(&self, packet: &Packet) -> Result<Waiting<'_>, End> {
        let mut state = self.state();
        if let Some(end) = state.end {
            return Err(end);
        }
        let free = |id: &u16| !state.waiting.contains_key(id);
        let id = std::iter::repeat_with(rand::random).take(ID_DRAWS).find(free).ok_or(End::Retired)?;
        let (to, answer) = oneshot::channel();
        let was_used = state.last_received.is_some();
        state.waiting.insert(id, to);
        state.used = Instant::now();
        // It fails when the connection has ended, and then the answer's sender is gone as well.
        self.frames.send(packet.framed(id)).ok();
        drop(state);
        Ok(Waiting { connection: self, id, answer, was_used })
    }

    /// Takes no more questions, and gives back those that wait.
    fn retire(&self) {
        self.end(End::Retired);
        self.retired.notify_one();
    }

    fn end(&self, end: End) {
        let mut state = self.state();
        state.end.get_or_insert(end);
        state.waiting.clear();
    }

    /// The error that ends the connection, and what it is for a question without an answer.
    async fn run(
        &self,
        server: SocketAddr,
        to_send: mpsc::UnboundedReceiver<Vec<u8>>,
    ) -> (io::Error, DnsFailure) {
        let stream = match TcpStream::connect(server).await {
            Ok(stream) => stream,
            Err(error) => {
                let failure = unreached::failure(&error);
                return (error, failure);
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            return (error, DnsFailure::Broken);
        }
        let (reader, writer) = stream.into_split();
        let error = tokio::select! {
            error = self.read(reader) => error,
            error = write(writer, to_send) => error,
        };
        (error, DnsFailure::Broken)
    }

    async fn read(&self, reader: OwnedReadHalf) -> io::Error {
        let mut reader = BufReader::new(reader);
        loop {
            match message(&mut reader).await {
                Ok(message) => self.deliver(message),
                Err(error) => return error,
            }
        }
    }

    /// Hands a message to the question that waits for it. A message without one is late, but shows that the server is up.
    fn deliver(&self, message: Vec<u8>) {
        let mut state = self.state();
        state.last_received = Some(Instant::now());
        let id = message.first_chunk().copied().map(u16::from_be_bytes);
        if let Some(waiting) = id.and_then(|id| state.waiting.remove(&id)) {
            waiting.send(message).ok();
        }
    }

    async fn until_idle(&self) {
        loop {
            let since = {
                let state = self.state();
                if state.waiting.is_empty() { state.used } else { Instant::now() }
            };
            if since.elapsed() >= IDLE {
                return;
            }
            sleep_until(since + IDLE).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

/// A question that waits on a connection, until this is dropped.
struct Waiting<'a> {
    connection: &'a Connection,
    id: u16,
    answer: oneshot::Receiver<Vec<u8>>,
    was_used: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.connection.state();
        state.waiting.remove(&self.id);
        state.used = Instant::now();
    }
}

async fn write(mut writer: OwnedWriteHalf, mut to_send: mpsc::UnboundedReceiver<Vec<u8>>) -> io::Error {
    while let Some(frame) = to_send.recv().await {
        if let Err(error) = writer.write_all(&frame).await {
            return error;
        }
    }
    io::ErrorKind::BrokenPipe.into()
}

async fn message(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
    let length = reader.read_u16().await?;
    let mut message = vec![0; length.into()];
    reader.read_exact(&mut message).await?;
    Ok(message)
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
