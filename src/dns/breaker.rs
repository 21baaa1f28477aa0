//! While no server answers, a question is not asked: its temperror comes at once, not after a time-out for each message.
//!
//! That questions fail is no proof: a sender can ask for domains whose own servers are dead. So a row of them that
//! nobody said anything to only raises the alarm, and what `watch` then asks the servers themselves decides. An answer
//! of any kind, SERVFAIL too, shows that a server is there. Nothing is opened while nobody watches.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::dns::message::WireName;
use crate::evidence::{DnsFailure, Question, RecordType};

/// Questions in a row without a word from any server that raise the alarm.
const ALARMING: u32 = 3;

/// Whether questions are asked. All of it is hints: no memory is guarded by these values, so relaxed order will do.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    open: AtomicBool,
    /// In a row.
    unanswered: AtomicU32,
    /// In all.
    answered: AtomicU64,
    latest_answered: Mutex<Option<(WireName, RecordType)>>,
    latest_turned_away: Mutex<Option<Question>>,
    alarm: Notify,
    answer: Notify,
}

impl Breaker {
    /// Whether this question is not to be asked now.
    pub(super) fn turns_away(&self, question: &Question) -> bool {
        if !self.open.load(Ordering::Relaxed) {
            return false;
        }
        *locked(&self.latest_turned_away) = Some(question.clone());
        true
    }

    /// Takes note of how a question ended that was put to all servers.
    pub(super) fn note<T>(&self, name: &WireName, rtype: RecordType, outcome: &Result<T, DnsFailure>) {
        // Any of the latest will do: nobody waits for another to write down his.
        if outcome.is_ok()
            && let Ok(mut latest) = self.latest_answered.try_lock()
        {
            *latest = Some((name.clone(), rtype));
        }
        match outcome {
            Ok(_) | Err(DnsFailure::ServerFailure | DnsFailure::Refused) => {
                self.unanswered.store(0, Ordering::Relaxed);
                self.answered.fetch_add(1, Ordering::Relaxed);
                if self.open.load(Ordering::Relaxed) {
                    self.answer.notify_one();
                }
            }
            Err(DnsFailure::Timeout | DnsFailure::Broken) => {
                if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= ALARMING {
                    self.alarm.notify_one();
                }
            }
            Err(DnsFailure::AliasLoop | DnsFailure::Busy | DnsFailure::TooMany | DnsFailure::Down) => {}
        }
    }

    /// Waits for a row of questions that nobody said anything to; gives [`Breaker::answered`] as it was then.
    pub(super) async fn alarm(&self) -> u64 {
        loop {
            self.alarm.notified().await;
            // it may be long ago
            if self.unanswered.load(Ordering::Relaxed) >= ALARMING {
                return self.answered();
            }
        }
    }

    /// How many questions were answered.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether a question was answered since there were so many.
    pub(super) fn answered_since(&self, before: u64) -> bool {
        self.answered() != before
    }

    /// Waits for an answer to a question that was under way when it opened.
    pub(super) async fn answer(&self) {
        self.answer.notified().await;
    }

    /// The latest question of mail that was answered. A server can answer it again from its memory.
    pub(super) fn latest_answered(&self) -> Option<(WireName, RecordType)> {
        locked(&self.latest_answered).clone()
    }

    /// The latest that was turned away since the last call.
    pub(super) fn latest_turned_away(&self) -> Option<(WireName, RecordType)> {
        let question = locked(&self.latest_turned_away).take()?;
        Some((WireName::of(&question.name)?, question.rtype))
    }

    pub(super) fn open(&self) {
        self.open.store(true, Ordering::Relaxed);
    }

    pub(super) fn close(&self) {
        self.unanswered.store(0, Ordering::Relaxed);
        self.open.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SILENCE: Result<(), DnsFailure> = Err(DnsFailure::Timeout);

    fn note(breaker: &Breaker, outcome: &Result<(), DnsFailure>) {
        breaker.note(&WireName::labels(["test"]), RecordType::Mx, outcome);
    }

    async fn alarmed(breaker: &Breaker) -> bool {
        timeout(Duration::from_millis(1), breaker.alarm()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_in_a_row_raises_the_alarm_and_any_word_of_a_server_breaks_the_row() {
        let words = [Ok(()), Err(DnsFailure::ServerFailure), Err(DnsFailure::Refused)];
        for word in words {
            let breaker = Breaker::default();
            for outcome in [SILENCE, SILENCE, word, SILENCE, Err(DnsFailure::Broken)] {
                note(&breaker, &outcome);
                assert!(!alarmed(&breaker).await, "{word:?}");
            }
            note(&breaker, &SILENCE);
            assert!(alarmed(&breaker).await, "{word:?}");
            assert!(!breaker.is_open(), "an alarm opens nothing by itself");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_that_was_answered_meanwhile_is_none() {
        let breaker = Breaker::default();
        (0..5).for_each(|_| note(&breaker, &SILENCE));
        note(&breaker, &Ok(()));
        assert!(!alarmed(&breaker).await);
    }
}
