//! Next hops: where accepted mail goes.
//!
//! [`ClientLease::begin`] takes a [`crate::gate::Permit`], so a refused sender never costs the relay a connection. The relay's reply
//! to a recipient or a message is the client's reply; a failure between us and the relay is 451. A 2xx goes out only
//! where the relay sent it, or where the Maildir has the file on disk. Nothing is queued: the client keeps its message
//! until it has a 2xx.

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
use crate::relay::availability::LastAvailability;
use crate::relay::hop::{Hop, Inner};
use crate::relay::maildir::Maildir;
use crate::relay::smtp::SmtpHop;

/// The next hop. Cheap to clone; all clones share the limits and the relay's state.
#[derive(Debug, Clone)]
pub struct Relay {
    inner: Arc<Inner>,
}

impl Relay {
    /// Contacts and creates nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::with_metrics(settings, Metrics::default())
    }

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
        Self {
            inner: Arc::new(Inner { settings, hop, known, availability: LastAvailability::new(), metrics }),
        }
    }

    /// The next hop with other settings, for new leases. Where the host stays the same, old and new connections count
    /// together, each lease against the limit of its own settings: there are never more than the larger limit allows,
    /// and no more than the new one once the old leases have ended. The availability of the same next hop is kept.
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
        let availability = LastAvailability::starting_with(self.availability());
        Self { inner: Arc::new(Inner { settings, hop, known, availability, metrics }) }
    }

    /// Tests the next hop: connects to a relay and greets it, creates a Maildir and writes to it. Costs the relay one
    /// connection, which carries no mail.
    ///
    /// # Errors
    /// The first failure. [`RelayError::is_final`] where only another configuration helps.
    pub async fn probe(&self) -> Result<Capabilities, RelayError> {
        self.probe_within(self.inner.settings.connect_timeout).await
    }

    /// Waits at most `patience` for a free connection.
    async fn probe_within(&self, patience: Duration) -> Result<Capabilities, RelayError> {
        let found = match &self.inner.hop {
            Hop::Smtp(hop) => hop.probe(&self.inner.known, patience).await,
            Hop::Maildir(maildir) => maildir.probe().await,
        };
        self.inner.availability.note(found.as_ref().copied());
        match found {
            // connections in use show that the relay is there
            Ok(()) | Err(RelayError::Busy(_)) => Ok(self.capabilities()),
            Err(error) => Err(error),
        }
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The result of the last probe or transaction.
    #[must_use]
    pub fn availability(&self) -> Availability {
        self.inner.availability.known()
    }

    /// Starts a probe where the last result is older than `age`, and waits for it at most `patience`.
    pub async fn availability_within(&self, age: Duration, patience: Duration) -> Availability {
        let relay = self.clone();
        let probe = async move {
            // the probe itself notes its result
            relay.probe_within(patience / 4).await.ok();
        };
        self.inner.availability.within(age, patience, probe).await
    }

    /// Changes when the next hop becomes unusable, or usable again.
    #[must_use]
    pub fn watch_availability(&self) -> watch::Receiver<Availability> {
        self.inner.availability.watch()
    }

    /// As of the last greeting.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.inner.known.borrow().clone()
    }

    /// The lease for one client's session. It costs nothing before the first transaction.
    #[must_use]
    pub fn lease(&self) -> ClientLease {
        ClientLease::new(Arc::clone(&self.inner))
    }
}

#[cfg(test)]
mod tests;
