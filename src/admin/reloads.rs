//! The last reload: when, and whether it was applied.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// One reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reload {
    pub at: SystemTime,
    /// Whether the new settings are in effect.
    pub applied: bool,
    /// Why they are not, or what of them needs a restart; as in the log.
    pub detail: Option<String>,
}

/// Clones share the last one; it outlives the settings.
#[derive(Debug, Clone, Default)]
pub struct Reloads(Arc<Mutex<Option<Reload>>>);

impl Reloads {
    pub fn note(&self, reload: Reload) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reload);
    }

    /// `None` before the first.
    #[must_use]
    pub fn last(&self) -> Option<Reload> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
