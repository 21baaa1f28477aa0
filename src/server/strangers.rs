//! Who may connect to the doors that a mail server uses (contract 7.4): this machine, and what `trusted.postfix` names.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use crate::net::Stream;

/// The time between two warnings.
const PAUSE: Duration = Duration::from_secs(60);

/// Limits the warnings about peers that aren't trusted.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<Warned>);

#[derive(Debug, Default)]
struct Warned {
    last: Option<Instant>,
    /// Connections since then.
    more: u64,
}

/// Whether a peer (canonical address) is this machine or is trusted. Only this machine can use a unix socket, and the mode of
/// its file says by whom.
pub(super) fn is_mail_server(trusted: &[IpNet], stream: &Stream, peer: IpAddr) -> bool {
    let is_this_machine = || match stream {
        Stream::Unix(_) => true,
        Stream::Tcp(stream) => {
            peer.is_loopback() || stream.local_addr().is_ok_and(|local| local.ip().to_canonical() == peer)
        }
    };
    is_this_machine() || trusted.iter().any(|network| network.contains(&peer))
}

impl Strangers {
    /// Counts one; how many there were since the last warning, if it is time for the next.
    pub(super) fn count(&self) -> Option<u64> {
        let mut warned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        warned.more += 1;
        if warned.last.is_some_and(|last| last.elapsed() < PAUSE) {
            return None;
        }
        warned.last = Some(Instant::now());
        Some(std::mem::take(&mut warned.more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_is_one_warning_a_minute_and_it_counts_the_others() {
        let strangers = Strangers::default();
        assert_eq!(strangers.count(), Some(1));
        assert_eq!([strangers.count(), strangers.count()], [None, None]);
        tokio::time::advance(PAUSE).await;
        assert_eq!(strangers.count(), Some(3));
        assert_eq!(strangers.count(), None);
    }
}
