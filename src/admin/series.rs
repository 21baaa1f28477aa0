//! Verdicts over time for the dashboard: the last hour in steps of ten seconds, from a sample of the counters each second.
//!
//! The counters hold totals only, so that a session has no other cost. They begin with the daemon: what was before, and more
//! than an hour, comes from the history.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::policy::decide::Verdict;
use crate::policy::reason::Reason;
use crate::policy::rule::Mode;

/// Between two samples.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// In seconds.
const STEP: u64 = 10;
/// An hour.
const STEPS: usize = 360;
/// The period of the means in [`Pace`].
const RECENT: Duration = Duration::from_secs(60);

/// Verdict, reason (`None` for accept) and mode.
pub(super) type Kind = (Verdict, Option<Reason>, Mode);

/// Counters since the start of the daemon.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub(super) verdicts: Vec<(Kind, u64)>,
    /// Lookups that the cache answered.
    pub(super) hits: u64,
    pub(super) lookups: u64,
}

/// Means of the last minute.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Pace {
    pub(super) verdicts_per_second: f64,
    /// `None` without lookups.
    pub(super) hit_rate: Option<f64>,
}

#[derive(Debug, Default)]
pub(super) struct Series(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// The current step, counted in steps since 1970, so that steps end at round times.
    step: u64,
    rows: Vec<Row>,
    moments: VecDeque<Moment>,
}

#[derive(Debug)]
struct Row {
    kind: Kind,
    total: u64,
    /// The last one is the current step.
    steps: VecDeque<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Moment {
    at: Instant,
    verdicts: u64,
    hits: u64,
    lookups: u64,
}

impl Series {
    pub(super) fn sample(&self, wall: SystemTime, at: Instant, totals: &Totals) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.advance(step_of(wall));
        for (kind, total) in &totals.verdicts {
            memory.count(*kind, *total);
        }
        let verdicts = totals.verdicts.iter().map(|(_, total)| total).sum();
        memory.moments.push_back(Moment { at, verdicts, hits: totals.hits, lookups: totals.lookups });
        while memory.moments.front().is_some_and(|moment| at - moment.at > RECENT) {
            memory.moments.pop_front();
        }
    }

    /// Counts decisions from before the first sample, each with its time.
    pub(super) fn add_earlier(&self, now: SystemTime, decisions: impl Iterator<Item = (Kind, SystemTime)>) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.advance(step_of(now));
        for (kind, at) in decisions {
            let ago = memory.step.checked_sub(step_of(at)).and_then(|ago| usize::try_from(ago).ok());
            let place = ago.and_then(|ago| STEPS.checked_sub(ago + 1));
            if let Some(place) = place
                && let Some(value) = memory.row(kind).and_then(|row| row.steps.get_mut(place))
            {
                *value += 1;
            }
        }
    }

    /// Over the last minute, or since the start if that is less.
    pub(super) fn pace(&self) -> Pace {
        let memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(first), Some(last)) = (memory.moments.front(), memory.moments.back()) else {
            return Pace::default();
        };
        let seconds = (last.at - first.at).as_secs_f64();
        let lookups = last.lookups.saturating_sub(first.lookups);
        let per = |count: u64, of: f64| if of > 0.0 { count as f64 / of } else { 0.0 };
        Pace {
            verdicts_per_second: per(last.verdicts.saturating_sub(first.verdicts), seconds),
            hit_rate: (lookups > 0).then(|| per(last.hits.saturating_sub(first.hits), lookups as f64)),
        }
    }

    /// The response of `/api/v1/series`, without kinds that have no verdict in this hour.
    pub(super) fn json(&self) -> Value {
        let memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = STEPS as u64 - 1;
        let start = UNIX_EPOCH + Duration::from_secs(memory.step.saturating_sub(before) * STEP);
        let rows = memory.rows.iter().filter(|row| row.steps.iter().any(|count| *count > 0));
        let rows = rows.map(|it| row(it.kind, &it.steps));
        json!({
            "step_seconds": STEP,
            "start": humantime::format_rfc3339_seconds(start).to_string(),
            "series": rows.collect::<Vec<_>>(),
        })
    }
}

/// One row of `/api/v1/series`.
pub(super) fn row(kind: Kind, values: &impl serde::Serialize) -> Value {
    let (verdict, reason, mode) = kind;
    json!({
        "verdict": verdict.name(),
        "reason": reason.map(Reason::name),
        "mode": mode.name(),
        "values": values,
    })
}

impl Memory {
    /// Moves on to a step. If the clock was set back by less than an hour, counting continues in the current step; if by more,
    /// all rows are cleared.
    fn advance(&mut self, to: u64) {
        let ahead = self.step.saturating_sub(to);
        if ahead > 0 && ahead < STEPS as u64 {
            return;
        }
        let steps =
            if ahead > 0 { STEPS } else { usize::try_from(to - self.step).unwrap_or(STEPS).min(STEPS) };
        self.step = to;
        for row in &mut self.rows {
            row.steps.drain(..steps);
            row.steps.resize(STEPS, 0);
        }
    }

    fn count(&mut self, kind: Kind, total: u64) {
        let Some(row) = self.row(kind) else { return };
        if let Some(last) = row.steps.back_mut() {
            *last += total.saturating_sub(row.total);
        }
        row.total = total;
    }

    /// The row of this kind, made if it is missing.
    fn row(&mut self, kind: Kind) -> Option<&mut Row> {
        let at = self.rows.iter().position(|row| row.kind == kind).unwrap_or(self.rows.len());
        if at == self.rows.len() {
            self.rows.push(Row { kind, total: 0, steps: VecDeque::from(vec![0; STEPS]) });
        }
        self.rows.get_mut(at)
    }
}

fn step_of(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPT: Kind = (Verdict::Accept, None, Mode::Enforce);
    const NO_MX: Kind = (Verdict::Reject, Some(Reason::NoMx), Mode::Enforce);

    fn wall(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    /// A series from samples at these seconds of the wall clock, with the total of accepted messages.
    fn sampled(rows: &[(u64, u64)]) -> Value {
        let (series, at) = (Series::default(), Instant::now());
        for (second, accepted) in rows {
            let totals = Totals { verdicts: vec![(ACCEPT, *accepted)], ..Totals::default() };
            series.sample(wall(*second), at, &totals);
        }
        series.json()
    }

    fn values(answer: &Value) -> Vec<u64> {
        let values = answer["series"][0]["values"].as_array();
        values.map_or_else(Vec::new, |values| values.iter().map(|value| value.as_u64().unwrap()).collect())
    }

    #[test]
    fn a_verdict_counts_in_the_step_of_the_sample_that_has_it() {
        let answer = sampled(&[(0, 0), (1, 3), (9, 4), (10, 4), (19, 9), (41, 10)]);
        let values = values(&answer);
        assert_eq!(values.len(), 360);
        assert_eq!(values[354..], [0, 4, 5, 0, 0, 1]);
        assert_eq!(values.iter().sum::<u64>(), 10);
        assert_eq!(answer["start"], "2027-01-15T07:00:50Z");
        assert_eq!(answer["step_seconds"], 10);
        let row = &answer["series"][0];
        assert_eq!(
            (&row["verdict"], &row["reason"], &row["mode"]),
            (&json!("accept"), &Value::Null, &json!("enforce"))
        );
    }

    #[test]
    fn verdicts_older_than_an_hour_are_dropped() {
        assert_eq!(values(&sampled(&[(0, 7), (3590, 7)]))[0], 7);
        assert_eq!(sampled(&[(0, 7), (3600, 7)])["series"], json!([]));
        assert_eq!(sampled(&[(0, 7), (1_000_000, 7)])["series"], json!([]));
    }

    #[test]
    fn a_clock_that_is_set_back_loses_no_count() {
        let set_back = values(&sampled(&[(1000, 5), (400, 8), (1005, 9)]));
        assert_eq!(set_back[359], 9);
        let far_back = sampled(&[(10_000, 5), (400, 8), (411, 8)]);
        assert_eq!(values(&far_back)[357..], [0, 3, 0], "the samples before are dropped");
    }

    #[test]
    fn what_was_before_the_start_is_added_where_it_belongs() {
        let (series, at) = (Series::default(), Instant::now());
        series.sample(wall(0), at, &Totals { verdicts: vec![(ACCEPT, 3)], ..Totals::default() });
        let earlier = [(ACCEPT, 0), (ACCEPT, 20), (NO_MX, 3590), (NO_MX, 3600), (ACCEPT, 9000)];
        series.add_earlier(
            wall(9),
            earlier.map(|(kind, ago)| (kind, wall(0) - Duration::from_secs(ago))).into_iter(),
        );
        series.sample(wall(9), at, &Totals { verdicts: vec![(ACCEPT, 4)], ..Totals::default() });
        let answer = series.json();
        let accepted = &answer["series"][0]["values"];
        assert_eq!(
            (&accepted[357], &accepted[359]),
            (&json!(1), &json!(5)),
            "the counter goes on from its total"
        );
        assert_eq!(answer["series"][1]["values"][0], 1, "the hour's first step");
        assert_eq!(
            answer["series"][1]["values"].as_array().unwrap().iter().filter(|it| **it != 0).count(),
            1
        );
    }

    #[test]
    fn the_kinds_are_kept_apart() {
        let (series, at) = (Series::default(), Instant::now());
        for (second, accepted, refused) in [(0, 1, 0), (1, 2, 5)] {
            let verdicts = vec![(ACCEPT, accepted), (NO_MX, refused)];
            series.sample(wall(second), at, &Totals { verdicts, ..Totals::default() });
        }
        let answer = series.json();
        assert_eq!(answer["series"][1]["reason"], "no_mx");
        assert_eq!(answer["series"][0]["values"][359], 2);
        assert_eq!(answer["series"][1]["values"][359], 5);
    }

    #[test]
    fn the_pace_is_the_mean_of_the_last_minute() {
        let (series, began) = (Series::default(), Instant::now());
        assert_eq!(series.pace(), Pace::default());
        for second in 0..200 {
            // ten verdicts a second until second 150, then none; the cache answers three of four lookups
            let verdicts = vec![(ACCEPT, second.min(150) * 10)];
            let totals = Totals { verdicts, hits: second * 3, lookups: second * 4 };
            series.sample(wall(second), began + Duration::from_secs(second), &totals);
            let expected = match second {
                0 => 0.0,
                1..=150 => 10.0,
                _ => 10.0 * (150.0 - (second as f64 - 60.0)) / 60.0,
            };
            let pace = series.pace();
            assert!((pace.verdicts_per_second - expected).abs() < 1e-9, "{second}: {pace:?}");
            assert_eq!(pace.hit_rate, (second > 0).then_some(0.75), "{second}");
        }
    }
}
