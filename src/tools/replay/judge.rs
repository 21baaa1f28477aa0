//! Decisions of the gate on the senders of a log: each sender once, with a limited rate of DNS queries.
//!
//! DNS queries are few: rules that only tag are not looked up, and cached answers don't count for the rate. Senders with a DNS
//! error are judged again at the end of a batch.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep_until};

use crate::decision::DecisionRecord;
use crate::gate::{DryRun, Gate};
use crate::policy::operator::Policy;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, IdentityRules};
use crate::stats::refusals::{RefusalStats, Volume};
use crate::tools::replay::mail::Sender;
use crate::tools::replay::progress::Bar;

/// A burst may exceed the rate by this time.
const BURST: Duration = Duration::from_millis(100);

/// The policy with only those rules that refuse.
pub(super) fn refusing_rules(policy: &Policy) -> Policy {
    let rules = |rules: &IdentityRules| {
        let needed = |action: Action| if action.refuses() { action } else { Action::Off };
        IdentityRules { exists: needed(rules.exists), matches: needed(rules.matches), ..rules.clone() }
    };
    Policy {
        helo: rules(&policy.helo),
        ptr: rules(&policy.ptr),
        mail_from: rules(&policy.mail_from),
        ..policy.clone()
    }
}

#[derive(Debug)]
pub(super) struct Judge {
    gate: Arc<Gate>,
    concurrency: usize,
    pace: Pace,
    pub(super) judged: Judged,
}

/// Results so far.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) refusals: RefusalStats,
    pub(super) passed: Volume,
    /// Different senders.
    pub(super) senders: u64,
    /// DNS queries.
    pub(super) questions: u64,
}

impl Judge {
    /// At most `concurrency` senders at a time, and `rate` DNS queries per second.
    pub(super) fn new(gate: Arc<Gate>, concurrency: usize, rate: u32) -> Self {
        let pace = Pace { each: Duration::from_secs(1) / rate.max(1), due: Mutex::new(Instant::now()) };
        Self { gate, concurrency, pace, judged: Judged::default() }
    }

    /// If dropped before its end, senders that are not judged yet don't count.
    pub(super) async fn batch(&mut self, senders: Vec<(Sender, Volume)>, bar: &Bar) {
        let again = self.pass(senders, bar, false).await;
        self.pass(again, bar, true).await;
    }

    /// Returns the senders with a DNS error to be judged again, unless this is the last pass.
    async fn pass(&mut self, senders: Vec<(Sender, Volume)>, bar: &Bar, last: bool) -> Vec<(Sender, Volume)> {
        let mut again = Vec::new();
        let (gate, pace, judged) = (&self.gate, &self.pace, &mut self.judged);
        let work = stream::iter(senders).map(|(sender, volume)| async move {
            pace.wait().await;
            let record = decide(gate, &sender).await;
            pace.add(record.queries());
            (sender, volume, record)
        });
        let mut work = std::pin::pin!(work.buffer_unordered(self.concurrency));
        while let Some((sender, volume, record)) = work.next().await {
            judged.questions += u64::try_from(record.queries()).unwrap_or(0);
            match &record.cause {
                Some(cause) if cause.reason == Reason::DnsError && !last => {
                    again.push((sender, volume));
                    continue;
                }
                Some(cause) => judged.refusals.add(cause, &record.findings, sender.client, volume),
                None => judged.passed += volume,
            }
            judged.senders += 1;
            bar.judged(judged.questions);
        }
        again
    }
}

/// The decision on an envelope.
async fn decide(gate: &Arc<Gate>, sender: &Sender) -> DecisionRecord {
    let helo = Some(sender.helo.to_string()).filter(|helo| !helo.is_empty());
    let mail_from = Some(sender.path.0.clone());
    gate.dry_run(&DryRun { client: sender.client, helo, mail_from, message: None }).await
}

/// The number of queries is known only after a decision, so the next sender waits for them.
#[derive(Debug)]
struct Pace {
    each: Duration,
    due: Mutex<Instant>,
}

impl Pace {
    async fn wait(&self) {
        let due = *self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(due) = due.checked_sub(BURST).filter(|due| *due > Instant::now()) {
            sleep_until(due).await;
        }
    }

    fn add(&self, questions: usize) {
        if questions == 0 {
            return;
        }
        let cost = self.each.saturating_mul(u32::try_from(questions).unwrap_or(u32::MAX));
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        *due = (*due).max(Instant::now()) + cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_limits_queries_and_decisions_without_queries_are_free() {
        let pace = Pace { each: Duration::from_millis(10), due: Mutex::new(Instant::now()) };
        let began = Instant::now();
        for _ in 0..1000 {
            pace.wait().await;
            pace.add(0);
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..100 {
            pace.wait().await;
            pace.add(3);
        }
        let took = began.elapsed();
        assert!((Duration::from_millis(2_850)..Duration::from_millis(3_050)).contains(&took), "{took:?}");
    }
}
