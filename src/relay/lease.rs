//! One client's use of the next hop: a lease for its session, and in it one transaction after another.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::gate::Permit;
use crate::metrics::{RelayOutcome, RelayStage};
use crate::relay::answer::HopReply;
use crate::relay::envelope::{Envelope, Recipient};
use crate::relay::error::RelayError;
use crate::relay::failure_reply::LogSubject;
use crate::relay::hold::Hold;
use crate::relay::hop::{Hop, Inner};
use crate::relay::maildir::MaildirTransaction;
use crate::relay::transaction::SmtpTransaction;
use crate::smtp::reply::{Enhanced, Reply};

/// One client's session at the next hop: a connection on which the relay knows the client is kept for its next
/// transaction, and closed when this is dropped.
#[derive(Debug)]
pub struct ClientLease {
    inner: Arc<Inner>,
    /// Taken on drop: transactions and pooled connections see by it that the lease has ended.
    key: Option<Arc<()>>,
}

impl ClientLease {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, key: Some(Arc::new(())) }
    }

    /// Whether the next hop may get the client's name. If not, [`crate::relay::ClientName::Unknown`] will do.
    #[must_use]
    pub fn wants_name(&self) -> bool {
        match &self.inner.hop {
            Hop::Maildir(_) => false,
            Hop::Smtp(hop) => hop.wants_name(),
        }
    }

    /// Opens a transaction with its first recipient, and returns the reply to that recipient.
    ///
    /// # Errors
    /// The reply for the client where there is no transaction.
    pub async fn begin(
        &self,
        _permit: Permit,
        envelope: Envelope<'_>,
        first: Recipient<'_>,
    ) -> Result<(Transaction, HopReply), HopReply> {
        let subject = LogSubject::of(&envelope);
        let mut end = End { outcome: RelayOutcome::Abandoned, message: None, inner: Arc::clone(&self.inner) };
        let (backend, reply) = match &self.inner.hop {
            Hop::Maildir(maildir) => {
                (Backend::Maildir(Box::new(maildir.begin(envelope.reverse_path))), maildir_accepts())
            }
            Hop::Smtp(hop) => {
                let begun = hop.begin(&self.key(), &envelope, &first, &self.inner.known).await;
                self.inner.availability.note(begun.as_ref().map(|_begun| ()));
                match begun {
                    Ok((transaction, answer)) => {
                        let reply = answer.map_or_else(
                            |error| {
                                end.outcome = error.outcome();
                                subject.reply_to(&error)
                            },
                            HopReply::taken,
                        );
                        (Backend::Smtp(Box::new(transaction)), reply)
                    }
                    Err(error) => {
                        end.outcome = error.outcome();
                        return Err(subject.reply_to(&error));
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

/// A message on its way to the next hop. A drop undoes it: the connection is closed without the final dot, the file
/// removed.
#[derive(Debug)]
pub struct Transaction {
    backend: Backend,
    subject: LogSubject,
    /// The first failure after DATA. It is the reply to every later call.
    failure: Option<HopReply>,
    end: End,
}

/// Counts the transaction when it ends.
#[derive(Debug)]
struct End {
    /// The outcome if it ended now.
    outcome: RelayOutcome,
    /// What the next hop took for the message so far, from DATA on.
    message: Option<Duration>,
    inner: Arc<Inner>,
}

impl End {
    /// The next hop was busy with the message since then.
    fn add_to_message(&mut self, began: Instant) {
        *self.message.get_or_insert_default() += began.elapsed();
    }

    /// A folder that can't be written stops all mail, not this message alone.
    fn note_folder(&self, error: &RelayError) {
        if matches!(error, RelayError::Folder(_)) {
            self.inner.availability.note(Err(error));
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.inner.metrics.relay_transaction(self.outcome);
        if let Some(took) = self.message {
            self.inner.metrics.relay_stage(RelayStage::Message, took);
        }
    }
}

#[derive(Debug)]
enum Backend {
    Smtp(Box<SmtpTransaction>),
    Maildir(Box<MaildirTransaction>),
}

impl Transaction {
    /// The relay's reply to this recipient, printable and bounded.
    pub async fn rcpt(&mut self, _permit: Permit, recipient: Recipient<'_>) -> HopReply {
        match &mut self.backend {
            Backend::Maildir(_) => maildir_accepts(),
            Backend::Smtp(transaction) => {
                let began = Instant::now();
                let answer = transaction.rcpt(&recipient).await;
                self.end.inner.metrics.relay_stage(RelayStage::Envelope, began.elapsed());
                if answer.is_ok() {
                    // Without an accepted recipient the outcome stays that of the refusal.
                    self.end.outcome = RelayOutcome::Abandoned;
                }
                answer.map_or_else(|error| self.subject.reply_to(&error), HopReply::taken)
            }
        }
    }

    /// Sends DATA, or creates the file.
    ///
    /// # Errors
    /// The reply for the client, at the end of its message or at once.
    pub async fn data(&mut self) -> Result<(), HopReply> {
        let began = Instant::now();
        let done = match &mut self.backend {
            Backend::Smtp(transaction) => transaction.data().await,
            Backend::Maildir(transaction) => transaction.data().await,
        };
        self.end.add_to_message(began);
        self.keep(done)
    }

    /// Passes on a piece of the message: strict CRLF, still dot-stuffed, cut anywhere, without the final dot. Small
    /// pieces are collected until [`Self::flush`] or [`Self::finish`].
    ///
    /// # Errors
    /// The reply for the client at the end of its message; later writes do nothing.
    pub async fn write(&mut self, stuffed: &[u8]) -> Result<(), HopReply> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let began = Instant::now();
        let done = match &mut self.backend {
            Backend::Smtp(transaction) => transaction.write(stuffed).await,
            Backend::Maildir(transaction) => transaction.write(stuffed).await,
        };
        self.end.add_to_message(began);
        self.keep(done)
    }

    /// Sends the collected pieces. Call it before a wait for more of the message: otherwise the relay's timeout would
    /// run while a slow client pauses.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub async fn flush(&mut self) -> Result<(), HopReply> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let began = Instant::now();
        let done = match &mut self.backend {
            Backend::Smtp(transaction) => transaction.flush().await,
            Backend::Maildir(_) => Ok(()),
        };
        self.end.add_to_message(began);
        self.keep(done)
    }

    /// Ends the message and awaits the answer. Only a 2xx given here may become the client's (contract 1.1).
    pub async fn finish(mut self, _permit: Permit) -> HopReply {
        if let Some(failure) = self.failure {
            return failure;
        }
        let began = Instant::now();
        let done = match self.backend {
            Backend::Smtp(transaction) => transaction.finish().await,
            Backend::Maildir(transaction) => {
                transaction.finish().await.map(|()| Reply::new(250, Enhanced(2, 0, 0), "Message stored"))
            }
        };
        self.end.add_to_message(began);
        match &done {
            Err(error) => self.end.note_folder(error),
            Ok(_reply) if matches!(self.end.inner.hop, Hop::Maildir(_)) => {
                self.end.inner.availability.note(Ok(()))
            }
            // the availability of a relay was noted at the beginning
            Ok(_reply) => {}
        }
        self.end.outcome = done.as_ref().map_or_else(RelayError::outcome, |_reply| RelayOutcome::Delivered);
        done.map_or_else(|error| self.subject.reply_to(&error), HopReply::taken)
    }

    /// Waits for the client go through it, since other clients may want its connection to the relay. A Maildir has
    /// none.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        match &self.backend {
            Backend::Maildir(_) => None,
            Backend::Smtp(transaction) => Some(transaction.hold()),
        }
    }

    /// Ends the transaction without a message. Before DATA the relay gets RSET or QUIT; the reply isn't awaited.
    pub async fn abandon(self) {
        if let Backend::Smtp(transaction) = self.backend {
            transaction.abandon();
        }
    }

    fn keep(&mut self, done: Result<(), RelayError>) -> Result<(), HopReply> {
        done.map_err(|error| {
            self.end.note_folder(&error);
            self.end.outcome = error.outcome();
            self.failure.insert(self.subject.reply_to(&error)).clone()
        })
    }
}

/// A Maildir accepts every recipient.
fn maildir_accepts() -> HopReply {
    HopReply::taken(Reply::new(250, Enhanced(2, 1, 5), "Recipient ok"))
}
