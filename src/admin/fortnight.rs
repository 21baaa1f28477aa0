//! The last 14 days for the dashboard, from the history: verdicts in steps of five minutes, and the refused domains and clients
//! of each hour. A restart loses nothing of it.
//!
//! Each decision is read once, the newest first, in slices with a pause as long as the slice took: five million
//! decisions must not take the disk or a processor from mail. Nothing is read before somebody asks; then each request reads
//! what is new. A response has the time back to which it counts, until all is read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::admin::problem::Problem;
use crate::admin::series::{Kind, Series, row};
use crate::admin::tops::{Tops, coverage};
use crate::store::history::{Brief, Cursor, History, ReadError, Scan, WeakHistory};

/// 14 days.
pub(super) const LONGEST_MINUTES: u64 = 14 * 24 * 60;
/// In seconds.
const STEP: u64 = 300;
const HOUR: u64 = 3600;
/// Steps of a response, in seconds, and how many values a row has at most.
const WIDTHS: [u64; 4] = [STEP, 600, 1800, HOUR];
const MOST_VALUES: u64 = 340;
/// Decisions of one read.
const SLICE: usize = 20_000;
/// Domains, and clients, of an hour that is over. A domain that is never among them isn't counted: with 336 hours they take a
/// few megabytes.
const KEPT_OF_AN_HOUR: usize = 100;
/// A request waits so long for the sums, then it gets those that are there.
const BUDGET: Duration = Duration::from_secs(2);
/// Sums of this age are as good as new.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Fortnight {
    sums: Mutex<Sums>,
    /// Locked while the history is read.
    reading: Arc<tokio::sync::Mutex<Last>>,
    hour_is_read: AtomicBool,
}

/// The last time that the history was read.
#[derive(Debug, Default)]
struct Last {
    at: Option<Instant>,
    failed: bool,
}

#[derive(Debug, Default)]
struct Sums {
    /// The history that was read.
    of: Option<WeakHistory>,
    /// By the number of the step since 1970.
    steps: BTreeMap<u64, Vec<(Kind, u64)>>,
    /// By the number of the hour since 1970.
    hours: BTreeMap<u64, Tops>,
    /// The hour of the decision that was counted last.
    hour: u64,
    newest: Option<Cursor>,
    oldest: Option<Cursor>,
    /// The time of the oldest decision that was counted.
    reached: Option<SystemTime>,
    whole: bool,
}

impl Fortnight {
    /// Reads what is missing. After [`BUDGET`] the reading goes on without the caller.
    pub(super) async fn catch_up(self: &Arc<Self>, history: &History) -> Result<(), Problem> {
        if let Ok(mut last) = Arc::clone(&self.reading).try_lock_owned() {
            if last.at.is_some_and(|at| at.elapsed() < FRESH) && self.lock().is_of(history) {
                return Ok(());
            }
            let (fortnight, history) = (Arc::clone(self), history.downgrade());
            tokio::spawn(async move {
                let result = fortnight.read(&history).await;
                *last = Last { at: Some(Instant::now()), failed: result.is_err() };
                if let Err(error) = result {
                    tracing::error!(%error, "the history can't be summed up");
                }
            });
        }
        match timeout(BUDGET, self.reading.lock()).await {
            Ok(last) if last.failed => Err(Problem::new(
                axum::http::StatusCode::INTERNAL_SERVER_ERROR,
                "the history can't be read; the log has the error",
            )),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// First what is new, then what is older. The history may be closed meanwhile.
    async fn read(&self, history: &WeakHistory) -> Result<(), ReadError> {
        loop {
            let Some(open) = history.upgrade() else { return Ok(()) };
            let (began, now) = (Instant::now(), SystemTime::now());
            let since = now.checked_sub(open.keep().min(span(LONGEST_MINUTES))).unwrap_or(UNIX_EPOCH);
            let scan = {
                let mut sums = self.lock();
                if !sums.is_of(&open) {
                    *sums = Sums { of: Some(history.clone()), ..Sums::default() };
                }
                sums.remove_before(since);
                Scan::After(match sums.newest {
                    Some(newest) => newest,
                    None => break,
                })
            };
            let rows = open.brief(scan, SLICE).await?;
            self.lock().add(&rows, since);
            if rows.len() < SLICE {
                break;
            }
            sleep(began.elapsed()).await;
        }
        loop {
            let Some(open) = history.upgrade() else { return Ok(()) };
            let (began, now) = (Instant::now(), SystemTime::now());
            let since = now.checked_sub(open.keep().min(span(LONGEST_MINUTES))).unwrap_or(UNIX_EPOCH);
            let oldest = {
                let sums = self.lock();
                if sums.whole && sums.newest.is_some() {
                    return Ok(());
                }
                sums.oldest
            };
            let rows = open.brief(Scan::Before(oldest), SLICE).await?;
            let whole = rows.len() < SLICE || rows.last().is_some_and(|row| row.at < since);
            {
                let mut sums = self.lock();
                sums.add(&rows, since);
                sums.whole = whole;
            }
            if whole {
                return Ok(());
            }
            sleep(began.elapsed()).await;
        }
    }

    /// The response of `/api/v1/series` for more than an hour.
    pub(super) fn series(&self, minutes: u64) -> Value {
        self.lock().series(minutes, SystemTime::now())
    }

    /// The response of `/api/v1/top` for more than an hour: of whole hours.
    pub(super) fn tops(&self, minutes: u64) -> Value {
        self.lock().tops(minutes, SystemTime::now())
    }

    /// Adds the hour before the start of the daemon to the series that begins with it, once.
    pub(super) fn read_last_hour(&self, history: &History, started: SystemTime, into: &Arc<Series>) {
        if self.hour_is_read.swap(true, Ordering::Relaxed) {
            return;
        }
        let (history, into) = (history.downgrade(), Arc::clone(into));
        tokio::spawn(async move {
            if let Err(error) = before_start(&history, started, &into).await {
                tracing::error!(%error, "the history can't be read");
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn before_start(history: &WeakHistory, started: SystemTime, into: &Series) -> Result<(), ReadError> {
    let mut scan = Scan::Before(None);
    loop {
        let Some(open) = history.upgrade() else { return Ok(()) };
        let (began, now) = (Instant::now(), SystemTime::now());
        let since = now.checked_sub(span(60)).unwrap_or(UNIX_EPOCH);
        let rows = open.brief(scan, SLICE).await?;
        let earlier = rows.iter().filter(|row| row.at < started);
        into.add_earlier(now, earlier.map(|row| (kind(row), row.at)));
        match rows.last() {
            Some(last) if rows.len() == SLICE && last.at >= since => scan = Scan::Before(Some(last.cursor)),
            _ => return Ok(()),
        }
        sleep(began.elapsed()).await;
    }
}

fn kind(row: &Brief) -> Kind {
    (row.verdict, row.reason, row.mode)
}

const fn span(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// Seconds since 1970.
fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Sums {
    fn is_of(&self, history: &History) -> bool {
        self.of.as_ref().is_some_and(|of| of.is_of(history))
    }

    fn add(&mut self, rows: &[Brief], since: SystemTime) {
        for row in rows {
            self.newest = self.newest.max(Some(row.cursor));
            self.oldest = Some(self.oldest.map_or(row.cursor, |oldest| oldest.min(row.cursor)));
            if row.at < since {
                continue;
            }
            self.reached = Some(self.reached.map_or(row.at, |reached| reached.min(row.at)));
            let at = seconds(row.at);
            let step = self.steps.entry(at / STEP).or_default();
            match step.iter_mut().find(|(known, _)| *known == kind(row)) {
                Some((_, count)) => *count += 1,
                None => step.push((kind(row), 1)),
            }
            if let Some((domain, client)) = &row.sender {
                self.enter(at / HOUR).add(domain.clone(), row.reason, *client);
            }
        }
    }

    /// An hour that another one follows is shortened.
    fn enter(&mut self, hour: u64) -> &mut Tops {
        if self.hour != hour {
            if let Some(over) = self.hours.get_mut(&self.hour) {
                over.shorten(KEPT_OF_AN_HOUR);
            }
            self.hour = hour;
        }
        self.hours.entry(hour).or_default()
    }

    fn remove_before(&mut self, since: SystemTime) {
        let since = seconds(since);
        self.steps = self.steps.split_off(&(since / STEP));
        self.hours = self.hours.split_off(&(since / HOUR));
    }

    /// Whether all decisions since this time are counted, and if not, back to which time.
    fn coverage(&self, since: u64) -> [(String, Value); 2] {
        let reached = self.reached.filter(|reached| !self.whole && seconds(*reached) > since);
        coverage(reached)
    }

    fn series(&self, minutes: u64, now: SystemTime) -> Value {
        let width = WIDTHS.into_iter().find(|width| minutes * 60 / width <= MOST_VALUES).unwrap_or(HOUR);
        let length = (minutes * 60).div_ceil(width);
        let first = (seconds(now) / width + 1).saturating_sub(length);
        let mut rows: Vec<(Kind, Vec<u64>)> = Vec::new();
        for (step, counts) in self.steps.range(first * width / STEP..) {
            let place = usize::try_from(step * STEP / width - first).unwrap_or(usize::MAX);
            for (kind, count) in counts {
                let at = rows.iter().position(|(known, _)| known == kind).unwrap_or(rows.len());
                if at == rows.len() {
                    rows.push((*kind, vec![0; usize::try_from(length).unwrap_or_default()]));
                }
                if let Some(value) = rows.get_mut(at).and_then(|(_, values)| values.get_mut(place)) {
                    *value += count;
                }
            }
        }
        let start = UNIX_EPOCH + Duration::from_secs(first * width);
        let mut answer = Map::new();
        answer.insert("step_seconds".to_owned(), json!(width));
        answer.insert("start".to_owned(), json!(humantime::format_rfc3339_seconds(start).to_string()));
        let rows = rows.iter().map(|(kind, values)| row(*kind, values));
        answer.insert("series".to_owned(), rows.collect());
        answer.extend(self.coverage(first * width));
        Value::Object(answer)
    }

    fn tops(&self, minutes: u64, now: SystemTime) -> Value {
        let first = seconds(now).saturating_sub(minutes * 60) / HOUR;
        let mut sum = Tops::default();
        self.hours.range(first..).for_each(|(_, hour)| sum.add_all(hour));
        sum.json(minutes, self.coverage(first * HOUR))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::policy::decide::Verdict;
    use crate::policy::reason::Reason;
    use crate::policy::rule::Mode;

    /// Noon.
    const NOW: u64 = 1_800_014_400;

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn refused(seq: i64, second: u64, domain: &str) -> Brief {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Brief {
            cursor: format!("{seq:x}").parse().unwrap(),
            at: at(second),
            verdict: Verdict::Reject,
            reason: Some(Reason::NoMx),
            mode: Mode::Enforce,
            sender: Some((domain.into(), client)),
        }
    }

    #[test]
    fn each_span_has_round_steps_and_each_decision_is_in_its_own() {
        let mut sums = Sums { whole: true, ..Sums::default() };
        let rows: Vec<_> = [(4, 10), (3, 400), (2, 7 * 3600), (1, 13 * 86_400)]
            .map(|(seq, ago)| refused(seq, NOW - ago, "a.test"))
            .into();
        sums.add(&rows, at(0));
        for (minutes, step, length, counted) in
            [(360, 300, 72, 2), (1440, 300, 288, 3), (10_080, 1800, 336, 3), (20_160, 3600, 336, 4)]
        {
            let answer = sums.series(minutes, at(NOW));
            let values = answer["series"][0]["values"].as_array().unwrap();
            let sum: u64 = values.iter().map(|value| value.as_u64().unwrap()).sum();
            assert_eq!(
                (&answer["step_seconds"], values.len(), sum),
                (&json!(step), length, counted),
                "{minutes}"
            );
            let start = humantime::parse_rfc3339(answer["start"].as_str().unwrap()).unwrap();
            assert_eq!(seconds(start) + step * length as u64, NOW / step * step + step, "{minutes}");
            assert_eq!(answer["whole"], true);
        }
        let short = sums.series(360, at(NOW));
        let values: Vec<_> = (69..72).map(|place| short["series"][0]["values"][place].clone()).collect();
        assert_eq!(values, [1, 1, 0]);
        sums.remove_before(at(NOW - 86_400));
        assert_eq!(sums.tops(20_160, at(NOW))["domains"][0]["count"], 3, "what is too old goes");
    }

    #[test]
    fn until_all_is_read_a_response_says_back_to_when_it_counts() {
        let mut sums = Sums::default();
        sums.add(&[refused(9, NOW, "a.test"), refused(8, NOW - 7200, "b.test")], at(0));
        for (minutes, whole) in [(90, true), (1440, false)] {
            for answer in [sums.series(minutes, at(NOW)), sums.tops(minutes, at(NOW))] {
                assert_eq!(answer["whole"], whole, "{minutes}");
            }
        }
        assert_eq!(sums.series(1440, at(NOW))["reaches"], "2027-01-15T10:00:00Z");
        assert_eq!((sums.newest, sums.oldest), ("9".parse().ok(), "8".parse().ok()));
        sums.add(&[refused(10, NOW + 1, "a.test")], at(0));
        assert_eq!((sums.newest, sums.oldest), ("a".parse().ok(), "8".parse().ok()));
    }

    #[test]
    fn an_hour_that_is_over_keeps_its_largest_only() {
        let mut sums = Sums::default();
        let names = (0..2000u64).map(|number| if number % 4 == 0 { 7 } else { number });
        let rows: Vec<_> = names.map(|name| refused(1, NOW, &format!("d{name}.test"))).collect();
        sums.add(&rows, at(0));
        sums.add(&[refused(2, NOW - HOUR, "before.test")], at(0));
        let tops = sums.tops(120, at(NOW));
        assert_eq!(tops["domains"][0], json!({ "domain": "d7.test", "reason": "no_mx", "count": 501 }));
        assert!(format!("{:?}", sums.hours).matches(".test").count() <= KEPT_OF_AN_HOUR + 1);
    }
}
