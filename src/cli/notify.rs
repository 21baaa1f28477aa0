//! What the service manager is told (sd_notify(3)): ready, reloading, stopping, and that we are alive.
//!
//! Nothing is said where none listens (no `NOTIFY_SOCKET`). A word that can't be delivered is no reason to stop serving
//! mail; it is logged, and the service manager draws its own conclusions. Nor is one that doesn't read: sending can
//! block, so it is done off the threads that serve connections.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, timeout};

/// What draining may take besides the time that connections have.
const SLACK: Duration = Duration::from_secs(10);
/// For the service manager to take a word; it has a queue.
const PATIENCE: Duration = Duration::from_secs(2);

/// New settings are in effect, or the first ones.
pub(super) async fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]).await;
}

/// A reload begins; [`ready`] must follow whatever comes of it. The time is for `Type=notify-reload`.
pub(super) async fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]).await,
        Err(_) => tell(&[NotifyState::Reloading]).await,
    }
}

/// No new connections; this can take as long as open ones may take.
pub(super) async fn stopping(drain: Duration) {
    let wait = u32::try_from((drain + SLACK).as_micros()).unwrap_or(u32::MAX);
    let status = format!("draining for at most {}", humantime::format_duration(drain));
    tell(&[NotifyState::Stopping, NotifyState::Status(&status), NotifyState::ExtendTimeoutUsec(wait)]).await;
}

/// Sends keep-alives for as long as the process runs, if the service manager wants them (`WatchdogSec`). Must be called
/// within the runtime; each is asked for on one of the threads that serve connections, so that they end when these hang.
pub(super) fn keep_alive() {
    let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else {
        return;
    };
    tokio::spawn(async move {
        // sd_watchdog_enabled(3): half the time that it waits
        let mut ticks = tokio::time::interval(period / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // However long it takes: another one would only wait behind it.
            let sent = spawn_blocking(|| sd_notify::notify(&[NotifyState::Watchdog])).await;
            if let Ok(Err(error)) = sent {
                tracing::warn!(%error, "the service manager can't be told");
            }
        }
    });
}

async fn tell(states: &[NotifyState<'_>]) {
    let words: Vec<String> = states.iter().map(ToString::to_string).collect();
    let words = words.join("\n");
    let sending = spawn_blocking(move || sd_notify::notify(&[NotifyState::Custom(&words)]));
    match timeout(PATIENCE, sending).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!(%error, "the service manager can't be told"),
        Ok(Err(error)) => tracing::error!(%error, "the service manager was not told"),
        Err(_elapsed) => tracing::warn!("the service manager doesn't listen"),
    }
}
