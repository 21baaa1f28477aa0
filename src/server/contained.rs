//! A panic in one connection ends there: caught, counted, logged. The release profile unwinds for this.

use std::any::Any;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use crate::metrics::Metrics;

/// Where connections are counted that ended in a panic.
#[derive(Debug, Default)]
pub(super) struct Panics(pub(super) Metrics);

impl Panics {
    /// Runs a connection to its end, whatever that is. What the connection shares with others is either immutable,
    /// atomic, or behind a lock whose poison is looked through, so that nothing half done is seen by them.
    ///
    /// Not an `async fn`, which would hold the connection twice: as its argument and as what it awaits.
    pub(super) fn contain(
        &self,
        client: SocketAddr,
        connection: impl Future<Output = ()>,
    ) -> impl Future<Output = ()> {
        AssertUnwindSafe(connection).catch_unwind().map(move |outcome| {
            if let Err(panic) = outcome {
                let count = self.0.panic();
                tracing::error!(%client, panic = message(panic.as_ref()), count, "a connection ended in a panic");
            }
        })
    }

    /// How many so far.
    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.0.panics()
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("not a text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_says_is_found() {
        let said = |panic: Box<dyn Any + Send>| message(panic.as_ref()).to_owned();
        assert_eq!(said(Box::new("plain")), "plain");
        assert_eq!(said(Box::new("made".to_owned())), "made");
        assert_eq!(said(Box::new(7)), "not a text");
    }
}
