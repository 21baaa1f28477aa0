//! What was sent against what arrived, message by message: a bit each for accepted, refused and received.
//!
//! Accepted must be received exactly once (nothing lost, nothing doubled), and what was answered with a refusal must not be
//! received. A message whose answer never came is in neither account: it may or may not have arrived.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::tools::load::message::Damage;

/// Both sides write here.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Accounts>);

#[derive(Debug, Default)]
struct Accounts {
    accepted: Bits,
    refused: Bits,
    received: Bits,
    doubled: u64,
    damaged: u64,
    foreign: u64,
}

/// The balance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Balance {
    /// Answered 250.
    pub(super) accepted: u64,
    /// Arrived whole.
    pub(super) received: u64,
    /// Answered 250, and did not arrive whole.
    pub(super) lost: u64,
    /// Arrived once more.
    pub(super) doubled: u64,
    /// Answered with a refusal, and arrived.
    pub(super) received_though_refused: u64,
    /// Arrived with another body.
    pub(super) damaged: u64,
    /// Arrived, and is none of ours.
    pub(super) foreign: u64,
    /// Arrived, and its answer never came.
    pub(super) unanswered: u64,
}

impl Ledger {
    pub(super) fn accepted(&self, token: u64) {
        self.accounts().accepted.set(token);
    }

    /// Its content was sent, and then it was refused.
    pub(super) fn refused(&self, token: u64) {
        self.accounts().refused.set(token);
    }

    pub(super) fn received(&self, message: Result<u64, Damage>) {
        let mut accounts = self.accounts();
        match message {
            Ok(token) => accounts.doubled += u64::from(!accounts.received.set(token)),
            Err(Damage::Body) => accounts.damaged += 1,
            Err(Damage::Foreign) => accounts.foreign += 1,
        }
    }

    pub(super) fn balance(&self) -> Balance {
        let accounts = self.accounts();
        let Accounts { accepted, refused, received, doubled, damaged, foreign } = &*accounts;
        let arrived = received.count(|_, bits| bits);
        let confirmed = received.count(|at, bits| bits & accepted.word(at));
        let unwanted = received.count(|at, bits| bits & refused.word(at));
        Balance {
            accepted: accepted.count(|_, bits| bits),
            received: arrived,
            lost: accepted.count(|at, bits| bits & !received.word(at)),
            doubled: *doubled,
            received_though_refused: unwanted,
            damaged: *damaged,
            foreign: *foreign,
            unanswered: arrived.saturating_sub(confirmed).saturating_sub(unwanted),
        }
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tokens beyond this many are no tokens of ours; it bounds the memory to 512 MiB at the very worst.
const MOST_TOKENS: u64 = 1 << 32;

/// A set of small numbers.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Whether it was new.
    fn set(&mut self, number: u64) -> bool {
        let at = usize::try_from(number / 64).ok().filter(|_| number < MOST_TOKENS);
        let Some(at) = at else { return true };
        if at >= self.0.len() {
            self.0.resize(at + 1, 0);
        }
        let Some(word) = self.0.get_mut(at) else { return true };
        let bit = 1 << (number % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or_default()
    }

    fn count(&self, select: impl Fn(usize, u64) -> u64) -> u64 {
        let words = self.0.iter().enumerate();
        words.map(|(at, bits)| u64::from(select(at, *bits).count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_go_wrong_has_its_count() {
        let ledger = Ledger::default();
        for token in [0, 1, 63, 64, 1_000_000] {
            ledger.accepted(token);
            ledger.received(Ok(token));
        }
        let fine = ledger.balance();
        assert_eq!((fine.accepted, fine.received), (5, 5));

        ledger.received(Ok(70));
        let unanswered = ledger.balance();
        assert_eq!(unanswered, Balance { received: 6, unanswered: 1, ..fine });

        ledger.accepted(2);
        ledger.received(Ok(63));
        ledger.refused(3);
        ledger.received(Ok(3));
        ledger.refused(4);
        ledger.received(Err(Damage::Body));
        ledger.received(Err(Damage::Foreign));
        let expected = Balance {
            accepted: 6,
            received: 7,
            lost: 1,
            doubled: 1,
            received_though_refused: 1,
            damaged: 1,
            foreign: 1,
            unanswered: 1,
        };
        assert_eq!(ledger.balance(), expected);
    }

    #[test]
    fn a_token_that_nobody_gave_takes_no_memory() {
        let ledger = Ledger::default();
        ledger.received(Ok(u64::MAX));
        assert_eq!(ledger.accounts().received.0.len(), 0);
    }
}
