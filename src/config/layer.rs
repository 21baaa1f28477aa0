//! The layers: defaults, file, environment, flags. The names and kinds of each are checked before the merge, so that a
//! problem line has a position. A key with a problem is left out, and the check goes on to find the other problems.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use crate::config::document::{self, Leaf};
use crate::config::keys::{Keys, Kind, SENDER_KEYS, SENDERS};
use crate::config::problem::{Origin, Problem, either};
use crate::config::value::{Row, Value};

/// The start of a variable's name, as in `RMXD__POLICY__MAIL_FROM__EXISTS`.
const PREFIX: &str = "RMXD__";

/// Values, each with its origin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layer {
    values: BTreeMap<String, (Value, Origin)>,
    /// The keys within tables, as `policy.senders 1.matches`.
    inner: BTreeMap<String, Origin>,
}

impl Layer {
    pub(super) fn defaults(leaves: Vec<Leaf>) -> Self {
        let values =
            leaves.into_iter().filter_map(|leaf| Some((leaf.key, (leaf.value.ok()?, Origin::Default))));
        Self { values: values.collect(), ..Self::default() }
    }

    pub(super) fn file(text: &str, path: &Path, keys: &Keys, problems: &mut Vec<Problem>) -> Self {
        let at = |position| Origin::File { path: path.to_owned(), position: Some(position) };
        let leaves = match document::leaves(text, &|key| keys.is_table(key)) {
            Ok(leaves) => leaves,
            Err(errors) => {
                problems.extend(errors.into_iter().map(|error| Problem {
                    origin: at(error.position),
                    key: String::new(),
                    what: format!("not TOML: {}", error.message),
                }));
                return Self::default();
            }
        };
        let mut layer = Self::default();
        for Leaf { key, value, position, rows } in leaves {
            if let (Some(Kind::Tables), Some(rows)) = (keys.kind(&key), rows) {
                layer.add_rows(&key, rows, at(position), &at, problems);
                continue;
            }
            let value = match keys.kind(&key) {
                None => Err(keys.explain_unknown(&key)),
                Some(kind) => value
                    .map_err(|_type_name| kind.requirement().to_owned())
                    .and_then(|value| kind.convert(value).ok_or_else(|| kind.requirement().to_owned())),
            };
            layer.add(key, value, at(position), problems);
        }
        layer
    }

    /// Reads the variables that begin with `RMXD__` and ignores all others.
    pub(super) fn environment(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        keys: &Keys,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut layer = Self::default();
        for (name, text) in variables {
            let name = name.to_string_lossy().into_owned();
            let Some(path) = name.strip_prefix(PREFIX) else { continue };
            let key = path.to_lowercase().replace("__", ".");
            let value = match text.to_str() {
                Some(text) => from_text(keys, &key, text),
                None => Err("must be UTF-8".to_owned()),
            };
            layer.add(key, value, Origin::Environment(name), problems);
        }
        layer
    }

    /// `--set KEY=VALUE`.
    pub(super) fn flags(assignments: &[(String, String)], keys: &Keys, problems: &mut Vec<Problem>) -> Self {
        let mut layer = Self::default();
        for (key, text) in assignments {
            let value = from_text(keys, key, text);
            layer.add(key.clone(), value, Origin::Flag("--set".to_owned()), problems);
        }
        layer
    }

    pub(super) fn origins(&self) -> impl Iterator<Item = (&str, &Origin)> {
        let values = self.values.iter().map(|(key, (_, origin))| (key.as_str(), origin));
        values.chain(self.inner.iter().map(|(key, origin)| (key.as_str(), origin)))
    }

    /// The value of a key.
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key).map(|(value, _)| value)
    }

    /// Drops the value of a key.
    pub(super) fn remove(&mut self, key: &str) {
        self.values.remove(key);
    }

    /// Adds tables of one name, if their keys and kinds are known.
    fn add_rows(
        &mut self,
        key: &str,
        rows: Vec<Vec<Leaf>>,
        origin: Origin,
        at: &impl Fn((usize, usize)) -> Origin,
        problems: &mut Vec<Problem>,
    ) {
        let mut tables = Vec::with_capacity(rows.len());
        for (nth, row) in (1..).zip(rows) {
            let first = row.iter().map(|leaf| leaf.position).min();
            self.inner.insert(format!("{key} {nth}"), first.map_or_else(|| origin.clone(), at));
            let mut table = Row::new();
            for Leaf { key: name, value, position, .. } in row {
                let (inner, origin) = (format!("{key} {nth}.{name}"), at(position));
                match in_row(&name, value) {
                    Ok(value) => table.push((name, value)),
                    Err(what) => problems.push(Problem { origin: origin.clone(), key: inner.clone(), what }),
                }
                self.inner.insert(inner, origin);
            }
            tables.push(table);
        }
        self.values.insert(key.to_owned(), (Value::Tables(tables), origin));
    }

    fn add(
        &mut self,
        key: String,
        value: Result<Value, String>,
        origin: Origin,
        problems: &mut Vec<Problem>,
    ) {
        match value {
            Ok(value) => {
                self.values.insert(key, (value, origin));
            }
            Err(what) => problems.push(Problem { origin, key, what }),
        }
    }
}

/// A value within one of several tables.
fn in_row(name: &str, value: Result<Value, &'static str>) -> Result<Value, String> {
    let Some((_, kind)) = SENDER_KEYS.into_iter().find(|(known, _)| *known == name) else {
        let names = SENDER_KEYS.map(|(name, _)| name);
        return Err(format!("no such key; [[{SENDERS}]] has {}", either(&names)));
    };
    let requirement = || kind.requirement().to_owned();
    value.map_err(|_type_name| requirement()).and_then(|value| kind.convert(value).ok_or_else(requirement))
}

fn from_text(keys: &Keys, key: &str, text: &str) -> Result<Value, String> {
    let kind = keys.kind(key).ok_or_else(|| keys.explain_unknown(key))?;
    kind.parse(text).ok_or_else(|| kind.requirement().to_owned())
}

fn to_merge(value: &Value, origin: &String) -> ::config::Value {
    match value {
        Value::Text(text) => ::config::Value::new(Some(origin), text.as_str()),
        Value::Number(number) => ::config::Value::new(Some(origin), *number),
        Value::List(items) => ::config::Value::new(Some(origin), items.clone()),
        Value::Tables(rows) => {
            let row = |row: &Row| -> ::config::Map<String, ::config::Value> {
                row.iter().map(|(name, value)| (name.clone(), to_merge(value, origin))).collect()
            };
            ::config::Value::new(Some(origin), rows.iter().map(row).collect::<Vec<_>>())
        }
    }
}

impl ::config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn ::config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<::config::Map<String, ::config::Value>, ::config::ConfigError> {
        let value = |(value, origin): &(Value, Origin)| {
            let origin = origin.to_string();
            to_merge(value, &origin)
        };
        Ok(self.values.iter().map(|(key, entry)| (key.clone(), value(entry))).collect())
    }
}
