//! The data rate of a client that holds a connection to the relay, and the end of its hold where others wait.
//!
//! Only waits for the client count, not the relay's slowness, DNS or our own work. The rate is the average over the
//! last minute of that time. [`super::slots`] decides which hold is taken back, and only while we wait for its client:
//! never while a command or the final dot is on its way to the relay.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::relay::Settings;

/// The average is over this time.
const WINDOW: Duration = Duration::from_secs(60);
/// It moves on in steps of this length.
const SPAN: Duration = Duration::from_secs(5);
/// So many of them, and the one that has begun.
const FULL_SPANS: usize = 11;
/// A hold is safe for this long a wait: a few round trips on a bad line.
const GRACE: Duration = Duration::from_millis(2500);
/// The octets that a command counts for: it costs a round trip.
const COMMAND: u64 = 256;
/// The commands of one transaction that count so.
const MOST_COMMANDS: u32 = 100;

/// A client's hold on a connection to the relay.
#[derive(Debug, Clone)]
pub struct Hold(Arc<Holder>);

/// The hold was taken back: others wait for a connection, and this client was the slowest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TakenBack {
    /// Octets a second, on average over the last minute of waits for the client.
    pub rate: f64,
    /// All waits for the client in this transaction.
    pub waited: Duration,
}

#[derive(Debug)]
pub(super) struct Holder {
    /// `None` for a connection of our own.
    pub(super) client: Option<IpAddr>,
    least_rate: u64,
    message_time: Duration,
    state: Mutex<State>,
    recalled: Notify,
}

#[derive(Debug, Default)]
struct State {
    progress: Progress,
    commands: u32,
    /// Start of the current wait, as far as it isn't in `progress` yet.
    since: Option<Instant>,
    recalled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum HoldState {
    /// It keeps its slot.
    Good,
    /// Its slot may be taken back.
    Slow(TakenBack),
    /// Its slot is about to be given back.
    Recalled,
}

impl Hold {
    pub(super) fn of(holder: &Arc<Holder>) -> Self {
        Self(Arc::clone(holder))
    }

    /// Waits for the client: `read` returns the number of octets. If octets come while the hold is taken back, the
    /// client keeps it. `read` must be cancel-safe.
    ///
    /// # Errors
    /// The hold was taken back: drop the transaction and reply 421.
    pub async fn wait<E>(
        &self,
        read: impl Future<Output = Result<usize, E>>,
    ) -> Result<Result<usize, E>, TakenBack> {
        let waiting = Waiting::begin(&self.0);
        let mut read = std::pin::pin!(read);
        loop {
            tokio::select! {
                biased;
                came = &mut read => {
                    let octets = came.as_ref().map_or(0, |octets| *octets);
                    let taken_back = waiting.end(octets);
                    return match (came, taken_back) {
                        (Ok(0), Some(taken_back)) => Err(taken_back),
                        (came, _) => Ok(came),
                    };
                }
                () = self.0.recalled.notified() => {
                    if self.0.state().recalled {
                        return waiting.end(0).map_or(Ok(Ok(0)), Err);
                    }
                }
            }
        }
    }
}

/// A wait for the client.
struct Waiting<'a>(&'a Holder);

impl<'a> Waiting<'a> {
    fn begin(holder: &'a Holder) -> Self {
        holder.state().since = Some(Instant::now());
        Self(holder)
    }

    /// Counts the octets. `Some` if there are none and the hold was taken back.
    fn end(self, octets: usize) -> Option<TakenBack> {
        let mut state = self.0.state();
        state.settle(Instant::now());
        state.since = None;
        state.progress.add_octets(octets as u64);
        let taken_back = state.recalled && octets == 0;
        state.recalled = taken_back;
        taken_back.then(|| state.progress.taken_back())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.settle(Instant::now());
        // the wait ended for another reason: the slot stays until it is dropped
        state.recalled &= state.since.take().is_none();
    }
}

impl Holder {
    pub(super) fn new(client: Option<IpAddr>, settings: &Settings) -> Self {
        Self {
            client,
            least_rate: settings.data_rate,
            message_time: settings.message_time,
            state: Mutex::default(),
            recalled: Notify::new(),
        }
    }

    /// The client sent a command for the relay.
    pub(super) fn count_command(&self) {
        let mut state = self.state();
        if state.commands < MOST_COMMANDS {
            state.commands += 1;
            state.progress.add_octets(COMMAND);
        }
    }

    pub(super) fn hold_state(&self, now: Instant) -> HoldState {
        let mut state = self.state();
        state.settle(now);
        if state.recalled {
            return HoldState::Recalled;
        }
        let seen = state.progress.taken_back();
        #[expect(clippy::cast_precision_loss, reason = "a rate is compared, not counted")]
        let slow = seen.waited >= GRACE && seen.rate < self.least_rate as f64;
        if state.since.is_some() && (slow || seen.waited >= self.message_time) {
            HoldState::Slow(seen)
        } else {
            HoldState::Good
        }
    }

    /// Takes the slot back if we still wait for the client.
    pub(super) fn recall(&self) -> bool {
        let mut state = self.state();
        state.recalled = state.since.is_some();
        if state.recalled {
            self.recalled.notify_one();
        }
        state.recalled
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts the wait up to now.
    fn settle(&mut self, now: Instant) {
        if let Some(since) = &mut self.since {
            self.progress.add_wait(now.saturating_duration_since(*since));
            *since = now;
        }
    }
}

/// Octets, and the waits for them.
#[derive(Debug, Default)]
struct Progress {
    /// The full spans of the last minute.
    full: VecDeque<Span>,
    /// The current span.
    last: Span,
    waited: Duration,
}

#[derive(Debug, Default, Clone, Copy)]
struct Span {
    waited: Duration,
    octets: u64,
}

impl Progress {
    fn add_octets(&mut self, octets: u64) {
        self.last.octets += octets;
    }

    fn add_wait(&mut self, time: Duration) {
        self.waited += time;
        let mut left = time.min(WINDOW + SPAN); // more than that leaves nothing of what was before
        while !left.is_zero() {
            let part = left.min(SPAN.saturating_sub(self.last.waited));
            self.last.waited += part;
            left -= part;
            if self.last.waited >= SPAN {
                self.full.push_back(std::mem::take(&mut self.last));
                if self.full.len() > FULL_SPANS {
                    self.full.pop_front();
                }
            }
        }
    }

    fn taken_back(&self) -> TakenBack {
        let spans = || self.full.iter().chain([&self.last]);
        let octets: u64 = spans().map(|span| span.octets).sum();
        let waited: Duration = spans().map(|span| span.waited).sum();
        #[expect(clippy::cast_precision_loss, reason = "a rate is compared, not counted")]
        let rate = octets as f64 / waited.as_secs_f64().max(0.001);
        TakenBack { rate, waited: self.waited }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::relay::NextHop;

    const SECOND: Duration = Duration::from_secs(1);

    fn holder() -> Arc<Holder> {
        let settings = crate::relay::tests::settings(NextHop::Maildir("mail".into()));
        Arc::new(Holder::new(None, &settings))
    }

    fn nothing() -> impl Future<Output = Result<usize, ()>> {
        pending()
    }

    #[test]
    fn the_rate_is_the_average_over_the_last_minute_of_waiting() {
        let mut progress = Progress::default();
        progress.add_octets(60 * 1024);
        progress.add_wait(3 * SECOND);
        assert_eq!(progress.taken_back().rate, 20.0 * 1024.0);
        progress.add_wait(27 * SECOND);
        assert_eq!(progress.taken_back().rate, 2048.0);
        progress.add_wait(31 * SECOND);
        assert_eq!(progress.taken_back(), TakenBack { rate: 0.0, waited: 61 * SECOND });
        for _ in 0..600 {
            progress.add_wait(SECOND);
            progress.add_octets(100);
        }
        let seen = progress.taken_back();
        assert!((99.0..110.0).contains(&seen.rate) && seen.waited == 661 * SECOND, "{seen:?}");
        progress.add_wait(10_000 * SECOND);
        assert_eq!(progress.taken_back().rate, 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn commands_count_as_progress_a_hundred_times() {
        let holder = holder();
        holder.state().progress.add_wait(5 * SECOND);
        for _ in 0..1000 {
            holder.count_command();
        }
        let seen = holder.state().progress.taken_back();
        assert_eq!(seen.rate, 100.0 * 256.0 / 5.0);
    }

    #[tokio::test(start_paused = true)]
    async fn octets_that_come_as_the_hold_is_taken_back_keep_it() {
        let (holder, now) = (holder(), Instant::now());
        let hold = Hold::of(&holder);
        let last = async {
            tokio::time::sleep(10 * SECOND).await;
            assert!(matches!(holder.hold_state(Instant::now()), HoldState::Slow(_)));
            assert!(holder.recall());
            assert_eq!(holder.hold_state(Instant::now()), HoldState::Recalled);
            Ok::<usize, ()>(7)
        };
        assert_eq!(hold.wait(last).await, Ok(Ok(7)));
        assert_eq!(holder.hold_state(Instant::now()), HoldState::Good);
        assert!(!holder.recall(), "no wait is under way");
        assert_eq!(now.elapsed(), 10 * SECOND);
        // what was left of the recall ends no later wait
        let later = tokio::time::timeout(SECOND, hold.wait(nothing())).await;
        assert!(later.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_dropped_leaves_the_hold_as_it_was() {
        let holder = holder();
        let hold = Hold::of(&holder);
        assert!(tokio::time::timeout(5 * SECOND, hold.wait(nothing())).await.is_err());
        assert_eq!(holder.hold_state(Instant::now() + 100 * SECOND), HoldState::Good);
        assert_eq!(holder.state().progress.waited, 5 * SECOND);
    }
}
