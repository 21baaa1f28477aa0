//! Questions that are under way: whoever asks the same one meanwhile waits for its answer.
//!
//! A question is entered here only when it has its place, so that nobody waits in another client's queue; and who waits here
//! needs no place. A name that many ask for at once, be it silent, takes one place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use tokio::sync::SetOnce;

use crate::dns::cache::Entry;
use crate::evidence::Question;

/// The answer to come; `None` if the question died.
pub(super) type Awaited = Arc<SetOnce<Option<Entry>>>;

/// All questions that are under way.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Question, Awaited, RandomState>>);

/// A question that this asker puts. Dropping it ends the wait of the others.
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

    /// Enters the question, unless another asker was faster.
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
    /// The answer is there, and in the cache by now.
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
