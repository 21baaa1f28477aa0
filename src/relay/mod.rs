//! Next hops: where accepted mail goes, and what becomes of it there.
//!
//! [`ClientLease::begin`] takes a [`Permit`], so a refused sender never costs the relay a connection. What the relay says
//! of a message or recipient is the client's answer; what goes wrong between us and the relay is 451, and 2xx is said
//! only where the relay said it (or the Maildir has the file on disk). Nothing is queued: the client is the queue.

mod answer;
mod attribute;
mod availability;
mod capabilities;
mod connection;
mod conversation;
mod envelope;
mod error;
mod failure_reply;
mod hold;
mod line_feeds;
mod maildir;
mod pool;
mod proxy;
mod reply_parser;
mod settings;
mod slots;
mod smtp;
mod transaction;
mod verdict;
mod xclient;
mod xforward;

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

pub use crate::relay::answer::{HopReply, NextHopFailure};
pub use crate::relay::availability::Availability;
pub use crate::relay::capabilities::{Attributes, Capabilities};
pub use crate::relay::envelope::{ClientInfo, ClientName, Envelope, Recipient};
pub use crate::relay::error::{RelayError, Stage};
pub use crate::relay::hold::{Hold, TakenBack};
pub use crate::relay::reply_parser::{Malformed, ReplyParser};
pub use crate::relay::settings::{ClientIdentity, NextHop, Settings, Tls};

use crate::gate::Permit;
use crate::metrics::{Metrics, RelayOutcome};
use crate::relay::availability::LastReach;
use crate::relay::failure_reply::LogSubject;
use crate::relay::maildir::{Maildir, MaildirTransaction};
use crate::relay::smtp::SmtpHop;
use crate::relay::transaction::SmtpTransaction;
use crate::smtp::reply::{Enhanced, Reply};

/// The next hop. Cheap to clone; all clones share the limits and what is known of the relay.
#[derive(Debug, Clone)]
pub struct Relay {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Arc<Settings>,
    hop: Hop,
    known: watch::Sender<Capabilities>,
    reach: LastReach,
    metrics: Metrics,
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
        Self::with_metrics(settings, Metrics::default())
    }

    /// The same, counted there.
    #[must_use]
    pub fn with_metrics(settings: Settings, metrics: Metrics) -> Self {
        let settings = Arc::new(settings);
        let (hop, known) = match &settings.next_hop {
            NextHop::Maildir(path) => {
                (Hop::Maildir(Maildir::new(path, &settings.hostname)), Capabilities::maildir())
            }
            NextHop::Smtp { host, port } => {
                let hop = SmtpHop::new(host, *port, Arc::clone(&settings), metrics.clone());
                (Hop::Smtp(hop), Capabilities::unknown())
            }
        };
        let known = watch::Sender::new(known);
        Self { inner: Arc::new(Inner { settings, hop, known, reach: LastReach::new(), metrics }) }
    }

    /// The next hop by other settings, for the visits that begin from now on. If it is the same host, the connections of
    /// both count together, each lease's against its own limit: never are there more than the larger one allows, nor
    /// more than the new one once the old visits have ended. Another host's connections are its own. Whether the same next
    /// hop could be used is known still.
    #[must_use]
    pub fn with_settings(&self, settings: Settings) -> Self {
        let metrics = self.inner.metrics.clone();
        if settings.next_hop != self.inner.settings.next_hop {
            return Self::with_metrics(settings, metrics);
        }
        let settings = Arc::new(settings);
        let hop = match &self.inner.hop {
            Hop::Smtp(hop) => Hop::Smtp(hop.with_settings(Arc::clone(&settings))),
            Hop::Maildir(maildir) => Hop::Maildir(maildir.with_settings(&settings.hostname)),
        };
        let known = watch::Sender::new(self.capabilities());
        let reach = LastReach::knowing(self.reach());
        Self { inner: Arc::new(Inner { settings, hop, known, reach, metrics }) }
    }

    /// Tries whether a transaction could be had: a relay is connected to and greeted, a Maildir created and
    /// written to. Costs the relay one connection, which carries no mail.
    ///
    /// # Errors
    /// Why not; [`RelayError::NoXclient`] is one that waiting doesn't mend.
    pub async fn probe(&self) -> Result<Capabilities, RelayError> {
        self.probe_within(self.inner.settings.connect_timeout).await
    }

    /// Waits so long for a connection that gets free, where all are in use.
    async fn probe_within(&self, patience: Duration) -> Result<Capabilities, RelayError> {
        let found = match &self.inner.hop {
            Hop::Smtp(hop) => hop.probe(&self.inner.known, patience).await,
            Hop::Maildir(maildir) => maildir.probe().await,
        };
        self.inner.reach.note(found.as_ref().copied());
        match found {
            // those that are in use tell
            Ok(()) | Err(RelayError::Busy(_)) => Ok(self.capabilities()),
            Err(error) => Err(error),
        }
    }

    /// The settings in effect.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Whether the next hop could be used when that was last tried, by a probe or by a transaction.
    #[must_use]
    pub fn reach(&self) -> Availability {
        self.inner.reach.known()
    }

    /// The same, no older than `age`, else it is tried now. Takes no longer than `patience`.
    pub async fn reach_within(&self, age: Duration, patience: Duration) -> Availability {
        let relay = self.clone();
        let probe = async move {
            // what it finds is noted
            relay.probe_within(patience / 4).await.ok();
        };
        self.inner.reach.within(age, patience, probe).await
    }

    /// [`Relay::reach`], which changes there when the next hop can't be used where it could, or the other way round.
    #[must_use]
    pub fn watch_availability(&self) -> watch::Receiver<Availability> {
        self.inner.reach.watch()
    }

    /// What the next hop can take, as of the last time that it was greeted.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.inner.known.borrow().clone()
    }

    /// What one client's session has of the next hop. It costs nothing before the first transaction.
    #[must_use]
    pub fn lease(&self) -> ClientLease {
        ClientLease { inner: Arc::clone(&self.inner), key: Some(Arc::new(())) }
    }
}

/// One client's session at the next hop: a connection on which the relay knows the client is kept for its next
/// transaction, and closed when this is dropped.
#[derive(Debug)]
pub struct ClientLease {
    inner: Arc<Inner>,
    /// Taken when this is dropped. Its transactions and connections see then that nobody comes back for them.
    key: Option<Arc<()>>,
}

impl ClientLease {
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
    ) -> Result<(Transaction, HopReply), HopReply> {
        let subject = LogSubject::of(&envelope);
        let mut end = End { outcome: RelayOutcome::Abandoned, inner: Arc::clone(&self.inner) };
        let (backend, reply) = match &self.inner.hop {
            Hop::Maildir(maildir) => {
                (Backend::Maildir(Box::new(maildir.begin(envelope.reverse_path))), maildir_takes())
            }
            Hop::Smtp(hop) => {
                let begun = hop.begin(&self.key(), &envelope, &first, &self.inner.known).await;
                self.inner.reach.note(begun.as_ref().map(|_begun| ()));
                match begun {
                    Ok((transaction, answer)) => {
                        let reply = answer.map_or_else(
                            |error| {
                                end.outcome = error.outcome();
                                subject.told(&error)
                            },
                            HopReply::taken,
                        );
                        (Backend::Smtp(Box::new(transaction)), reply)
                    }
                    Err(error) => {
                        end.outcome = error.outcome();
                        return Err(subject.told(&error));
                    }
                }
            }
        };
        Ok((Transaction { backend, subject, failure: None, end }, reply))
    }

    fn key(&self) -> Weak<()> {
        self.key.as_ref().map(Arc::downgrade).unwrap_or_default()
    }
}

impl Drop for ClientLease {
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
    backend: Backend,
    subject: LogSubject,
    /// The first failure after DATA was asked for; it stays the answer.
    failure: Option<HopReply>,
    end: End,
}

/// How a transaction ends, counted when it does.
#[derive(Debug)]
struct End {
    /// As far as is known by now.
    outcome: RelayOutcome,
    inner: Arc<Inner>,
}

impl End {
    /// A folder that can't be written stops all mail, whichever message found it out.
    fn note_folder(&self, error: &RelayError) {
        if matches!(error, RelayError::Folder(_)) {
            self.inner.reach.note(Err(error));
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.inner.metrics.relay_transaction(self.outcome);
    }
}

#[derive(Debug)]
enum Backend {
    Smtp(Box<SmtpTransaction>),
    Maildir(Box<MaildirTransaction>),
}

impl Transaction {
    /// The relay's answer for this recipient, made printable and bounded.
    pub async fn rcpt(&mut self, _permit: Permit, recipient: Recipient<'_>) -> HopReply {
        match &mut self.backend {
            Backend::Maildir(_) => maildir_takes(),
            Backend::Smtp(transaction) => {
                let answer = transaction.rcpt(&recipient).await;
                if answer.is_ok() {
                    // As long as every recipient was refused, that is how it ends.
                    self.end.outcome = RelayOutcome::Abandoned;
                }
                answer.map_or_else(|error| self.subject.told(&error), HopReply::taken)
            }
        }
    }

    /// Asks for the message to be taken.
    ///
    /// # Errors
    /// The reply for the client, at the end of its message or at once.
    pub async fn data(&mut self) -> Result<(), HopReply> {
        let done = match &mut self.backend {
            Backend::Smtp(transaction) => transaction.data().await,
            Backend::Maildir(transaction) => transaction.data().await,
        };
        self.keep(done)
    }

    /// Passes on a piece of the message: strict CRLF, still dot-stuffed, split anywhere, without the final dot. Small
    /// pieces are collected until [`Self::flush`] or [`Self::finish`].
    ///
    /// # Errors
    /// The reply for the client at the end of its message; nothing that is written after it counts.
    pub async fn write(&mut self, stuffed: &[u8]) -> Result<(), HopReply> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let done = match &mut self.backend {
            Backend::Smtp(transaction) => transaction.write(stuffed).await,
            Backend::Maildir(transaction) => transaction.write(stuffed).await,
        };
        self.keep(done)
    }

    /// Sends what was written so far: to be called before a wait for more of the message, so that the relay doesn't
    /// take a slow client's pause for silence of ours.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub async fn flush(&mut self) -> Result<(), HopReply> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let done = match &mut self.backend {
            Backend::Smtp(transaction) => transaction.flush().await,
            Backend::Maildir(_) => Ok(()),
        };
        self.keep(done)
    }

    /// Ends the message and awaits the answer. Only a 2xx given here may become the client's (contract 1.1).
    pub async fn finish(mut self, _permit: Permit) -> HopReply {
        if let Some(failure) = self.failure {
            return failure;
        }
        let done = match self.backend {
            Backend::Smtp(transaction) => transaction.finish().await,
            Backend::Maildir(transaction) => {
                transaction.finish().await.map(|()| Reply::new(250, Enhanced(2, 0, 0), "Message stored"))
            }
        };
        match &done {
            Err(error) => self.end.note_folder(error),
            Ok(_reply) if matches!(self.end.inner.hop, Hop::Maildir(_)) => self.end.inner.reach.note(Ok(())),
            // that the relay can be used was noted at the beginning
            Ok(_reply) => {}
        }
        self.end.outcome = done.as_ref().map_or_else(RelayError::outcome, |_reply| RelayOutcome::Delivered);
        done.map_or_else(|error| self.subject.told(&error), HopReply::taken)
    }

    /// What the client is to be waited for by, where others may wait for its connection to the relay.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        match &self.backend {
            Backend::Maildir(_) => None,
            Backend::Smtp(transaction) => Some(transaction.hold()),
        }
    }

    /// Gives up. Before DATA the relay is told RSET or QUIT; it isn't waited for.
    pub async fn abandon(self) {
        if let Backend::Smtp(transaction) = self.backend {
            transaction.abandon();
        }
    }

    fn keep(&mut self, done: Result<(), RelayError>) -> Result<(), HopReply> {
        done.map_err(|error| {
            self.end.note_folder(&error);
            self.end.outcome = error.outcome();
            self.failure.insert(self.subject.told(&error)).clone()
        })
    }
}

/// A Maildir doesn't look at recipients.
fn maildir_takes() -> HopReply {
    HopReply::taken(Reply::new(250, Enhanced(2, 1, 5), "Recipient ok"))
}

#[cfg(test)]
mod tests;
