//! The monitor counts refusals, real or in monitor mode, between two reports, and writes the reports into the log
//! (`target = "rmxd::monitor"`).
//!
//! Counting takes one lookup in a bounded table ([`RefusalStats`]); accepted messages are only a number. A report has one
//! event for the total, one for each kind of refusal, one for each of the largest senders with the line that exempts it,
//! and last the lines for the senders among them whose mail was accepted. Text from the network is escaped, so that each
//! event is one line.

use std::mem;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::policy::decide::Decision;
use crate::policy::finding::Finding;
use crate::smtp::escape::Escaped;
use crate::stats::refusals::{ExemptLine, Kind, RefusalStats, Row, Volume, exempt_lines};

/// Senders in a report.
const ROWS: usize = 50;

/// The interval of the daemon's own reports.
pub const DAILY: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a report is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportTrigger {
    /// A day is over. Without refusals that were only monitored, there is no report.
    Daily,
    /// The operator requested the report; it is always written.
    Asked,
    /// The daemon ends; the condition is that of [`ReportTrigger::Daily`].
    End,
}

impl ReportTrigger {
    /// The word in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Asked => "asked",
            Self::End => "end",
        }
    }
}

/// Clones share the counts, so that a reload loses none.
#[derive(Debug, Clone, Default)]
pub struct Monitor(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    accepted: AtomicU64,
    refusals: Mutex<Refusals>,
}

#[derive(Debug)]
struct Refusals {
    since: Instant,
    stats: RefusalStats,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { since: Instant::now(), stats: RefusalStats::default() }
    }
}

impl Monitor {
    /// Counts one decision.
    pub(crate) fn record(&self, decision: &Decision, findings: &[Finding], client: IpAddr) {
        let Some(cause) = &decision.cause else {
            self.0.accepted.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let refused = decision.refuses();
        let volume = Volume { taken: u64::from(!refused), refused: u64::from(refused) };
        self.refusals().stats.add(cause, findings, client, volume);
    }

    /// Reports every `period`, for ever.
    pub async fn report_every(&self, period: Duration) {
        loop {
            tokio::time::sleep(period).await;
            self.report(ReportTrigger::Daily);
        }
    }

    /// Writes the counts since the last report into the log, and resets them.
    pub fn report(&self, trigger: ReportTrigger) {
        let Some((accepted, refusals)) = self.take(trigger) else { return };
        let kinds = refusals.stats.kinds();
        let rows = refusals.stats.rows();
        let mut total = Volume::default();
        kinds.iter().for_each(|(_, volume)| total += *volume);
        tracing::info!(
            target: "rmxd::monitor",
            occasion = trigger.name(),
            seconds = refusals.since.elapsed().as_secs(),
            passed = accepted,
            would_be_refused = total.taken,
            refused = total.refused,
            kinds = kinds.len(),
            senders = rows.len().min(ROWS),
            "report of what was accepted, would have been refused under enforce, and was refused",
        );
        for (kind, volume) in &kinds {
            write_kind(*kind, *volume);
        }
        let (shown, _) = rows.split_at_checked(ROWS).unwrap_or((&rows, &[]));
        shown.iter().for_each(write_row);
        for ExemptLine { opens, line } in exempt_lines(shown) {
            tracing::info!(target: "rmxd::monitor", exempt = line, opens, "for [exempt], as far as this mail is wanted");
        }
    }

    /// Takes the counts; `None` if there is nothing to report, and then they are kept.
    fn take(&self, trigger: ReportTrigger) -> Option<(u64, Refusals)> {
        let mut refusals = self.refusals();
        let monitored = || refusals.stats.kinds().iter().any(|(_, volume)| volume.taken > 0);
        if trigger != ReportTrigger::Asked && !monitored() {
            return None;
        }
        Some((self.0.accepted.swap(0, Ordering::Relaxed), mem::take(&mut *refusals)))
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        // The counts are usable even after a panic.
        self.0.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_kind(kind: Kind, volume: Volume) {
    tracing::info!(
        target: "rmxd::monitor",
        identity = kind.identity_name(),
        rule = kind.rule_name(),
        reason = kind.reason.name(),
        action = kind.action.name(),
        would_be_refused = volume.taken,
        refused = volume.refused,
        "of all senders",
    );
}

fn write_row(row: &Row) {
    let Row { kind, domain, volume, client, clients_differ, confirmed: _ } = row;
    tracing::info!(
        target: "rmxd::monitor",
        identity = kind.identity_name(),
        rule = kind.rule_name(),
        reason = kind.reason.name(),
        action = kind.action.name(),
        domain = %Escaped::new(domain.as_str()),
        would_be_refused = volume.taken,
        refused = volume.refused,
        %client,
        more_clients = clients_differ,
        exempt = row.exemption().map(tracing::field::display),
        "of one sender",
    );
}
