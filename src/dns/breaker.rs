//! While no server answers, questions are not asked: the temperror comes at once, not after a timeout for each message.
//!
//! Failed questions are no proof that DNS is down: a sender can cause questions for domains whose own servers are dead. So
//! several unanswered questions in a row only raise the alarm, and the health check then asks the servers themselves. Any
//! answer, SERVFAIL too, shows that a server is up. Without a health check the breaker never opens.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::dns::message::WireName;
use crate::evidence::{DnsFailure, Question, RecordType};

/// So many questions in a row without any answer raise the alarm.
const ALARMING: u32 = 3;

/// The values are hints and guard no memory, so relaxed ordering is enough.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    open: AtomicBool,
    unanswered_in_row: AtomicU32,
    answered: AtomicU64,
    latest_answered: Mutex<Option<(WireName, RecordType)>>,
    latest_blocked: Mutex<Option<Question>>,
    alarm: Notify,
    answer: Notify,
}

impl Breaker {
    /// Whether the question must not be asked now.
    pub(super) fn blocks(&self, question: &Question) -> bool {
        if !self.open.load(Ordering::Relaxed) {
            return false;
        }
        *locked(&self.latest_blocked) = Some(question.clone());
        true
    }

    /// Records the outcome of a question that was put to all servers.
    pub(super) fn note<T>(&self, name: &WireName, rtype: RecordType, outcome: &Result<T, DnsFailure>) {
        // Any recent question is good enough, so no task waits for the lock.
        if outcome.is_ok()
            && let Ok(mut latest) = self.latest_answered.try_lock()
        {
            *latest = Some((name.clone(), rtype));
        }
        match outcome {
            Ok(_) | Err(DnsFailure::ServerFailure | DnsFailure::Refused) => {
                self.unanswered_in_row.store(0, Ordering::Relaxed);
                self.answered.fetch_add(1, Ordering::Relaxed);
                if self.open.load(Ordering::Relaxed) {
                    self.answer.notify_one();
                }
            }
            Err(
                DnsFailure::Timeout
                | DnsFailure::Broken
                | DnsFailure::FormatError
                | DnsFailure::NotImplemented
                | DnsFailure::OtherError
                | DnsFailure::NoRoute
                | DnsFailure::Forbidden
                | DnsFailure::NoAddress
                | DnsFailure::PortClosed
                | DnsFailure::NoSocket
                | DnsFailure::NoTcp,
            ) => {
                if self.unanswered_in_row.fetch_add(1, Ordering::Relaxed) + 1 >= ALARMING {
                    self.alarm.notify_one();
                }
            }
            Err(DnsFailure::AliasLoop | DnsFailure::Busy | DnsFailure::TooMany | DnsFailure::Down) => {}
        }
    }

    /// Waits for the alarm; returns [`Breaker::answered`] as of then.
    pub(super) async fn alarm(&self) -> u64 {
        loop {
            self.alarm.notified().await;
            // The notice may be old.
            if self.unanswered_in_row.load(Ordering::Relaxed) >= ALARMING {
                return self.answered();
            }
        }
    }

    /// The number of questions answered so far.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn answered_since(&self, before: u64) -> bool {
        self.answered() != before
    }

    /// Waits for an answer to a question that was under way when the breaker opened.
    pub(super) async fn answer(&self) {
        self.answer.notified().await;
    }

    /// The latest question of mail that was answered; a server can answer it again from its cache.
    pub(super) fn latest_answered(&self) -> Option<(WireName, RecordType)> {
        locked(&self.latest_answered).clone()
    }

    /// The latest question that was blocked since the last call.
    pub(super) fn latest_blocked(&self) -> Option<(WireName, RecordType)> {
        let question = locked(&self.latest_blocked).take()?;
        Some((WireName::of(&question.name)?, question.rtype))
    }

    pub(super) fn open(&self) {
        self.open.store(true, Ordering::Relaxed);
    }

    pub(super) fn close(&self) {
        self.unanswered_in_row.store(0, Ordering::Relaxed);
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
    async fn silence_in_a_row_raises_the_alarm_and_any_answer_breaks_the_row() {
        let words = [Ok(()), Err(DnsFailure::ServerFailure), Err(DnsFailure::Refused)];
        for word in words {
            let breaker = Breaker::default();
            for outcome in [SILENCE, SILENCE, word, SILENCE, Err(DnsFailure::Broken)] {
                note(&breaker, &outcome);
                assert!(!alarmed(&breaker).await, "{word:?}");
            }
            note(&breaker, &SILENCE);
            assert!(alarmed(&breaker).await, "{word:?}");
            assert!(!breaker.is_open(), "the alarm alone doesn't open the breaker");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_cancels_the_alarm() {
        let breaker = Breaker::default();
        (0..5).for_each(|_| note(&breaker, &SILENCE));
        note(&breaker, &Ok(()));
        assert!(!alarmed(&breaker).await);
    }
}
