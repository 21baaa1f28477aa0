//! The state that all clones of a [`crate::relay::Relay`] and all its leases share.

use std::sync::Arc;

use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::relay::availability::LastAvailability;
use crate::relay::capabilities::Capabilities;
use crate::relay::maildir::Maildir;
use crate::relay::settings::Settings;
use crate::relay::smtp::SmtpHop;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) settings: Arc<Settings>,
    pub(super) hop: Hop,
    /// The relay's offer at its last greeting.
    pub(super) known: watch::Sender<Capabilities>,
    pub(super) availability: LastAvailability,
    pub(super) metrics: Metrics,
}

#[derive(Debug)]
pub(super) enum Hop {
    Smtp(SmtpHop),
    Maildir(Maildir),
}
