//! A TOML text as a flat list of keys with values and positions, all syntax errors at once.

use toml::de::{DeTable, DeValue};

use crate::config::value::Value;

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    /// Dotted.
    pub(super) key: String,
    /// The value, or the name of a type that no key has (`table` where [`leaves`] was told not to enter).
    pub(super) value: Result<Value, &'static str>,
    /// Line and column of the key, from 1.
    pub(super) position: (usize, usize),
}

/// Text that isn't TOML.
#[derive(Debug)]
pub(super) struct SyntaxError {
    /// What is wrong.
    pub(super) message: String,
    /// Line and column, from 1.
    pub(super) position: (usize, usize),
}

/// All keys in the order of the text. Tables for which `enter` says no are leaves themselves.
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
    above: &str,
    enter: &dyn Fn(&str) -> bool,
    found: &mut Vec<Leaf>,
) {
    for (name, value) in table {
        let dot = if above.is_empty() { "" } else { "." };
        let key = format!("{above}{dot}{}", name.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) if enter(&key) => collect(text, inner, &key, enter, found),
            other => {
                found.push(Leaf { key, value: read(other), position: position(text, name.span().start) });
            }
        }
    }
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

/// Line and column of an offset, from 1, in characters.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let column = before.get(line_start..).map_or(0, |line| line.chars().count());
    (before.matches('\n').count() + 1, column + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_flat_in_order_and_with_their_place() {
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
