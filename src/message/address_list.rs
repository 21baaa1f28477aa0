//! Address lists of From: and Reply-To: (RFC 5322 3.4 with the obsolete forms of 4.4, RFC 6854), read strictly.
//!
//! A field is accepted if it has one reading only, however odd. It is malformed if two readers could see two different
//! sender domains.
//!
//! Accepted: nested comments, quoted strings, encoded words (text, never an address), groups, white space and comments
//! in a local part and in front of the `@`, empty list elements; in an unquoted display name dots, brackets, 8-bit text
//! of any charset and the specials of an encoded word; stray dots in a local part; a group or list that ends in too few
//! or too many `;`.
//!
//! Refused: white space, comments and folds in a domain or between the `@` and the domain, source routes, a comma in an
//! unquoted display name (some systems complete the `Foo` of `Foo, Inc. <x@d>` to an address), two addresses without a
//! comma between them, `@` in an unquoted display name unless it is the same address once more, or in a quoted one with a
//! bracket that has no partner (Python's reader makes an address of it), anything after `<...>`,
//! a domain with empty labels, anything that isn't closed, control characters, and in a local part invisible characters
//! (U+202E, U+200B), which display names may have.
//!
//! The list is read in one pass without recursion, and no octet twice: the time is linear in the length of the field.

use icu_properties::CodePointSetData;
use icu_properties::props::DefaultIgnorableCodePoint;

use crate::message::lexer::{Cfws, Cursor, encoded_word, is_atext};
use crate::message::malformed::Malformed;

/// A field with more addresses is refused; no message has so many authors.
const MAX_ADDRESSES: usize = 1000;

/// One `local-part@domain`, without the white space and comments inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// As received, with its quotes.
    pub local: String,
    /// A domain as received, or an address literal with its brackets.
    pub domain: String,
    /// The local part contains a quoted string.
    pub quoted: bool,
    /// mail-parser misreads this form, so `cross_check` doesn't compare it.
    pub astray: bool,
}

/// Reads the value of a field, which is everything after the colon. The result has at least one address.
///
/// # Errors
/// [`Malformed::Empty`] if there is no address; the other variants for the other faults.
pub(super) fn read(value: &[u8]) -> Result<Vec<Address>, Malformed> {
    let mut list = List { at: Cursor { rest: value }, in_group: false, addresses: Vec::new(), null: false };
    while list.element()? {
        if list.addresses.len() > MAX_ADDRESSES {
            return Err(Malformed::TooMany);
        }
    }
    match list {
        List { addresses, .. } if addresses.is_empty() => Err(Malformed::Empty),
        List { null: true, .. } => Err(Malformed::Syntax),
        List { addresses, .. } => Ok(addresses),
    }
}

struct List<'a> {
    at: Cursor<'a>,
    in_group: bool,
    addresses: Vec<Address>,
    /// The field has `<>` in the place of an address.
    null: bool,
}

impl List<'_> {
    /// Reads one element and its delimiter; false at the end of the field.
    fn element(&mut self) -> Result<bool, Malformed> {
        let mut words = Words::default();
        loop {
            words.gap(self.at.cfws()?);
            match self.at.peek() {
                None | Some(b',' | b';') if !words.is_empty() => return Err(Malformed::NoDomain),
                None | Some(b',' | b';') => break,
                Some(b':') if self.in_group || words.is_empty() => return Err(Malformed::Syntax),
                Some(b':') => {
                    self.at.skip();
                    self.in_group = true;
                    words = Words::default();
                }
                Some(b'<') => {
                    if words.has_stray_bracket() && words.text.contains(&b'@') {
                        return Err(Malformed::Ambiguous);
                    }
                    match self.at.angle()? {
                        Some(address) => self.addresses.push(address),
                        None => self.null = true,
                    }
                    break;
                }
                Some(b'@') => {
                    let address = self.bare(words)?;
                    self.addresses.push(address);
                    break;
                }
                Some(byte) => self.at.word(byte, &mut words)?,
            }
        }
        self.end()
    }

    /// `local@domain` without angle brackets. The address may follow once more in angle brackets; only the domain is
    /// judged, so only the domain must be the same.
    fn bare(&mut self, words: Words) -> Result<Address, Malformed> {
        let mut address = self.at.address(words)?;
        if self.at.peek() == Some(b'<') {
            let twin = self.at.angle()?.ok_or(Malformed::Syntax)?;
            if !twin.domain.eq_ignore_ascii_case(&address.domain) {
                return Err(Malformed::Ambiguous);
            }
            address.astray = true;
        }
        Ok(address)
    }

    /// Reads the end of an element: a comma, a semicolon, or the end of the field.
    fn end(&mut self) -> Result<bool, Malformed> {
        self.at.cfws()?;
        match self.at.peek() {
            None => return Ok(false),
            Some(b',') => {}
            Some(b';') => {
                self.at.skip();
                self.at.cfws()?;
                let closed = std::mem::take(&mut self.in_group);
                return match self.at.peek() {
                    None => Ok(false),
                    Some(b',') if closed => {
                        self.at.skip();
                        Ok(true)
                    }
                    Some(_) => Err(Malformed::Syntax),
                };
            }
            Some(_) => return Err(Malformed::Syntax),
        }
        self.at.skip();
        Ok(true)
    }
}

/// The words before a delimiter: a display name, or the local part of an address.
#[derive(Debug, Default)]
struct Words {
    text: Vec<u8>,
    quoted: bool,
    /// Two words without a dot between them, or text that only a display name may have.
    phrase: bool,
    after_word: bool,
    /// Brackets that are open.
    brackets: usize,
    /// A bracket was closed that was not open.
    stray: bool,
    /// The last gap has a comment or a fold; some readers misread an address that goes on after it.
    hidden: bool,
}

impl Words {
    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn has_stray_bracket(&self) -> bool {
        self.stray || self.brackets > 0
    }

    fn bracket(&mut self, byte: u8) {
        match self.brackets.checked_sub(1) {
            _ if byte == b'[' => self.brackets += 1,
            Some(open) => self.brackets = open,
            None => self.stray = true,
        }
    }

    fn gap(&mut self, cfws: Cfws) {
        self.hidden |= !self.is_empty() && (cfws.comment || cfws.fold);
    }

    fn begin_word(&mut self) {
        self.phrase |= std::mem::replace(&mut self.after_word, true);
    }
}

impl Cursor<'_> {
    /// Reads one more word, or a dot.
    fn word(&mut self, byte: u8, words: &mut Words) -> Result<(), Malformed> {
        if let Some(length) = encoded_word(self.rest) {
            words.phrase = true;
            words.text.push(byte);
            self.advance(length);
            return Ok(());
        }
        match byte {
            b'"' => {
                words.begin_word();
                words.quoted = true;
                self.quoted_string(&mut words.text)?;
            }
            b'.' => {
                words.after_word = false;
                words.text.push(byte);
                self.skip();
            }
            b'[' | b']' => {
                words.phrase = true;
                words.text.push(byte);
                words.bracket(byte);
                self.skip();
            }
            // DOMAIN\user: the backslash is in front of no special, so no reader can unescape one
            b'\\' if self.rest.get(1).is_some_and(u8::is_ascii_alphanumeric) => {
                words.phrase = true;
                words.text.push(byte);
                self.skip();
            }
            _ if is_atext(byte) => {
                words.begin_word();
                self.atom(&mut words.text);
            }
            _ => return Err(Malformed::Syntax),
        }
        Ok(())
    }

    /// `<...>` with its address; `None` for `<>`.
    fn angle(&mut self) -> Result<Option<Address>, Malformed> {
        self.skip();
        self.cfws()?;
        match self.peek() {
            Some(b'>') => {
                self.skip();
                return Ok(None);
            }
            // a source route (RFC 5322 4.4): some readers show its last host
            Some(b'@') => return Err(Malformed::Ambiguous),
            _ => {}
        }
        let mut words = Words::default();
        loop {
            words.gap(self.cfws()?);
            match self.peek() {
                Some(b'@') => break,
                Some(b'>') if !words.is_empty() => return Err(Malformed::NoDomain),
                Some(byte) => self.word(byte, &mut words)?,
                None => return Err(Malformed::Syntax),
            }
        }
        let address = self.address(words)?;
        if self.peek() != Some(b'>') {
            return Err(Malformed::Syntax);
        }
        self.skip();
        Ok(Some(Address { astray: false, ..address }))
    }

    /// Reads from the `@` to the end of the domain and of the white space after it.
    fn address(&mut self, words: Words) -> Result<Address, Malformed> {
        if words.is_empty() || words.phrase {
            return Err(Malformed::Syntax);
        }
        self.skip();
        if self.gap()? {
            return Err(self.broken());
        }
        let mut domain = Vec::new();
        if self.peek() == Some(b'[') {
            self.literal(&mut domain)?;
            self.cfws()?;
        } else {
            self.domain_name(&mut domain)?;
        }
        let Words { text, quoted, hidden: astray, .. } = words;
        let local = printable(text)?;
        if has_invisible(&local) {
            return Err(Malformed::Invisible);
        }
        Ok(Address { local, domain: printable(domain)?, quoted, astray })
    }

    /// The fault of a domain with white space at this place. At the end of the field there is no domain at all.
    fn broken(&self) -> Malformed {
        if self.rest.is_empty() { Malformed::Syntax } else { Malformed::BrokenDomain }
    }

    /// Reads atoms and dots with nothing between them, since some readers end the domain at white space and others go
    /// on. The white space after the domain is read too.
    fn domain_name(&mut self, text: &mut Vec<u8>) -> Result<(), Malformed> {
        loop {
            if !self.peek().is_some_and(is_atext) {
                return Err(if self.gap()? { self.broken() } else { Malformed::Syntax });
            }
            self.atom(text);
            let gap = self.gap()?;
            if self.peek() != Some(b'.') {
                return Ok(());
            }
            if gap {
                return Err(Malformed::BrokenDomain);
            }
            text.push(b'.');
            self.skip();
        }
    }
}

/// Whether a program could show the text as another one: it has characters without a glyph, or characters that turn the
/// reading direction. Joiners and variation selectors shape the character in front of them, in Persian and in emoji,
/// but not in ASCII. Domains need no such check: `u_label` is stricter.
fn has_invisible(text: &str) -> bool {
    let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let mut before = None;
    text.chars().any(|character| {
        let shapes = matches!(character, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}');
        let plain = before.replace(character).is_none_or(|it: char| it.is_ascii());
        let separates = matches!(character, '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}');
        separates || ignorable.contains(character) && (plain || !shapes)
    })
}

/// Text of an address: UTF-8 (RFC 6532 3.2) without control characters.
fn printable(text: Vec<u8>) -> Result<String, Malformed> {
    let text = String::from_utf8(text).map_err(|_not_utf8| Malformed::Syntax)?;
    if text.chars().any(char::is_control) { Err(Malformed::Control) } else { Ok(text) }
}
