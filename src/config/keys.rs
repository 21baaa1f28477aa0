//! The known keys and the kind of each.
//!
//! Both are read from `config/rmxd.toml`, which is built in as the lowest layer, and are written down nowhere else.
//! So no key is without a default, and the shipped file always shows the true default.

use crate::config::document::{self, Leaf};
use crate::config::problem::either;
use crate::config::value::Value;

/// The built-in defaults.
pub(super) const DEFAULTS: &str = include_str!("../../config/rmxd.toml");

/// The kind of value that a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// A duration or a size: a string. A bare number becomes its text, which the reader of the key accepts or refuses.
    Quantity,
    Number,
    List,
    /// Tables of one name, which only a file can have.
    Tables,
}

impl Kind {
    fn of(default: &Value) -> Self {
        match default {
            Value::Text(text) if text.starts_with(|first: char| first.is_ascii_digit()) => Self::Quantity,
            Value::Text(_) => Self::Text,
            Value::Number(_) => Self::Number,
            Value::List(_) => Self::List,
            Value::Tables(_) => Self::Tables,
        }
    }

    /// The requirement, for problem lines.
    pub(super) fn requirement(self) -> &'static str {
        match self {
            Self::Text => "must be a string",
            Self::Quantity => "must be a string such as \"30s\" or \"50MiB\"",
            Self::Number => "must be a whole number",
            Self::List => "must be a list of strings",
            Self::Tables => {
                "must be tables in a configuration file, each below its own line [[policy.senders]]"
            }
        }
    }

    /// Converts the value to this kind; `None` if it is of another kind.
    pub(super) fn convert(self, value: Value) -> Option<Value> {
        match (self, value) {
            (Self::Text | Self::Quantity, Value::Text(text)) => Some(Value::Text(text)),
            (Self::Quantity, Value::Number(number)) => Some(Value::Text(number.to_string())),
            (Self::Number, Value::Number(number)) => Some(Value::Number(number)),
            (Self::List, Value::List(items)) => Some(Value::List(items)),
            (Self::Tables, Value::Tables(rows)) => Some(Value::Tables(rows)),
            _ => None,
        }
    }

    /// Parses the text of a variable or flag; commas separate the items of a list.
    pub(super) fn parse(self, text: &str) -> Option<Value> {
        match self {
            Self::Text | Self::Quantity => Some(Value::Text(text.to_owned())),
            Self::Number => text.trim().parse().ok().map(Value::Number),
            Self::List if text.trim().is_empty() => Some(Value::List(Vec::new())),
            Self::List => Some(Value::List(text.split(',').map(|item| item.trim().to_owned()).collect())),
            Self::Tables => None,
        }
    }
}

/// The key whose values are tables.
pub(super) const SENDERS: &str = "policy.senders";

/// The keys of each of its tables.
pub(super) const SENDER_KEYS: [(&str, Kind); 6] = [
    ("domains", Kind::List),
    ("matches", Kind::Text),
    ("matches_by", Kind::List),
    ("exists", Kind::Text),
    ("exists_by", Kind::List),
    ("identities", Kind::List),
];

/// What the manual says of it.
pub(super) const ABOUT_SENDERS: &str = "tables in a file, each below its own line [[policy.senders]]: rules for some \
    sender domains. Keys: domains, matches, matches_by, exists, exists_by, identities";

/// All keys, in the order of the commented default.
#[derive(Debug)]
pub(super) struct Keys {
    keys: Vec<(String, Kind)>,
}

impl Keys {
    /// Takes the leaves of the built-in defaults. The rungs of an identity and `policy.senders` are keys even without a
    /// default.
    pub(super) fn new(defaults: &[Leaf]) -> Self {
        let mut keys: Vec<(String, Kind)> = defaults
            .iter()
            .filter_map(|leaf| leaf.value.as_ref().ok().map(|value| (leaf.key.clone(), Kind::of(value))))
            .collect();
        for identity in crate::policy::identity::Identity::ALL {
            for rungs in ["exists_by", "matches_by"] {
                let key = format!("policy.{identity}.{rungs}");
                if keys.iter().any(|(known, _)| *known == key) {
                    continue;
                }
                let table = format!("policy.{identity}.");
                let last = keys.iter().rposition(|(known, _)| known.starts_with(&table));
                keys.insert(last.map_or(keys.len(), |last| last + 1), (key, Kind::List));
            }
        }
        let direct = |key: &str| key.strip_prefix("policy.").is_some_and(|rest| !rest.contains('.'));
        let last = keys.iter().rposition(|(known, _)| direct(known));
        keys.insert(last.map_or(keys.len(), |last| last + 1), (SENDERS.to_owned(), Kind::Tables));
        Self { keys }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(key, _)| key.as_str())
    }

    /// `None` for an unknown key.
    pub(super) fn kind(&self, key: &str) -> Option<Kind> {
        self.keys.iter().find(|(known, _)| known == key).map(|(_, kind)| *kind)
    }

    pub(super) fn is_table(&self, key: &str) -> bool {
        !self.below(key).is_empty()
    }

    /// Explains why a key can't have a value, and lists the keys that can.
    pub(super) fn explain_unknown(&self, key: &str) -> String {
        if key.strip_prefix(SENDERS).is_some_and(|rest| rest.starts_with('.')) {
            return format!("{SENDERS} {}", Kind::Tables.requirement());
        }
        let names = self.below(key);
        if !names.is_empty() {
            return format!("is a table, with the keys {}", either(&names));
        }
        let mut table = key;
        while let Some((parent, _)) = table.rsplit_once('.') {
            table = parent;
            let names = self.below(table);
            if !names.is_empty() {
                return format!("no such key; [{table}] has {}", either(&names));
            }
        }
        format!("no such key; at the top are {}", either(&self.below("")))
    }

    /// The names directly below a table; `""` is the top table.
    fn below(&self, table: &str) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (key, _) in &self.keys {
            let rest = if table.is_empty() {
                Some(key.as_str())
            } else {
                key.strip_prefix(table).and_then(|rest| rest.strip_prefix('.'))
            };
            if let Some(name) = rest.and_then(|rest| rest.split('.').next())
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
        names
    }
}

/// The leaves of the built-in defaults.
pub(super) fn defaults() -> Result<Vec<Leaf>, Vec<document::SyntaxError>> {
    document::leaves(DEFAULTS, &|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new(&defaults().unwrap())
    }

    #[test]
    fn the_built_in_file_has_only_known_kinds() {
        for leaf in defaults().unwrap() {
            assert!(leaf.value.is_ok(), "{leaf:?}");
        }
    }

    #[test]
    fn names_are_in_the_order_of_the_commented_default() {
        let keys = keys();
        let names: Vec<&str> = keys.names().collect();
        assert_eq!(names[..3], ["hostname", "listen.smtp", "listen.milter"]);
        let helo: Vec<&str> = names.iter().filter(|name| name.starts_with("policy.helo.")).copied().collect();
        assert_eq!(
            helo,
            ["policy.helo.exists", "policy.helo.matches", "policy.helo.exists_by", "policy.helo.matches_by"]
        );
        assert_eq!(names.last(), Some(&"log.level"));
    }

    #[test]
    fn the_problem_of_an_unknown_key_lists_its_neighbours() {
        let rows = [
            ("policy.helo.exist", "no such key; [policy.helo] has exists, matches, exists_by or matches_by"),
            ("tls.a.b", "no such key; [tls] has certificate or key"),
            ("tls", "is a table, with the keys certificate or key"),
            ("log.level.x", "no such key; [log] has format or level"),
        ];
        for (key, expected) in rows {
            assert_eq!(keys().explain_unknown(key), expected, "{key}");
        }
        assert!(keys().explain_unknown("host").starts_with("no such key; at the top are hostname, listen,"));
    }
}
