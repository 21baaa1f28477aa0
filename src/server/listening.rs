//! The listeners of the doors, and which of them accept.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::net::{Endpoint, Purpose};

/// A listener of a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorListener {
    pub purpose: Purpose,
    pub endpoint: Endpoint,
    /// `false` if it ended, though nobody closed it.
    pub accepting: bool,
}

#[derive(Debug, Default)]
pub(super) struct Listening(Mutex<Vec<DoorListener>>);

impl Listening {
    /// The listener accepts as long as the result lives. It is taken off the list at its end only if `close` asked for
    /// that end.
    pub(super) fn begin(
        &self,
        purpose: Purpose,
        endpoint: Endpoint,
        close: CancellationToken,
    ) -> Accepting<'_> {
        let listener = DoorListener { purpose, endpoint, accepting: true };
        self.lock().push(listener.clone());
        Accepting { listening: self, listener, close }
    }

    /// All of them, by purpose in the order of their start.
    pub(super) fn all(&self) -> Vec<DoorListener> {
        let mut all = self.lock().clone();
        all.sort_by_key(|listener| listener.purpose as usize);
        all
    }

    /// Number of listeners that accept.
    pub(super) fn accepting(&self) -> usize {
        self.lock().iter().filter(|listener| listener.accepting).count()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<DoorListener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a listener as accepting as long as this lives.
#[must_use]
pub(super) struct Accepting<'a> {
    listening: &'a Listening,
    listener: DoorListener,
    close: CancellationToken,
}

impl Drop for Accepting<'_> {
    fn drop(&mut self) {
        let mut all = self.listening.lock();
        let Some(at) = all.iter().position(|listener| *listener == self.listener) else { return };
        if self.close.is_cancelled() {
            all.remove(at);
        } else if let Some(listener) = all.get_mut(at) {
            listener.accepting = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_was_closed_is_gone_and_one_that_ended_by_itself_is_seen() {
        let (listening, close) = (Listening::default(), CancellationToken::new());
        let at = |port: u16| Endpoint::Tcp(([127, 0, 0, 1], port).into());
        let milter = listening.begin(Purpose::Milter, at(1), close.clone());
        let smtp = listening.begin(Purpose::Smtp, at(2), close.clone());
        let seen = || listening.all().into_iter().map(|it| (it.purpose, it.accepting)).collect::<Vec<_>>();
        assert_eq!(seen(), [(Purpose::Smtp, true), (Purpose::Milter, true)]);
        drop(milter);
        assert_eq!(
            (seen(), listening.accepting()),
            (vec![(Purpose::Smtp, true), (Purpose::Milter, false)], 1)
        );
        close.cancel();
        drop(smtp);
        assert_eq!(seen(), [(Purpose::Milter, false)]);
    }
}
