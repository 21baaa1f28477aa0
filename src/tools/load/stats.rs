//! Verdicts by class, replies and latencies, in total and over time.
//!
//! The size is bounded for runs of any length: latencies are histograms, time is divided into at most [`MOST_SLICES`] slices,
//! which double their length when there are more, and replies beyond [`MOST_REPLIES`] kinds are counted together.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};

use crate::policy::decide::Verdict;
use crate::tools::load::class::{Class, Expected, PerClass};
use crate::tools::load::outcome::{Decided, Failure, MessageResult};

const MOST_SLICES: usize = 300;

/// Initial length of a slice.
const FIRST_SLICE: Duration = Duration::from_millis(100);

/// Further kinds of replies are counted together.
const MOST_REPLIES: usize = 200;

/// Longer times count as this one, a day in microseconds, which bounds a histogram to 200 KiB.
const LONGEST_TIME: u64 = 86_400_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Accepted instead of rejected or deferred.
    FalseAccept,
    /// Rejected instead of accepted or deferred.
    FalseReject,
    /// Deferred instead of accepted or rejected.
    Deferred,
    /// The right verdict by another reply.
    OtherReply,
}

pub(super) fn wrong(expected: Expected, answer: &Decided) -> Option<Wrong> {
    match (answer.verdict, expected.verdict) {
        (seen, wanted) if seen == wanted => {
            let fits = expected.enhanced.is_none_or(|wanted| answer.enhanced == Some(wanted));
            (!fits).then_some(Wrong::OtherReply)
        }
        (Verdict::Accept, _) => Some(Wrong::FalseAccept),
        (Verdict::Reject, _) => Some(Wrong::FalseReject),
        (Verdict::Defer, _) => Some(Wrong::Deferred),
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Counts {
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    pub(super) deferred: u64,
    /// No verdict: the connection failed.
    pub(super) failed: u64,
    pub(super) false_accepts: u64,
    pub(super) false_rejects: u64,
    /// Deferred instead of accepted or rejected.
    pub(super) wrongly_deferred: u64,
    /// The right verdict by another reply.
    pub(super) other_replies: u64,
}

impl Counts {
    fn add(&mut self, result: Result<Decided, Failure>, wrong: Option<Wrong>) {
        match result.map(|answer| answer.verdict) {
            Ok(Verdict::Accept) => self.accepted += 1,
            Ok(Verdict::Reject) => self.rejected += 1,
            Ok(Verdict::Defer) => self.deferred += 1,
            Err(_) => self.failed += 1,
        }
        match wrong {
            None => {}
            Some(Wrong::FalseAccept) => self.false_accepts += 1,
            Some(Wrong::FalseReject) => self.false_rejects += 1,
            Some(Wrong::Deferred) => self.wrongly_deferred += 1,
            Some(Wrong::OtherReply) => self.other_replies += 1,
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.deferred += other.deferred;
        self.failed += other.failed;
        self.false_accepts += other.false_accepts;
        self.false_rejects += other.false_rejects;
        self.wrongly_deferred += other.wrongly_deferred;
        self.other_replies += other.other_replies;
    }

    pub(super) fn total(&self) -> u64 {
        self.accepted + self.rejected + self.deferred + self.failed
    }

    /// Replies that differ from the expected one; failures don't count.
    pub(super) fn wrong(&self) -> u64 {
        self.false_accepts + self.false_rejects + self.wrongly_deferred + self.other_replies
    }
}

/// In microseconds.
#[derive(Debug, Clone)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    /// `digits`: significant digits.
    pub(super) fn new(digits: u8) -> Result<Self, CreationError> {
        Histogram::new(digits).map(Self)
    }

    fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(LONGEST_TIME);
        // Fails only if the histogram has a fixed size, which these have not. (saturating_record() never grows one.)
        self.0.record(micros).ok();
    }

    pub(super) fn merge(&mut self, other: &Self) {
        // As in record().
        self.0.add(&other.0).ok();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn at(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    pub(super) fn max(&self) -> u64 {
        self.0.max()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub(super) counts: Counts,
    pub(super) latencies: Latencies,
    /// Memory of the daemon in octets, if known.
    pub(super) memory: Option<u64>,
}

/// Counts by kind, with one count for all kinds beyond a limit.
#[derive(Debug)]
pub(super) struct Kinds<T> {
    pub(super) known: HashMap<T, u64>,
    pub(super) others: u64,
}

impl<T: Eq + Hash> Kinds<T> {
    fn new() -> Self {
        Self { known: HashMap::new(), others: 0 }
    }

    fn add(&mut self, kind: T) {
        if let Some(count) = self.known.get_mut(&kind) {
            *count += 1;
        } else if self.known.len() < MOST_REPLIES {
            self.known.insert(kind, 1);
        } else {
            self.others += 1;
        }
    }
}

#[derive(Debug)]
pub(super) struct LoadStats {
    expected: PerClass<Expected>,
    pub(super) sessions: u64,
    pub(super) classes: PerClass<(Counts, Latencies)>,
    pub(super) replies: Kinds<(Class, Decided)>,
    pub(super) failures: Kinds<Failure>,
    pub(super) slow: u64,
    pub(super) slice: Duration,
    pub(super) slices: Vec<Slice>,
    empty: Slice,
}

impl LoadStats {
    pub(super) fn new(expected: PerClass<Expected>) -> Result<Self, CreationError> {
        let exact = Latencies::new(3)?;
        let empty = Slice { counts: Counts::default(), latencies: Latencies::new(2)?, memory: None };
        Ok(Self {
            expected,
            sessions: 0,
            classes: PerClass::new(|_| (Counts::default(), exact.clone())),
            replies: Kinds::new(),
            failures: Kinds::new(),
            slow: 0,
            slice: FIRST_SLICE,
            slices: Vec::new(),
            empty,
        })
    }

    pub(super) fn expected(&self, class: Class) -> Expected {
        *self.expected.of(class)
    }

    pub(super) fn session(&mut self, slow: bool) {
        self.sessions += 1;
        self.slow += u64::from(slow);
    }

    /// Counts a message at this time after the start. The latencies don't include slow clients, which cause their own delay, and
    /// failures, which have no reply.
    pub(super) fn message(&mut self, class: Class, slow: bool, outcome: &MessageResult, at: Duration) {
        let MessageResult { result, took } = outcome;
        let wrong = result.ok().and_then(|answer| wrong(self.expected(class), &answer));
        let timed = result.is_ok() && !slow;
        match result {
            Ok(answer) => self.replies.add((class, *answer)),
            Err(failure) => self.failures.add(*failure),
        }
        let (counts, latencies) = self.classes.of_mut(class);
        counts.add(*result, wrong);
        if timed {
            latencies.record(*took);
        }
        if let Some(slice) = self.slice_at(at) {
            slice.counts.add(*result, wrong);
            if timed {
                slice.latencies.record(*took);
            }
        }
    }

    pub(super) fn memory(&mut self, octets: u64, at: Duration) {
        if let Some(slice) = self.slice_at(at) {
            slice.memory = slice.memory.max(Some(octets));
        }
    }

    pub(super) fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.classes.iter().for_each(|(_, (counts, _))| total.merge(counts));
        total
    }

    fn slice_at(&mut self, at: Duration) -> Option<&mut Slice> {
        while self.place(at) >= MOST_SLICES {
            self.slices = halved(std::mem::take(&mut self.slices));
            self.slice *= 2;
        }
        let place = self.place(at);
        while self.slices.len() <= place {
            self.slices.push(self.empty.clone());
        }
        self.slices.get_mut(place)
    }

    fn place(&self, at: Duration) -> usize {
        usize::try_from(at.as_nanos() / self.slice.as_nanos().max(1)).unwrap_or(usize::MAX)
    }
}

/// Merges each pair of slices.
fn halved(slices: Vec<Slice>) -> Vec<Slice> {
    let mut slices = slices.into_iter();
    let mut half = Vec::new();
    while let Some(mut slice) = slices.next() {
        if let Some(next) = slices.next() {
            slice.counts.merge(&next.counts);
            slice.latencies.merge(&next.latencies);
            slice.memory = slice.memory.max(next.memory);
        }
        half.push(slice);
    }
    half
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::smtp::reply::Enhanced;
    use crate::tools::load::outcome::{FailureKind, Stage, Word};

    pub(in crate::tools::load) fn answer(code: u16, stage: Stage) -> Decided {
        let (verdict, class) = match code / 100 {
            2 => (Verdict::Accept, 2),
            4 => (Verdict::Defer, 4),
            _ => (Verdict::Reject, 5),
        };
        Decided { verdict, stage, word: Word::Code(code), enhanced: Some(Enhanced(class, 1, 8)) }
    }

    pub(in crate::tools::load) fn outcome(code: u16, millis: u64) -> MessageResult {
        MessageResult { result: Ok(answer(code, Stage::Rcpt)), took: Duration::from_millis(millis) }
    }

    pub(in crate::tools::load) fn failure() -> MessageResult {
        let failure = Failure { stage: Stage::Ehlo, kind: FailureKind::Closed };
        MessageResult { result: Err(failure), took: Duration::from_secs(9) }
    }

    pub(in crate::tools::load) fn stats() -> LoadStats {
        LoadStats::new(PerClass::new(Class::by_default)).unwrap()
    }

    #[test]
    fn every_kind_of_wrong_verdict_is_distinguished() {
        let exact = Expected { verdict: Verdict::Reject, enhanced: Some(Enhanced(5, 7, 1)) };
        let rows = [
            (Class::Clean.by_default(), 250, None),
            (Class::Clean.by_default(), 550, Some(Wrong::FalseReject)),
            (Class::Clean.by_default(), 451, Some(Wrong::Deferred)),
            (Class::Spoofed.by_default(), 550, None),
            (Class::Spoofed.by_default(), 250, Some(Wrong::FalseAccept)),
            (Class::Spoofed.by_default(), 451, Some(Wrong::Deferred)),
            (Class::ServFail.by_default(), 451, None),
            (Class::ServFail.by_default(), 550, Some(Wrong::FalseReject)),
            (Class::ServFail.by_default(), 250, Some(Wrong::FalseAccept)),
            (exact, 550, Some(Wrong::OtherReply)),
            (Class::Spoofed.by_own_daemon(), 550, None),
        ];
        for (expected, code, found) in rows {
            assert_eq!(wrong(expected, &answer(code, Stage::Rcpt)), found, "{expected} {code}");
        }
    }

    #[test]
    fn messages_are_counted_by_class_and_in_all() {
        let mut stats = stats();
        let at = Duration::from_millis(50);
        stats.message(Class::Clean, false, &outcome(250, 1), at);
        stats.message(Class::Clean, false, &outcome(550, 2), at);
        stats.message(Class::Spoofed, false, &outcome(250, 3), at);
        stats.message(Class::Spoofed, true, &outcome(550, 4000), at);
        stats.message(Class::Spoofed, false, &failure(), at);
        let (clean, _) = stats.classes.of(Class::Clean);
        assert_eq!((clean.accepted, clean.rejected, clean.false_rejects, clean.wrong()), (1, 1, 1, 1));
        let (spoofed, latencies) = stats.classes.of(Class::Spoofed);
        assert_eq!((spoofed.accepted, spoofed.false_accepts, spoofed.failed), (1, 1, 1));
        assert_eq!(latencies.0.len(), 1, "neither that of the slow client nor that of the failure");
        assert_eq!((stats.total().total(), stats.total().wrong()), (5, 2));
        assert_eq!(stats.slices.len(), 1);
        assert_eq!(stats.slices[0].counts, stats.total());
    }

    #[test]
    fn time_has_a_bounded_number_of_slices_and_no_count_is_lost() {
        let mut stats = stats();
        for second in 0..5000 {
            let at = Duration::from_secs(second);
            stats.message(Class::Spoofed, false, &outcome(550, second), at);
            stats.memory(second, at);
            assert!(stats.slices.len() <= MOST_SLICES);
        }
        assert_eq!(stats.slices.iter().map(|slice| slice.counts.rejected).sum::<u64>(), 5000);
        assert_eq!(stats.slices.iter().map(|slice| slice.latencies.0.len()).sum::<u64>(), 5000);
        assert_eq!(stats.slice, FIRST_SLICE * 256);
        assert!(stats.slices.len() > MOST_SLICES / 2, "{}", stats.slices.len());
        assert_eq!(stats.slices.iter().filter_map(|slice| slice.memory).max(), Some(4999));
    }

    #[test]
    fn kinds_of_replies_are_bounded() {
        let mut kinds = Kinds::new();
        (0..1000).for_each(|kind| kinds.add(kind));
        kinds.add(0);
        assert_eq!((kinds.known.len(), kinds.others, kinds.known[&0]), (MOST_REPLIES, 800, 2));
    }
}
