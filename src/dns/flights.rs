//! Questions that are under way: a caller with the same question waits for the answer.
//!
//! A question is entered here only once it has its place, so that no caller waits in another client's queue. A caller that
//! waits here needs no place: a name that many ask for at once, even a silent one, takes one place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use tokio::sync::SetOnce;

use crate::dns::cache::Entry;
use crate::evidence::Question;

/// The answer to come; `None` where the question ended without one.
pub(super) type Awaited = Arc<SetOnce<Option<Entry>>>;

#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Question, Awaited, RandomState>>);

/// A question that this caller asks. Dropping it ends the wait of the others.
pub(super) struct Flight {
    flights: Arc<Flights>,
    question: Question,
    awaited: Awaited,
}

impl Flights {
    /// The answer to come, if the question is under way.
    pub(super) fn awaited(&self, question: &Question) -> Option<Awaited> {
        self.table().get(question).cloned()
    }

    /// Enters the question, unless another caller was faster.
    pub(super) fn begin(self: &Arc<Self>, question: &Question) -> Result<Flight, Awaited> {
        let mut table = self.table();
        if let Some(awaited) = table.get(question) {
            return Err(Arc::clone(awaited));
        }
        let awaited = Awaited::default();
        table.insert(question.clone(), Arc::clone(&awaited));
        Ok(Flight { flights: Arc::clone(self), question: question.clone(), awaited })
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Question, Awaited, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// Hands the answer to all that wait; it is in the cache by now.
    pub(super) fn end(self, entry: Option<Entry>) {
        self.awaited.set(entry).ok();
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.table().remove(&self.question);
        self.awaited.set(None).ok();
    }
}
