//! The body as a signer hashes it (RFC 6376 3.4.3, 3.4.4), taken as it streams: pieces of any size, without stuffed dots, with
//! strict CRLF, which was proven where the message came in.
//!
//! No part of the body is kept. Octets that may turn out to be trailing, and so are not hashed yet, are only counted: line ends
//! and, for the relaxed form, whether white space came last.

use memchr::memmem::Finder;
use ring::digest::{Context, SHA256};

/// Line ends are written in pieces of this.
const LINE_ENDS: &[u8] = b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n";

/// A canonical form (RFC 6376 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is, but for empty lines at the end.
    Simple,
    /// White space within a line counts as one blank, at its end as none.
    Relaxed,
}

/// A body's hash in one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BodyHash {
    /// SHA-256.
    pub(super) hash: [u8; 32],
    /// Octets of the canonical form.
    pub(super) length: u64,
}

/// Hashes a body in the forms that are asked for.
#[derive(Debug)]
pub struct BodyHasher {
    simple: Option<Canonical>,
    relaxed: Option<Canonical>,
}

/// The hashes of a whole body.
#[derive(Debug, Clone)]
pub struct BodyHashes {
    simple: Option<BodyHash>,
    relaxed: Option<BodyHash>,
}

impl BodyHasher {
    pub(super) fn new(forms: impl Iterator<Item = Form>) -> Self {
        let mut hasher = Self { simple: None, relaxed: None };
        for form in forms {
            match form {
                Form::Simple => hasher.simple = Some(Canonical::new(form)),
                Form::Relaxed => hasher.relaxed = Some(Canonical::new(form)),
            }
        }
        hasher
    }

    /// The next octets of the body, without the dots of RFC 5321 4.5.2.
    pub fn push(&mut self, plain: &[u8]) {
        for canonical in self.simple.iter_mut().chain(self.relaxed.iter_mut()) {
            canonical.text.clear();
            canonical.push(plain);
            canonical.hash();
        }
    }

    /// The body has ended.
    #[must_use]
    pub fn finish(self) -> BodyHashes {
        BodyHashes {
            simple: self.simple.map(Canonical::finish),
            relaxed: self.relaxed.map(Canonical::finish),
        }
    }
}

impl BodyHashes {
    pub(super) fn of(&self, form: Form) -> Option<&BodyHash> {
        match form {
            Form::Simple => self.simple.as_ref(),
            Form::Relaxed => self.relaxed.as_ref(),
        }
    }
}

struct Canonical {
    form: Form,
    digest: Context,
    length: u64,
    /// Octets of CRLFs that came last: part of the body only if something follows.
    line_ends: u64,
    /// Relaxed: white space came last.
    blank: bool,
    two_blanks: Finder<'static>,
    /// The canonical form of what was pushed, on its way to the digest.
    text: Vec<u8>,
}

impl std::fmt::Debug for Canonical {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canonical").field("form", &self.form).finish_non_exhaustive()
    }
}

impl Canonical {
    fn new(form: Form) -> Self {
        let digest = Context::new(&SHA256);
        let two_blanks = Finder::new(b"  ");
        Self { form, digest, length: 0, line_ends: 0, blank: false, two_blanks, text: Vec::new() }
    }

    fn push(&mut self, plain: &[u8]) {
        match self.form {
            Form::Simple => self.push_simple(plain),
            Form::Relaxed => self.push_relaxed(plain),
        }
    }

    fn push_simple(&mut self, plain: &[u8]) {
        let ends = plain.iter().rev().take_while(|&&byte| matches!(byte, b'\r' | b'\n')).count();
        if let Some((text, tail)) = plain.split_at_checked(plain.len() - ends) {
            if !text.is_empty() {
                // What is held ends where this begins, in the middle of a CRLF perhaps.
                self.write_line_ends();
                self.text.extend_from_slice(text);
            }
            self.line_ends += tail.len() as u64;
        }
    }

    fn push_relaxed(&mut self, mut plain: &[u8]) {
        while let Some(&first) = plain.first() {
            let length = match first {
                b' ' | b'\t' => {
                    self.blank = true;
                    1
                }
                b'\r' => 1,
                b'\n' => {
                    self.line_ends += 2;
                    self.blank = false;
                    1
                }
                _ => {
                    self.write_line_ends();
                    if std::mem::take(&mut self.blank) {
                        self.text.push(b' ');
                    }
                    let length = canonical_length(plain, &self.two_blanks);
                    self.text.extend_from_slice(plain.get(..length).unwrap_or_default());
                    length
                }
            };
            plain = plain.get(length..).unwrap_or_default();
        }
    }

    fn write_line_ends(&mut self) {
        while self.line_ends > 0 {
            let most = LINE_ENDS.len() as u64;
            let piece = usize::try_from(self.line_ends.min(most)).unwrap_or(LINE_ENDS.len());
            self.text.extend_from_slice(LINE_ENDS.get(..piece).unwrap_or(LINE_ENDS));
            self.line_ends -= piece as u64;
            if self.text.len() > 4 * LINE_ENDS.len() && self.line_ends > most {
                self.hash(); // a million empty lines are not collected first
            }
        }
    }

    fn hash(&mut self) {
        self.digest.update(&self.text);
        self.length += self.text.len() as u64;
        self.text.clear();
    }

    fn finish(mut self) -> BodyHash {
        let empty = self.length == 0 && self.text.is_empty();
        if !empty || self.form == Form::Simple {
            self.text.extend_from_slice(b"\r\n");
            self.hash();
        }
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(self.digest.finish().as_ref()) {
            *to = *from;
        }
        BodyHash { hash, length: self.length }
    }
}

/// How much at the front is its own relaxed form: no white space but single blanks within.
fn canonical_length(text: &[u8], two_blanks: &Finder<'_>) -> usize {
    let line = memchr::memchr2(b'\t', b'\r', text).and_then(|end| text.get(..end)).unwrap_or(text);
    let single = two_blanks.find(line).and_then(|end| line.get(..end)).unwrap_or(line);
    single.strip_suffix(b" ").unwrap_or(single).len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::digest::digest;

    use super::*;

    const BOTH: [Form; 2] = [Form::Simple, Form::Relaxed];

    fn hashes<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> [BodyHash; 2] {
        let mut hasher = BodyHasher::new(BOTH.into_iter());
        for piece in pieces {
            hasher.push(piece);
        }
        let hashes = hasher.finish();
        BOTH.map(|form| hashes.of(form).unwrap().clone())
    }

    fn hash_of(text: &[u8]) -> BodyHash {
        BodyHash { hash: digest(&SHA256, text).as_ref().try_into().unwrap(), length: text.len() as u64 }
    }

    /// RFC 6376 3.4.3 and 3.4.4 by the letter, over the whole text.
    fn canonical(plain: &[u8], form: Form) -> Vec<u8> {
        let text = String::from_utf8_lossy(plain).into_owned();
        let mut lines: Vec<String> = text.split_terminator("\r\n").map(str::to_owned).collect();
        if form == Form::Relaxed {
            for line in &mut lines {
                let lead = if line.starts_with([' ', '\t']) { " " } else { "" };
                let words: Vec<_> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
                *line = if words.is_empty() { String::new() } else { format!("{lead}{}", words.join(" ")) };
            }
        }
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        let out: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        if out.is_empty() && form == Form::Simple { b"\r\n".to_vec() } else { out.into_bytes() }
    }

    #[test]
    fn bodies_take_their_canonical_forms() {
        let rows: [(&str, &str, &str); 10] = [
            (" C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n", " C\r\nD E\r\n"), // RFC 6376 3.4.5
            ("", "\r\n", ""),
            ("\r\n", "\r\n", ""),
            ("\r\n\r\n\r\n", "\r\n", ""),
            (" \t\r\n\r\n", " \t\r\n", ""),
            ("a\r\n", "a\r\n", "a\r\n"),
            ("a\r\n \r\n", "a\r\n \r\n", "a\r\n"),
            ("\r\n\r\na\r\n", "\r\n\r\na\r\n", "\r\n\r\na\r\n"),
            ("a\r\n\r\n\r\nb\r\n\r\n", "a\r\n\r\n\r\nb\r\n", "a\r\n\r\n\r\nb\r\n"),
            (".a\r\n..\r\n.\r\nb .\r\n", ".a\r\n..\r\n.\r\nb .\r\n", ".a\r\n..\r\n.\r\nb .\r\n"),
        ];
        for (body, simple, relaxed) in rows {
            let expected = [hash_of(simple.as_bytes()), hash_of(relaxed.as_bytes())];
            assert_eq!(hashes([body.as_bytes()]), expected, "{body:?}");
            assert_eq!(hashes(body.as_bytes().chunks(1)), expected, "{body:?} octet by octet");
        }
    }

    #[test]
    fn a_million_empty_lines_take_no_memory() {
        let lines = "\r\n".repeat(1_000_000);
        let body = format!("a\r\n{lines}");
        let mut hasher = BodyHasher::new(BOTH.into_iter());
        hasher.push(body.as_bytes());
        hasher.push(b"b\r\n");
        for canonical in [&hasher.simple, &hasher.relaxed] {
            assert!(canonical.as_ref().unwrap().text.capacity() < 4096 + body.len() / 100);
        }
        let hashes = hasher.finish();
        assert_eq!(hashes.of(Form::Relaxed), Some(&hash_of(format!("{body}b\r\n").as_bytes())));
    }

    proptest! {
        #[test]
        fn every_split_gives_the_hash_of_the_whole(
            body in "([a-c.]{0,3}|[ \t]{1,3}|\r\n|\r\n\r\n|\r\n[.]){0,30}",
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let body = format!("{body}\r\n").into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]);
            prop_assert_eq!(hashes(pieces), BOTH.map(|form| hash_of(&canonical(&body, form))));
        }
    }
}
