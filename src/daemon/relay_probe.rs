//! Probes the relay from time to time, so that the log has a line before mail is deferred, and the relay's capabilities
//! are known when the first client sends EHLO.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::relay::{NextHop, Relay, RelayError, Settings};

/// The time between probes while the relay is up, and while it is down. Every transaction shows its state too, so the
/// probes only matter in quiet hours.
const PROBE: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(15));

/// How long a start or a reload waits for a relay that accepts the connection and then sends nothing.
const FIRST_PROBE: Duration = Duration::from_secs(5);

/// A relay that is probed as long as a clone of this lives.
#[derive(Debug, Clone)]
pub(super) struct ProbedRelay {
    pub(super) relay: Relay,
    /// `None` where nothing is sent to it.
    prober: Option<Arc<DropGuard>>,
}

impl ProbedRelay {
    /// The same relay with other settings.
    ///
    /// # Errors
    /// As [`ProbedRelay::start`].
    pub(super) async fn with_settings(&self, settings: &Settings, is_used: bool) -> Result<Self, RelayError> {
        Self::start(self.relay.with_settings(settings.clone()), is_used).await
    }

    /// Whether some door sends mail to it.
    pub(super) fn is_used(&self) -> bool {
        self.prober.is_some()
    }

    /// Probes the relay now, and then from time to time, if it is used at all.
    ///
    /// # Errors
    /// An error that stays until the operator acts.
    pub(super) async fn start(relay: Relay, is_used: bool) -> Result<Self, RelayError> {
        if !is_used {
            return Ok(Self { relay, prober: None });
        }
        let settings = relay.settings();
        match timeout(settings.connect_timeout + FIRST_PROBE, relay.probe()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if is_final(&settings.next_hop, &error) => return Err(error),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the relay can't be used yet; mail is deferred until it can");
            }
            Err(_elapsed) => {
                tracing::warn!("the relay doesn't answer; mail is deferred until it does");
            }
        }
        let stop = CancellationToken::new();
        tokio::spawn(keep_probing(relay.clone(), stop.clone()));
        Ok(Self { relay, prober: Some(Arc::new(stop.drop_guard())) })
    }
}

fn is_final(next_hop: &NextHop, error: &RelayError) -> bool {
    error.is_final() || matches!(next_hop, NextHop::Maildir(_))
}

/// Probes the relay, and logs when a probe or mail shows that its state has changed.
async fn keep_probing(relay: Relay, stop: CancellationToken) {
    let mut availability = relay.watch_availability();
    let mut usable = availability.borrow_and_update().ok;
    loop {
        let wait = if usable { PROBE.0 } else { PROBE.1 };
        tokio::select! {
            () = stop.cancelled() => return,
            // This can't fail while the task has a clone of the relay.
            _ = availability.changed() => {}
            () = tokio::time::sleep(wait) => {
                if let Err(error) = relay.probe().await {
                    tracing::debug!(%error, "the relay can't be used");
                }
            }
        }
        let now = availability.borrow_and_update().clone();
        match (usable, now.ok) {
            (false, true) => tracing::info!("the relay can be used now"),
            (true, false) => {
                tracing::warn!(error = %now.detail, "the relay can't be used any more; mail is deferred");
            }
            (true, true) | (false, false) => {}
        }
        usable = now.ok;
    }
}
