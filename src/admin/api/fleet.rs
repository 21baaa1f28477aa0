//! Decisions of the other nodes of a fleet: each stays where it was made, and that node is asked for it, with the same
//! `admin.token`. Where a node answers is sealed under `cluster.secret`, so that nobody else gets the token.

use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::admin::problem::Problem;
use crate::admin::query::Query;
use crate::admin::{AskError, Client, State, encoded};
use crate::decision::Id;
use crate::store::history::Filter;
use crate::store::shared::OtherNode;

/// For the answer of another node.
const PATIENCE: Duration = Duration::from_secs(2);

/// The decision from the node that made it; `None` where that is this node, or there is no fleet.
pub(super) async fn one(state: &State, id: Id, query: &Query) -> Option<Result<Value, Problem>> {
    let fleet = state.fleet.as_ref().filter(|fleet| fleet.node() != id.node())?;
    let node = id.node();
    let Some(other) = fleet.known().into_iter().find(|other| other.node == node) else {
        let what = format!("node {node} has this decision, and no such node was there in the last day");
        return Some(Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, what)));
    };
    let tree = if query.text("tree").is_some() { "&tree=true" } else { "" };
    let answer = ask(state, &other, &format!("/api/v1/decisions/{id}?local=true{tree}")).await;
    Some(match answer {
        Ok(decision) if decision.get("id").and_then(Value::as_str) == Some(id.as_str()) => Ok(decision),
        Err(Failure { status: Some(404), why }) => {
            Err(Problem::not_found(format!("{}: {why}", named(&other))))
        }
        Ok(_) => Err(failed(&other, "it answers with another decision")),
        Err(Failure { why, .. }) => Err(failed(&other, &why)),
    })
}

/// What the other nodes found by this query, and those that didn't answer.
pub(super) async fn list(state: &State, query: &Query, limit: usize) -> (Vec<Value>, Vec<Value>) {
    let others = state.fleet.as_ref().map(|fleet| fleet.known()).unwrap_or_default();
    let mut target = format!("/api/v1/decisions?limit={limit}");
    for key in Filter::KEYS {
        if let Some(value) = query.text(key) {
            target.push_str(&format!("&{key}={}", encoded(value)));
        }
    }
    let answers = join_all(others.iter().map(|other| ask(state, other, &target))).await;
    let (mut decisions, mut missing) = (Vec::new(), Vec::new());
    for (other, answer) in others.iter().zip(answers) {
        let found = answer.map_err(|failure| failure.why).and_then(|mut answer| {
            match answer.get_mut("decisions").map(Value::take) {
                Some(Value::Array(found)) => Ok(found),
                _ => Err("it answers with something else".to_owned()),
            }
        });
        match found {
            Ok(found) => decisions.extend(found),
            Err(why) => {
                missing.push(json!({ "node": other.node.number(), "hostname": other.name, "why": why }));
            }
        }
    }
    (decisions, missing)
}

struct Failure {
    /// Of its answer.
    status: Option<u16>,
    why: String,
}

async fn ask(state: &State, other: &OtherNode, target: &str) -> Result<Value, Failure> {
    let Some(address) = other.advertise else {
        return Err(Failure { status: None, why: "it has no cluster.advertise".to_owned() });
    };
    let client = Client::at(address, state.settings.token.clone());
    client.get_within(target, PATIENCE).await.map_err(|error| Failure {
        status: match &error {
            AskError::Problem { status, .. } => Some(*status),
            AskError::Token => Some(401),
            _ => None,
        },
        why: match &error {
            AskError::Token => "it has another admin.token".to_owned(),
            AskError::Problem { status: 404, detail } => detail.clone(),
            other => other.to_string(),
        },
    })
}

fn failed(other: &OtherNode, why: &str) -> Problem {
    Problem::new(
        StatusCode::GATEWAY_TIMEOUT,
        format!("{} has this decision and did not give it: {why}", named(other)),
    )
}

fn named(other: &OtherNode) -> String {
    format!("node {} ({})", other.node, other.name)
}
