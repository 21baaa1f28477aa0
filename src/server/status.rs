//! The state of a server, read-only: for readiness, metrics and the dashboard.

use std::sync::Arc;

use crate::net::Purpose;
use crate::server::Shared;
use crate::server::listening::DoorListener;

#[derive(Debug, Clone)]
pub struct Status(Arc<Shared>);

impl Status {
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        Self(Arc::clone(shared))
    }

    /// Number of listeners that accept.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.0.listening.accepting()
    }

    /// The listeners of all doors, those of one door together.
    #[must_use]
    pub fn doors(&self) -> Vec<DoorListener> {
        self.0.listening.all()
    }

    /// Number of open connections.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.counts.open()
    }

    /// Number of open connections of one door.
    #[must_use]
    pub fn open_at(&self, purpose: Purpose) -> usize {
        self.0.counts.open_for(purpose)
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
