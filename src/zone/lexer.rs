//! Splits a master file into entries and words (RFC 1035 5.1): comments, quotes, parentheses, escapes.
//!
//! The lexer doesn't interpret words. A word keeps its escapes until it is parsed as a name or as text, since `\.` and
//! `.` differ in a name.

use std::iter::Peekable;
use std::str::Chars;

/// A problem and its line, counted from 1.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) line: usize,
    pub(super) problem: String,
}

/// One line, or several that parentheses join.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// The first line, counted from 1.
    pub(super) line: usize,
    /// It starts with white space: its owner is that of the entry above.
    pub(super) indented: bool,
    /// It is a `;!` line.
    pub(super) misbehaves: bool,
    pub(super) words: Vec<Word>,
}

/// With its escapes, without the quotes.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) quoted: bool,
}

impl Word {
    /// Its octets, without escapes.
    pub(super) fn octets(&self) -> Result<Vec<u8>, String> {
        let parts = self.split(|_| false)?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// The labels of a name, and whether it is relative.
    pub(super) fn labels(&self) -> Result<(Vec<Vec<u8>>, bool), String> {
        if self.text == "." {
            return Ok((Vec::new(), false));
        }
        if !self.text.is_ascii() {
            return Err(format!("`{}` is not ASCII; write its A-labels (xn--...)", self.text));
        }
        let mut labels = self.split(|c| c == '.')?;
        let relative = labels.last().is_some_and(|label| !label.is_empty());
        if !relative {
            labels.pop();
        }
        if labels.is_empty() || labels.iter().any(Vec::is_empty) {
            return Err(format!("`{}` has an empty label", self.text));
        }
        Ok((labels, relative))
    }

    /// Resolves escapes, and splits at unescaped separators.
    fn split(&self, separates: impl Fn(char) -> bool) -> Result<Vec<Vec<u8>>, String> {
        let mut part = Vec::new();
        let mut parts = Vec::new();
        let mut chars = self.text.chars();
        while let Some(c) = chars.next() {
            if c == '\\' {
                part.extend(self.escaped(&mut chars)?);
            } else if separates(c) {
                parts.push(std::mem::take(&mut part));
            } else {
                part.extend(c.encode_utf8(&mut [0; 4]).bytes());
            }
        }
        parts.push(part);
        Ok(parts)
    }

    /// `\DDD` is the octet of that decimal number, `\X` is X.
    fn escaped(&self, chars: &mut Chars<'_>) -> Result<Vec<u8>, String> {
        let invalid = || format!("`{}` has an invalid escape; allowed are \\000 to \\255 and \\X", self.text);
        let first = chars.next().ok_or_else(invalid)?;
        if !first.is_ascii_digit() {
            return Ok(first.encode_utf8(&mut [0; 4]).bytes().collect());
        }
        let digits: String = std::iter::once(first).chain(chars.take(2)).collect();
        if digits.len() != 3 {
            return Err(invalid());
        }
        digits.parse().map(|octet| vec![octet]).map_err(|_error| invalid())
    }
}

pub(super) struct Words<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { chars: text.chars().peekable(), line: 1 }
    }

    /// The next entry with words.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, Problem> {
        let mut entry = self.line_start();
        let mut open = false;
        while let Some(c) = self.chars.next() {
            match c {
                '\n' => {
                    self.line += 1;
                    if !open && !entry.words.is_empty() {
                        return Ok(Some(entry));
                    }
                    if !open {
                        entry = self.line_start();
                    }
                }
                c if c.is_whitespace() => {}
                // The words of a `;!` line are read like those of an entry.
                ';' if entry.words.is_empty() && !open && !entry.indented && self.skip('!') => {
                    entry.misbehaves = true;
                }
                ';' => while self.chars.next_if(|c| *c != '\n').is_some() {},
                '(' if open => return Err(self.problem("a second `(` before the `)`")),
                '(' => open = true,
                ')' if !open => return Err(self.problem("`)` without `(`")),
                ')' => open = false,
                '"' => entry.words.push(self.quoted()?),
                c => entry.words.push(self.bare(c)),
            }
        }
        if open {
            return Err(Problem { line: entry.line, problem: "`(` without `)`".to_owned() });
        }
        Ok((!entry.words.is_empty()).then_some(entry))
    }

    fn line_start(&mut self) -> Entry {
        let indented = self.chars.peek().is_some_and(|c| matches!(c, ' ' | '\t'));
        Entry { line: self.line, indented, ..Entry::default() }
    }

    fn skip(&mut self, wanted: char) -> bool {
        self.chars.next_if_eq(&wanted).is_some()
    }

    fn quoted(&mut self) -> Result<Word, Problem> {
        let mut text = String::new();
        loop {
            match self.chars.next_if(|c| *c != '\n') {
                None => return Err(self.problem("a quoted text doesn't end on its line")),
                Some('"') => return Ok(Word { text, quoted: true }),
                Some(c) => self.push(c, &mut text),
            }
        }
    }

    fn bare(&mut self, first: char) -> Word {
        let mut text = String::new();
        self.push(first, &mut text);
        let ends = |c: &char| c.is_whitespace() || matches!(c, ';' | '(' | ')' | '"');
        while let Some(c) = self.chars.next_if(|c| !ends(c)) {
            self.push(c, &mut text);
        }
        Word { text, quoted: false }
    }

    /// Appends a character, and after a backslash the character that it escapes.
    fn push(&mut self, c: char, text: &mut String) {
        text.push(c);
        if c == '\\' {
            text.extend(self.chars.next_if(|c| *c != '\n'));
        }
    }

    fn problem(&self, problem: &str) -> Problem {
        Problem { line: self.line, problem: problem.to_owned() }
    }
}
