//! How many connections a client has at the other nodes, as they told last.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

/// What was told longer ago doesn't count: a node may be gone, or Redis.
const FRESH: Duration = Duration::from_secs(4);

/// Clones share the counts. Without a fleet it is empty.
#[derive(Debug, Clone, Default)]
pub struct Elsewhere(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Whether there are counts: most often there are none.
    any: AtomicBool,
    told: RwLock<Option<Told>>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    clients: HashMap<IpAddr, usize>,
}

impl Elsewhere {
    /// The connections of a client, by the network that it counts for.
    #[must_use]
    pub fn of(&self, network: IpAddr) -> usize {
        if !self.0.any.load(Ordering::Relaxed) {
            return 0;
        }
        let told = self.0.told.read().unwrap_or_else(PoisonError::into_inner);
        let fresh = told.as_ref().filter(|told| told.at.elapsed() < FRESH);
        fresh.and_then(|told| told.clients.get(&network)).copied().unwrap_or_default()
    }

    /// Replaces the counts.
    pub(super) fn tell(&self, clients: HashMap<IpAddr, usize>) {
        let mut told = self.0.told.write().unwrap_or_else(PoisonError::into_inner);
        self.0.any.store(!clients.is_empty(), Ordering::Relaxed);
        *told = Some(Told { at: Instant::now(), clients });
    }
}

/// One line a client, for the other nodes; those with the most first, within this many octets.
pub(super) fn written(mut clients: Vec<(IpAddr, usize)>, longest: usize) -> String {
    clients.sort_unstable_by_key(|(address, count)| (std::cmp::Reverse(*count), *address));
    let mut text = String::new();
    for (address, count) in clients {
        let line = format!("{address} {count}\n");
        if text.len() + line.len() > longest {
            break;
        }
        text.push_str(&line);
    }
    text
}

/// Adds what another node wrote; `None` for what no node writes.
pub(super) fn add(text: &[u8], clients: &mut HashMap<IpAddr, usize>) -> Option<()> {
    for line in std::str::from_utf8(text).ok()?.lines() {
        let (address, count) = line.split_once(' ')?;
        let (address, count): (IpAddr, usize) = (address.parse().ok()?, count.parse().ok()?);
        let sum = clients.entry(address).or_default();
        *sum = sum.saturating_add(count);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn what_nodes_tell_is_added_up() {
        let text = written(vec![(client(1), 3), (client(2), 40), ("2001:db8::".parse().unwrap(), 7)], 1000);
        assert_eq!(text, "192.0.2.2 40\n2001:db8:: 7\n192.0.2.1 3\n");
        let mut clients = HashMap::new();
        assert_eq!(add(text.as_bytes(), &mut clients), Some(()));
        assert_eq!(add(b"192.0.2.1 2\n", &mut clients), Some(()));
        assert_eq!((clients[&client(1)], clients[&client(2)]), (5, 40));
        assert_eq!(written(vec![(client(1), 3), (client(2), 40)], 15), "192.0.2.2 40\n");
        for bad in [b"x 1".as_slice(), b"192.0.2.1", b"192.0.2.1 -1", b"\xff 1"] {
            assert_eq!(add(bad, &mut clients), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn counts_are_forgotten_after_four_seconds() {
        let elsewhere = Elsewhere::default();
        assert_eq!(elsewhere.of(client(1)), 0);
        elsewhere.tell(HashMap::from([(client(1), 5)]));
        assert_eq!((elsewhere.of(client(1)), elsewhere.of(client(2))), (5, 0));
        tokio::time::advance(Duration::from_millis(3_999)).await;
        assert_eq!(elsewhere.of(client(1)), 5);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(elsewhere.of(client(1)), 0);
    }
}
