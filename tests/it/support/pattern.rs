//! Expected text with holes: `*` stands for any octets, `{id}` for the id of a transaction, the same one each time.

use std::collections::HashMap;

/// What the holes with a name were found to hold.
pub(crate) type Found = HashMap<String, String>;

/// Whether the text is as the pattern says; names that it fills are added to `found`.
pub(crate) fn matches(pattern: &str, text: &str, found: &mut Found) -> bool {
    let mut names = found.clone();
    let held = holds(pattern, text, &mut names);
    if held {
        *found = names;
    }
    held
}

fn holds(pattern: &str, text: &str, found: &mut Found) -> bool {
    if let Some(rest) = pattern.strip_prefix('*') {
        let mut ends = (0..=text.len()).filter(|at| text.is_char_boundary(*at));
        return ends.any(|at| holds(rest, text.split_at(at).1, found));
    }
    if let Some((name, rest)) = pattern.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        return match found.get(name).cloned() {
            Some(known) => text.strip_prefix(&known).is_some_and(|after| holds(rest, after, found)),
            None => {
                let length = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
                let (value, after) = text.split_at(length);
                found.insert(name.to_owned(), value.to_owned());
                let held = length > 0 && holds(rest, after, found);
                if !held {
                    found.remove(name);
                }
                held
            }
        };
    }
    match pattern.chars().next() {
        None => text.is_empty(),
        Some(first) => {
            let rest = pattern.split_at(first.len_utf8()).1;
            text.strip_prefix(first).is_some_and(|after| holds(rest, after, found))
        }
    }
}

#[test]
fn holes_are_filled_and_the_rest_is_literal() {
    let rows = [
        ("250 ok", "250 ok", true),
        ("250 ok", "250 ok ", false),
        ("550 *", "550 5.1.8 no", true),
        ("*a*b", "xaybzb", true),
        ("*a*b", "xaybz", false),
        ("(id {id}) {id}", "(id AB12) AB12", true),
        ("(id {id}) {id}", "(id AB12) AB13", false),
        ("(id {id})", "(id )", false),
    ];
    for (pattern, text, expected) in rows {
        assert_eq!(matches(pattern, text, &mut Found::new()), expected, "{pattern} {text}");
    }
}
