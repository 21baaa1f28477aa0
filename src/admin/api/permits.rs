//! `GET`, `POST /api/v1/permits`, `DELETE /api/v1/permits/NUMBER`: temporary permits (contract 3.5). Writing needs
//! `admin.token` even on this machine, as `guard` has it.
//!
//! A permit is made from conditions, or from a refused decision: of its client network and the sender's domain
//! (`DecisionRecord::permit_for`). In a fleet the other nodes are told before the answer, which says if that wasn't possible.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::admin::State;
use crate::admin::api::decisions::{kept, unreadable};
use crate::admin::api::fleet;
use crate::admin::call::{Call, ResponseFuture};
use crate::admin::problem::Problem;
use crate::admin::query::quoted;
use crate::decision::{DecisionRecord, Id, Node};
use crate::exempt::entry;
use crate::exempt::permits::{Conditions, DEFAULT_TIME, LONGEST_TIME, MOST, MOST_NOTE, TemporaryPermit};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::RejectAt;
use crate::smtp::pattern::DomainPattern;
use crate::store::permits::{Full, NewPermit};
use crate::store::shared::Fleet;

/// The body of a POST: an id, or conditions.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    id: Option<String>,
    client: Option<String>,
    domain: Option<String>,
    recipient: Option<String>,
    /// A duration, or `forever`.
    #[serde(rename = "for")]
    time: Option<String>,
    note: Option<String>,
}

pub(in crate::admin) fn list(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let store = &call.state.permits;
        let permits: Vec<Value> = store.list().iter().map(shown).collect();
        let shared = call.state.fleet.as_ref().map(|_| store.is_shared());
        let (most, on_disk) = (MOST, store.is_on_disk());
        Ok(Json(json!({ "permits": permits, "most": most, "on_disk": on_disk, "shared": shared }))
            .into_response())
    })
}

pub(in crate::admin) fn make(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let wanted = wanted(&call.body)?;
        let hint = hint(&call.state, &wanted);
        let new = new(&call.state, wanted).await?;
        let store = call.state.permits.clone();
        let made = spawn_blocking(move || store.add(new)).await.map_err(died)?;
        let permit = made.map_err(|full: Full| {
            Problem::new(StatusCode::CONFLICT, format!("{full}; remove one (DELETE /api/v1/permits/NUMBER)"))
        })?;
        let waits = tell(&call.state).await.map(|why| {
            format!("{why}: this permit is in effect on this node only, and on the others once Redis has it.")
        });
        let mut shown = shown(&permit);
        if let Value::Object(object) = &mut shown {
            object.insert("on_disk".to_owned(), call.state.permits.is_on_disk().into());
            object.insert("shared".to_owned(), call.state.fleet.as_ref().map(|_| waits.is_none()).into());
            let hints: Vec<String> = hint.map(str::to_owned).into_iter().chain(waits).collect();
            if !hints.is_empty() {
                object.insert("hint".to_owned(), hints.join(" ").into());
            }
        }
        Ok((StatusCode::CREATED, Json(shown)).into_response())
    })
}

pub(in crate::admin) fn remove(call: Call) -> ResponseFuture {
    Box::pin(async move {
        let unknown = || {
            let which = quoted(&call.argument);
            Problem::not_found(format!("no permit {which} is in effect; GET /api/v1/permits lists all"))
        };
        let number: u64 = call.argument.parse().map_err(|_not_a_number| unknown())?;
        let store = call.state.permits.clone();
        let removed =
            spawn_blocking(move || (store.remove(number), store.lacks_changes())).await.map_err(died)?;
        let waits = if removed.0.is_some() { tell(&call.state).await } else { None };
        match removed {
            (None, _) => Err(unknown()),
            (Some(_), false) => Ok(match waits {
                None => StatusCode::NO_CONTENT.into_response(),
                Some(why) => {
                    let hint = format!(
                        "{why}: permit {number} is in effect on the other nodes until Redis has its removal."
                    );
                    (StatusCode::ACCEPTED, Json(json!({ "removed": number, "hint": hint }))).into_response()
                }
            }),
            (Some(_), true) => {
                let detail = format!(
                    "permit {number} is in effect no more, but the state file can't be written: if rmxd ends before it \
                     can, the permit comes back; the log has the error"
                );
                Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail))
            }
        }
    })
}

fn wanted(body: &[u8]) -> Result<Wanted, Problem> {
    let wrong = |what: &dyn std::fmt::Display| {
        let allowed =
            "allowed is an object with id, or with client, domain, recipient; and with for and note";
        Problem::parameter("the body", format!("{what}; {allowed}"))
    };
    let value: Value = serde_json::from_slice(body).map_err(|error| wrong(&error))?;
    let kind = match &value {
        Value::Object(_) => return serde_json::from_value(value).map_err(|error| wrong(&error)),
        Value::Array(_) => "is an array",
        Value::String(_) => "is a string",
        Value::Number(_) => "is a number",
        Value::Bool(_) | Value::Null => "is no object",
    };
    Err(wrong(&kind))
}

/// What stands in the way of a permit for a recipient.
fn hint(state: &State, wanted: &Wanted) -> Option<&'static str> {
    given(wanted.recipient.as_deref())?;
    (state.gate.policy().reject_at == RejectAt::Mail).then_some(
        "policy.reject_at is \"mail\": MAIL is refused before any recipient is known, so this permit can't let in a sender \
         that is refused there.",
    )
}

/// Tells the other nodes of a fleet; why they can't know it yet.
async fn tell(state: &State) -> Option<&'static str> {
    let fleet = state.fleet.as_ref()?;
    if fleet.tell_permits().await {
        return None;
    }
    Some(if fleet.condition().up { "Redis has not taken it yet" } else { "Redis is away" })
}

fn died(error: tokio::task::JoinError) -> Problem {
    tracing::error!(%error, "a change of the permits died");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed; the log has the error")
}

fn shown(permit: &TemporaryPermit) -> Value {
    let TemporaryPermit { number, conditions, note, created, until, decision, .. } = permit;
    let time = |at: SystemTime| humantime::format_rfc3339_seconds(at).to_string();
    json!({
        "number": number,
        "node": permit.node().map(Node::number),
        "client": conditions.client.map(|network| network.to_string()),
        "domain": conditions.domain.as_ref().map(ToString::to_string),
        "recipient": conditions.recipient.as_deref(),
        "identity": conditions.identity.map(Identity::name),
        "note": note,
        "created": time(*created),
        "until": until.map(time),
        "decision": decision.map(|id| id.to_string()),
    })
}

async fn new(state: &State, wanted: Wanted) -> Result<NewPermit, Problem> {
    let Wanted { id, client, domain, recipient, time, note } = wanted;
    let time = match given(time.as_deref()) {
        None => Some(DEFAULT_TIME),
        Some(text) => read("for", text, duration)?,
    };
    let note = note.unwrap_or_default().trim().to_owned();
    if note.chars().count() > MOST_NOTE || note.contains(char::is_control) {
        let what = format!("allowed is one line of up to {MOST_NOTE} characters");
        return Err(Problem::parameter("note", what));
    }
    let part = |name, text: &Option<String>| given(text.as_deref()).map(|text| (name, text.to_owned()));
    let (client, domain) = (part("client", &client), part("domain", &domain));
    let recipient = part("recipient", &recipient);
    let (conditions, decision) = match given(id.as_deref()) {
        Some(_) if client.is_some() || domain.is_some() || recipient.is_some() => {
            let what = "stands alone; client, domain and recipient are the other way to say it";
            return Err(Problem::parameter("id", what));
        }
        Some(text) => {
            let (id, conditions) = of_decision(state, text).await?;
            (conditions, Some(id))
        }
        None => {
            let conditions = Conditions {
                client: client.map(|(name, text)| read(name, &text, entry::network)).transpose()?,
                domain: domain.map(|(name, text)| read(name, &text, entry::pattern)).transpose()?,
                recipient: recipient.map(|(name, text)| read(name, &text, entry::recipient)).transpose()?,
                identity: None,
            };
            (conditions, None)
        }
    };
    if conditions.is_empty() {
        let what = "says neither id, nor client, domain or recipient; at least one is needed";
        return Err(Problem::parameter("the body", what));
    }
    Ok(NewPermit { conditions, note, time, decision, node: state.fleet.as_ref().map(Fleet::node) })
}

/// An empty text counts as absent, since forms send empty fields.
fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

fn read<T>(name: &str, text: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Problem> {
    read(text).map_err(|what| Problem::parameter(name, format!("{} {what}", quoted(text))))
}

/// `None` = until it is removed.
fn duration(text: &str) -> Result<Option<Duration>, String> {
    if text.eq_ignore_ascii_case("forever") {
        return Ok(None);
    }
    let time = humantime::parse_duration(text).ok();
    let time = time.filter(|time| *time >= Duration::from_secs(1) && *time <= LONGEST_TIME);
    time.map(Some).ok_or_else(|| "is not a time such as \"24h\" or \"7d\", nor \"forever\"".to_owned())
}

/// The conditions for a refused decision: the client's network, and the domain.
async fn of_decision(state: &State, text: &str) -> Result<(Id, Conditions), Problem> {
    let id = Id::parse(text).ok_or_else(|| {
        let what = "must be the eight letters and digits at the end of a reply, as in (id 4KXN7Q2M)";
        Problem::parameter("id", format!("{} {what}", quoted(text)))
    })?;
    if let Some(conditions) = fleet::conditions(state, id).await {
        return Ok((id, conditions?));
    }
    let by_hand = "say it by hand, with client, domain or recipient";
    let history = kept(state).map_err(|_off| {
        Problem::not_found(format!("history.path is empty, so no decisions are kept; {by_hand}"))
    })?;
    let records = history.find(id).await.map_err(unreadable)?;
    if records.is_empty() {
        return Err(Problem::not_found(format!("no decision {id} is kept; {by_hand}")));
    }
    let Some(record) = records.iter().rev().find(|record| record.refusing_rule().is_some()) else {
        return Err(Problem::new(StatusCode::CONFLICT, why_not(id, &records)));
    };
    let (identity, domain) = record.permit_for().ok_or_else(|| {
        let network = state.gate.client_network(record.client);
        let detail = format!(
            "decision {id} names no domain that a permit could be for; allow its client instead: client {network}"
        );
        Problem::new(StatusCode::CONFLICT, detail)
    })?;
    let client = Some(state.gate.client_network(record.client));
    let domain = Some(DomainPattern::exactly(domain));
    Ok((id, Conditions { client, domain, recipient: None, identity: Some(identity) }))
}

/// Why there can't be a permit for a decision that no rule of the policy refused.
fn why_not(id: Id, records: &[DecisionRecord]) -> String {
    let reason = records.iter().rev().find_map(DecisionRecord::reason);
    let of_next_hop = records.iter().rev().find_map(|record| record.end.as_ref()?.trouble);
    match reason {
        None => format!("decision {id} wasn't refused, so it needs no permit"),
        Some(reason) if of_next_hop == Some(reason) => format!(
            "decision {id} passed rmxd, and the mail server refused it or failed ({reason}): see rmxd explain {id}"
        ),
        Some(Reason::BareNewline) => format!(
            "decision {id} was refused for bare_newline, and no permit changes that: exempt.clients does, for a client that can't \
             be repaired; see rmxd explain {id}"
        ),
        Some(reason) => format!(
            "decision {id} was refused for {reason}, which holds for every client: no permit changes that, see \
             rmxd explain {id}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_duration_or_forever() {
        let hours = |hours: u64| Ok(Some(Duration::from_secs(hours * 3600)));
        let wrong = Err("is not a time such as \"24h\" or \"7d\", nor \"forever\"".to_owned());
        let rows = [
            ("24h", hours(24)),
            ("7d", hours(7 * 24)),
            ("1h 30m", Ok(Some(Duration::from_secs(5400)))),
            ("forever", Ok(None)),
            ("Forever", Ok(None)),
            ("0s", wrong.clone()),
            ("10ms", wrong.clone()),
            ("200y", wrong.clone()),
            ("24", wrong.clone()),
            ("-1h", wrong.clone()),
            ("tomorrow", wrong),
        ];
        for (text, expected) in rows {
            assert_eq!(duration(text), expected, "{text}");
        }
    }
}
