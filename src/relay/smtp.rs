//! A next hop by SMTP, contacted only when a transaction is permitted.
//!
//! By XCLIENT, where offered, the relay learns the client and applies its own rules as if it had port 25 itself; where
//! XCLIENT is required and not offered, no mail goes to the relay (contract 1.7). Connections are reused where that is
//! safe. If a reused one turns out to be closed before the reply to MAIL, a new one is tried once; after that reply a
//! failure is left to the client's next try. No authentication.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::metrics::{Metrics, RelayStage, Wait};
use crate::policy::door::DoorName;
use crate::relay::capabilities::{Attributes, Capabilities};
use crate::relay::connection::{Connection, Introduced};
use crate::relay::conversation::{Conversation, DONE, READY};
use crate::relay::error::{RelayError, Stage};
use crate::relay::pool::{LeaseKey, Pool};
use crate::relay::transaction::{SmtpTransaction, open};
use crate::relay::verdict::{of_the_client, of_us};
use crate::relay::{
    ClientIdentity, ClientInfo, Envelope, Recipient, Settings, Tls, attribute, proxy, xclient,
};
use crate::smtp::reply::Reply;

#[derive(Debug)]
pub(super) struct SmtpHop {
    host: String,
    port: u16,
    settings: Arc<Settings>,
    pool: Arc<Pool>,
    metrics: Metrics,
}

/// The command that makes the client known on a connection.
enum Means {
    Nothing,
    Xclient(Attributes),
    Xforward(Attributes),
}

impl SmtpHop {
    pub(super) fn new(host: &str, port: u16, settings: Arc<Settings>, metrics: Metrics) -> Self {
        Self { host: host.to_owned(), port, settings, pool: Arc::default(), metrics }
    }

    /// The same relay with other settings. Connections of both count together.
    pub(super) fn with_settings(&self, settings: Arc<Settings>) -> Self {
        let (pool, metrics) = (Arc::clone(&self.pool), self.metrics.clone());
        Self { host: self.host.clone(), port: self.port, settings, pool, metrics }
    }

    /// Connects, greets and quits, and so learns the relay's capabilities. `Busy` where no connection is free within
    /// `patience`.
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

    /// Opens a transaction: connection, XCLIENT or the like, MAIL and the first RCPT, whose reply is returned too.
    pub(super) async fn begin(
        &self,
        lease: &LeaseKey,
        envelope: &Envelope<'_>,
        first: &Recipient<'_>,
        known: &watch::Sender<Capabilities>,
    ) -> Result<(SmtpTransaction, Result<Reply, RelayError>), RelayError> {
        let began = Instant::now();
        let slot = self.pool.slot(Some(envelope.client), &self.settings).await;
        self.metrics.waited(DoorName::Smtp, Wait::Connection, began.elapsed());
        let slot = slot.ok_or(RelayError::Busy(self.settings.max_connections))?;
        let mut fresh = false;
        loop {
            let waiting = if fresh { None } else { self.reusable(lease, envelope).await };
            let mut connection = match waiting {
                Some(connection) => connection,
                None => {
                    fresh = true;
                    self.pool.make_room(&slot);
                    let began = Instant::now();
                    let established = self.establish(envelope.client, known).await;
                    self.metrics.relay_stage(RelayStage::Connect, began.elapsed());
                    established?
                }
            };
            let began = Instant::now();
            let opened = open(&mut connection, envelope, first).await;
            self.metrics.relay_stage(RelayStage::Envelope, began.elapsed());
            match opened {
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

    pub(super) fn forget(&self) {
        self.pool.forget();
    }

    /// An idle connection that is still open and can carry this message.
    async fn reusable(&self, lease: &LeaseKey, envelope: &Envelope<'_>) -> Option<Connection> {
        while let Some(mut connection) = self.pool.take(lease, envelope.client, &self.settings) {
            let able = connection.offered.smtputf8 || !envelope.smtputf8;
            if able && connection.conversation.is_ready().await {
                return Some(connection);
            }
            connection.quit();
        }
        None
    }

    /// A new connection on which the relay knows the client.
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
            // the relay sees the client since the PROXY header
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
            Means::Nothing => (offered, Introduced::Gateway),
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

    /// A connection, with TLS according to `relay.tls`; the greeting comes next (again, after TLS).
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

    /// A connection up to its banner, with a PROXY header first where `relay.identity` has one.
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

    /// Whether [`Self::means`] may be XCLIENT or XFORWARD.
    pub(super) fn wants_name(&self) -> bool {
        match self.settings.identity {
            ClientIdentity::Auto | ClientIdentity::Xclient | ClientIdentity::Xforward => true,
            ClientIdentity::ProxyV2 => false,
            ClientIdentity::None => self.settings.xclient_required,
        }
    }

    /// The way to make the client known, or an error where one is required and not offered.
    fn means(&self, offered: &Capabilities) -> Result<Means, RelayError> {
        use ClientIdentity::{Auto, None as Nothing, ProxyV2, Xclient, Xforward};
        let xclient = offered.xclient.filter(|attributes| attributes.addr).map(Means::Xclient);
        let xforward = offered.xforward.map(Means::Xforward);
        match self.settings.identity {
            // a relay that accepts PROXY headers trusts the address without a check of XCLIENT
            ProxyV2 if self.settings.xclient_required => Err(RelayError::NoXclient),
            _ if self.settings.xclient_required => xclient.ok_or(RelayError::NoXclient),
            Xclient => xclient.ok_or(RelayError::NoXclient),
            Xforward => xforward.ok_or(RelayError::NoXforward),
            Auto => Ok(xclient.or(xforward).unwrap_or(Means::Nothing)),
            ProxyV2 | Nothing => Ok(Means::Nothing),
        }
    }

    /// XCLIENT, and then the greeting again, since the relay starts over. The last command has ADDR; the reply to it
    /// may be a refusal of the client.
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

    /// Greets as the client did, HELO or EHLO: Postfix checks and records this.
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

/// The relay's offer becomes our offer to clients. (Don't call it after HELO: that reply has no extensions, whatever
/// the relay supports.)
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
