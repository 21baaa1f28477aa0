//! Notifications for the service manager (sd_notify(3)): ready, reloading, stopping, and keep-alives.
//!
//! Without `NOTIFY_SOCKET` nothing is sent. A notification that can't be sent is logged and doesn't stop the daemon.
//! Sending can block if the service manager doesn't read, so it runs on threads that serve no connections.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, timeout};

/// Added to the drain time of the connections.
const SLACK: Duration = Duration::from_secs(10);
/// Time for one notification; the socket has a queue.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The first settings, or those of a reload, are in effect.
pub(super) async fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]).await;
}

/// A reload begins. [`ready`] must follow, whether it succeeds or not. `Type=notify-reload` needs the time.
pub(super) async fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]).await,
        Err(_) => send(&[NotifyState::Reloading]).await,
    }
}

/// The daemon takes no new connections and drains the open ones for at most this long.
pub(super) async fn stopping(drain: Duration) {
    let wait = u32::try_from((drain + SLACK).as_micros()).unwrap_or(u32::MAX);
    let status = format!("draining for at most {}", humantime::format_duration(drain));
    send(&[NotifyState::Stopping, NotifyState::Status(&status), NotifyState::ExtendTimeoutUsec(wait)]).await;
}

/// Sends keep-alives as long as the process runs, if the unit has `WatchdogSec`. Must be called within the runtime: a
/// thread that serves connections starts each, so that they stop if those threads hang.
pub(super) fn keep_alive() {
    let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else {
        return;
    };
    tokio::spawn(async move {
        // sd_watchdog_enabled(3) recommends half the period
        let mut ticks = tokio::time::interval(period / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // No timeout: a further keep-alive would only wait behind this one.
            let sent = spawn_blocking(|| sd_notify::notify(&[NotifyState::Watchdog])).await;
            if let Ok(Err(error)) = sent {
                tracing::warn!(%error, "the keep-alive to the service manager failed");
            }
        }
    });
}

async fn send(states: &[NotifyState<'_>]) {
    let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
    let lines = lines.join("\n");
    let sending = spawn_blocking(move || sd_notify::notify(&[NotifyState::Custom(&lines)]));
    match timeout(TIMEOUT, sending).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!(%error, "the notification to the service manager failed"),
        Ok(Err(error)) => tracing::error!(%error, "the notification to the service manager was not sent"),
        Err(_elapsed) => tracing::warn!("the service manager doesn't read its notifications"),
    }
}
