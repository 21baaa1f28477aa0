//! The domains and clients with the most refusals, counted in bounded memory.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::SystemTime;

use compact_str::CompactString;
use foldhash::quality::RandomState;
use serde_json::{Value, json};

use crate::policy::reason::Reason;

/// Rows of each table.
const TOP: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Tops {
    /// With the reason of the refusal.
    domains: Counts<(CompactString, Option<Reason>)>,
    clients: Counts<IpAddr>,
}

impl Tops {
    pub(super) fn add(&mut self, domain: CompactString, reason: Option<Reason>, client: IpAddr) {
        self.domains.add((domain, reason), 1);
        self.clients.add(client, 1);
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        other.domains.0.iter().for_each(|(key, count)| self.domains.add(key.clone(), *count));
        other.clients.0.iter().for_each(|(key, count)| self.clients.add(*key, *count));
    }

    /// Keeps so many of each, those with the largest counts.
    pub(super) fn shorten(&mut self, most: usize) {
        self.domains.shorten(most);
        self.clients.shorten(most);
    }

    /// The response of `/api/v1/top`.
    pub(super) fn json(self, minutes: u64, coverage: [(String, Value); 2]) -> Value {
        let domains = self.domains.largest().into_iter().map(|((domain, reason), count)| {
            json!({ "domain": domain.as_str(), "reason": reason.map(Reason::name), "count": count })
        });
        let clients = self
            .clients
            .largest()
            .into_iter()
            .map(|(client, count)| json!({ "client": client, "count": count }));
        let mut answer = json!({
            "minutes": minutes,
            "domains": domains.collect::<Vec<_>>(),
            "clients": clients.collect::<Vec<_>>(),
        });
        if let Some(object) = answer.as_object_mut() {
            object.extend(coverage);
        }
        answer
    }
}

/// Whether all records were counted, and if not, back to which time.
pub(super) fn coverage(reached: Option<SystemTime>) -> [(String, Value); 2] {
    let reached = reached.map(|at| humantime::format_rfc3339_seconds(at).to_string());
    [("whole".to_owned(), json!(reached.is_none())), ("reaches".to_owned(), json!(reached))]
}

/// Counts by key. Bounded, since senders may invent names: without room the keys with the smallest counts are dropped.
#[derive(Debug)]
struct Counts<K>(HashMap<K, u64, RandomState>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Hash + Ord + Clone> Counts<K> {
    const HELD: usize = 20_000;
    const KEPT: usize = 5_000;

    fn add(&mut self, key: K, count: u64) {
        *self.0.entry(key).or_default() += count;
        if self.0.len() > Self::HELD {
            let mut counts: Vec<u64> = self.0.values().copied().collect();
            let (_, smallest, _) = counts.select_nth_unstable_by_key(Self::KEPT, |count| Reverse(*count));
            let smallest = *smallest;
            self.0.retain(|_, count| *count > smallest);
        }
    }

    fn shorten(&mut self, most: usize) {
        if self.0.len() > most {
            let mut all: Vec<(K, u64)> = self.0.drain().collect();
            all.sort_unstable_by_key(|(_, count)| Reverse(*count));
            self.0.extend(all.into_iter().take(most));
            self.0.shrink_to_fit();
        }
    }

    fn largest(self) -> Vec<(K, u64)> {
        let mut all: Vec<(K, u64)> = self.0.into_iter().collect();
        all.sort_unstable_by(|(a, one), (b, other)| other.cmp(one).then_with(|| a.cmp(b)));
        all.truncate(TOP);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_and_a_flood_of_other_keys_changes_no_count_of_theirs() {
        let mut counts = Counts::default();
        for number in 0..100_000u32 {
            counts.add(1_000_000 + number, 1);
            if number % 10 == 0 {
                counts.add(number / 10 % 3, 1);
            }
            assert!(counts.0.len() <= Counts::<u32>::HELD);
        }
        counts.shorten(12);
        assert_eq!(counts.0.len(), 12);
        let largest = counts.largest();
        assert_eq!(largest.len(), TOP);
        assert_eq!(largest[..3], [(0, 3334), (1, 3333), (2, 3333)]);
    }
}
