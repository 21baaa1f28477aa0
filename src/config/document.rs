//! Reads a TOML text into a flat list of keys with values and positions, or reports all its syntax errors.

use toml::de::{DeTable, DeValue};

use crate::config::value::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    /// With its tables, as in `policy.helo.exists`.
    pub(super) key: String,
    /// The value, or the name of a TOML type that no key has (`table` where `enter` of [`leaves`] returned false).
    pub(super) value: Result<Value, &'static str>,
    /// Line and column of the key, from 1.
    pub(super) position: (usize, usize),
    /// For each of several tables of this name its own leaves.
    pub(super) rows: Option<Vec<Vec<Leaf>>>,
}

#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) message: String,
    /// Line and column, from 1.
    pub(super) position: (usize, usize),
}

/// Returns all keys in the order of the text. A table for which `enter` returns false is a leaf itself.
pub(super) fn leaves(text: &str, enter: &dyn Fn(&str) -> bool) -> Result<Vec<Leaf>, Vec<SyntaxError>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let errors = errors.iter().map(|error| SyntaxError {
            message: error.message().to_owned(),
            position: position(text, error.span().map_or(0, |span| span.start)),
        });
        return Err(errors.collect());
    }
    let mut found = Vec::new();
    collect(text, document.get_ref(), "", enter, &mut found);
    found.sort_by_key(|leaf| leaf.position);
    Ok(found)
}

fn collect(
    text: &str,
    table: &DeTable<'_>,
    parent: &str,
    enter: &dyn Fn(&str) -> bool,
    found: &mut Vec<Leaf>,
) {
    for (name, value) in table {
        let dot = if parent.is_empty() { "" } else { "." };
        let key = format!("{parent}{dot}{}", name.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) if enter(&key) => collect(text, inner, &key, enter, found),
            other => {
                let rows = rows(text, other);
                found.push(Leaf {
                    key,
                    value: read(other),
                    position: position(text, name.span().start),
                    rows,
                });
            }
        }
    }
}

/// The leaves of each table in an array of tables.
fn rows(text: &str, value: &DeValue<'_>) -> Option<Vec<Vec<Leaf>>> {
    let DeValue::Array(items) = value else { return None };
    let table = |item: &DeValue<'_>| match item {
        DeValue::Table(table) => {
            let mut leaves = Vec::new();
            collect(text, table, "", &|_| false, &mut leaves);
            leaves.sort_by_key(|leaf| leaf.position);
            Some(leaves)
        }
        _ => None,
    };
    let tables: Option<Vec<_>> = items.iter().map(|item| table(item.get_ref())).collect();
    tables.filter(|tables| !tables.is_empty())
}

fn read(value: &DeValue<'_>) -> Result<Value, &'static str> {
    let known = match value {
        DeValue::String(text) => Some(Value::Text(text.to_string())),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::Number)
        }
        DeValue::Array(items) => {
            let items = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            items.collect::<Option<_>>().map(Value::List)
        }
        DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    };
    known.ok_or(value.type_str())
}

/// Line and column of an offset, from 1; columns count characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let column = before.get(line_start..).map_or(0, |line| line.chars().count());
    (before.matches('\n').count() + 1, column + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_listed_in_order_with_their_positions() {
        let text = "b = 0x10\n[t.u]\nz = \"\u{fc}\"\n\n  a = ['x']\n[t]\nf = 1.5\n[e]\n";
        let found: Vec<_> = leaves(text, &|key| key != "e")
            .unwrap()
            .into_iter()
            .map(|leaf| (leaf.key, leaf.value, leaf.position))
            .collect();
        assert_eq!(
            found,
            [
                ("b".to_owned(), Ok(Value::Number(16)), (1, 1)),
                ("t.u.z".to_owned(), Ok(Value::Text("\u{fc}".to_owned())), (3, 1)),
                ("t.u.a".to_owned(), Ok(Value::List(vec!["x".to_owned()])), (5, 3)),
                ("t.f".to_owned(), Err("float"), (7, 1)),
                ("e".to_owned(), Err("table"), (8, 2)),
            ]
        );
    }

    #[test]
    fn every_syntax_error_is_found() {
        let errors = leaves("a = \n\nb = 1\nb = 2\n", &|_| true).unwrap_err();
        let lines: Vec<usize> = errors.iter().map(|error| error.position.0).collect();
        assert_eq!(lines, [1, 4], "{errors:?}");
    }
}
