//! The last reload: when, and whether it was applied.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
#[derive(Debug, Clone)]
pub struct Reloads(Arc<Mutex<Configured>>);

#[derive(Debug)]
struct Configured {
    since: SystemTime,
    last: Option<Reload>,
}

impl Reloads {
    /// The daemon starts with a configuration.
    #[must_use]
    pub fn started(at: SystemTime) -> Self {
        Self(Arc::new(Mutex::new(Configured { since: at, last: None })))
    }

    pub fn note(&self, reload: Reload) {
        let mut configured = self.lock();
        if reload.applied {
            configured.since = reload.at;
        }
        configured.last = Some(reload);
    }

    /// `None` before the first.
    #[must_use]
    pub fn last(&self) -> Option<Reload> {
        self.lock().last.clone()
    }

    /// When the configuration in effect was taken on: at the start, or by the last reload that was applied.
    #[must_use]
    pub fn since(&self) -> SystemTime {
        self.lock().since
    }

    fn lock(&self) -> MutexGuard<'_, Configured> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
