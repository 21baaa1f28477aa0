//! Whether the next hop can be used, as of the last time that somebody tried: a probe or a transaction.

use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

use crate::relay::RelayError;

/// What is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
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
    known: watch::Sender<Reach>,
    /// Held by who tries, so that nobody else does.
    trying: Mutex<()>,
}

impl LastReach {
    pub(super) fn new() -> Self {
        let unknown = Reach { ok: false, detail: "was not tried yet".to_owned(), at: None };
        Self { known: watch::Sender::new(unknown), trying: Mutex::default() }
    }

    pub(super) fn known(&self) -> Reach {
        self.known.borrow().clone()
    }

    /// Changes when it can be used where it couldn't, or the other way round.
    pub(super) fn watch(&self) -> watch::Receiver<Reach> {
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
                *known = Reach { ok, detail: if ok { "can be used".to_owned() } else { detail }, at };
            }
            turned
        });
    }

    /// What is known, no older than `age`: else `probe` is to find out, which notes what it finds. One for all who ask
    /// meanwhile.
    pub(super) async fn within(
        &self,
        age: Duration,
        patience: Duration,
        probe: impl Future<Output = ()>,
    ) -> Reach {
        let tried = timeout(patience, async {
            let _trying = self.trying.lock().await;
            if !self.known.borrow().is_younger_than(age) {
                probe.await;
            }
        });
        if tried.await.is_err() {
            let time = humantime::format_duration(patience);
            self.note(Err(&RelayError::Unreachable(format!("no answer within {time}"))));
        }
        self.known()
    }
}

impl Reach {
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
        let (last, tries) = (LastReach::new(), AtomicUsize::new(0));
        let ask = |outcome: bool| {
            let (last, tries) = (&last, &tries);
            last.within(AGE, PATIENCE, async move {
                tries.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_secs(1)).await;
                let gone = gone();
                last.note(if outcome { Ok(()) } else { Err(&gone) });
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
    async fn one_that_hangs_is_not_there() {
        let last = LastReach::new();
        last.note(Ok(()));
        let mut turns = last.watch();
        advance(AGE).await;
        let reach = last.within(AGE, PATIENCE, std::future::pending()).await;
        assert_eq!(
            (reach.ok, reach.detail.as_str()),
            (false, "the relay cannot be reached: no answer within 5s")
        );
        assert!(turns.has_changed().unwrap() && !turns.borrow_and_update().ok, "whoever waits is told");
    }
}
