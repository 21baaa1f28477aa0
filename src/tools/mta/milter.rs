//! One connection to a filter: the session of one SMTP client, as Postfix reports it.
//!
//! Packets are collected until an answer is awaited, as Postfix does: an event that isn't answered costs no write.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::milter::Packet;
use crate::tools::mta::answer::{Answer, Edit, Final};
use crate::tools::mta::event::{Event, LARGEST_PIECE};
use crate::tools::mta::failure::Failure;
use crate::tools::mta::filter::Filter;

/// Octets that are written although no answer is awaited (`VSTREAM_BUFSIZE` for a filter).
const FULL: usize = 64 * 1024;
/// The macro `v`.
const VERSION: &str = "Postfix 3.7.11";
/// Octets of one read.
const READ: usize = 4096;

/// What Postfix says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `myhostname`
    pub hostname: String,
    /// The address at which the client arrived.
    pub address: SocketAddr,
    /// Where mail goes: `{mail_host}` and `{rcpt_host}`.
    pub next_hop: String,
}

/// Names of macros, as they are sent, and their values.
type Macros = Vec<(&'static str, String)>;

/// One connection to a filter.
#[derive(Debug)]
pub struct Milter<S> {
    wire: Wire<S>,
    filter: Filter,
    next_hop: String,
    of_server: Macros,
    of_client: Macros,
    of_user: Macros,
    of_address: Macros,
    /// The id of the message, known from its first recipient on.
    queue: String,
    has_recipient: bool,
    has_mail: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Milter<S> {
    /// Begins with the negotiation. Each answer may take `patience`.
    ///
    /// # Errors
    /// The filter closes, is silent, or answers what Postfix wouldn't take.
    pub async fn negotiate(stream: S, server: Server, patience: Duration) -> Result<Self, Failure> {
        let mut wire = Wire { stream, patience, out: Vec::new(), input: BytesMut::new() };
        Filter::write_offer(&mut wire.out);
        wire.flush().await?;
        let filter = wire.packet(|packet| Filter::read(packet).map_err(|error| error.to_string())).await?;
        let Server { hostname, address, next_hop } = server;
        let of_server = vec![
            ("j", hostname.clone()),
            ("{daemon_name}", hostname),
            ("{daemon_addr}", address.ip().to_string()),
            ("{daemon_port}", address.port().to_string()),
            ("v", VERSION.to_owned()),
        ];
        Ok(Self {
            wire,
            filter,
            next_hop,
            of_server,
            of_client: Vec::new(),
            of_user: Vec::new(),
            of_address: Vec::new(),
            queue: String::new(),
            has_recipient: false,
            has_mail: false,
        })
    }

    /// The stream, to look at it.
    pub fn stream(&self) -> &S {
        &self.wire.stream
    }

    /// CONNECT. The client's name is `None` where Postfix knows none that is confirmed. The answer is `None` if none is
    /// awaited.
    ///
    /// # Errors
    /// The filter closes, is silent, or sends something that is no answer.
    pub async fn connect(
        &mut self,
        client: SocketAddr,
        name: Option<&str>,
    ) -> Result<Option<Final>, Failure> {
        let literal = format!("[{}]", client.ip());
        let shown = name.unwrap_or("unknown");
        self.of_client = vec![
            ("{client_addr}", client.ip().to_string()),
            ("{client_port}", client.port().to_string()),
            ("{client_name}", shown.to_owned()),
            ("{client_ptr}", shown.to_owned()),
            ("{client_resolve}", if name.is_some() { "OK" } else { "FAIL" }.to_owned()),
            ("_", format!("{shown} {literal}")),
        ];
        self.event(Event::Connect { name: name.unwrap_or(&literal), client }).await
    }

    /// # Errors
    /// As for CONNECT.
    pub async fn helo(&mut self, argument: &str) -> Result<Option<Final>, Failure> {
        self.event(Event::Helo(argument)).await
    }

    /// MAIL, after ABORT if it isn't the first one. `queue` is the id that the message will have; `login` is the user who
    /// has logged in.
    ///
    /// # Errors
    /// As for CONNECT.
    pub async fn mail(
        &mut self,
        sender: &str,
        login: Option<&str>,
        queue: &str,
    ) -> Result<Option<Final>, Failure> {
        if std::mem::replace(&mut self.has_mail, true) {
            self.abort();
        }
        queue.clone_into(&mut self.queue);
        self.has_recipient = false;
        self.of_address = self.route(["{mail_addr}", "{mail_host}", "{mail_mailer}"], sender);
        self.of_user = match login {
            Some(user) => vec![("{auth_type}", "PLAIN".to_owned()), ("{auth_authen}", user.to_owned())],
            None => Vec::new(),
        };
        let path = format!("<{sender}>");
        self.event(Event::Mail { path: &path, parameters: &[] }).await
    }

    /// RCPT.
    ///
    /// # Errors
    /// As for CONNECT.
    pub async fn rcpt(&mut self, recipient: &str) -> Result<Option<Final>, Failure> {
        self.of_address = self.route(["{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"], recipient);
        let path = format!("<{recipient}>");
        let answer = self.event(Event::Rcpt { path: &path, parameters: &[] }).await?;
        self.has_recipient |= answer.as_ref().is_none_or(|answer| *answer == Final::Continue);
        Ok(answer)
    }

    /// DATA. What follows is sent by another process of Postfix, so that nothing is held back.
    ///
    /// # Errors
    /// As for CONNECT.
    pub async fn data(&mut self) -> Result<Option<Final>, Failure> {
        let answer = self.event(Event::Data).await?;
        self.wire.flush().await?;
        Ok(answer)
    }

    /// One field; the value is all that stands behind the colon, with LF at the folds.
    ///
    /// # Errors
    /// As for CONNECT.
    pub async fn header(&mut self, name: &[u8], value: &[u8]) -> Result<Option<Final>, Failure> {
        self.event(Event::Header { name, value }).await
    }

    /// # Errors
    /// As for CONNECT.
    pub async fn end_of_header(&mut self) -> Result<Option<Final>, Failure> {
        self.event(Event::EndOfHeader).await
    }

    /// A body of any size, in pieces of at most 65535 octets; the first answer that isn't to continue ends it.
    ///
    /// # Errors
    /// As for CONNECT.
    pub async fn body(&mut self, octets: &[u8]) -> Result<Option<Final>, Failure> {
        let mut answer = None;
        for piece in octets.chunks(LARGEST_PIECE) {
            answer = self.event(Event::Body(piece)).await?;
            if !matches!(answer, None | Some(Final::Continue)) {
                break;
            }
        }
        Ok(answer)
    }

    /// The end of the message: the edits, and the last answer.
    ///
    /// # Errors
    /// As for CONNECT.
    pub async fn end_of_message(&mut self) -> Result<(Vec<Edit>, Final), Failure> {
        self.write(Event::EndOfMessage);
        self.wire.flush().await?;
        self.answer().await
    }

    /// Ends the session as Postfix does.
    ///
    /// # Errors
    /// The filter takes nothing more.
    pub async fn quit(&mut self) -> Result<(), Failure> {
        if self.has_mail {
            self.abort();
            self.abort();
        }
        self.write(Event::Quit);
        self.wire.flush().await
    }

    fn abort(&mut self) {
        self.write(Event::Abort);
        self.of_address.clear();
        self.has_recipient = false;
    }

    /// The macros about one address: itself, and where mail to it goes.
    fn route(&self, [address, host, mailer]: [&'static str; 3], value: &str) -> Macros {
        vec![(address, value.to_owned()), (host, self.next_hop.clone()), (mailer, "smtp".to_owned())]
    }

    /// Collects the event, and sends it if an answer is awaited.
    async fn event(&mut self, event: Event<'_>) -> Result<Option<Final>, Failure> {
        let is_answered = self.write(event);
        if !is_answered {
            if self.wire.out.len() >= FULL {
                self.wire.flush().await?;
            }
            return Ok(None);
        }
        self.wire.flush().await?;
        self.answer().await.map(|(_edits, answer)| Some(answer))
    }

    fn write(&mut self, event: Event<'_>) -> bool {
        let queue = self.has_recipient.then_some(("i", self.queue.as_str()));
        let others = [&self.of_server, &self.of_client, &self.of_user, &self.of_address];
        let others = others.into_iter().flatten().map(|(name, value)| (*name, value.as_str()));
        let known: Vec<(&str, &str)> = queue.into_iter().chain(others).collect();
        event.write_to(&self.filter, &known, &mut self.wire.out)
    }

    async fn answer(&mut self) -> Result<(Vec<Edit>, Final), Failure> {
        let mut edits = Vec::new();
        loop {
            let answer = self.wire.packet(|packet| Answer::parse(packet).map_err(|error| error.to_string()));
            match answer.await? {
                Answer::Progress => {}
                Answer::Edit(edit) => edits.push(edit),
                Answer::Final(answer) => return Ok((edits, answer)),
            }
        }
    }
}

/// The octets of a connection.
#[derive(Debug)]
struct Wire<S> {
    stream: S,
    patience: Duration,
    out: Vec<u8>,
    input: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    async fn flush(&mut self) -> Result<(), Failure> {
        let written = timeout(self.patience, self.stream.write_all(&self.out)).await;
        self.out.clear();
        written.map_err(|_elapsed| Failure::TimedOut)?.map_err(|_io| Failure::Closed)
    }

    /// The next packet, read by `read`.
    async fn packet<T>(&mut self, read: impl Fn(Packet<'_>) -> Result<T, String>) -> Result<T, Failure> {
        let patience = self.patience;
        let waiting = async {
            loop {
                let found =
                    Packet::first(&self.input).map_err(|error| Failure::NoAnswer(error.to_string()))?;
                if let Some((packet, length)) = found {
                    let value = read(packet).map_err(Failure::NoAnswer);
                    self.input.advance(length);
                    return value;
                }
                self.input.reserve(READ);
                if !self.stream.read_buf(&mut self.input).await.is_ok_and(|octets| octets > 0) {
                    return Err(Failure::Closed);
                }
            }
        };
        timeout(patience, waiting).await.map_err(|_elapsed| Failure::TimedOut)?
    }
}
