//! Runs the sessions with a number of connections, as fast as possible or at a fixed rate, until the limit is reached.
//!
//! At a fixed rate the time of a session that waits for a free connection counts from when it was due. Otherwise a target that
//! stalls would get fewer sessions and look fast (coordinated omission). Without a rate no session can be late.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::tools::load::client::{Client, SessionOptions};
use crate::tools::load::outcome::MessageResult;
use crate::tools::load::plan::Plan;
use crate::tools::load::stats::LoadStats;

/// Lateness of the timer, which is not the target's.
const TICK: Duration = Duration::from_millis(2);

/// For open sessions after the run was stopped.
const GRACE: Duration = Duration::from_secs(2);

/// After a failed session, to spare an unreachable target.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Consecutive failures after which the target counts as unreachable.
const UNREACHABLE: u64 = 1000;

#[derive(Debug, Clone)]
pub(super) struct Pace {
    pub(super) sessions: Option<u64>,
    pub(super) duration: Option<Duration>,
    /// Sessions a second.
    pub(super) rate: Option<u32>,
    pub(super) connections: usize,
}

/// Shared by all connections.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) plan: Plan,
    pub(super) options: SessionOptions,
    pub(super) pace: Pace,
    pub(super) started: Instant,
    /// Cancelled by a signal, or if the target is unreachable.
    pub(super) stop: CancellationToken,
    stats: Mutex<LoadStats>,
    next: AtomicU64,
    failures: AtomicU64,
}

impl Run {
    pub(super) fn new(plan: Plan, options: SessionOptions, pace: Pace, stats: LoadStats) -> Arc<Self> {
        Arc::new(Self {
            plan,
            options,
            pace,
            started: Instant::now(),
            stop: CancellationToken::new(),
            stats: Mutex::new(stats),
            next: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    /// Plays all sessions, or those before the stop.
    pub(super) async fn play(self: &Arc<Self>) {
        let mut workers = JoinSet::new();
        for _ in 0..self.pace.connections {
            let run = Arc::clone(self);
            workers.spawn(async move { run.work().await });
        }
        let stopped = async {
            self.stop.cancelled().await;
            sleep(GRACE).await;
        };
        tokio::select! {
            () = async { while workers.join_next().await.is_some() {} } => return,
            () = stopped => {}
        }
        workers.shutdown().await;
    }

    pub(super) fn is_unreachable(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= UNREACHABLE
    }

    pub(super) fn stats(&self) -> MutexGuard<'_, LoadStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages with a verdict so far.
    pub(super) fn decided(&self) -> u64 {
        let total = self.stats().total();
        total.total() - total.failed
    }

    /// Plays one session after another.
    async fn work(&self) {
        let mut client = Client::default();
        while let Some((number, began)) = self.due().await {
            let Some(session) = self.plan.session(number) else { return };
            let mut failed = false;
            let report = |message: MessageResult| {
                failed = message.result.is_err();
                self.stats().message(session.class, session.slow, &message, self.started.elapsed());
            };
            client.play(&self.options, &self.plan, &session, began, report).await;
            self.stats().session(session.slow);
            if !failed {
                self.failures.store(0, Ordering::Relaxed);
            } else if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= UNREACHABLE {
                self.stop.cancel();
            } else {
                timeout(BACK_OFF, self.stop.cancelled()).await.ok();
            }
        }
    }

    /// Waits until the next session is due. Returns its number and the time from which it counts; `None` if none is left.
    async fn due(&self) -> Option<(u64, Instant)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let enough = self.pace.sessions.is_some_and(|sessions| number >= sessions);
        let over = |at: Instant| self.pace.duration.is_some_and(|most| at - self.started >= most);
        let now = Instant::now();
        if enough || self.stop.is_cancelled() || over(now) {
            return None;
        }
        let Some(rate) = self.pace.rate else { return Some((number, now)) };
        let due = self.started + after(number, rate);
        if due <= now {
            return Some((number, due));
        }
        if over(due) {
            return None;
        }
        tokio::select! {
            () = sleep_until(due) => {}
            () = self.stop.cancelled() => return None,
        }
        let now = Instant::now();
        Some((number, if now - due <= TICK { now } else { due }))
    }
}

/// The time between the start and a session.
fn after(number: u64, rate: u32) -> Duration {
    let nanos = u128::from(number) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::tools::load::class::Class;
    use crate::tools::load::client::Target;
    use crate::tools::load::plan::{Names, tests::plan};
    use crate::tools::load::stats::tests::stats;

    /// Refuses every MAIL; holds back the banner of the first connection for a while.
    async fn refusing(stall: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut stall = Some(stall);
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                if let Some(time) = stall.take() {
                    sleep(time).await;
                }
                let mut reply = &b"220 x\r\n"[..];
                let mut line = String::new();
                while stream.write_all(reply).await.is_ok()
                    && stream.read_line(&mut line).await.is_ok_and(|read| read > 0)
                {
                    reply = if line.starts_with("EHLO") { b"250 x\r\n" } else { b"550 5.1.8 no\r\n" };
                    line.clear();
                }
            }
        });
        address
    }

    fn run(target: SocketAddr, pace: Pace) -> Arc<Run> {
        let target = Target::Smtp(target);
        let options =
            SessionOptions { target, pipelining: false, timeout: Duration::from_secs(5), ledger: None };
        let mut plan = plan(1, "spoofed=1", Names::Warm(5));
        (plan.slow, plan.messages) = (0, 1);
        Run::new(plan, options, pace, stats())
    }

    fn pace() -> Pace {
        Pace { sessions: None, duration: None, rate: None, connections: 1 }
    }

    #[tokio::test]
    async fn a_stall_at_a_fixed_rate_counts_for_all_that_were_due_meanwhile() {
        let target = refusing(Duration::from_millis(500)).await;
        for (rate, many) in [(Some(100), true), (None, false)] {
            let target = if many { target } else { refusing(Duration::from_millis(500)).await };
            let run = run(target, Pace { sessions: Some(60), rate, ..pace() });
            run.play().await;
            let stats = run.stats();
            let (counts, latencies) = stats.classes.of(Class::Spoofed);
            assert_eq!((counts.rejected, stats.sessions), (60, 60));
            assert!(latencies.max() >= 500_000);
            let half = latencies.at(0.5);
            assert_eq!(half > 100_000, many, "{rate:?}: {half}");
        }
    }

    #[tokio::test]
    async fn a_duration_or_a_stop_ends_it() {
        let target = refusing(Duration::ZERO).await;
        let timed =
            run(target, Pace { duration: Some(Duration::from_millis(200)), rate: Some(50), ..pace() });
        timed.play().await;
        let sessions = timed.stats().sessions;
        assert!((1..=10).contains(&sessions), "{sessions}");

        let stopped = run(target, pace());
        stopped.stop.cancel();
        stopped.play().await;
        assert_eq!(stopped.stats().sessions, 0);
    }

    #[tokio::test]
    async fn an_unreachable_target_ends_the_run() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        drop(listener);
        let run = run(target, Pace { connections: 100, ..pace() });
        timeout(Duration::from_secs(10), run.play()).await.unwrap();
        assert!(run.is_unreachable());
        let total = run.stats().total();
        assert_eq!(total.total(), total.failed);
    }

    #[test]
    fn sessions_are_due_evenly() {
        assert_eq!(after(0, 100), Duration::ZERO);
        assert_eq!(after(150, 100), Duration::from_millis(1500));
        assert_eq!(after(u64::MAX, 1), Duration::from_nanos(u64::MAX));
    }
}
