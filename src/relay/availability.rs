//! Whether the next hop can be used: the result of the last probe or transaction.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

use crate::relay::RelayError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    pub ok: bool,
    /// For the operator: the last error.
    pub detail: String,
    /// The time of that result; `None` before the first.
    at: Option<Instant>,
}

/// The last result, and a channel for its changes.
#[derive(Debug)]
pub(super) struct LastAvailability {
    known: watch::Sender<Availability>,
    /// Locked while a probe runs, so that there is only one.
    probing: Arc<Mutex<()>>,
}

impl LastAvailability {
    pub(super) fn new() -> Self {
        Self::starting_with(Availability { ok: false, detail: "was not tried yet".to_owned(), at: None })
    }

    pub(super) fn starting_with(known: Availability) -> Self {
        Self { known: watch::Sender::new(known), probing: Arc::default() }
    }

    pub(super) fn known(&self) -> Availability {
        self.known.borrow().clone()
    }

    /// Changes only with [`Availability::ok`].
    pub(super) fn watch(&self) -> watch::Receiver<Availability> {
        self.known.subscribe()
    }

    /// Notes a result. Errors that aren't about the next hop itself (a refused client or recipient, no free slot)
    /// change nothing.
    pub(super) fn note(&self, outcome: Result<(), &RelayError>) {
        let (ok, detail) = match outcome {
            Ok(()) => (true, String::new()),
            Err(error) if error.is_absence() => (false, error.to_string()),
            Err(_) => return,
        };
        let at = Some(Instant::now());
        self.known.send_if_modified(|known| {
            let turned = known.ok != ok;
            known.at = at;
            if turned || !ok {
                *known = Availability { ok, detail: if ok { "can be used".to_owned() } else { detail }, at };
            }
            turned
        });
    }

    /// Runs `probe`, which notes its result, where the last one is older than `age`. Concurrent callers share one
    /// probe. It goes on after `patience`: mail waits longer for a slow relay, so slowness alone is no result.
    pub(super) async fn within(
        &self,
        age: Duration,
        patience: Duration,
        probe: impl Future<Output = ()> + Send + 'static,
    ) -> Availability {
        if self.known.borrow().is_younger_than(age) {
            return self.known();
        }
        if let Ok(lock) = Arc::clone(&self.probing).try_lock_owned() {
            tokio::spawn(async move {
                probe.await;
                drop(lock);
            });
        }
        let known = match timeout(patience, self.probing.lock()).await {
            Ok(_ended) => return self.known(),
            Err(_elapsed) => self.known(),
        };
        if known.is_younger_than(age) || !known.ok && known.at.is_some() {
            // a transaction noted a result meanwhile, or the last error explains more than a timeout
            return known;
        }
        let time = humantime::format_duration(patience);
        Availability {
            ok: false,
            detail: format!("no answer yet, within {time}; mail may wait longer"),
            at: known.at,
        }
    }
}

impl Availability {
    /// A negative result expires eight times sooner.
    fn is_younger_than(&self, age: Duration) -> bool {
        let age = if self.ok { age } else { age / 8 };
        self.at.is_some_and(|at| at.elapsed() < age)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{advance, sleep};

    use super::*;
    use crate::relay::Stage;
    use crate::smtp::reply::Reply;

    const AGE: Duration = Duration::from_secs(16);
    const PATIENCE: Duration = Duration::from_secs(5);

    fn gone() -> RelayError {
        RelayError::Unreachable("127.0.0.1:25: refused".to_owned())
    }

    #[test]
    fn only_errors_of_the_next_hop_itself_count() {
        let reply = || Reply::plain(550, "no");
        let rows = [
            (gone(), false),
            (RelayError::NoXclient, false),
            (RelayError::Silent(Stage::Banner), false),
            (RelayError::Closed(Stage::Greeting), false),
            (RelayError::Folder(std::io::ErrorKind::StorageFull.into()), false),
            (RelayError::Silent(Stage::Rcpt), true),
            (RelayError::Rejected { stage: Stage::Mail, reply: reply() }, true),
            (RelayError::Closing { stage: Stage::Rcpt, reply: Reply::plain(421, "bye") }, true),
            (RelayError::Busy(1), true),
        ];
        for (error, ok) in rows {
            let last = LastAvailability::new();
            last.note(Ok(()));
            last.note(Err(&error));
            assert_eq!(last.known().ok, ok, "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_result_starts_one_probe_for_all_callers() {
        let (last, tries) = (Arc::new(LastAvailability::new()), Arc::new(AtomicUsize::new(0)));
        let ask = |outcome: bool| {
            let (noted, tries) = (Arc::clone(&last), Arc::clone(&tries));
            last.within(AGE, PATIENCE, async move {
                tries.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_secs(1)).await;
                let gone = gone();
                noted.note(if outcome { Ok(()) } else { Err(&gone) });
            })
        };
        let (one, two, three) = tokio::join!(ask(true), ask(true), ask(true));
        assert!(one.ok && two.ok && three.ok);
        assert_eq!(tries.load(Ordering::Relaxed), 1);
        advance(AGE - Duration::from_secs(1)).await;
        assert!(ask(false).await.ok);
        advance(Duration::from_secs(1)).await;
        assert!(!ask(false).await.ok);
        assert!(!ask(true).await.ok, "that was a moment ago");
        advance(AGE / 8).await;
        assert!(ask(true).await.ok);
        assert_eq!(tries.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_probe_is_no_result_and_goes_on() {
        let last = Arc::new(LastAvailability::new());
        last.note(Ok(()));
        let turns = last.watch();
        advance(AGE).await;
        let ask = || {
            let noted = Arc::clone(&last);
            last.within(AGE, PATIENCE, async move {
                sleep(PATIENCE + Duration::from_secs(2)).await;
                noted.note(Ok(()));
            })
        };
        let found = ask().await;
        assert_eq!(
            (found.ok, found.detail.as_str()),
            (false, "no answer yet, within 5s; mail may wait longer")
        );
        assert!(last.known().ok && !turns.has_changed().unwrap(), "no change is announced");
        let began = Instant::now();
        assert!(ask().await.ok, "the probe that had begun goes on");
        assert_eq!(began.elapsed().as_secs(), 2);
        assert!(last.within(AGE, PATIENCE, std::future::pending()).await.ok, "that was a moment ago");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_error_stays_while_the_next_probe_hangs() {
        let last = LastAvailability::new();
        last.note(Err(&gone()));
        advance(AGE).await;
        let found = last.within(AGE, PATIENCE, std::future::pending()).await;
        assert_eq!((found.ok, found), (false, last.known()));
    }
}
