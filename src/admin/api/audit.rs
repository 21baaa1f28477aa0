//! `GET /api/v1/audit`: whether other servers would accept mail over these addresses; the JSON of `rmxd audit --json`.

use axum::Json;
use axum::response::IntoResponse;

use crate::admin::call::{Call, ResponseFuture};
use crate::admin::problem::Problem;
use crate::admin::query::{Query, address};
use crate::audit::{Question, Unfit, domain};

/// Addresses of one audit; each needs some dozen DNS queries.
const MOST: usize = 16;

pub(in crate::admin) fn audit(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let question = question(&call.query)?;
        let report = call.state.auditor.audit(&question).await.map_err(|what| unfit(&what))?;
        Ok(Json(report.json()).into_response())
    })
}

fn question(query: &Query) -> Result<Question, Problem> {
    let domain = query.required("domain", domain)?;
    let egress = query.values("egress", MOST, address)?;
    if egress.is_empty() {
        return Err(Problem::parameter("egress", "is missing; allowed are one or more IP addresses"));
    }
    Question::new(domain, None, &egress).map_err(|what| unfit(&what))
}

fn unfit(what: &Unfit) -> Problem {
    let name = match what {
        Unfit::Address(_) => "egress",
        Unfit::Sender { .. } | Unfit::Postmaster(_) => "domain",
    };
    Problem::parameter(name, what)
}
