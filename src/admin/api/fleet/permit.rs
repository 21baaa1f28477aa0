//! The conditions of a permit for a decision of another node.

use std::net::IpAddr;

use axum::http::StatusCode;
use serde_json::Value;

use crate::admin::State;
use crate::admin::api::fleet::{Missing, UNKNOWN, decision};
use crate::admin::api::history::unreadable;
use crate::admin::problem::Problem;
use crate::decision::Id;
use crate::exempt::permits::Conditions;
use crate::policy::identity::Identity;
use crate::smtp::address::DomainName;
use crate::smtp::pattern::DomainPattern;

/// What works where the node can't be asked.
const BY_HAND: &str = "say it by hand: rmxd allow --client NET --domain DOMAIN";

/// The client's network and the domain, as the node that made the decision has them; `None` where the decision is here, or
/// would be.
pub(in crate::admin::api) async fn conditions(state: &State, id: Id) -> Option<Result<Conditions, Problem>> {
    if let Some(history) = &state.history {
        match history.find(id).await {
            Ok(records) if records.is_empty() => {}
            // An id from before the fleet names any node.
            Ok(_here) => return None,
            Err(error) => return Some(Err(unreadable(error))),
        }
    }
    let answer = decision(state, id, "").await?;
    let unreachable = |detail: String| Problem::new(StatusCode::GATEWAY_TIMEOUT, detail);
    let node = id.node();
    Some(answer.map_err(|missing| match missing {
        Missing::Unknown(_) => unreachable(format!("node {node} has decision {id}, and {UNKNOWN}; {BY_HAND}")),
        Missing::None { whose, why } => Problem::not_found(format!("{whose}: {why} Or {BY_HAND}")),
        Missing::Failed { whose, why } => unreachable(format!(
            "{whose} has decision {id} and did not give it: {why}; try rmxd allow {id} on that machine, or {BY_HAND}"
        )),
    }).and_then(|decision| of(state, id, &decision)))
}

/// Of a transaction with several decisions, the last that a rule refused counts, as it does on its own node.
fn of(state: &State, id: Id, decision: &Value) -> Result<Conditions, Problem> {
    let conflict = |detail: String| Problem::new(StatusCode::CONFLICT, detail);
    let others = decision.get("also").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    // The first is the last that was refused.
    let all = || std::iter::once(decision).chain(others.iter().rev());
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
    let is_by_rule =
        |it: &&Value| text(it, "verdict").is_some_and(|it| it != "accept") && text(it, "identity").is_some();
    let Some(refused) = all().find(is_by_rule) else {
        let node = id.node();
        return Err(conflict(match all().find_map(|it| text(it, "reason")) {
            None => format!("decision {id} of node {node} wasn't refused, so it needs no permit"),
            Some(_) => format!(
                "decision {id} of node {node} was refused by no rule, and no permit changes that: see rmxd explain {id}"
            ),
        }));
    };
    let odd = || {
        Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("node {} answers with something else; {BY_HAND}", id.node()),
        )
    };
    let client: IpAddr = text(refused, "client").and_then(|it| it.parse().ok()).ok_or_else(odd)?;
    let network = state.gate.client_network(client);
    let wanted = refused.get("permit_for").filter(|wanted| !wanted.is_null()).ok_or_else(|| {
        conflict(format!(
            "decision {id} names no domain that a permit could be for; allow its client instead: client {network}"
        ))
    })?;
    let identity = text(wanted, "identity");
    let identity = Identity::ALL.into_iter().find(|it| Some(it.name()) == identity.as_deref());
    let domain = text(wanted, "domain").and_then(|it| DomainName::parse_unicode(&it).ok());
    let (identity, domain) = identity.zip(domain).ok_or_else(odd)?;
    Ok(Conditions {
        client: Some(network),
        domain: Some(DomainPattern::exactly(domain)),
        recipient: None,
        identity: Some(identity),
    })
}
