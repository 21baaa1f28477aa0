//! The log of what is wrong with Redis: each trouble once, and its end once.

use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::ClusterOp;
use crate::store::shared::failure::Failure;
use crate::store::shared::settings::Target;

/// Values that rmxd doesn't write are logged at most so often: somebody could write many.
const BETWEEN: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Troubles {
    away: Option<(Instant, Failure)>,
    no_writes: Option<Failure>,
    denied: Option<(ClusterOp, Failure)>,
    nonsense: Option<Instant>,
}

impl Troubles {
    pub(super) fn away(&mut self, target: &Target, why: &Failure) {
        let since = match &self.away {
            // A wrong password is another trouble than a server that is down.
            Some((since, before)) if before.is_permanent() == why.is_permanent() => {
                self.away = Some((*since, why.clone()));
                return;
            }
            Some((since, _)) => *since,
            None => Instant::now(),
        };
        if why.is_permanent() {
            tracing::error!(redis = %target, %why, "Redis refuses this node: it goes on alone; see [cluster]");
        } else {
            tracing::warn!(redis = %target, %why, "Redis is away: this node goes on alone");
        }
        self.away = Some((since, why.clone()));
    }

    pub(super) fn back(&mut self, target: &Target) {
        match self.away.take() {
            Some((since, _)) => {
                let after =
                    humantime::format_duration(Duration::from_secs(since.elapsed().as_secs())).to_string();
                tracing::info!(redis = %target, after, "Redis is back");
            }
            None => tracing::info!(redis = %target, "Redis is connected"),
        }
    }

    pub(super) fn no_writes(&mut self, why: &Failure) {
        if self.no_writes.replace(why.clone()).is_none() {
            tracing::warn!(%why, "Redis takes no writes: what this node learns stays here");
        }
    }

    pub(super) fn writes_again(&mut self) {
        if self.no_writes.take().is_some() {
            tracing::info!("Redis takes writes again");
        }
    }

    pub(super) fn denied(&mut self, op: ClusterOp, why: &Failure) {
        if self.denied.is_none() {
            self.denied = Some((op, why.clone()));
            tracing::error!(%why, "Redis refuses a command: see the rights of its user in \"Several gates\"");
        }
    }

    pub(super) fn allowed(&mut self, op: ClusterOp) {
        if self.denied.take_if(|(denied, _)| *denied == op).is_some() {
            tracing::info!("Redis takes commands again");
        }
    }

    pub(super) fn nonsense(&mut self, key: &str) {
        if self.nonsense.is_none_or(|last| last.elapsed() >= BETWEEN) {
            self.nonsense = Some(Instant::now());
            tracing::warn!(key, "a key in Redis has a value that rmxd didn't write; it counts as absent");
        }
    }

    /// What is wrong now.
    pub(super) fn text(&self) -> String {
        let away = self.away.as_ref().map(|(_, why)| format!("away: {why}"));
        let no_writes = self.no_writes.as_ref().map(|why| format!("takes no writes: {why}"));
        let denied = self.denied.as_ref().map(|(_, why)| format!("refuses a command: {why}"));
        [away, no_writes, denied].into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}
