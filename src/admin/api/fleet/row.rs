//! A decision in the list of another node: its fields, each with the type that this version gives it. What has another
//! shape is no decision; fields of later versions are left out.

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::decision::Id;
use crate::policy::decide::Verdict;
use crate::policy::identity::Identity;

/// Whether a value may be that of a field.
type Fits = fn(&Value) -> bool;

const FIELDS: [(&str, Fits); 32] = [
    ("id", |value| value.is_null() || value.as_str().is_some_and(|id| Id::parse(id).is_some())),
    ("at", |value| value.as_str().is_some_and(is_time)),
    ("verdict", |value| Verdict::ALL.iter().any(|verdict| value == verdict.name())),
    ("mode", Value::is_string),
    ("refused", Value::is_boolean),
    ("identity", is_text_or_null),
    ("rule", is_text_or_null),
    ("rung", is_text_or_null),
    ("reason", is_text_or_null),
    ("domain", is_text_or_null),
    ("node", is_number_or_null),
    ("door", Value::is_string),
    ("queue", is_text_or_null),
    ("tls", is_text_or_null),
    ("client", |value| value.as_str().is_some_and(|client| client.parse::<IpAddr>().is_ok())),
    ("ptr", are_texts),
    ("helo", is_text_or_null),
    ("mail_from", is_text_or_null),
    ("rcpt", is_text_or_null),
    ("rcpts", Value::is_u64),
    ("recipients", are_texts),
    ("from", is_text_or_null),
    ("reply_to", is_text_or_null),
    ("reply", is_text_or_null),
    ("outcome", is_text_or_null),
    ("relay_reply", is_text_or_null),
    ("tags", are_texts),
    ("permit", is_number_or_null),
    ("permit_for", is_permit_or_null),
    ("permit_until", is_time_or_null),
    ("duration", Value::is_number),
    ("dns_queries", Value::is_u64),
];

/// The decision, if it is one.
pub(super) fn read(value: Value) -> Option<Map<String, Value>> {
    let Value::Object(mut found) = value else { return None };
    FIELDS
        .iter()
        .map(|(name, fits)| {
            let value = found.remove(*name)?;
            fits(&value).then(|| ((*name).to_owned(), value))
        })
        .collect()
}

/// When the decision was made; in this form texts are in the order of times.
pub(super) fn at(row: &Map<String, Value>) -> &str {
    row.get("at").and_then(Value::as_str).unwrap_or_default()
}

fn is_time(text: &str) -> bool {
    text.is_ascii() && text.ends_with('Z') && humantime::parse_rfc3339(text).is_ok()
}

fn is_time_or_null(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(is_time)
}

fn is_text_or_null(value: &Value) -> bool {
    value.is_null() || value.is_string()
}

fn is_number_or_null(value: &Value) -> bool {
    value.is_null() || value.is_u64()
}

fn are_texts(value: &Value) -> bool {
    value.as_array().is_some_and(|all| all.iter().all(Value::is_string))
}

fn is_permit_or_null(value: &Value) -> bool {
    let identity = |name: &str| Identity::ALL.iter().any(|identity| identity.name() == name);
    value.is_null()
        || value.as_object().is_some_and(|permit| {
            permit.len() == 2
                && permit.get("identity").and_then(Value::as_str).is_some_and(identity)
                && permit.get("domain").is_some_and(Value::is_string)
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decision() -> Value {
        json!({
            "id": "4KXN7Q2M", "at": "2026-11-29T10:00:00.123Z", "verdict": "reject", "mode": "enforce", "refused": true,
            "identity": "mail_from", "rule": "exists", "rung": null, "reason": "no_mx", "domain": "nomx.test", "node": 2,
            "door": "smtp", "queue": null, "tls": null, "client": "192.0.2.7", "ptr": ["a.test"], "helo": "a.test",
            "mail_from": "<a@nomx.test>", "rcpt": "u@here.test", "rcpts": 0, "recipients": ["u@here.test"], "from": null,
            "reply_to": null, "reply": "550 no", "outcome": "refused", "relay_reply": null, "tags": [], "permit": null,
            "permit_for": { "identity": "mail_from", "domain": "nomx.test" }, "permit_until": null, "duration": 0.1,
            "dns_queries": 1,
        })
    }

    #[test]
    fn a_decision_is_taken_as_it_is_without_fields_of_later_versions() {
        let mut later = decision();
        later["more"] = json!({ "of": "a later version" });
        assert_eq!(read(later).map(Value::Object), Some(decision()));
    }

    #[test]
    fn what_has_another_shape_is_no_decision() {
        let rows = [
            ("id", json!("<script>")),
            ("id", json!(7)),
            ("at", json!("yesterday")),
            ("at", json!(null)),
            ("at", json!("2026-11-29 10:00:00")),
            ("verdict", json!("maybe")),
            ("refused", json!("no")),
            ("client", json!("192.0.2.0/24")),
            ("tags", json!("one")),
            ("tags", json!([1])),
            ("ptr", json!(null)),
            ("mail_from", json!({})),
            ("rcpts", json!(-1)),
            ("permit_for", json!({ "identity": "mail_from" })),
            ("permit_for", json!({ "identity": "nobody", "domain": "a" })),
            ("permit_until", json!("soon")),
            ("duration", json!("long")),
        ];
        for (field, value) in rows {
            let mut row = decision();
            row[field] = value.clone();
            assert_eq!(read(row), None, "{field}: {value}");
        }
        let mut short = decision();
        short.as_object_mut().unwrap().remove("reply");
        assert_eq!(read(short), None);
        assert_eq!(read(json!([])), None);
    }
}
