//! `GET /api/v1/audit`: would mail over each of these addresses be accepted elsewhere; the JSON of `rmxd audit --json`.

use axum::Json;
use axum::response::IntoResponse;

use crate::admin::problem::Problem;
use crate::admin::query::{Query, address};
use crate::admin::routes::{Call, ResponseFuture};
use crate::audit::{Question, Unfit, domain};

/// Addresses of one audit: each asks some dozen questions.
const MOST: usize = 16;

pub(in crate::admin) fn audit(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let question = question(&call.query)?;
        let report = call.state.auditor.audit(&question).await.map_err(|what| unfit(&what))?;
        Ok(Json(report.json()).into_response())
    })
}

fn question(query: &Query) -> Result<Question, Problem> {
    let domain = query.needed("domain", domain)?;
    let egress = query.values("egress", MOST, address)?;
    if egress.is_empty() {
        return Err(Problem::parameter(
            "egress",
            "is missing; allowed are IP addresses, once or several times",
        ));
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
