//! `GET /api/v1/top` and `GET /api/v1/would`: who is refused most, and whom enforcing would refuse, summed over the history.
//!
//! The newest come first, and so many as can be gone through in a moment: a history of a gigabyte isn't read whole for a page
//! that somebody looks at (`rmxd history --would` does that). An answer that is not the whole says how far back it goes.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::response::IntoResponse;
use compact_str::CompactString;
use foldhash::quality::RandomState;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::admin::api::decisions::{filter, kept, unreadable};
use crate::admin::problem::Problem;
use crate::admin::routes::{Call, ResponseFuture};
use crate::decision::DecisionRecord;
use crate::policy::decide::Verdict;
use crate::policy::reason::Reason;
use crate::stats::refusals::RefusalStats;
use crate::store::history::{Filter, History};

/// Filters of `/api/v1/would`.
pub(in crate::admin) const WOULD: &[&str] =
    &["reason", "identity", "domain", "client", "since", "until", "limit"];

/// For going through the history.
const BUDGET: Duration = Duration::from_secs(2);
/// Records that are looked at in one go.
const STEP: usize = 1000;
/// Rows of a table of the largest.
const TOP: usize = 10;
/// How long an answer of `/api/v1/top` is as good as a new one.
const FRESH: Duration = Duration::from_secs(5);
/// While a new one is made: how old one may be that is given instead.
const USABLE: Duration = Duration::from_secs(60);
/// Answers that are kept, one for each number of minutes.
const ANSWERS: usize = 8;
/// A day.
const MOST_MINUTES: u64 = 24 * 60;
/// Senders that `/api/v1/would` lists.
const SENDERS: std::ops::RangeInclusive<usize> = 1..=1000;
const USUAL_SENDERS: usize = 50;

/// The last answers of `/api/v1/top`, which all that look at the page share.
#[derive(Debug, Default)]
pub(in crate::admin) struct LastTop {
    /// For how many minutes and when; the newest last.
    answers: Mutex<Vec<(u64, Instant, Value)>>,
    /// CachedAnswer while one is made, so that only one is.
    making: tokio::sync::Mutex<()>,
}

impl LastTop {
    /// The last one for so many minutes, if it is no older.
    fn younger_than(&self, age: Duration, minutes: u64) -> Option<Value> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let last = answers.iter().find(|(asked, at, _)| *asked == minutes && at.elapsed() < age);
        last.map(|(.., answer)| answer.clone())
    }

    fn keep(&self, minutes: u64, answer: &Value) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|(asked, ..)| *asked != minutes);
        answers.push((minutes, Instant::now(), answer.clone()));
        let too_many = answers.len().saturating_sub(ANSWERS);
        answers.drain(..too_many);
    }

    /// A fresh one, or while another is made, the last; `make` makes it.
    async fn answer(
        &self,
        minutes: u64,
        make: impl Future<Output = Result<Value, Problem>>,
    ) -> Result<Value, Problem> {
        if let Some(fresh) = self.younger_than(FRESH, minutes) {
            return Ok(fresh);
        }
        let _making = match self.making.try_lock() {
            Ok(making) => making,
            Err(_) => {
                if let Some(last) = self.younger_than(USABLE, minutes) {
                    return Ok(last);
                }
                self.making.lock().await
            }
        };
        // it may have been made meanwhile
        if let Some(fresh) = self.younger_than(FRESH, minutes) {
            return Ok(fresh);
        }
        let answer = make.await?;
        self.keep(minutes, &answer);
        Ok(answer)
    }
}

pub(in crate::admin) fn top(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let history = kept(&call.state)?;
        let minutes = call.query.value("minutes", minutes)?.unwrap_or(60);
        let answer = call.shared.top.answer(minutes, largest(history, minutes)).await?;
        Ok(Json(answer).into_response())
    })
}

pub(in crate::admin) fn would(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let history = kept(&call.state)?;
        let filter = Filter { would: Some(true), ..filter(&call.query, WOULD)? };
        let senders = call.query.value("limit", senders)?.unwrap_or(USUAL_SENDERS);
        let mut stats = RefusalStats::default();
        let reached = go_through(history, &filter, |record| stats.add_record(record)).await?;
        let mut answer = stats.json(senders);
        if let Some(object) = answer.as_object_mut() {
            object.extend(extent(reached));
        }
        Ok(Json(answer).into_response())
    })
}

fn minutes(text: &str) -> Result<u64, String> {
    let minutes = text.parse().ok().filter(|minutes| (1..=MOST_MINUTES).contains(minutes));
    minutes.ok_or_else(|| format!("must be a number from 1 to {MOST_MINUTES}"))
}

fn senders(text: &str) -> Result<usize, String> {
    let senders = text.parse().ok().filter(|senders| SENDERS.contains(senders));
    senders.ok_or_else(|| format!("must be a number from {} to {}", SENDERS.start(), SENDERS.end()))
}

/// Domains with their reason, and clients, by how many of their messages were refused or would have been.
async fn largest(history: &History, minutes: u64) -> Result<Value, Problem> {
    let since = SystemTime::now().checked_sub(Duration::from_secs(minutes * 60));
    let mut domains: Counts<(CompactString, Option<Reason>)> = Counts::default();
    let mut clients: Counts<IpAddr> = Counts::default();
    let mut reached = None;
    for verdict in [Verdict::Reject, Verdict::Defer] {
        let filter = Filter { verdict: Some(verdict), since, ..Filter::default() };
        let part = go_through(history, &filter, |record| {
            let domain = record.deciding().map(|finding| finding.domain.clone()).unwrap_or_default();
            domains.add((domain, record.reason()));
            clients.add(record.client);
        });
        reached = reached.max(part.await?);
    }
    let domains = domains.largest().into_iter().map(|((domain, reason), count)| {
        json!({ "domain": domain.as_str(), "reason": reason.map(Reason::name), "count": count })
    });
    let clients =
        clients.largest().into_iter().map(|(client, count)| json!({ "client": client, "count": count }));
    let mut answer = json!({
        "minutes": minutes,
        "domains": domains.collect::<Vec<_>>(),
        "clients": clients.collect::<Vec<_>>(),
    });
    if let Some(object) = answer.as_object_mut() {
        object.extend(extent(reached));
    }
    Ok(answer)
}

/// Whether it is the whole, and if not, how far back it goes.
fn extent(reached: Option<SystemTime>) -> [(String, Value); 2] {
    let reached = reached.map(|at| humantime::format_rfc3339_seconds(at).to_string());
    [("whole".to_owned(), json!(reached.is_none())), ("reaches".to_owned(), json!(reached))]
}

/// Shows all that fit, the newest first, until the time is up: then the time of the first record that wasn't looked at.
async fn go_through(
    history: &History,
    filter: &Filter,
    mut each: impl FnMut(&DecisionRecord),
) -> Result<Option<SystemTime>, Problem> {
    let (began, mut before) = (Instant::now(), None);
    loop {
        let page = history.search(filter.clone(), before, STEP).await.map_err(unreadable)?;
        page.records.iter().for_each(&mut each);
        before = page.next;
        if before.is_none() {
            return Ok(None);
        }
        if began.elapsed() > BUDGET {
            // Whether it would fit or not: many may have been passed since the last one that did.
            let next = history.search(Filter::default(), before, 1).await.map_err(unreadable)?;
            let next = next.records.first().map(|record| record.at);
            return Ok(next.filter(|at| filter.since.is_none_or(|since| *at >= since)));
        }
    }
}

/// How often each came; bounded, as those that come are invented by whoever wants to. Where there is no room the seldom ones
/// go.
#[derive(Debug)]
struct Counts<K>(HashMap<K, u64, RandomState>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Hash + Ord + Clone> Counts<K> {
    const HELD: usize = 20_000;
    const KEPT: usize = 5_000;

    fn add(&mut self, key: K) {
        *self.0.entry(key).or_default() += 1;
        if self.0.len() > Self::HELD {
            let mut counts: Vec<u64> = self.0.values().copied().collect();
            let (_, smallest, _) = counts.select_nth_unstable_by_key(Self::KEPT, |count| Reverse(*count));
            let smallest = *smallest;
            self.0.retain(|_, count| *count > smallest);
        }
    }

    fn largest(self) -> Vec<(K, u64)> {
        let mut all: Vec<(K, u64)> = self.0.into_iter().collect();
        all.sort_unstable_by(|(a, one), (b, other)| other.cmp(one).then_with(|| a.cmp(b)));
        all.truncate(TOP);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_and_a_flood_of_others_pushes_them_out_of_no_count() {
        let mut counts = Counts::default();
        for number in 0..100_000u32 {
            counts.add(1_000_000 + number);
            if number % 10 == 0 {
                counts.add(number / 10 % 3);
            }
            assert!(counts.0.len() <= Counts::<u32>::HELD);
        }
        let largest = counts.largest();
        assert_eq!(largest.len(), TOP);
        assert_eq!(largest[..3], [(0, 3334), (1, 3333), (2, 3333)]);
    }

    #[tokio::test(start_paused = true)]
    async fn while_an_answer_is_made_others_get_the_last_one() {
        let last = LastTop::default();
        let make = |number: u64| async move {
            tokio::time::sleep(BUDGET).await;
            Ok(json!(number))
        };
        assert_eq!(last.answer(60, make(1)).await.unwrap(), 1);
        assert_eq!(last.answer(60, make(2)).await.unwrap(), 1, "fresh");
        tokio::time::advance(FRESH).await;
        let began = Instant::now();
        let given = tokio::join!(
            last.answer(60, make(3)),
            async {
                let given = last.answer(60, make(4)).await;
                assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits");
                given
            },
            last.answer(5, make(5)),
        );
        assert_eq!((given.0.unwrap(), given.1.unwrap(), given.2.unwrap()), (json!(3), json!(1), json!(5)));
        assert_eq!(began.elapsed(), BUDGET * 2, "one at a time");
        for minutes in 100..200 {
            last.keep(minutes, &json!(0));
        }
        assert_eq!(last.answers.lock().unwrap().len(), ANSWERS);
        assert!(last.younger_than(FRESH, 60).is_none() && last.younger_than(FRESH, 199).is_some());
    }

    #[test]
    fn what_is_asked_for_has_bounds_that_are_named() {
        for (text, allowed) in
            [("1", true), ("1440", true), ("0", false), ("1441", false), ("-1", false), ("x", false)]
        {
            assert_eq!(minutes(text).is_ok(), allowed, "{text}");
        }
        assert_eq!(minutes("x"), Err("must be a number from 1 to 1440".to_owned()));
        assert_eq!(senders("1001"), Err("must be a number from 1 to 1000".to_owned()));
    }
}
