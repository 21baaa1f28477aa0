//! Writes one header field word by word, folded (RFC 5322 2.2.3).
//!
//! Lines stay within 78 octets as long as the words allow it (RFC 5322 2.1.1). A word is never broken, so a caller that
//! passes words of more than a few hundred octets breaks the hard limit of 998.

/// Preferred line length without CRLF.
const PREFERRED: usize = 78;

/// A field that is being written.
pub(super) struct Folded {
    text: String,
    /// Length of the line so far.
    line: usize,
}

impl Folded {
    /// Begins `name: word`; the first word always stands on the line of the name.
    pub(super) fn new(name: &str, word: &str) -> Self {
        let text = [name, ": ", word].concat();
        let line = text.len();
        Self { text, line }
    }

    /// Adds a word after a space, or on a new line if it doesn't fit.
    pub(super) fn word(&mut self, word: &str) {
        if self.line + 1 + word.len() > PREFERRED {
            return self.line(word);
        }
        self.text.push(' ');
        self.text.push_str(word);
        self.line += 1 + word.len();
    }

    /// Adds a word on a new line.
    pub(super) fn line(&mut self, word: &str) {
        self.text.push_str("\r\n\t");
        self.text.push_str(word);
        self.line = 1 + word.len();
    }

    /// Appends to the last word.
    pub(super) fn glue(&mut self, text: &str) {
        self.text.push_str(text);
        self.line += text.len();
    }

    /// The field with its last CRLF.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.text.push_str("\r\n");
        self.text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_at_most_78_octets() {
        let field = |word: usize, glued: usize| {
            let mut field = Folded::new("Name", "first");
            field.word("second");
            field.glue(&"g".repeat(glued));
            field.word(&"w".repeat(word));
            field.word("end");
            String::from_utf8(field.finish()).unwrap()
        };
        let lengths = |text: String| text.lines().map(str::len).collect::<Vec<_>>();
        assert_eq!(lengths(field(56, 0)), [75, 4]);
        assert_eq!(lengths(field(55, 0)), [78]);
        assert_eq!(lengths(field(56, 3)), [78, 4]);
        assert_eq!(lengths(field(56, 4)), [22, 61]);
        assert_eq!(lengths(field(73, 0)), [18, 78]);
        assert_eq!(lengths(field(74, 0)), [18, 75, 4]);
    }
}
