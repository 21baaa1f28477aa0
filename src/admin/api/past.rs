//! `GET /api/v1/top`: the domains and clients that are refused most; and how the history is summed up.
//!
//! The newest records are read first, and reading ends after [`BUDGET`]: a dashboard must not read a history of a gigabyte
//! (`rmxd history --would` does). If records are left, the response has the time back to which it counts.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::response::IntoResponse;
use serde_json::Value;
use tokio::time::Instant;

use crate::admin::api::decisions::{kept, unreadable};
use crate::admin::call::{Call, ResponseFuture};
use crate::admin::fortnight::LONGEST_MINUTES;
use crate::admin::problem::Problem;
use crate::admin::tops::{Tops, coverage};
use crate::decision::DecisionRecord;
use crate::policy::decide::Verdict;
use crate::store::history::{Filter, History};

/// For reading the history.
const BUDGET: Duration = Duration::from_secs(2);
/// Records of one read.
const STEP: usize = 1000;
/// Maximum age of a response of `/api/v1/top` that is sent again.
const FRESH: Duration = Duration::from_secs(5);
/// The same while a new one is being computed.
const USABLE: Duration = Duration::from_secs(60);
/// Kept responses, one for each value of `minutes`.
const ANSWERS: usize = 8;
/// More minutes are summed up by the hour, and kept.
const READ_ANEW: u64 = 60;

/// The last responses of `/api/v1/top`, shared by all open dashboards.
#[derive(Debug, Default)]
pub(in crate::admin) struct LastTop {
    /// `minutes`, time of the response, response; the newest last.
    answers: Mutex<Vec<(u64, Instant, Value)>>,
    /// Locked while a response is computed, so that only one is computed at a time.
    computing: tokio::sync::Mutex<()>,
}

impl LastTop {
    fn younger_than(&self, age: Duration, minutes: u64) -> Option<Value> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let last = answers.iter().find(|(asked, at, _)| *asked == minutes && at.elapsed() < age);
        last.map(|(.., answer)| answer.clone())
    }

    fn keep(&self, minutes: u64, answer: &Value) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|(asked, ..)| *asked != minutes);
        answers.push((minutes, Instant::now(), answer.clone()));
        let excess = answers.len().saturating_sub(ANSWERS);
        answers.drain(..excess);
    }

    /// A fresh response, or the last one while another request computes it; `compute` computes it.
    async fn answer(
        &self,
        minutes: u64,
        compute: impl Future<Output = Result<Value, Problem>>,
    ) -> Result<Value, Problem> {
        if let Some(fresh) = self.younger_than(FRESH, minutes) {
            return Ok(fresh);
        }
        let _computing = match self.computing.try_lock() {
            Ok(computing) => computing,
            Err(_) => {
                if let Some(last) = self.younger_than(USABLE, minutes) {
                    return Ok(last);
                }
                self.computing.lock().await
            }
        };
        // another request may have computed it meanwhile
        if let Some(fresh) = self.younger_than(FRESH, minutes) {
            return Ok(fresh);
        }
        let answer = compute.await?;
        self.keep(minutes, &answer);
        Ok(answer)
    }
}

pub(in crate::admin) fn top(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let history = kept(&call.state)?;
        let minutes = call.query.value("minutes", minutes)?.unwrap_or(60);
        let answer = call.shared.top.answer(minutes, async {
            if minutes <= READ_ANEW {
                return largest(history, minutes).await;
            }
            call.shared.fortnight.catch_up(history).await?;
            Ok(call.shared.fortnight.tops(minutes))
        });
        Ok(Json(answer.await?).into_response())
    })
}

pub(super) fn minutes(text: &str) -> Result<u64, String> {
    let minutes = text.parse().ok().filter(|minutes| (1..=LONGEST_MINUTES).contains(minutes));
    minutes.ok_or_else(|| format!("must be a number from 1 to {LONGEST_MINUTES}"))
}

/// The domains, with their reason, and the clients with the most messages that were refused or would have been.
async fn largest(history: &History, minutes: u64) -> Result<Value, Problem> {
    let since = SystemTime::now().checked_sub(Duration::from_secs(minutes * 60));
    let mut tops = Tops::default();
    let mut reached = None;
    for verdict in [Verdict::Reject, Verdict::Defer] {
        let filter = Filter { verdict: Some(verdict), since, ..Filter::default() };
        let part = read(history, &filter, |record| {
            let domain = record.deciding().map(|finding| finding.domain.clone()).unwrap_or_default();
            tops.add(domain, record.reason(), record.client);
        });
        reached = reached.max(part.await?);
    }
    Ok(tops.json(minutes, coverage(reached)))
}

/// Reads the matching records, the newest first. Returns `None` at the end of the history, or after [`BUDGET`] the time of
/// the next record.
pub(super) async fn read(
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
            // The next record of any kind: many records that don't match may lie between it and the last match.
            let next = history.search(Filter::default(), before, 1).await.map_err(unreadable)?;
            let next = next.records.first().map(|record| record.at);
            return Ok(next.filter(|at| filter.since.is_none_or(|since| *at >= since)));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn while_a_response_is_computed_other_requests_get_the_last_one() {
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
                assert_eq!(began.elapsed(), Duration::ZERO, "no wait");
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
    fn a_number_out_of_range_is_an_error_with_the_range() {
        for (text, allowed) in
            [("1", true), ("20160", true), ("0", false), ("20161", false), ("-1", false), ("x", false)]
        {
            assert_eq!(minutes(text).is_ok(), allowed, "{text}");
        }
        assert_eq!(minutes("x"), Err("must be a number from 1 to 20160".to_owned()));
    }
}
