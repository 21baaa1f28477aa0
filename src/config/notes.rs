//! Settings that are valid and have no effect, since nothing that listens can carry them out.

use crate::config::Settings;
use crate::net::Purpose;
use crate::policy::identity::Identity;
use crate::policy::rule::{Action, Rule};

impl Settings {
    /// Remarks about these settings, each a sentence. Sockets that the service manager passes aren't known here.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let listens = |wanted| self.server.listen.iter().any(|(purpose, _)| *purpose == wanted);
        if !listens(Purpose::Policy) || listens(Purpose::Smtp) || listens(Purpose::Milter) {
            return Vec::new();
        }
        let policy = &self.gate.policy;
        let mut without_effect = Vec::new();
        for identity in [Identity::From, Identity::ReplyTo] {
            for rule in Rule::ALL {
                let action = policy.rules(identity).action(rule);
                if action != Action::Off {
                    let (rule, action) = (rule.name(), action.name());
                    without_effect.push(format!("policy.{}.{rule} = \"{action}\"", identity.name()));
                }
            }
        }
        let mut notes = Vec::new();
        if !without_effect.is_empty() {
            let without_effect = without_effect.join(", ");
            notes.push(format!(
                "only listen.policy listens, which sees no header: no effect of {without_effect}"
            ));
        }
        notes.push(
            "only listen.policy listens, which changes no message: no Authentication-Results, and forged ones stay"
                .to_owned(),
        );
        notes
    }
}
