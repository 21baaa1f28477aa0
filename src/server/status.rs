//! The state of a server, read-only: for readiness, metrics and the dashboard.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::server::Shared;

#[derive(Debug, Clone)]
pub struct Status(Arc<Shared>);

impl Status {
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        Self(Arc::clone(shared))
    }

    /// Number of listeners that accept.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.0.listeners.load(Ordering::Relaxed)
    }

    /// Number of open connections.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.counts.open()
    }

    /// Most connections that may be open, by the settings in effect.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.current.borrow().settings.connections
    }

    /// Whether the daemon is ending and takes no new connections.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.close.is_cancelled()
    }
}

/// Counts a listener as accepting as long as this lives.
pub(super) struct Accepting<'a>(&'a AtomicUsize);

impl<'a> Accepting<'a> {
    pub(super) fn new(listeners: &'a AtomicUsize) -> Self {
        listeners.fetch_add(1, Ordering::Relaxed);
        Self(listeners)
    }
}

impl Drop for Accepting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
