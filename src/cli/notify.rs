//! What the service manager is told (sd_notify(3)): ready, reloading, stopping, and that we are alive.
//!
//! Nothing is said where none listens (no `NOTIFY_SOCKET`). A word that can't be delivered is no reason to stop serving
//! mail; it is logged, and the service manager draws its own conclusions.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

/// What draining may take besides the time that connections have.
const SLACK: Duration = Duration::from_secs(10);

/// New settings are in effect, or the first ones.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins; [`ready`] must follow whatever comes of it. The time is for `Type=notify-reload`.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// No new connections; this can take as long as open ones may take.
pub(super) fn stopping(drain: Duration) {
    let wait = u32::try_from((drain + SLACK).as_micros()).unwrap_or(u32::MAX);
    let status = format!("draining for at most {}", humantime::format_duration(drain));
    tell(&[NotifyState::Stopping, NotifyState::Status(&status), NotifyState::ExtendTimeoutUsec(wait)]);
}

/// Sends keep-alives for as long as the process runs, if the service manager wants them (`WatchdogSec`). Must be called
/// within the runtime; they come from one of the threads that serve connections, so that they end when these hang.
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
            tell(&[NotifyState::Watchdog]);
        }
    });
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}
