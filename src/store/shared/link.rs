//! The way to Redis: a connection while it is up, a breaker, and the log of its troubles.
//!
//! A session never connects and never tries twice. While Redis is away a question fails at once; one that gets no answer
//! ends after `cluster.timeout`. Three of these in a row, or a lost connection, count as away, and end the wait of all
//! others. A task of its own connects again: at once, then after 1, 2, 4 ... 30 s.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::metrics::{ClusterOp, ClusterOutcome, Metrics};
use crate::store::shared::connect::Connection;
use crate::store::shared::failure::Failure;
use crate::store::shared::settings::{Servers, Settings};
use crate::store::shared::trouble::Troubles;

/// Questions in a row without an answer, after which Redis counts as away.
const PATIENCE: u32 = 3;
/// For a connection and its first PING: the keeper waits here, no session does.
pub(super) const CONNECT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Link {
    settings: Settings,
    metrics: Metrics,
    state: Mutex<State>,
    /// Redis is away: the keeper has to connect.
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    live: Option<Live>,
    troubles: Troubles,
}

#[derive(Debug, Clone)]
struct Live {
    connection: Connection,
    /// Ends the wait of all questions when it counts as away.
    over: CancellationToken,
    unanswered: u32,
}

/// What an operator sees of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub up: bool,
    /// What is wrong; empty where nothing is.
    pub detail: String,
}

impl Link {
    pub(super) fn new(settings: Settings, metrics: Metrics) -> Self {
        Self { settings, metrics, state: Mutex::default(), wake: Notify::new() }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn condition(&self) -> Condition {
        let state = self.state();
        Condition { up: state.live.is_some(), detail: state.troubles.text() }
    }

    pub(super) fn is_up(&self) -> bool {
        self.state().live.is_some()
    }

    /// Asks once. It takes no longer than `cluster.timeout`, and no time while Redis is away.
    pub(super) async fn ask(&self, op: ClusterOp, command: &Cmd) -> Result<Value, Failure> {
        self.ask_until(self.deadline(), op, command).await
    }

    /// The end of a question that begins now.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.settings.timeout
    }

    /// One of several commands that are one question.
    pub(super) async fn ask_until(
        &self,
        end: Instant,
        op: ClusterOp,
        command: &Cmd,
    ) -> Result<Value, Failure> {
        let Some(mut live) = self.state().live.clone() else { return Err(Failure::Away) };
        let started = Instant::now();
        let question = timeout_at(end, live.connection.send(command));
        let answer = match live.over.run_until_cancelled(question).await {
            None => Err(Failure::TimedOut),
            Some(Err(_elapsed)) => Err(Failure::TimedOut),
            Some(Ok(answer)) => answer,
        };
        let outcome = answer.as_ref().err().map_or(Some(ClusterOutcome::Ok), Failure::outcome);
        if let Some(outcome) = outcome {
            self.metrics.cluster_request(op, outcome, started.elapsed());
        }
        self.note(op, &live, answer.as_ref().err());
        answer
    }

    /// A question has ended; `None` = with an answer.
    fn note(&self, op: ClusterOp, asked: &Live, failure: Option<&Failure>) {
        let mut state = self.state();
        let Some(live) = state.live.as_mut().filter(|_| !asked.over.is_cancelled()) else { return };
        let is_single = live.connection.is_single();
        let count = match failure {
            Some(Failure::Lost(_)) if is_single => PATIENCE,
            Some(Failure::Lost(_) | Failure::TimedOut) => live.unanswered.saturating_add(1),
            // A replica that was the master: Sentinel knows the new one.
            Some(Failure::ReadOnly(_)) if self.has_sentinel() => PATIENCE,
            _ => 0,
        };
        live.unanswered = count;
        if count >= PATIENCE {
            if let (Some(live), Some(failure)) = (state.live.take(), failure) {
                live.over.cancel();
                state.troubles.away(&self.settings.target, failure);
            }
            drop(state);
            self.wake.notify_one();
            return;
        }
        match failure {
            Some(failure @ (Failure::Denied(_) | Failure::Unfit(_))) => state.troubles.denied(op, failure),
            None => state.troubles.allowed(op),
            Some(_) => {}
        }
    }

    /// Whether a write was carried out; `None` = it was.
    pub(super) fn note_write(&self, op: ClusterOp, failure: Option<&Failure>) {
        if failure.is_some() {
            self.metrics.cluster_dropped(op);
        }
        let mut state = self.state();
        match failure {
            None => state.troubles.writes_again(),
            Some(failure @ (Failure::Full(_) | Failure::ReadOnly(_))) => {
                state.troubles.no_writes(failure);
                if matches!(failure, Failure::ReadOnly(_))
                    && self.has_sentinel()
                    && let Some(live) = state.live.take()
                {
                    live.over.cancel();
                    state.troubles.away(&self.settings.target, failure);
                    self.wake.notify_one();
                }
            }
            Some(_) => {}
        }
    }

    /// Somebody else wrote a value.
    pub(super) fn note_nonsense(&self, op: ClusterOp, key: &str) {
        self.metrics.cluster_nonsense(op);
        self.state().troubles.nonsense(key);
    }

    /// Connects once, and tries whether Redis answers. Whatever is wrong is logged once.
    pub(super) async fn connect(&self) -> Result<(), Failure> {
        let started = Instant::now();
        let opened = timeout(CONNECT, self.open()).await.unwrap_or(Err(Failure::TimedOut));
        let outcome = opened.as_ref().err().map_or(Some(ClusterOutcome::Ok), Failure::outcome);
        if let Some(outcome) = outcome {
            self.metrics.cluster_request(ClusterOp::Ping, outcome, started.elapsed());
        }
        let mut state = self.state();
        match opened {
            Ok(connection) => {
                state.live = Some(Live { connection, over: CancellationToken::new(), unanswered: 0 });
                state.troubles.back(&self.settings.target);
                Ok(())
            }
            Err(failure) => {
                state.troubles.away(&self.settings.target, &failure);
                Err(failure)
            }
        }
    }

    async fn open(&self) -> Result<Connection, Failure> {
        let mut connection = Connection::open(&self.settings, CONNECT).await?;
        connection.send(&redis::cmd("PING")).await?;
        Ok(connection)
    }

    /// Keeps the connection until it is cancelled.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut pauses = Pauses::default();
        loop {
            while self.is_up() {
                self.wake.notified().await;
            }
            tokio::time::sleep(pauses.broken(Instant::now())).await;
            while self.connect().await.is_err() {
                tokio::time::sleep(pauses.failed()).await;
            }
            pauses.connected(Instant::now());
        }
    }

    fn has_sentinel(&self) -> bool {
        matches!(self.settings.target.servers, Servers::Sentinel(..))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A connection that lasted so long was a good one.
const LASTING: Duration = Duration::from_secs(30);

/// Between attempts to connect: none at first, then 1, 2, 4 ... 30 s. A connection that is lost soon doesn't begin that anew:
/// on a bad network it would break again and again, and each time sessions wait for it.
#[derive(Debug, Default)]
struct Pauses {
    last: Duration,
    since: Option<Instant>,
}

impl Pauses {
    fn connected(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// The pause before a connection is tried, after one was lost.
    fn broken(&mut self, now: Instant) -> Duration {
        let short = self.since.is_some_and(|since| now.saturating_duration_since(since) < LASTING);
        if short {
            return self.failed();
        }
        self.last = Duration::ZERO;
        Duration::ZERO
    }

    /// The pause after an attempt that failed.
    fn failed(&mut self) -> Duration {
        self.last = (self.last * 2).clamp(Duration::from_secs(1), LONGEST_PAUSE);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let mut pauses = Pauses::default();
        assert_eq!(pauses.broken(Instant::now()), Duration::ZERO);
        let seconds: Vec<u64> = (0..8).map(|_| pauses.failed().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn a_connection_that_is_lost_soon_waits_longer_each_time() {
        let (mut pauses, mut now) = (Pauses::default(), Instant::now());
        let mut seconds = Vec::new();
        for lasts in [3600, 1, 29, 0, 30, 1] {
            now += Duration::from_secs(lasts);
            seconds.push(pauses.broken(now).as_secs());
            pauses.connected(now);
        }
        assert_eq!(seconds, [0, 1, 2, 4, 0, 1]);
    }
}
