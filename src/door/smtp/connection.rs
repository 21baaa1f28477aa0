//! Drives one SMTP session over one connection.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::door::Door;
use crate::door::smtp::SmtpDoor;
use crate::door::smtp::incoming::{Chunked, Received, Source, log_too_slow};
use crate::door::smtp::message::Message;
use crate::door::smtp::relayed::{Envelope, Relayed, refuse_command};
use crate::door::smtp::wire::{Ended, Wire};
use crate::gate::Client;
use crate::net::Stream;
use crate::relay::{ClientLease, Hold, TakenBack};
use crate::session::{Effect, Event, Refusal, Refused, Session};
use crate::smtp::address::ReversePath;
use crate::smtp::command::MailParameters;
use crate::smtp::framing::{CommandReader, CommandStep, Fault};
use crate::smtp::reply::{Enhanced, Reply};
use crate::smtp::xclient::Xclient;

impl SmtpDoor {
    /// Serves one client until it leaves, makes too many errors, is silent too long, or `stop` is cancelled. Then a command
    /// that is under way is finished, and an open transaction may be completed.
    pub async fn serve<S>(&self, stream: S, client: SocketAddr, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let session = Session::new(Arc::clone(&self.session), self.offer(client.ip()));
        let known = self.gate.client(client.ip());
        let bare_newline = self.settings.bare_newline(&known);
        let mut connection = Connection {
            door: self,
            wire: Wire::new(stream, self.settings.session),
            reader: CommandReader::new(self.settings.command_line, bare_newline),
            client: known,
            peer: client,
            transaction: None,
            lease: self.relay.lease(),
            chunked: None,
            stop,
        };
        match connection.run(session).await {
            Ok(Closed::ByClient) => connection.wire.part().await,
            Ok(Closed::ByUs) => connection.wire.close().await,
            Err(Ended::Gone | Ended::TimedOut | Ended::TooSlow(_)) => {}
        }
    }
}

/// Turns a client away before a session begins.
async fn refuse_connection<S: AsyncRead + AsyncWrite + Unpin>(stream: S, hostname: &str, why: &str) {
    let mut wire = Wire::new(stream, std::time::Duration::from_secs(5));
    wire.answer(&Reply::new(421, Enhanced(4, 7, 0), format!("{hostname} {why}")));
    wire.close().await;
}

impl Door for SmtpDoor {
    fn serve(
        &self,
        stream: Stream,
        client: SocketAddr,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send {
        Self::serve(self, stream, client, stop)
    }

    fn refuse(&self, stream: Stream, why: &str) -> impl Future<Output = ()> + Send {
        refuse_connection(stream, self.session.hostname.as_str(), why)
    }
}

struct Connection<'a, S> {
    door: &'a SmtpDoor,
    wire: Wire<S>,
    reader: CommandReader,
    client: Client,
    /// The client's address and port.
    peer: SocketAddr,
    lease: ClientLease,
    /// Boxed, as all is that an idle client doesn't need.
    transaction: Option<Box<Relayed>>,
    /// The transaction's message, where it comes in chunks and some are still to come.
    chunked: Option<Box<Chunked>>,
    stop: CancellationToken,
}

/// Who ended a session that was ended in good order; the last reply is queued.
enum Closed {
    /// By QUIT: it will say nothing more.
    ByClient,
    ByUs,
}

/// What came instead of a command line.
enum Input {
    Line { length: usize, consumed: usize },
    TooLong,
    Fault(Fault),
    TimedOut,
    TooSlow(TakenBack),
    Stopping,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<'_, S> {
    /// Until the session closes or the client is gone.
    async fn run(&mut self, mut session: Session) -> Result<Closed, Ended> {
        if self.speaks_early().await? {
            tracing::info!(target: "rmxd::session", client = %self.peer.ip(), "spoke before the banner");
            if let Effect::Close(reply) = session.step(Event::SpokeEarly) {
                self.wire.answer(&reply);
            }
            return Ok(Closed::ByUs);
        }
        self.wire.answer(&session.greeting());
        loop {
            let mut effect = match self.input().await? {
                Input::Line { length, consumed } => {
                    let line = self.wire.input().get(..length).unwrap_or_default();
                    let effect = session.step(Event::Line(line));
                    self.wire.take(consumed);
                    effect
                }
                Input::TooLong => session.step(Event::LineTooLong),
                Input::Fault(fault) => session.step(Event::Fault(fault)),
                Input::TimedOut => session.step(Event::TimedOut),
                Input::TooSlow(seen) => self.too_slow(&mut session, seen),
                Input::Stopping => session.step(Event::ShuttingDown),
            };
            loop {
                effect = match effect {
                    Effect::Reply(reply) => {
                        self.wire.answer(&reply);
                        break;
                    }
                    Effect::Listen => break,
                    Effect::Helo(reply) => {
                        self.end_transaction().await;
                        let argument = session.helo().map(|helo| helo.argument.as_str()).unwrap_or_default();
                        self.client.helo(argument);
                        self.wire.answer(&reply);
                        break;
                    }
                    Effect::Reset(reply) => {
                        self.end_transaction().await;
                        self.wire.answer(&reply);
                        break;
                    }
                    Effect::Close(reply) => {
                        self.end_transaction().await;
                        self.wire.answer(&reply);
                        if reply.code() == 221 {
                            return Ok(Closed::ByClient);
                        }
                        if !self.stop.is_cancelled() {
                            tracing::info!(target: "rmxd::door", client = %self.peer.ip(), %reply, "closing");
                        }
                        return Ok(Closed::ByUs);
                    }
                    Effect::Refuse(refusal) => {
                        let closes = refusal.closes;
                        let reply = self.refused(refusal);
                        if !closes {
                            self.wire.answer(&reply);
                            break;
                        }
                        Effect::Close(reply)
                    }
                    Effect::Sender(path, parameters) => {
                        let reply = Box::pin(self.sender(&session, path, parameters)).await;
                        session.step(Event::SenderAnswered(reply))
                    }
                    Effect::Recipient(path, parameters) => {
                        let reply = match &mut self.transaction {
                            Some(transaction) => {
                                let (client, lease) = (&mut self.client, &self.lease);
                                let asked =
                                    transaction.recipient(self.door, client, lease, path, &parameters);
                                Box::pin(asked).await
                            }
                            None => no_transaction(),
                        };
                        session.step(Event::RecipientAnswered(reply))
                    }
                    Effect::Message => {
                        let received = Box::pin(self.message()).await?;
                        self.received(&mut session, received, Event::MessageAnswered)
                    }
                    Effect::Chunk { octets, last } => {
                        let received = Box::pin(self.chunk(octets, last)).await?;
                        self.received(&mut session, received, Event::ChunkAnswered)
                    }
                    Effect::Discard { octets, reply } => match Box::pin(self.source().discard(octets)).await?
                    {
                        None => Effect::Reply(reply),
                        Some(received) => self.received(&mut session, received, Event::ChunkAnswered),
                    },
                    Effect::Client(announced) => session.step(self.announced(&announced)),
                    Effect::StartTls(ready) => session.step(Box::pin(self.start_tls(&ready)).await?),
                };
            }
        }
    }

    /// Holds the banner back; true as soon as the client sends something.
    async fn speaks_early(&mut self) -> Result<bool, Ended> {
        let (delay, began) = (self.door.settings.banner_delay, Instant::now());
        if delay.is_zero() {
            return Ok(false);
        }
        let read = tokio::select! {
            read = self.wire.more(began + delay) => read,
            () = self.stop.cancelled() => return Ok(false),
        };
        match read {
            Ok(()) => Ok(true),
            Err(Ended::TimedOut) => {
                self.client.waited(crate::metrics::Wait::Banner, began);
                Ok(false)
            }
            Err(ended @ (Ended::Gone | Ended::TooSlow(_))) => Err(ended),
        }
    }

    /// From now on a gateway speaks for another client. The name that it gives is not believed: DNS is asked again.
    fn announced(&mut self, announced: &Xclient) -> Event<'static> {
        let gateway = self.peer;
        let address = announced.address.unwrap_or(gateway.ip());
        let unchanged = if announced.address.is_none() { gateway.port() } else { 0 };
        self.peer = SocketAddr::new(address, announced.port.unwrap_or(unchanged));
        self.client = self.door.gate.client(address);
        self.client.set_tls(self.wire.tls_version());
        self.reader.set_bare_newline(self.door.settings.bare_newline(&self.client));
        self.lease = self.door.relay.lease();
        tracing::debug!(target: "rmxd::session", gateway = %gateway.ip(), client = %address, "XCLIENT");
        Event::ClientAnnounced { xclient: self.door.settings.trusts_xclient(address) }
    }

    /// Outside of a transaction.
    fn is_idle(&self) -> bool {
        self.transaction.is_none() && self.chunked.is_none()
    }

    /// The next line, from the buffer or the socket. The time-out is for the whole line (RFC 5321 4.5.3.2.7): octets
    /// that come one by one don't prolong it.
    async fn input(&mut self) -> Result<Input, Ended> {
        let hold = self.hold();
        if self.wire.is_queue_full() {
            match self.wire.flush_held(hold.as_ref()).await {
                Err(Ended::TooSlow(seen)) => return Ok(Input::TooSlow(seen)),
                flushed => flushed?,
            }
        }
        let until = Instant::now() + self.door.settings.command_timeout;
        loop {
            match self.reader.next(self.wire.input()) {
                CommandStep::Line { length, consumed } => return Ok(Input::Line { length, consumed }),
                CommandStep::TooLong { consumed } => {
                    self.wire.take(consumed);
                    return Ok(Input::TooLong);
                }
                CommandStep::Fault(fault) => return Ok(Input::Fault(fault)),
                CommandStep::More { discard } => self.wire.take(discard),
            }
            if self.stop.is_cancelled() && self.is_idle() {
                return Ok(Input::Stopping);
            }
            let idle = self.is_idle();
            let read = tokio::select! {
                read = self.wire.more_held(until, hold.as_ref()) => read,
                () = self.stop.cancelled(), if idle => return Ok(Input::Stopping),
            };
            match read {
                Ok(()) => {}
                Err(Ended::TimedOut) => return Ok(Input::TimedOut),
                Err(Ended::TooSlow(seen)) => return Ok(Input::TooSlow(seen)),
                Err(Ended::Gone) => return Err(Ended::Gone),
            }
        }
    }

    async fn sender(&mut self, session: &Session, path: ReversePath, parameters: MailParameters) -> Reply {
        let mut transaction = self.client.transaction(&path);
        if let Err(refusal) = transaction.mail(&mut self.client).await {
            return refusal;
        }
        let (client, helo, tls) = (self.peer, session.helo().cloned(), self.wire.tls());
        let envelope = Envelope { path, parameters, client, helo, tls };
        self.transaction = Some(Box::new(Relayed::new(transaction, envelope)));
        Reply::new(250, Enhanced(2, 1, 0), "sender ok")
    }

    /// The reply to what the dialogue itself refuses, with the id of the transaction, or one of its own.
    fn refused(&mut self, refusal: Refusal) -> Reply {
        match (&mut self.chunked, &mut self.transaction) {
            (Some(chunked), _) => refuse_command(chunked.transaction(), refusal),
            (None, Some(transaction)) => refuse_command(&mut transaction.gate, refusal),
            (None, None) => {
                let mail_from = match &refusal.refused {
                    Refused::Sender(argument) => Some(argument.as_str()),
                    Refused::Recipient(_) | Refused::Other => None,
                };
                let mut alone = self.client.without_transaction(mail_from);
                refuse_command(&mut alone, refusal)
            }
        }
    }

    async fn message(&mut self) -> Result<Received, Ended> {
        match self.transaction.take() {
            Some(transaction) => self.source().data(Message::new(*transaction)).await,
            None => Ok(Received::HopReply(no_transaction())),
        }
    }

    async fn chunk(&mut self, octets: u64, last: bool) -> Result<Received, Ended> {
        let chunked = match (self.chunked.take(), self.transaction.take()) {
            (Some(chunked), _) => *chunked,
            (None, Some(transaction)) => {
                let bare_newline = self.door.settings.bare_newline(&self.client);
                Chunked::new(Message::new(*transaction), bare_newline)
            }
            (None, None) => return Ok(Received::HopReply(no_transaction())),
        };
        let (received, chunked) = self.source().chunk(chunked, octets, last).await?;
        self.chunked = chunked.map(Box::new);
        Ok(received)
    }

    fn source(&mut self) -> Source<'_, S> {
        Source { door: self.door, client: &mut self.client, wire: &mut self.wire }
    }

    fn received(
        &self,
        session: &mut Session,
        received: Received,
        answered: fn(Reply) -> Event<'static>,
    ) -> Effect {
        match received {
            Received::HopReply(reply) => session.step(answered(reply)),
            Received::Broken(reply) => session.step(Event::MessageBroken(reply)),
            Received::TimedOut => session.step(Event::TimedOut),
            Received::TooSlow(seen) => self.too_slow(session, seen),
        }
    }

    fn too_slow(&self, session: &mut Session, seen: TakenBack) -> Effect {
        log_too_slow(self.peer.ip(), seen);
        session.step(Event::TooSlow)
    }

    /// What the client holds of the relay.
    fn hold(&self) -> Option<Hold> {
        match (&self.chunked, &self.transaction) {
            (Some(chunked), _) => chunked.hold(),
            (None, transaction) => transaction.as_ref().and_then(|transaction| transaction.hold()),
        }
    }

    /// CVE-2011-0411: what is in the buffer by now came in plain text, and must not be taken for what comes by TLS.
    async fn start_tls(&mut self, ready: &Reply) -> Result<Event<'static>, Ended> {
        let Some(acceptor) = &self.door.tls else {
            return Ok(Event::TlsUnavailable);
        };
        if !self.wire.input().is_empty() {
            tracing::info!(target: "rmxd::session", client = %self.peer.ip(), "plain text behind STARTTLS");
            return Ok(Event::PlainTextBehindStartTls);
        }
        self.end_transaction().await;
        self.wire.answer(ready);
        match self.wire.start_tls(acceptor, self.door.settings.command_timeout).await {
            Ok(()) => {
                self.client.set_tls(self.wire.tls_version());
                Ok(Event::TlsStarted)
            }
            Err(error) => {
                tracing::info!(target: "rmxd::session", client = %self.peer.ip(), %error, "TLS handshake failed");
                Err(Ended::Gone)
            }
        }
    }

    async fn end_transaction(&mut self) {
        self.chunked = None;
        if let Some(transaction) = self.transaction.take() {
            Box::pin(transaction.abandon()).await;
        }
    }
}

/// The session asks only within a transaction; were it otherwise, nothing would be lost.
fn no_transaction() -> Reply {
    Reply::new(451, Enhanced(4, 3, 0), "no transaction is open")
}
