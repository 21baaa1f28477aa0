//! Compares sent with received messages: a bit each for accepted, refused and received.
//!
//! The sink must receive each accepted message exactly once and no refused one. A message without a reply counts as neither
//! accepted nor refused: it may have arrived or not.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::tools::load::message::Damage;

/// The clients and the sink write to it.
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

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Balance {
    /// Replied to with 250.
    pub(super) accepted: u64,
    /// Arrived undamaged.
    pub(super) received: u64,
    /// Replied to with 250, and not arrived undamaged.
    pub(super) lost: u64,
    /// Arrived again.
    pub(super) doubled: u64,
    /// Refused, and arrived.
    pub(super) received_though_refused: u64,
    /// Arrived with another body.
    pub(super) damaged: u64,
    /// Arrived, and was not sent by this run.
    pub(super) foreign: u64,
    /// Arrived, and the client got no reply.
    pub(super) unanswered: u64,
}

impl Ledger {
    pub(super) fn accepted(&self, token: u64) {
        self.accounts().accepted.set(token);
    }

    /// The message was refused after its content.
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

/// Greater tokens are ignored, which bounds the memory to 512 MiB for each set.
const MOST_TOKENS: u64 = 1 << 32;

/// A set of small numbers.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Returns whether the number is new.
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
    fn each_kind_of_error_has_its_count() {
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
    fn a_token_out_of_range_takes_no_memory() {
        let ledger = Ledger::default();
        ledger.received(Ok(u64::MAX));
        assert_eq!(ledger.accounts().received.0.len(), 0);
    }
}
