//! `GET /api/v1/check`: the decision that a message of these senders would get now; the JSON of `rmxd check --json`.

use std::net::IpAddr;

use axum::Json;
use axum::response::IntoResponse;

use crate::admin::call::{Call, ResponseFuture};
use crate::admin::problem::Problem;
use crate::admin::query::{Query, address};
use crate::decision::report;
use crate::gate::{DryMessage, DryRun, author, sender};
use crate::message::header::Field;

/// Addresses of one field; a message with more domains is malformed.
const MOST: usize = 5;

pub(in crate::admin) fn check(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let dry_run = dry_run(&call.query)?;
        let record = call.state.gate.dry_run(&dry_run).await;
        Ok(Json(report::json(&record)).into_response())
    })
}

fn dry_run(query: &Query) -> Result<DryRun, Problem> {
    let client: IpAddr = query.required("client", address)?;
    let message = DryMessage::of_addresses(authors(query, "from")?, authors(query, "reply_to")?);
    Ok(DryRun {
        client,
        helo: query.text("helo").map(str::to_owned),
        mail_from: query.value("mail_from", |text| sender(text).map_err(|what| invalid(&what)))?,
        message: Some(message),
    })
}

fn authors(query: &Query, name: &'static str) -> Result<Field, Problem> {
    let authors = query.values(name, MOST, |text| author(text).map_err(|what| invalid(&what)))?;
    Ok(if authors.is_empty() { Field::Absent } else { Field::Authors(authors) })
}

fn invalid(what: &str) -> String {
    format!("is not an address such as \"a@example.com\": {what}")
}
