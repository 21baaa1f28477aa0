//! Next hops: where accepted mail goes, and what becomes of it there.
//!
//! [`Visit::begin`] takes a [`Permit`], so a refused sender never costs the relay a connection. What the relay says
//! of a message or recipient is the client's answer; what goes wrong between us and the relay is 451, and 2xx is said
//! only where the relay said it (or the Maildir has the file on disk). Nothing is queued: the client is the queue.

mod attribute;
mod capabilities;
mod connection;
mod conversation;
mod error;
mod maildir;
mod pool;
mod proxy;
mod reply_parser;
mod smtp;
mod transaction;
mod unstuff;
mod xclient;
mod xforward;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use compact_str::CompactString;
use tokio::sync::watch;

pub use crate::relay::capabilities::{Capabilities, XclientAttributes, XforwardAttributes};
pub use crate::relay::error::{RelayError, Stage};
pub use crate::relay::reply_parser::{Malformed, ReplyParser};

use crate::policy::decide::Permit;
use crate::relay::maildir::{Maildir, MaildirTransaction};
use crate::relay::smtp::SmtpHop;
use crate::relay::transaction::SmtpTransaction;
use crate::smtp::address::{DomainName, ForwardPath, ReversePath};
use crate::smtp::reply::{Enhanced, Reply};

/// `relay.next_hop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// `maildir:PATH`.
    Maildir(PathBuf),
    /// `smtp://HOST:PORT`; the host is a name or an address (IPv6 in brackets), the port is 25 when left out.
    Smtp {
        /// Name or address, without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
}

/// How the relay learns who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientIdentity {
    /// XCLIENT where the relay offers it, else XFORWARD where it offers that, else nothing.
    Auto,
    /// XCLIENT; a relay without it is not used.
    Xclient,
    /// XFORWARD, for the relay's log; a relay without it is not used.
    Xforward,
    /// A PROXY header, version 2, before everything else. Nothing tells whether the relay expects one.
    ProxyV2,
    /// Nothing is said.
    None,
}

/// Whether the connection to the relay is encrypted. Its certificate isn't checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Never.
    None,
    /// Where the relay offers STARTTLS and the handshake works (RFC 7435), else not.
    Opportunistic,
    /// Always; to a relay that can't, no mail goes.
    Required,
}

/// `[relay]` as the next hop needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where mail goes.
    pub next_hop: NextHop,
    /// How the relay learns the client.
    pub identity: ClientIdentity,
    /// Connections to the relay at one time.
    pub max_connections: usize,
    /// For the connection and the greeting.
    pub connect_timeout: Duration,
    /// For each reply, and for each write that makes no progress.
    pub reply_timeout: Duration,
    /// Whether XCLIENT is needed because rmxd has no list of recipient domains of its own (DESIGN 1.6).
    pub xclient_required: bool,
    /// Our own name, for EHLO.
    pub hostname: String,
    /// Encryption.
    pub tls: Tls,
}

/// Who the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// Its address and port.
    pub address: SocketAddr,
    /// Its name.
    pub name: ClientName,
    /// How it greeted: as given, not to be trusted.
    pub helo: CompactString,
    /// Whether it greeted with EHLO.
    pub esmtp: bool,
}

/// What is known of the client's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientName {
    /// The PTR record's name, which has the client's address.
    Confirmed(DomainName),
    /// There is none, or it isn't confirmed.
    Unknown,
    /// DNS didn't say.
    TempUnknown,
}

/// What opens a transaction. Values of parameters are as the client gave them, and checked.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// Who sends it to us.
    pub client: &'a ClientInfo,
    /// Where bounces go.
    pub reverse_path: &'a ReversePath,
    /// SIZE as the client declared it.
    pub size: Option<u64>,
    /// Whether the client said BODY=8BITMIME.
    pub eight_bit: bool,
    /// Whether the client said SMTPUTF8 (RFC 6531): a relay that can't take it gets nothing.
    pub smtputf8: bool,
    /// RET (RFC 3461 4.3); sent where the relay offers DSN.
    pub ret: Option<&'a str>,
    /// ENVID (RFC 3461 4.4), still in xtext; sent where the relay offers DSN.
    pub envid: Option<&'a str>,
    /// The transaction's id, for the log.
    pub id: &'a str,
}

impl<'a> Envelope<'a> {
    /// Without parameters.
    #[must_use]
    pub fn new(client: &'a ClientInfo, reverse_path: &'a ReversePath, id: &'a str) -> Self {
        Self {
            client,
            reverse_path,
            size: None,
            eight_bit: false,
            smtputf8: false,
            ret: None,
            envid: None,
            id,
        }
    }
}

/// RCPT's parameters (RFC 3461 4), as the client gave them, and checked; sent where the relay offers DSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RcptParameters<'a> {
    /// NOTIFY.
    pub notify: Option<&'a str>,
    /// ORCPT, still in xtext.
    pub orcpt: Option<&'a str>,
}

/// A recipient as the client named it.
#[derive(Debug, Clone, Copy)]
pub struct Recipient<'a> {
    /// Its address.
    pub path: &'a ForwardPath,
    /// What RCPT said besides.
    pub parameters: RcptParameters<'a>,
}

impl<'a> Recipient<'a> {
    /// Without parameters.
    #[must_use]
    pub fn new(path: &'a ForwardPath) -> Self {
        Self { path, parameters: RcptParameters::default() }
    }
}

/// The next hop. Cheap to clone; all clones share the limits and what is known of the relay.
#[derive(Debug, Clone)]
pub struct Relay {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hop: Hop,
    known: watch::Sender<Capabilities>,
}

#[derive(Debug)]
enum Hop {
    Smtp(SmtpHop),
    Maildir(Maildir),
}

impl Relay {
    /// A next hop; nothing is contacted or created yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let (hop, known) = match &settings.next_hop {
            NextHop::Maildir(path) => {
                (Hop::Maildir(Maildir::new(path, &settings.hostname)), Capabilities::maildir())
            }
            NextHop::Smtp { host, port } => {
                (Hop::Smtp(SmtpHop::new(host, *port, &settings)), Capabilities::unknown())
            }
        };
        Self { inner: Arc::new(Inner { hop, known: watch::Sender::new(known) }) }
    }

    /// Tries whether a transaction could be had: a relay is connected to and greeted, a Maildir created and
    /// written to. Costs the relay one connection, which carries no mail.
    ///
    /// # Errors
    /// Why not; [`RelayError::NoXclient`] is one that waiting doesn't mend.
    pub async fn probe(&self) -> Result<Capabilities, RelayError> {
        match &self.inner.hop {
            Hop::Smtp(hop) => hop.probe(&self.inner.known).await?,
            Hop::Maildir(maildir) => maildir.probe().await?,
        }
        Ok(self.capabilities())
    }

    /// What the next hop can take, as of the last time that it was greeted.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.inner.known.borrow().clone()
    }

    /// What one client's session has of the next hop. It costs nothing before the first transaction.
    #[must_use]
    pub fn visit(&self) -> Visit {
        Visit { inner: Arc::clone(&self.inner), key: Some(Arc::new(())) }
    }
}

/// One client's session at the next hop: a connection on which the relay knows the client is kept for its next
/// transaction, and closed when this is dropped.
#[derive(Debug)]
pub struct Visit {
    inner: Arc<Inner>,
    /// Taken when this is dropped. Its transactions and connections see then that nobody comes back for them.
    key: Option<Arc<()>>,
}

impl Visit {
    /// Whether the next hop may be told the client's name. If not, [`ClientName::Unknown`] will do.
    #[must_use]
    pub fn wants_name(&self) -> bool {
        match &self.inner.hop {
            Hop::Maildir(_) => false,
            Hop::Smtp(hop) => hop.wants_name(),
        }
    }

    /// Opens a transaction, up to and with the first recipient; the reply is the one for that.
    ///
    /// # Errors
    /// The reply for the client when there is no transaction, whatever the recipient.
    pub async fn begin(
        &self,
        _permit: Permit,
        envelope: Envelope<'_>,
        first: Recipient<'_>,
    ) -> Result<(Transaction, Reply), Reply> {
        let (leg, reply) = match &self.inner.hop {
            Hop::Maildir(maildir) => {
                (Leg::Maildir(Box::new(maildir.begin(envelope.reverse_path))), maildir_takes())
            }
            Hop::Smtp(hop) => match hop.begin(&self.key(), &envelope, &first, &self.inner.known).await {
                Ok((transaction, answer)) => (
                    Leg::Smtp(Box::new(transaction)),
                    answer.unwrap_or_else(|error| told(envelope.id, &error)),
                ),
                Err(error) => return Err(told(envelope.id, &error)),
            },
        };
        Ok((Transaction { leg, id: CompactString::new(envelope.id), failure: None }, reply))
    }

    fn key(&self) -> Weak<()> {
        self.key.as_ref().map(Arc::downgrade).unwrap_or_default()
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let known_elsewhere = self.key.take().is_some_and(|key| Arc::weak_count(&key) > 0);
        if let Hop::Smtp(hop) = &self.inner.hop
            && known_elsewhere
        {
            hop.forget();
        }
    }
}

/// A message on its way to the next hop. Dropping it anywhere undoes it: the connection is closed without a dot, the
/// file removed.
#[derive(Debug)]
pub struct Transaction {
    leg: Leg,
    id: CompactString,
    /// The first failure after DATA was asked for; it stays the answer.
    failure: Option<Reply>,
}

#[derive(Debug)]
enum Leg {
    Smtp(Box<SmtpTransaction>),
    Maildir(Box<MaildirTransaction>),
}

impl Transaction {
    /// The relay's answer for this recipient, made printable and bounded.
    pub async fn rcpt(&mut self, recipient: Recipient<'_>) -> Reply {
        match &mut self.leg {
            Leg::Maildir(_) => maildir_takes(),
            Leg::Smtp(transaction) => {
                transaction.rcpt(&recipient).await.unwrap_or_else(|error| told(&self.id, &error))
            }
        }
    }

    /// Asks for the message to be taken.
    ///
    /// # Errors
    /// The reply for the client, at the end of its message or at once.
    pub async fn data(&mut self) -> Result<(), Reply> {
        let done = match &mut self.leg {
            Leg::Smtp(transaction) => transaction.data().await,
            Leg::Maildir(transaction) => transaction.data().await,
        };
        self.keep(done)
    }

    /// Passes on a piece of the message: strict CRLF, still dot-stuffed, split anywhere, without the final dot. Small
    /// pieces are collected until [`Self::flush`] or [`Self::finish`].
    ///
    /// # Errors
    /// The reply for the client at the end of its message; nothing that is written after it counts.
    pub async fn write(&mut self, stuffed: &[u8]) -> Result<(), Reply> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let done = match &mut self.leg {
            Leg::Smtp(transaction) => transaction.write(stuffed).await,
            Leg::Maildir(transaction) => transaction.write(stuffed).await,
        };
        self.keep(done)
    }

    /// Sends what was written so far: to be called before a wait for more of the message, so that the relay doesn't
    /// take a slow client's pause for silence of ours.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub async fn flush(&mut self) -> Result<(), Reply> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let done = match &mut self.leg {
            Leg::Smtp(transaction) => transaction.flush().await,
            Leg::Maildir(_) => Ok(()),
        };
        self.keep(done)
    }

    /// Ends the message and awaits the answer. Only a 2xx given here may become the client's (DESIGN 1.1).
    pub async fn finish(self) -> Reply {
        if let Some(failure) = self.failure {
            return failure;
        }
        let done = match self.leg {
            Leg::Smtp(transaction) => transaction.finish().await,
            Leg::Maildir(transaction) => {
                transaction.finish().await.map(|()| Reply::new(250, Enhanced(2, 0, 0), "Message stored"))
            }
        };
        done.unwrap_or_else(|error| told(&self.id, &error))
    }

    /// Gives up. Before DATA the relay is told RSET or QUIT; it isn't waited for.
    pub async fn abandon(self) {
        if let Leg::Smtp(transaction) = self.leg {
            transaction.abandon();
        }
    }

    fn keep(&mut self, done: Result<(), RelayError>) -> Result<(), Reply> {
        done.map_err(|error| self.failure.insert(told(&self.id, &error)).clone())
    }
}

/// A Maildir doesn't look at recipients.
fn maildir_takes() -> Reply {
    Reply::new(250, Enhanced(2, 1, 5), "Recipient ok")
}

/// The reply for the client; the log learns the reason, which the client is not told.
fn told(id: &str, error: &RelayError) -> Reply {
    match error {
        RelayError::Rejected { .. } if !error.is_operators_trouble() => {
            tracing::debug!(target: "rmxd::relay", id, %error, "relay refused");
        }
        _ if error.is_final() || error.is_operators_trouble() => {
            tracing::error!(target: "rmxd::relay", id, %error, "no transaction")
        }
        _ => tracing::warn!(target: "rmxd::relay", id, %error, "transaction failed"),
    }
    error.reply()
}

#[cfg(test)]
mod tests;
