//! A relay spoken to by SMTP, contacted only when a transaction is permitted.
//!
//! Where the relay offers XCLIENT, it learns there who the client is and judges by its own rules as if it stood on
//! port 25 itself; where that is required and not offered, nothing is sent to it (contract 1.7). A connection is used
//! again where that is safe, and if it turns out to be gone before the relay has answered MAIL, once more with a fresh
//! one; from then on what goes wrong is the client's to try again. No authentication.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::metrics::Metrics;
use crate::relay::capabilities::{Attributes, Capabilities};
use crate::relay::connection::{Connection, Introduced};
use crate::relay::conversation::{Conversation, DONE, READY};
use crate::relay::error::{RelayError, Stage};
use crate::relay::pool::{Pool, VisitKey};
use crate::relay::transaction::{SmtpTransaction, open};
use crate::relay::verdict::{of_the_client, of_us};
use crate::relay::{
    ClientIdentity, ClientInfo, Envelope, Recipient, Settings, Tls, attribute, proxy, xclient,
};
use crate::smtp::reply::Reply;

/// How to reach the relay, and its connections.
#[derive(Debug)]
pub(super) struct SmtpHop {
    host: String,
    port: u16,
    settings: Arc<Settings>,
    pool: Arc<Pool>,
    metrics: Metrics,
}

/// How the client is made known on a connection.
enum Means {
    Nothing,
    Xclient(Attributes),
    Xforward(Attributes),
}

impl SmtpHop {
    pub(super) fn new(host: &str, port: u16, settings: Arc<Settings>, metrics: Metrics) -> Self {
        Self { host: host.to_owned(), port, settings, pool: Arc::default(), metrics }
    }

    /// The same relay by other settings. What is in use by either counts for both.
    pub(super) fn with_settings(&self, settings: Arc<Settings>) -> Self {
        let (pool, metrics) = (Arc::clone(&self.pool), self.metrics.clone());
        Self { host: self.host.clone(), port: self.port, settings, pool, metrics }
    }

    /// Connects, greets and leaves: whether a transaction could be had, and what the relay can take. When all
    /// connections are in use for so long, those tell, and this is `Busy`.
    pub(super) async fn probe(
        &self,
        known: &watch::Sender<Capabilities>,
        patience: Duration,
    ) -> Result<(), RelayError> {
        let slot = timeout(patience, self.pool.slot(None, &self.settings)).await.ok().flatten();
        let slot = slot.ok_or(RelayError::Busy(self.settings.max_connections))?;
        self.pool.make_room(&slot);
        let mut conversation = self.connect(None).await?;
        let offered = greet(&mut conversation, &self.settings.hostname, true).await;
        conversation.quit();
        let offered = offered.map_err(of_us)?;
        learn(&offered, known);
        self.means(&offered).map(drop)
    }

    /// Opens a transaction: connection, introduction, MAIL, and the first RCPT, whose answer is given too.
    pub(super) async fn begin(
        &self,
        lease: &VisitKey,
        envelope: &Envelope<'_>,
        first: &Recipient<'_>,
        known: &watch::Sender<Capabilities>,
    ) -> Result<(SmtpTransaction, Result<Reply, RelayError>), RelayError> {
        let slot = self.pool.slot(Some(envelope.client), &self.settings).await;
        let slot = slot.ok_or(RelayError::Busy(self.settings.max_connections))?;
        let mut fresh = false;
        loop {
            let waiting = if fresh { None } else { self.reusable(lease, envelope).await };
            let mut connection = match waiting {
                Some(connection) => connection,
                None => {
                    fresh = true;
                    self.pool.make_room(&slot);
                    self.establish(envelope.client, known).await?
                }
            };
            match open(&mut connection, envelope, first).await {
                Ok(answer) => {
                    let transaction =
                        SmtpTransaction::new(connection, slot, Arc::clone(&self.pool), lease.clone());
                    return Ok((transaction, answer));
                }
                Err(error) if error.is_end() && !fresh => {
                    tracing::debug!(target: "rmxd::relay", id = envelope.id, %error, "connected once more");
                    fresh = true;
                }
                Err(error) => {
                    let undo = !matches!(error, RelayError::NoSmtputf8);
                    self.pool.give_back(connection, undo, lease.clone(), slot);
                    return Err(error);
                }
            }
        }
    }

    /// A lease has ended.
    pub(super) fn forget(&self) {
        self.pool.forget();
    }

    /// A connection that waited, is still there and takes this message.
    async fn reusable(&self, lease: &VisitKey, envelope: &Envelope<'_>) -> Option<Connection> {
        while let Some(mut connection) = self.pool.take(lease, envelope.client, &self.settings) {
            let able = connection.offered.smtputf8 || !envelope.smtputf8;
            if able && connection.conversation.is_ready().await {
                return Some(connection);
            }
            connection.quit();
        }
        None
    }

    /// A new connection, on which the relay knows what it is to know of the client.
    async fn establish(
        &self,
        client: &ClientInfo,
        known: &watch::Sender<Capabilities>,
    ) -> Result<Connection, RelayError> {
        let mut conversation = self.connect(Some(client)).await?;
        match self.introduce(&mut conversation, client, known).await {
            Ok((offered, introduced)) => {
                Ok(Connection::new(conversation, offered, introduced, Arc::clone(&self.settings)))
            }
            Err(error) => {
                conversation.quit();
                Err(error)
            }
        }
    }

    async fn introduce(
        &self,
        conversation: &mut Conversation,
        client: &ClientInfo,
        known: &watch::Sender<Capabilities>,
    ) -> Result<(Capabilities, Introduced), RelayError> {
        let named = || Introduced::As(Box::new(client.clone()));
        if self.settings.identity == ClientIdentity::ProxyV2 {
            // it is the client's connection already
            let offered = self.greet_as(conversation, client).await?;
            if client.esmtp {
                learn(&offered, known);
            }
            self.means(&offered)?;
            return Ok((offered, named()));
        }
        let offered = greet(conversation, &self.settings.hostname, true).await.map_err(of_us)?;
        learn(&offered, known);
        Ok(match self.means(&offered)? {
            Means::Nothing => (offered, Introduced::Nobody),
            Means::Xforward(attributes) => (offered, Introduced::ByTransaction(attributes)),
            Means::Xclient(attributes) => {
                (self.impersonate(conversation, client, attributes).await?, named())
            }
        })
    }

    /// Tries each address of the host, each with its share of the time that is left.
    async fn connect(&self, client: Option<&ClientInfo>) -> Result<Conversation, RelayError> {
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
            match timeout(time, self.open(address, client)).await {
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
    async fn open(
        &self,
        address: SocketAddr,
        client: Option<&ClientInfo>,
    ) -> Result<Conversation, RelayError> {
        let mut conversation = self.dial(address, client).await?;
        let required = match self.settings.tls {
            Tls::None => return Ok(conversation),
            Tls::Opportunistic => false,
            Tls::Required => true,
        };
        if !greet(&mut conversation, &self.settings.hostname, true).await.map_err(of_us)?.starttls {
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
                self.dial(address, client).await
            }
            Err(error) => Err(of_us(error)),
        }
    }

    /// A connection whose banner was read; where a PROXY header is said, that was first.
    async fn dial(
        &self,
        address: SocketAddr,
        client: Option<&ClientInfo>,
    ) -> Result<Conversation, RelayError> {
        let unreachable = |error| RelayError::Unreachable(format!("{address}: {error}"));
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        let counted = self.metrics.relay_connection();
        stream.set_nodelay(true).map_err(unreachable)?;
        let header = match self.settings.identity {
            ClientIdentity::ProxyV2 => proxy::header(client.map(|client| client.address), address)?,
            _ => Vec::new(),
        };
        Conversation::open(stream, &header, self.settings.reply_timeout, counted).await.map_err(of_us)
    }

    /// Whether [`Self::means`] may come to XCLIENT or XFORWARD.
    pub(super) fn wants_name(&self) -> bool {
        match self.settings.identity {
            ClientIdentity::Auto | ClientIdentity::Xclient | ClientIdentity::Xforward => true,
            ClientIdentity::ProxyV2 => false,
            ClientIdentity::None => self.settings.xclient_required,
        }
    }

    /// How the client is to be made known, or an error when that has to be and can't.
    fn means(&self, offered: &Capabilities) -> Result<Means, RelayError> {
        use ClientIdentity::{Auto, None as Nothing, ProxyV2, Xclient, Xforward};
        let xclient = offered.xclient.filter(|attributes| attributes.addr).map(Means::Xclient);
        let xforward = offered.xforward.map(Means::Xforward);
        match self.settings.identity {
            // with proxy-v2 the relay took the client's address at its word already
            ProxyV2 if self.settings.xclient_required => Err(RelayError::NoXclient),
            _ if self.settings.xclient_required => xclient.ok_or(RelayError::NoXclient),
            Xclient => xclient.ok_or(RelayError::NoXclient),
            Xforward => xforward.ok_or(RelayError::NoXforward),
            Auto => Ok(xclient.or(xforward).unwrap_or(Means::Nothing)),
            ProxyV2 | Nothing => Ok(Means::Nothing),
        }
    }

    /// XCLIENT, and the greeting again, since the relay starts over after it. The command that has ADDR is the last; how
    /// that one is answered may be a verdict on the client.
    async fn impersonate(
        &self,
        conversation: &mut Conversation,
        client: &ClientInfo,
        attributes: Attributes,
    ) -> Result<Capabilities, RelayError> {
        let commands = xclient::commands(client, attributes);
        for (at, command) in commands.iter().enumerate() {
            let answer = conversation.command(Stage::Xclient, command, &READY).await;
            let is_last = at + 1 == commands.len();
            answer.map_err(|error| if is_last { of_the_client(error, false) } else { of_us(error) })?;
        }
        self.greet_as(conversation, client).await
    }

    /// Greets as the client did, HELO or EHLO: Postfix judges and records this.
    async fn greet_as(
        &self,
        conversation: &mut Conversation,
        client: &ClientInfo,
    ) -> Result<Capabilities, RelayError> {
        let name = attribute::greeting_name(client);
        let verbatim = name.as_ref().is_some_and(|name| *name == client.helo);
        let name = name.unwrap_or_else(|| self.settings.hostname.clone());
        let offered = greet(conversation, &name, client.esmtp).await;
        offered.map_err(|error| of_the_client(error, verbatim))
    }
}

/// What the relay offers is what our clients are told. (One that was greeted with HELO offers nothing to anyone, which
/// says nothing of the relay.)
fn learn(offered: &Capabilities, known: &watch::Sender<Capabilities>) {
    known.send_if_modified(|known| {
        let differs = known != offered;
        if differs {
            known.clone_from(offered);
        }
        differs
    });
}

/// EHLO, or HELO for a relay that refuses EHLO (RFC 5321 3.2); then there are no extensions.
async fn greet(conversation: &mut Conversation, name: &str, esmtp: bool) -> Result<Capabilities, RelayError> {
    if esmtp {
        match conversation.command(Stage::Greeting, &format!("EHLO {name}"), &DONE).await {
            Err(RelayError::Rejected { reply, .. }) if reply.code() >= 500 => {}
            answer => return answer.map(|reply| Capabilities::parse(reply.text())),
        }
    }
    conversation.command(Stage::Greeting, &format!("HELO {name}"), &DONE).await?;
    Ok(Capabilities::default())
}
