//! The relay with somebody who asks from time to time whether it is there, so that the log knows of its going and coming
//! before mail does, and what it offers is known when the first client asks.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::relay::{NextHop, Relay, RelayError, Settings};

/// How often the relay is asked what it can take, while it is up and while it is down. Every transaction learns it
/// too, so this matters for quiet hours only.
const PROBE: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(15));

/// How long the start, or a reload, waits for a relay that takes the connection and then says nothing.
const FIRST_PROBE: Duration = Duration::from_secs(5);

/// A relay that is asked from time to time whether it is there, for as long as this lives.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) relay: Relay,
    _prober: DropGuard,
}

impl Probed {
    /// The relay of other settings.
    ///
    /// # Errors
    /// As [`Probed::start`].
    pub(super) async fn with_settings(&self, settings: &Settings) -> Result<Self, RelayError> {
        Self::start(self.relay.with_settings(settings.clone())).await
    }

    /// Tries the relay once, and goes on doing so.
    ///
    /// # Errors
    /// What waiting can't mend.
    pub(super) async fn start(relay: Relay) -> Result<Self, RelayError> {
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
        Ok(Self { relay, _prober: stop.drop_guard() })
    }
}

/// Whether waiting can't help.
fn is_final(next_hop: &NextHop, error: &RelayError) -> bool {
    error.is_final() || matches!(next_hop, NextHop::Maildir(_))
}

/// Tells the log when it turns out that the relay can't be used any more, or can again, be it by a probe or by mail.
async fn keep_probing(relay: Relay, stop: CancellationToken) {
    let mut reach = relay.watch_availability();
    let mut reached = reach.borrow_and_update().ok;
    loop {
        let wait = if reached { PROBE.0 } else { PROBE.1 };
        tokio::select! {
            () = stop.cancelled() => return,
            // an error can't be: the relay is ours too
            _ = reach.changed() => {}
            () = tokio::time::sleep(wait) => {
                if let Err(error) = relay.probe().await {
                    tracing::debug!(%error, "the relay can't be used");
                }
            }
        }
        let now = reach.borrow_and_update().clone();
        match (reached, now.ok) {
            (false, true) => tracing::info!("the relay can be used now"),
            (true, false) => {
                tracing::warn!(error = %now.detail, "the relay can't be used any more; mail is deferred");
            }
            (true, true) | (false, false) => {}
        }
        reached = now.ok;
    }
}
