//! A relay spoken to by SMTP: one connection for each transaction, opened only when one is permitted.
//!
//! Where the relay offers XCLIENT, it learns there who the client is and judges by its own rules as if it stood on
//! port 25 itself; where that is required and not offered, nothing is sent to it (DESIGN 1.6). Connections aren't
//! kept for the next client: what XCLIENT said sticks to one. No authentication, no pipelining.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::relay::capabilities::{Capabilities, XclientAttributes};
use crate::relay::conversation::{Conversation, DONE, GO_AHEAD, READY};
use crate::relay::error::{RelayError, Stage};
use crate::relay::{ClientIdentity, ClientInfo, Envelope, RcptParameters, Settings, Tls, xclient};
use crate::smtp::address::ForwardPath;
use crate::smtp::reply::Reply;

/// How to reach the relay, and how much of it is in use.
#[derive(Debug)]
pub(super) struct SmtpHop {
    host: String,
    port: u16,
    settings: Settings,
    slots: Arc<Semaphore>,
}

impl SmtpHop {
    pub(super) fn new(host: &str, port: u16, settings: &Settings) -> Self {
        let slots = settings.max_connections.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            host: host.to_owned(),
            port,
            settings: settings.clone(),
            slots: Arc::new(Semaphore::new(slots)),
        }
    }

    /// Connects, greets and leaves: whether a transaction could be had, and what the relay can take.
    pub(super) async fn probe(&self, known: &watch::Sender<Capabilities>) -> Result<(), RelayError> {
        let mut conversation = self.connect().await?;
        let offered = self.learn(&mut conversation, known).await;
        conversation.quit();
        self.usable_xclient(&offered?).map(drop)
    }

    /// Opens a transaction: connection, XCLIENT, MAIL.
    pub(super) async fn begin(
        &self,
        envelope: &Envelope<'_>,
        known: &watch::Sender<Capabilities>,
    ) -> Result<SmtpTransaction, RelayError> {
        let busy = || RelayError::Busy(self.settings.max_connections);
        let slot = timeout(self.settings.connect_timeout, Arc::clone(&self.slots).acquire_owned())
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or_else(busy)?;
        let mut conversation = self.connect().await?;
        match self.introduce(&mut conversation, envelope, known).await {
            Ok(offered) => Ok(SmtpTransaction { conversation, dsn: offered.dsn, tail: None, _slot: slot }),
            Err(error) => {
                conversation.quit();
                Err(error)
            }
        }
    }

    async fn introduce(
        &self,
        conversation: &mut Conversation,
        envelope: &Envelope<'_>,
        known: &watch::Sender<Capabilities>,
    ) -> Result<Capabilities, RelayError> {
        let mut offered = self.learn(conversation, known).await?;
        if let Some(attributes) = self.usable_xclient(&offered)? {
            offered = self.impersonate(conversation, envelope.client, attributes).await?;
        }
        if envelope.smtputf8 && !offered.smtputf8 {
            return Err(RelayError::NoSmtputf8);
        }
        conversation.command(Stage::Mail, &mail_command(envelope, &offered), &DONE).await?;
        Ok(offered)
    }

    /// Tries each address of the host, each with its share of the time that is left.
    async fn connect(&self) -> Result<Conversation, RelayError> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        let target = format!("{}:{}", self.host, self.port);
        let found = timeout_at(deadline, lookup_host((self.host.as_str(), self.port)))
            .await
            .map_err(|_elapsed| RelayError::Unreachable(format!("{target}: no address in time")))?
            .map_err(|error| RelayError::Unreachable(format!("{target}: {error}")))?;
        let addresses: Vec<SocketAddr> = found.collect();
        let mut failure = RelayError::Unreachable(format!("{target}: no address"));
        for (share, address) in (1..=u32::try_from(addresses.len()).unwrap_or(u32::MAX)).rev().zip(addresses)
        {
            let time = deadline.saturating_duration_since(Instant::now()) / share;
            match timeout(time, self.open(address)).await {
                Ok(Ok(conversation)) => return Ok(conversation),
                Ok(Err(error)) => failure = error,
                Err(_elapsed) => {
                    failure = RelayError::Unreachable(format!("{address}: no connection and banner in time"));
                }
            }
        }
        Err(failure)
    }

    /// A connection, with TLS as `relay.tls` says; the relay is to be greeted (anew).
    async fn open(&self, address: SocketAddr) -> Result<Conversation, RelayError> {
        let mut conversation = self.dial(address).await?;
        let required = match self.settings.tls {
            Tls::None => return Ok(conversation),
            Tls::Opportunistic => false,
            Tls::Required => true,
        };
        if !greet(&mut conversation, &self.settings.hostname, true).await?.starttls {
            if required {
                conversation.quit();
                return Err(RelayError::NoTls);
            }
            return Ok(conversation);
        }
        // a relay that hangs in the handshake must leave time for plain text
        let limit = self.settings.connect_timeout / 3;
        match conversation.start_tls(&self.host, address.ip(), limit).await {
            Ok(()) => Ok(conversation),
            Err(RelayError::Rejected { .. }) if !required => Ok(conversation),
            Err(error @ RelayError::Handshake(_)) if !required => {
                tracing::warn!(target: "rmxd::relay", %error, "going on in plain text (relay.tls is opportunistic)");
                self.dial(address).await
            }
            Err(error) => Err(refused(error)),
        }
    }

    /// A connection whose banner was read.
    async fn dial(&self, address: SocketAddr) -> Result<Conversation, RelayError> {
        let unreachable = |error| RelayError::Unreachable(format!("{address}: {error}"));
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        Conversation::open(stream, self.settings.reply_timeout).await.map_err(refused)
    }

    /// Greets in our own name; what the relay offers then is what our clients are told.
    async fn learn(
        &self,
        conversation: &mut Conversation,
        known: &watch::Sender<Capabilities>,
    ) -> Result<Capabilities, RelayError> {
        let offered = greet(conversation, &self.settings.hostname, true).await?;
        known.send_if_modified(|known| {
            let differs = *known != offered;
            known.clone_from(&offered);
            differs
        });
        Ok(offered)
    }

    /// The attributes to send, `None` when XCLIENT isn't to be used, an error when it has to be and can't.
    fn usable_xclient(&self, offered: &Capabilities) -> Result<Option<XclientAttributes>, RelayError> {
        let required = self.settings.xclient_required || self.settings.identity == ClientIdentity::Xclient;
        match offered.xclient.filter(|attributes| attributes.addr) {
            None if required => Err(RelayError::NoXclient),
            Some(_) if !required && self.settings.identity == ClientIdentity::None => Ok(None),
            attributes => Ok(attributes),
        }
    }

    /// XCLIENT, and the greeting again, since the relay starts over after it. It is the client's greeting now, HELO
    /// or EHLO as it came: Postfix judges and records this one.
    async fn impersonate(
        &self,
        conversation: &mut Conversation,
        client: &ClientInfo,
        attributes: XclientAttributes,
    ) -> Result<Capabilities, RelayError> {
        for command in xclient::commands(client, attributes) {
            conversation.command(Stage::Xclient, &command, &READY).await.map_err(refused)?;
        }
        let name = xclient::greeting_name(client).unwrap_or_else(|| self.settings.hostname.clone());
        greet(conversation, &name, client.esmtp).await
    }
}

/// EHLO, or HELO for a relay that refuses EHLO (RFC 5321 3.2); then there are no extensions.
async fn greet(conversation: &mut Conversation, name: &str, esmtp: bool) -> Result<Capabilities, RelayError> {
    if esmtp {
        match conversation.command(Stage::Greeting, &format!("EHLO {name}"), &DONE).await {
            Err(RelayError::Rejected { reply, .. }) if reply.code() >= 500 => {}
            answer => return answer.map(|reply| Capabilities::parse(reply.text())).map_err(refused),
        }
    }
    conversation.command(Stage::Greeting, &format!("HELO {name}"), &DONE).await.map_err(refused)?;
    Ok(Capabilities::default())
}

/// What the relay says before MAIL is said to us, not to the client: it must not become the client's 5xx.
fn refused(error: RelayError) -> RelayError {
    match error {
        RelayError::Rejected { stage, reply }
        | RelayError::Closing { stage: stage @ Stage::Banner, reply } => RelayError::Refused { stage, reply },
        other => other,
    }
}

/// MAIL with the parameters that the relay understands (RFC 1870, RFC 6152, RFC 6531, RFC 3461).
fn mail_command(envelope: &Envelope<'_>, offered: &Capabilities) -> String {
    let mut command = format!("MAIL FROM:<{}>", envelope.reverse_path);
    if let Some(size) = envelope.size.filter(|_| offered.size_parameter) {
        command.push_str(&format!(" SIZE={size}"));
    }
    if envelope.eight_bit && offered.eight_bit_mime {
        command.push_str(" BODY=8BITMIME");
    }
    if envelope.smtputf8 {
        command.push_str(" SMTPUTF8");
    }
    for (name, value) in [(" RET=", envelope.ret), (" ENVID=", envelope.envid)] {
        if let Some(value) = value.filter(|_| offered.dsn) {
            command.push_str(name);
            command.push_str(value);
        }
    }
    command
}

fn rcpt_command(path: &ForwardPath, parameters: &RcptParameters<'_>, dsn: bool) -> String {
    let mut command = format!("RCPT TO:<{path}>");
    for (name, value) in [(" NOTIFY=", parameters.notify), (" ORCPT=", parameters.orcpt)] {
        if let Some(value) = value.filter(|_| dsn) {
            command.push_str(name);
            command.push_str(value);
        }
    }
    command
}

/// A transaction at the relay. Dropping it closes the connection; amid the message that is without a dot, so that
/// the relay throws away what it has (RFC 5321 4.1.1.10).
#[derive(Debug)]
pub(super) struct SmtpTransaction {
    conversation: Conversation,
    /// Whether the relay takes RCPT's parameters.
    dsn: bool,
    /// The last two octets of the message so far, once the relay has said 354. The dot needs CRLF before it.
    tail: Option<[u8; 2]>,
    _slot: OwnedSemaphorePermit,
}

impl SmtpTransaction {
    /// The relay's answer to RCPT; only 25x and its own 4xx and 5xx are `Ok` or [`RelayError::Rejected`].
    pub(super) async fn rcpt(
        &mut self,
        path: &ForwardPath,
        parameters: &RcptParameters<'_>,
    ) -> Result<Reply, RelayError> {
        if self.tail.is_some() {
            return Err(RelayError::OutOfStep(Stage::Rcpt));
        }
        self.conversation.command(Stage::Rcpt, &rcpt_command(path, parameters, self.dsn), &DONE).await
    }

    pub(super) async fn data(&mut self) -> Result<(), RelayError> {
        if self.tail.is_some() {
            return Err(RelayError::OutOfStep(Stage::Data));
        }
        self.conversation.command(Stage::Data, "DATA", &GO_AHEAD).await?;
        self.tail = Some(*b"\r\n");
        Ok(())
    }

    pub(super) async fn write(&mut self, stuffed: &[u8]) -> Result<(), RelayError> {
        let tail = self.tail.as_mut().ok_or(RelayError::OutOfStep(Stage::Message))?;
        *tail = match (*tail, stuffed) {
            (_, [.., before, last]) => [*before, *last],
            ([_, before], [last]) => [before, *last],
            (tail, []) => tail,
        };
        self.conversation.send(stuffed).await
    }

    /// The final dot. Without CRLF before it the relay would wait for more and take the dot for text; then the
    /// connection is closed instead.
    pub(super) async fn finish(mut self) -> Result<Reply, RelayError> {
        if self.tail != Some(*b"\r\n") {
            return Err(RelayError::OutOfStep(Stage::End));
        }
        let answer = self.conversation.command(Stage::End, ".", &DONE).await;
        self.conversation.quit();
        answer
    }

    /// Leaves politely where the relay waits for a command, else just closes.
    pub(super) fn abandon(self) {
        if self.tail.is_none() {
            self.conversation.quit();
        }
    }
}
