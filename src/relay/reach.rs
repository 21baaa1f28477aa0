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
            let detail = format!("no answer within {}", humantime::format_duration(patience));
            return Reach { ok: false, detail, at: None };
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
