//! Looks after the certificate from time to time, so that the log has a line before clients see an expired one, and a
//! renewed one is found in quiet hours too.

use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::tls::Acceptor;

/// The time between two looks at the files. Handshakes look at them too.
const LOOK: Duration = Duration::from_secs(60);
/// The looks between two warnings about the same fault: a day.
const WARN: u32 = 24 * 60;

/// Warns of what is wrong with the certificate now, and then daily, until the result is dropped.
pub(super) fn watch(acceptor: Acceptor) -> DropGuard {
    let stop = CancellationToken::new();
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            acceptor.warn();
            for _ in 0..WARN {
                tokio::time::sleep(LOOK).await;
                acceptor.look().await;
            }
        }
    }));
    stop.drop_guard()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::{Files, warnings};

    #[tokio::test(start_paused = true)]
    async fn a_fault_is_in_the_log_at_once_and_daily_until_the_certificate_is_renewed() {
        let (log, _guard) = warnings();
        let files = Files::new();
        files.renew_until(9);
        let acceptor = files.acceptor();
        let watch = watch(acceptor);
        let told = || log.text().lines().filter(|line| line.contains("expires in 8 days")).count();
        let day = Duration::from_secs(24 * 60 * 60);
        for (after, expected) in [(LOOK / 2, 1), (day - LOOK, 1), (LOOK, 2), (day, 3)] {
            tokio::time::sleep(after).await;
            assert_eq!(told(), expected, "{}", log.text());
        }
        files.renew();
        tokio::time::sleep(2 * day).await;
        assert_eq!(told(), 3, "{}", log.text());
        files.renew_until(9);
        tokio::time::sleep(2 * LOOK).await;
        assert_eq!(told(), 4, "found without a handshake: {}", log.text());
        drop(watch);
        tokio::time::sleep(2 * day).await;
        assert_eq!(told(), 4, "{}", log.text());
    }
}
