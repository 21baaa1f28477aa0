//! `GET /api/v1/would`: the senders that enforcing would refuse, or with `config` what another policy would have done.

use axum::Json;
use axum::response::IntoResponse;

use crate::admin::api::decisions::{filter, kept};
use crate::admin::api::past::read;
use crate::admin::call::{Call, ResponseFuture};
use crate::admin::problem::Problem;
use crate::admin::tops::coverage;
use crate::decision::DecisionRecord;
use crate::stats::hindsight::Hindsight;
use crate::stats::refusals::RefusalStats;
use crate::store::history::Filter;

/// The parameters.
pub(in crate::admin) const WOULD: &[&str] =
    &["config", "reason", "identity", "domain", "client", "since", "until", "limit"];

/// Senders in the response of `/api/v1/would`.
const SENDERS: std::ops::RangeInclusive<usize> = 1..=1000;
const DEFAULT_SENDERS: usize = 50;

pub(in crate::admin) fn would(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let history = kept(&call.state)?;
        let senders = call.query.value("limit", senders)?.unwrap_or(DEFAULT_SENDERS);
        let filter = filter(&call.query, WOULD)?;
        let candidate = call.query.text("config").map(|text| call.state.other_policy.read(text)).transpose();
        let candidate = candidate.map_err(|what| Problem::parameter("config", what))?;
        let (mut answer, reached) = match candidate {
            Some(candidate) => {
                let mut hindsight = Hindsight::default();
                let each = |record: &DecisionRecord| hindsight.add(record, &candidate.decides(record));
                let reached = read(history, &filter, each).await?;
                (hindsight.json(senders), reached)
            }
            None => {
                let filter = Filter { would: Some(true), ..filter };
                let mut stats = RefusalStats::default();
                let reached = read(history, &filter, |record| stats.add_record(record)).await?;
                (stats.json(senders), reached)
            }
        };
        if let Some(object) = answer.as_object_mut() {
            object.extend(coverage(reached));
        }
        Ok(Json(answer).into_response())
    })
}

fn senders(text: &str) -> Result<usize, String> {
    let senders = text.parse().ok().filter(|senders| SENDERS.contains(senders));
    senders.ok_or_else(|| format!("must be a number from {} to {}", SENDERS.start(), SENDERS.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_out_of_range_is_an_error_with_the_range() {
        assert_eq!(senders("1000"), Ok(1000));
        assert_eq!(senders("1001"), Err("must be a number from 1 to 1000".to_owned()));
    }
}
