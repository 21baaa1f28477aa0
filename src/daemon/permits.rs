//! Ends temporary permits in time, so that the log has a line of it and the file forgets them, and writes what could not be
//! written before.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::store::permits::PermitStore;

const BEAT: Duration = Duration::from_secs(1);

/// Looks once a second, until the result is dropped.
pub(super) fn watch(permits: PermitStore) -> DropGuard {
    let stop = CancellationToken::new();
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            tokio::time::sleep(BEAT).await;
            let store = permits.clone();
            if permits.is_due() && spawn_blocking(move || store.tick()).await.is_err() {
                tracing::error!("the permits could not be looked after");
            }
        }
    }));
    stop.drop_guard()
}
