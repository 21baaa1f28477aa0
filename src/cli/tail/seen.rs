//! Which decisions were shown, so that none is shown twice.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde_json::Value;

/// Keys begin with the time in a form that sorts, so that old ones can be forgotten.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeSet<String>);

impl Seen {
    /// Whether this decision comes for the first time. A transaction may have several, one for each recipient.
    pub(super) fn is_new(&mut self, decision: &Value) -> bool {
        let parts = ["at", "id", "rcpt", "verdict", "outcome"].map(|name| {
            let text = decision.get(name).and_then(Value::as_str);
            text.unwrap_or_default()
        });
        self.0.insert(parts.join(" "))
    }

    /// Forgets what no answer will have again.
    pub(super) fn forget_before(&mut self, time: SystemTime) {
        self.0 = self.0.split_off(&humantime::format_rfc3339_millis(time).to_string());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_decision_is_new_once_and_what_is_old_is_forgotten() {
        let mut seen = Seen::default();
        let decision = |second: u32, rcpt: &str| json!({ "at": format!("2026-11-29T10:00:{second:02}.000Z"), "id": "4KXN7Q2M", "rcpt": rcpt });
        for (second, rcpt, is_new) in
            [(1, "a", true), (1, "a", false), (1, "b", true), (3, "a", true), (3, "a", false)]
        {
            assert_eq!(seen.is_new(&decision(second, rcpt)), is_new, "{second} {rcpt}");
        }
        seen.forget_before(humantime::parse_rfc3339("2026-11-29T10:00:02Z").unwrap());
        assert_eq!(seen.0.len(), 1);
        assert!(!seen.is_new(&decision(3, "a")));
    }
}
