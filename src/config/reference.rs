//! The description of each key, for the manual. It is read from the commented default, so that no text exists twice.
//!
//! In that file a comment behind a value, and the indented comments below it, describe the key. A comment at the margin
//! describes the table that follows; the comments at the top are the introduction. Tables and keys keep their order.

use crate::config::document::{Leaf, SyntaxError};
use crate::config::keys::{self, DEFAULTS, Keys};
use crate::config::problem::{Origin, Problem};
use crate::config::value::Value;

/// The parts of the commented default.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reference {
    /// One item per paragraph.
    pub introduction: Vec<String>,
    /// The first is the top table, without a name.
    pub tables: Vec<Table>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Table {
    /// With its parents, as in `policy.helo`; empty for the top table.
    pub name: String,
    /// One item per paragraph.
    pub about: Vec<String>,
    pub keys: Vec<Key>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// With its tables, as in `policy.helo.exists`.
    pub name: String,
    /// The built-in default; `None` where the key falls back to another key.
    pub default: Option<Value>,
    pub about: String,
}

/// Reads the commented default that is built in.
///
/// # Errors
/// The text isn't TOML.
pub fn reference() -> Result<Reference, Vec<Problem>> {
    let problem =
        |error: SyntaxError| Problem { origin: Origin::Default, key: String::new(), what: error.message };
    let leaves = keys::defaults().map_err(|errors| errors.into_iter().map(problem).collect::<Vec<_>>())?;
    let mut reference = read(DEFAULTS, &leaves);
    add_keys_without_default(&mut reference, &Keys::new(&leaves));
    Ok(reference)
}

fn read(text: &str, leaves: &[Leaf]) -> Reference {
    let mut reference = Reference { introduction: Vec::new(), tables: vec![Table::default()] };
    let mut margin = Paragraphs::default();
    let mut has_introduction = false;
    for (number, line) in (1..).zip(text.lines()) {
        let Some(table) = reference.tables.last_mut() else { break };
        if let Some(comment) = line.strip_prefix('#') {
            margin.line(comment);
        } else if let Some(name) = header(line) {
            let about = margin.take();
            reference.tables.push(Table { name: name.to_owned(), about, keys: Vec::new() });
        } else if let Some(leaf) = leaves.iter().find(|leaf| leaf.position.0 == number) {
            if !has_introduction {
                reference.introduction = margin.take();
                has_introduction = true;
            }
            let about = comment(line).unwrap_or_default().to_owned();
            table.keys.push(Key { name: leaf.key.clone(), default: leaf.value.clone().ok(), about });
        } else if let (Some(more), Some(key)) = (line.trim_start().strip_prefix('#'), table.keys.last_mut()) {
            key.about = format!("{} {}", key.about, more.trim()).trim_start().to_owned();
        } else {
            margin.end();
        }
    }
    reference
}

/// The name in `[name]`.
fn header(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.split(']').next()
}

/// The comment behind a value: the text after the first `#` outside of a string.
fn comment(line: &str) -> Option<&str> {
    let mut quoted = false;
    let start = line.char_indices().find_map(|(at, char)| {
        quoted ^= char == '"';
        (char == '#' && !quoted).then_some(at + 1)
    })?;
    line.get(start..).map(str::trim)
}

/// Joins comment lines to paragraphs.
#[derive(Default)]
struct Paragraphs {
    done: Vec<String>,
    open: String,
}

impl Paragraphs {
    fn line(&mut self, text: &str) {
        if text.trim().is_empty() {
            return self.end();
        }
        if !self.open.is_empty() {
            self.open.push(' ');
        }
        self.open.push_str(text.trim());
    }

    fn end(&mut self) {
        if !self.open.is_empty() {
            self.done.push(std::mem::take(&mut self.open));
        }
    }

    fn take(&mut self) -> Vec<String> {
        self.end();
        std::mem::take(&mut self.done)
    }
}

/// Adds the rungs of the identities that have those of `[policy]`, and `policy.senders`.
fn add_keys_without_default(reference: &mut Reference, keys: &Keys) {
    for name in keys.names() {
        let (table, _) = name.rsplit_once('.').unwrap_or(("", name));
        let Some(table) = reference.tables.iter_mut().find(|known| known.name == table) else { continue };
        if !table.keys.iter().any(|key| key.name == name) {
            let about = if name == keys::SENDERS { keys::ABOUT_SENDERS } else { "" };
            table.keys.push(Key { name: name.to_owned(), default: None, about: about.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document;

    #[test]
    fn a_comment_describes_the_key_or_table_that_it_stands_at() {
        let text = "# All of it,\n# in two lines.\n#\n# More.\n\na = \"#1\" # first # of all\nb = 1\n  # below b,\n  # twice\n\n\
                    # About t.\n[t]\nc = []\n[t.u] # no more\nd = 2 #\n";
        let reference = read(text, &document::leaves(text, &|_| true).unwrap());
        let key = |name: &str, default, about: &str| Key {
            name: name.to_owned(),
            default: Some(default),
            about: about.to_owned(),
        };
        let table = |name: &str, about: &[&str], keys| Table {
            name: name.to_owned(),
            about: about.iter().map(|&text| text.to_owned()).collect(),
            keys,
        };
        let first = key("a", Value::Text("#1".to_owned()), "first # of all");
        let expected = Reference {
            introduction: vec!["All of it, in two lines.".to_owned(), "More.".to_owned()],
            tables: vec![
                table("", &[], vec![first, key("b", Value::Number(1), "below b, twice")]),
                table("t", &["About t."], vec![key("t.c", Value::List(vec![]), "")]),
                table("t.u", &[], vec![key("t.u.d", Value::Number(2), "")]),
            ],
        };
        assert_eq!(reference, expected);
    }

    #[test]
    fn every_key_is_listed_with_a_description() {
        let reference = reference().unwrap();
        assert!(!reference.introduction.is_empty());
        let keys: Vec<&Key> = reference.tables.iter().flat_map(|table| &table.keys).collect();
        let mut names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        let known = Keys::new(&keys::defaults().unwrap());
        let mut expected: Vec<&str> = known.names().collect();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected);
        // The two rules and their rungs are explained at [policy].
        let undescribed: Vec<&str> = keys
            .iter()
            .filter(|key| {
                key.about.is_empty()
                    && !(key.name.starts_with("policy.") && key.name.matches('.').count() == 2)
            })
            .map(|key| key.name.as_str())
            .collect();
        assert!(undescribed.is_empty(), "keys without a comment in config/rmxd.toml: {undescribed:?}");
    }
}
