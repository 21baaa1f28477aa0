//! Whether the next hop can be used, as of the last time that somebody tried: a probe or a transaction.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

use crate::relay::RelayError;

/// What is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// It could be used.
    pub ok: bool,
    /// For the operator: why not.
    pub detail: String,
    /// When that was; `None` = nobody has tried yet.
    at: Option<Instant>,
}

/// The last that was heard of a next hop. Who waits for a change is told.
#[derive(Debug)]
pub(super) struct LastReach {
    known: watch::Sender<Availability>,
    /// Held by who tries, so that nobody else does.
    trying: Arc<Mutex<()>>,
}

impl LastReach {
    pub(super) fn new() -> Self {
        Self::knowing(Availability { ok: false, detail: "was not tried yet".to_owned(), at: None })
    }

    /// With what was known before.
    pub(super) fn knowing(known: Availability) -> Self {
        Self { known: watch::Sender::new(known), trying: Arc::default() }
    }

    pub(super) fn known(&self) -> Availability {
        self.known.borrow().clone()
    }

    /// Changes when it can be used where it couldn't, or the other way round.
    pub(super) fn watch(&self) -> watch::Receiver<Availability> {
        self.known.subscribe()
    }

    /// Takes note of a try. What says nothing of the next hop (a client or recipient is refused, no slot is free)
    /// changes nothing.
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

    /// What is known, no older than `age`: else `probe` is to find out, which notes what it finds. One for all who ask
    /// meanwhile. It goes on when their patience has ended: mail waits longer for a relay that is slow, so that says
    /// nothing of the relay yet.
    pub(super) async fn within(
        &self,
        age: Duration,
        patience: Duration,
        probe: impl Future<Output = ()> + Send + 'static,
    ) -> Availability {
        if self.known.borrow().is_younger_than(age) {
            return self.known();
        }
        if let Ok(trying) = Arc::clone(&self.trying).try_lock_owned() {
            tokio::spawn(async move {
                probe.await;
                drop(trying);
            });
        }
        let known = match timeout(patience, self.trying.lock()).await {
            Ok(_ended) => return self.known(),
            Err(_elapsed) => self.known(),
        };
        if known.is_younger_than(age) || !known.ok && known.at.is_some() {
            // a message has told meanwhile, or the last try says more
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
    /// That it can't be used is tried again soon.
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
    fn only_what_speaks_of_the_next_hop_counts() {
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
            let last = LastReach::new();
            last.note(Ok(()));
            last.note(Err(&error));
            assert_eq!(last.known().ok, ok, "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_when_nothing_was_heard_for_a_while_and_once_for_all_who_ask() {
        let (last, tries) = (Arc::new(LastReach::new()), Arc::new(AtomicUsize::new(0)));
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
    async fn one_that_is_slow_has_not_answered_yet_and_that_is_not_held_against_it() {
        let last = Arc::new(LastReach::new());
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
        let reach = ask().await;
        assert_eq!(
            (reach.ok, reach.detail.as_str()),
            (false, "no answer yet, within 5s; mail may wait longer")
        );
        assert!(last.known().ok && !turns.has_changed().unwrap(), "nobody else is told");
        let began = Instant::now();
        assert!(ask().await.ok, "the try that had begun goes on");
        assert_eq!(began.elapsed().as_secs(), 2);
        assert!(last.within(AGE, PATIENCE, std::future::pending()).await.ok, "that was a moment ago");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_gone_stays_it_while_the_next_try_hangs() {
        let last = LastReach::new();
        last.note(Err(&gone()));
        advance(AGE).await;
        let reach = last.within(AGE, PATIENCE, std::future::pending()).await;
        assert_eq!((reach.ok, reach), (false, last.known()));
    }
}
