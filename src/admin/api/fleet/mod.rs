//! Decisions of the other nodes of a fleet: each stays where it was made, and that node is asked for it, with the same
//! `admin.token`. Where a node answers is sealed under `cluster.secret`, so that nobody else gets the token.
//!
//! A node that is asked looks at its own history only (`local=true`), so that no question goes round. Its answer is text
//! of a stranger: it has 2 s and a size, and decisions of an unknown shape are no answer (`row`).

mod list;
mod permit;
mod places;
mod row;

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;

pub(super) use crate::admin::api::fleet::list::{Asked, is_merged, list};
pub(super) use crate::admin::api::fleet::permit::conditions;
use crate::admin::problem::Problem;
use crate::admin::query::Query;
use crate::admin::{AskError, Client, State};
use crate::decision::{Id, Node};
use crate::smtp::escape::OneLine;
use crate::store::shared::OtherNode;

/// For the answer of another node.
const PATIENCE: Duration = Duration::from_secs(2);
/// Octets of one decision: up to a hundred for its recipients, each with its evidence.
const LONGEST: usize = 2 << 20;
/// Characters of a reason that another node gives.
const LONGEST_REASON: usize = 500;

/// Why a node that nobody knows can't be asked.
const UNKNOWN: &str = "no such node was there in the last day";

/// The decision from the node that made it; `None` where that is this node, or there is no fleet.
pub(super) async fn one(state: &State, id: Id, query: &Query) -> Option<Result<Value, Problem>> {
    let tree = if query.text("tree").is_some() { "&tree=true" } else { "" };
    Some(decision(state, id, tree).await?.map_err(|missing| match missing {
        Missing::Unknown(node) => {
            Problem::new(StatusCode::GATEWAY_TIMEOUT, format!("node {node} has this decision, and {UNKNOWN}"))
        }
        Missing::None { whose, why } => Problem::not_found(format!("{whose}: {why}")),
        Missing::Failed { whose, why } => Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("{whose} has this decision and did not give it: {why}"),
        ),
    }))
}

/// Why there is no decision of another node.
enum Missing {
    /// Nobody knows this node.
    Unknown(Node),
    /// The node answers that it has none.
    None {
        whose: String,
        why: String,
    },
    Failed {
        whose: String,
        why: String,
    },
}

/// Asks the node that an id names; `None` where that is this node, or there is no fleet.
async fn decision(state: &State, id: Id, more: &str) -> Option<Result<Value, Missing>> {
    let fleet = state.fleet.as_ref().filter(|fleet| fleet.node() != id.node())?;
    let Some(other) = fleet.known().into_iter().find(|other| other.node == id.node()) else {
        return Some(Err(Missing::Unknown(id.node())));
    };
    let answer = ask(state, &other, &format!("/api/v1/decisions/{id}?local=true{more}"), LONGEST).await;
    let whose = named(&other);
    Some(match answer {
        Ok(decision) if decision.get("id").and_then(Value::as_str) == Some(id.as_str()) => Ok(decision),
        Ok(_) => Err(Missing::Failed { whose, why: "it answers with another decision".to_owned() }),
        Err(Failure { status: Some(404), why }) => Err(Missing::None { whose, why }),
        Err(Failure { why, .. }) => Err(Missing::Failed { whose, why }),
    })
}

struct Failure {
    /// Of its answer.
    status: Option<u16>,
    why: String,
}

/// At most `longest` octets of the answer are read, within [`PATIENCE`].
async fn ask(state: &State, other: &OtherNode, target: &str, longest: usize) -> Result<Value, Failure> {
    let Some(address) = other.advertise else {
        return Err(Failure { status: None, why: "it has no cluster.advertise".to_owned() });
    };
    let client = Client::at(address, state.settings.token.clone(), longest);
    client.get_within(target, PATIENCE).await.map_err(|error| Failure {
        status: match &error {
            AskError::Problem { status, .. } => Some(*status),
            AskError::Token => Some(401),
            _ => None,
        },
        why: match &error {
            AskError::Token => "it has another admin.token".to_owned(),
            AskError::Problem { status: 404, detail } => short(detail),
            other => short(&other.to_string()),
        },
    })
}

fn short(text: &str) -> String {
    OneLine(text).to_string().chars().take(LONGEST_REASON).collect()
}

fn named(other: &OtherNode) -> String {
    format!("node {} ({})", other.node, other.name)
}
