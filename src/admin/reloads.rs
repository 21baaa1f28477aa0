//! What became of the last reload: what an operator who has changed the configuration wants to know.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Clones share it.
#[derive(Debug, Clone)]
pub struct Reloads(Arc<Mutex<LastReload>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastReload {
    /// When the configuration in effect was taken on: at the start, or by the last reload that was applied.
    pub applied: SystemTime,
    /// The last reload, if it was not applied: when, and its first problem.
    pub refused: Option<(SystemTime, String)>,
}

impl Reloads {
    /// The daemon starts with a configuration.
    #[must_use]
    pub fn started(at: SystemTime) -> Self {
        Self(Arc::new(Mutex::new(LastReload { applied: at, refused: None })))
    }

    /// A reload was applied.
    pub fn applied(&self) {
        *self.lock() = LastReload { applied: SystemTime::now(), refused: None };
    }

    /// A reload was not applied; the configuration stayed as it was.
    pub fn refused(&self, problem: String) {
        self.lock().refused = Some((SystemTime::now(), problem));
    }

    #[must_use]
    pub fn last(&self) -> LastReload {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, LastReload> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
