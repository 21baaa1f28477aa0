//! Ids that lead nowhere: why a text is no id, for people who noted it by hand, and where else to look for one.

use crate::decision::Id;

const FORM: &str = "an id has eight letters and digits, as in (id 4KXN7Q2M)";
const LETTERS: &str = "O counts as 0, I and L as 1; there is no U";

impl Id {
    /// How to find the decision with this id in the log, which keeps it for other times than the history.
    #[must_use]
    pub fn in_the_log(self) -> String {
        format!(
            "The log may have its line: journalctl -u rmxd | grep {self} (with log.format \"journald\": journalctl \
             RMXD_ID={self})"
        )
    }

    /// What is wrong with a text that [`Id::parse`] doesn't take, and what is allowed.
    #[must_use]
    pub fn why_malformed(text: &str) -> String {
        let is_allowed = |character: &char| {
            let mut octets = [0; 4];
            Self::parse(&character.encode_utf8(&mut octets).repeat(8)).is_some()
        };
        match text.chars().find(|character| !is_allowed(character)) {
            Some('u' | 'U') => format!("has a U, which no id has: {FORM}; it may be a V"),
            Some(other) => format!("has {other:?}, which no id has: {FORM}; {LETTERS}"),
            None => format!("has {} characters: {FORM}", text.chars().count()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_id_is_explained_by_its_first_fault() {
        let rows = [
            ("4KXN7Q2", "has 7 characters: an id has eight letters and digits, as in (id 4KXN7Q2M)"),
            ("4KXN7Q2MM", "has 9 characters: an id has eight letters and digits, as in (id 4KXN7Q2M)"),
            ("", "has 0 characters: "),
            ("4KXN-Q2M", "has '-', which no id has: "),
            ("4KXN7Q2U", "has a U, which no id has: "),
            ("4KXN7Q\u{e4}M", "has '\u{e4}', which no id has: "),
            ("4KXN\u{1b}Q2M", "has '\\u{1b}', which no id has: "),
        ];
        for (text, expected) in rows {
            assert_eq!(Id::parse(text), None);
            let why = Id::why_malformed(text);
            assert!(why.starts_with(expected), "{text:?}: {why}");
        }
        assert!(Id::why_malformed("4KXN/Q2M").ends_with("O counts as 0, I and L as 1; there is no U"));
    }
}
