//! Counters of events (contract 9): counted where the event happens, read at a scrape.
//!
//! Every counter exists from the start and is found by an index, so that counting is one atomic addition: no lookup by
//! name, no lock, no allocation. States (open connections, the size of the cache) aren't counted here: the caller of
//! [`Metrics::text`] provides them as [`Gauges`]. Names and labels are a contract; new ones may be added.

mod cluster;
mod exposition;
mod findings;
mod histogram;
mod labels;
pub mod process;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::evidence::RecordType;
use crate::metrics::cluster::ClusterCounters;
use crate::metrics::findings::Findings;
use crate::metrics::histogram::{Histogram, LabelTimes};
use crate::policy::decide::Verdict;
use crate::policy::door::DoorName;
use crate::policy::finding::Finding;
use crate::policy::identity::Identity;
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::Mode;

pub use crate::metrics::cluster::{ClusterOp, ClusterOutcome};
pub use crate::metrics::exposition::{CertificateGauges, Format, Gauges, HistoryGauges};
pub use crate::metrics::labels::{
    CacheResult, Connection, Exemption, GreylistResult, QueryOutcome, RelayOutcome, RelayStage, TlsVersion,
    Wait,
};
use crate::metrics::labels::{Label, LabelCounts, add, read, zeros};

/// All counters. Clones share them, also across a reload.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    connections: LabelCounts<Connection>,
    panics: AtomicU64,
    verdicts: Verdicts,
    verdicts_at: [LabelCounts<Verdict>; DoorName::ALL.len()],
    verdict_seconds: Histogram,
    outcomes: [LabelCounts<Outcome>; DoorName::ALL.len()],
    refusals: LabelCounts<Reason>,
    findings: Findings,
    exemptions: LabelCounts<Exemption>,
    greylist: LabelCounts<GreylistResult>,
    queries: Queries,
    query_seconds: Histogram,
    cache_lookups: LabelCounts<CacheResult>,
    relay_transactions: LabelCounts<RelayOutcome>,
    relay_seconds: LabelTimes<RelayStage>,
    wait_seconds: [LabelTimes<Wait>; DoorName::ALL.len()],
    tls_sessions: LabelCounts<TlsVersion>,
    /// Opened and closed: both only grow.
    relay_connections: (AtomicU64, AtomicU64),
    cluster: ClusterCounters,
}

/// By type and outcome.
#[derive(Debug)]
struct Queries(Box<[AtomicU64]>);

impl Default for Queries {
    fn default() -> Self {
        Self(zeros(RecordType::ALL.len() * QueryOutcome::ALL.len()))
    }
}

impl Queries {
    fn add(&self, rtype: RecordType, outcome: QueryOutcome) {
        add(&self.0, rtype.place() * QueryOutcome::ALL.len() + outcome.place());
    }

    fn each(&self) -> impl Iterator<Item = (RecordType, QueryOutcome, u64)> {
        let labels = RecordType::ALL
            .iter()
            .flat_map(|rtype| QueryOutcome::ALL.iter().map(move |outcome| (*rtype, *outcome)));
        labels.zip(self.0.iter().map(read)).map(|((rtype, outcome), count)| (rtype, outcome, count))
    }
}

/// By mode, verdict, identity and reason.
#[derive(Debug)]
struct Verdicts(Box<[AtomicU64]>);

/// The identity, where a rule refused, and the reason.
pub type Why = (Option<Identity>, Reason);

/// One row of [`Verdicts`]; an accept has no cause.
#[derive(Debug, Clone, Copy)]
struct VerdictCount {
    verdict: Verdict,
    cause: Option<Why>,
    mode: Mode,
    count: u64,
}

/// Of one mode and verdict: no cause, then each identity with each reason, and each reason without an identity.
const CAUSES: usize = 1 + (Identity::ALL.len() + 1) * Reason::ALL.len();

impl Default for Verdicts {
    fn default() -> Self {
        Self(zeros(Mode::ALL.len() * Verdict::ALL.len() * CAUSES))
    }
}

impl Verdicts {
    fn add(&self, verdict: Verdict, cause: Option<Why>, mode: Mode) {
        let cause = cause.map_or(0, |(identity, reason)| {
            let identity = identity.map_or(Identity::ALL.len(), |identity| identity as usize);
            1 + identity * Reason::ALL.len() + reason as usize
        });
        add(&self.0, (mode.place() * Verdict::ALL.len() + verdict.place()) * CAUSES + cause);
    }

    fn each(&self) -> impl Iterator<Item = VerdictCount> {
        let reasons = |identity| Reason::ALL.into_iter().map(move |reason| Some((identity, reason)));
        let identities = || Identity::ALL.into_iter().map(Some).chain([None]);
        let causes = move || std::iter::once(None).chain(identities().flat_map(reasons));
        let of_mode = |mode: &'static Mode| Verdict::ALL.iter().map(move |verdict| (*mode, *verdict));
        let labels = Mode::ALL
            .iter()
            .flat_map(of_mode)
            .flat_map(move |(mode, verdict)| causes().map(move |cause| (mode, verdict, cause)));
        let rows = labels.zip(self.0.iter().map(read));
        rows.map(|((mode, verdict, cause), count)| VerdictCount { verdict, cause, mode, count })
    }
}

impl Metrics {
    pub fn connection(&self, outcome: Connection) {
        self.0.connections.add(outcome);
    }

    #[must_use]
    pub fn connections_total(&self) -> u64 {
        self.0.connections.each().map(|(_, count)| count).sum()
    }

    /// Counts a connection or request that ended in a panic, and returns the total.
    pub fn panic(&self) -> u64 {
        self.0.panics.fetch_add(1, Ordering::Relaxed) + 1
    }

    #[must_use]
    pub fn panics(&self) -> u64 {
        read(&self.0.panics)
    }

    /// Counts a decision; `took` is the time since MAIL.
    pub fn verdict(&self, door: DoorName, verdict: Verdict, cause: Option<Why>, mode: Mode, took: Duration) {
        self.0.verdicts.add(verdict, cause, mode);
        if let Some(verdicts) = self.0.verdicts_at.get(door as usize) {
            verdicts.add(verdict);
        }
        self.0.verdict_seconds.observe(took);
    }

    /// Counts a transaction with a MAIL, at its end.
    pub fn outcome(&self, door: DoorName, outcome: Outcome) {
        if let Some(outcomes) = self.0.outcomes.get(door as usize) {
            outcomes.add(outcome);
        }
    }

    /// Counts a refusal without a rule, or by the next hop.
    pub fn refusal(&self, reason: Reason) {
        self.0.refusals.add(reason);
    }

    /// Counts the findings of a transaction, at its end.
    pub fn findings(&self, findings: &[Finding]) {
        findings.iter().for_each(|finding| self.0.findings.add(finding));
    }

    /// Counts a transaction that is exempt, or a part of it, at its end.
    pub fn exemption(&self, by: Exemption) {
        self.0.exemptions.add(by);
    }

    /// Counts a decision that rests on the greylist.
    pub fn greylist(&self, result: GreylistResult) {
        self.0.greylist.add(result);
    }

    /// All verdicts so far, summed over the identities; an accept has no reason.
    #[must_use]
    pub fn verdicts(&self) -> Vec<(Verdict, Option<Reason>, Mode, u64)> {
        let mut summed: Vec<(Verdict, Option<Reason>, Mode, u64)> = Vec::new();
        for VerdictCount { verdict, cause, mode, count } in self.0.verdicts.each().filter(|row| row.count > 0)
        {
            let reason = cause.map(|(_, reason)| reason);
            match summed.iter_mut().find(|row| (row.0, row.1, row.2) == (verdict, reason, mode)) {
                Some(row) => row.3 += count,
                None => summed.push((verdict, reason, mode, count)),
            }
        }
        summed
    }

    /// All verdicts of a door so far, in either mode.
    pub fn verdicts_at(&self, door: DoorName) -> impl Iterator<Item = (Verdict, u64)> {
        self.0.verdicts_at.get(door as usize).into_iter().flat_map(LabelCounts::each)
    }

    /// Counts a question that was sent.
    pub fn query(&self, rtype: RecordType, outcome: QueryOutcome, took: Duration) {
        self.0.queries.add(rtype, outcome);
        self.0.query_seconds.observe(took);
    }

    /// Counts a question that was not sent.
    pub fn unasked(&self, rtype: RecordType, outcome: QueryOutcome) {
        self.0.queries.add(rtype, outcome);
    }

    pub fn cache_lookup(&self, result: CacheResult) {
        self.0.cache_lookups.add(result);
    }

    /// Cache lookups without a question, and all cache lookups.
    #[must_use]
    pub fn cache_lookups(&self) -> (u64, u64) {
        let of_cache = |result| matches!(result, CacheResult::Hit | CacheResult::Negative);
        self.0.cache_lookups.each().fold((0, 0), |(hits, all), (result, count)| {
            (hits + if of_cache(result) { count } else { 0 }, all + count)
        })
    }

    pub fn relay_transaction(&self, outcome: RelayOutcome) {
        self.0.relay_transactions.add(outcome);
    }

    /// Counts a part of a transaction with the next hop, also of one that failed.
    pub fn relay_stage(&self, stage: RelayStage, took: Duration) {
        self.0.relay_seconds.observe(stage, took);
    }

    /// Counts that a client at this door waited for rmxd.
    pub fn waited(&self, door: DoorName, wait: Wait, took: Duration) {
        if let Some(times) = self.0.wait_seconds.get(door as usize) {
            times.observe(wait, took);
        }
    }

    /// Counts a client's handshake that succeeded.
    pub fn tls_session(&self, version: TlsVersion) {
        self.0.tls_sessions.add(version);
    }

    /// Counts a connection to the relay as open until the result is dropped.
    #[must_use]
    pub fn relay_connection(&self) -> OpenConnection {
        self.0.relay_connections.0.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(&self.0))
    }

    #[must_use]
    pub fn relay_connections(&self) -> u64 {
        let (opened, closed) = &self.0.relay_connections;
        // In this order: a connection that opens and closes meanwhile isn't counted as closed alone.
        let closed = read(closed);
        read(opened).saturating_sub(closed)
    }

    #[must_use]
    pub fn text(&self, gauges: &Gauges, format: Format) -> String {
        exposition::exposition(self, gauges, format)
    }
}

/// See [`Metrics::relay_connection`].
#[derive(Debug)]
pub struct OpenConnection(Arc<Counters>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.relay_connections.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_in_place<L: Label>() {
        for (at, value) in L::ALL.iter().enumerate() {
            assert_eq!(value.place(), at, "{}", value.name());
        }
    }

    #[test]
    fn every_value_of_a_label_has_its_own_index() {
        assert_in_place::<Connection>();
        assert_in_place::<CacheResult>();
        assert_in_place::<QueryOutcome>();
        assert_in_place::<RelayOutcome>();
        assert_in_place::<RelayStage>();
        assert_in_place::<Wait>();
        assert_in_place::<TlsVersion>();
        assert_in_place::<Exemption>();
        assert_in_place::<GreylistResult>();
        assert_in_place::<RecordType>();
        assert_in_place::<Verdict>();
        assert_in_place::<Mode>();
        assert_in_place::<Outcome>();
        assert_in_place::<Reason>();
        for (at, identity) in Identity::ALL.into_iter().enumerate() {
            assert_eq!(identity as usize, at, "{identity}");
        }
    }

    #[test]
    fn label_values_are_those_of_the_log() {
        for verdict in Verdict::ALL {
            assert_eq!(Label::name(verdict), verdict.name());
        }
        for mode in Mode::ALL {
            assert_eq!(Label::name(*mode), mode.name());
        }
        for outcome in Outcome::ALL {
            assert_eq!(Label::name(outcome), outcome.name());
        }
        for rtype in RecordType::ALL {
            assert_eq!(rtype.name(), rtype.to_string());
        }
    }

    #[test]
    fn each_combination_is_counted_by_itself() {
        let metrics = Metrics::default();
        let mut expected = 0;
        for mode in Mode::ALL {
            for verdict in Verdict::ALL {
                for identity in Identity::ALL.into_iter().map(Some).chain([None]) {
                    for reason in Reason::ALL {
                        metrics.0.verdicts.add(verdict, Some((identity, reason)), *mode);
                        expected += 1;
                    }
                }
                metrics.0.verdicts.add(verdict, None, *mode);
                expected += 1;
            }
        }
        let rows: Vec<VerdictCount> = metrics.0.verdicts.each().collect();
        assert_eq!(rows.len(), expected);
        assert!(rows.iter().all(|row| row.count == 1));
        let summed = metrics.verdicts();
        assert_eq!(summed.len(), 6 * (1 + Reason::ALL.len()));
        assert!(summed.iter().all(|row| row.3 == if row.1.is_some() { 6 } else { 1 }), "{summed:?}");
        for rtype in RecordType::ALL {
            for outcome in QueryOutcome::ALL {
                metrics.unasked(*rtype, *outcome);
            }
        }
        assert!(metrics.0.queries.each().all(|(_, _, count)| count == 1));
    }

    #[test]
    fn an_exemption_is_an_accept_without_a_reason() {
        let metrics = Metrics::default();
        metrics.verdict(DoorName::Smtp, Verdict::Accept, None, Mode::Monitor, Duration::from_millis(1));
        assert_eq!(metrics.verdicts(), [(Verdict::Accept, None, Mode::Monitor, 1)]);
    }

    #[test]
    fn connections_to_the_relay_are_open_until_they_are_dropped() {
        let metrics = Metrics::default();
        let (one, two) = (metrics.relay_connection(), metrics.relay_connection());
        assert_eq!(metrics.relay_connections(), 2);
        drop(one);
        assert_eq!(metrics.relay_connections(), 1);
        drop(two);
        assert_eq!(metrics.relay_connections(), 0);
    }
}
