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
mod duplex;
mod envelope;
mod error;
mod failure_reply;
mod hold;
mod hop;
mod lease;
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

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use crate::relay::answer::{HopReply, NextHopFailure};
pub use crate::relay::availability::Availability;
pub use crate::relay::capabilities::{Attributes, Capabilities};
pub use crate::relay::envelope::{ClientInfo, ClientName, Envelope, Recipient};
pub use crate::relay::error::{RelayError, Stage};
pub use crate::relay::hold::{Hold, TakenBack};
pub use crate::relay::lease::{ClientLease, Transaction};
pub use crate::relay::reply_parser::{Malformed, ReplyParser};
pub use crate::relay::settings::{ClientIdentity, NextHop, Settings, Tls};

use crate::metrics::Metrics;
use crate::relay::availability::LastReach;
use crate::relay::hop::{Hop, Inner};
use crate::relay::maildir::Maildir;
use crate::relay::smtp::SmtpHop;

/// The next hop. Cheap to clone; all clones share the limits and what is known of the relay.
#[derive(Debug, Clone)]
pub struct Relay {
    inner: Arc<Inner>,
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
        ClientLease::new(Arc::clone(&self.inner))
    }
}

#[cfg(test)]
mod tests;
