//! Address lists of From: and Reply-To: (RFC 5322 3.4 with the obsolete forms of 4.4, RFC 6854), read strictly.
//!
//! The rule: what can be read in one way only is read, however odd; where two readers could see two different sender
//! domains, the field is malformed. Read: nested comments, quoted strings, encoded words (text, never an address),
//! groups, source routes (dropped), white space and comments around `.` and `@`, empty list elements; in an unquoted
//! display name dots, brackets, 8-bit text of any charset and the specials of an encoded word; stray dots in a local
//! part; a group or list that ends in too few or too many `;`. Refused: a comma in an unquoted display name
//! (`Foo, Inc. <x@d>` has an author `Foo` for those who complete it), two addresses without a comma between them,
//! `@` in an unquoted display name unless it is the same address once more, anything behind `<...>`, a domain with
//! empty labels, whatever is not closed, control characters.
//!
//! One pass, no recursion, nothing is read twice: the time is linear in the length of the field.

use crate::message::lexer::{Cfws, Cursor, encoded_word, is_atext};
use crate::message::malformed::Malformed;

/// More addresses than anybody signs with; past them the field is refused.
const MAX_ADDRESSES: usize = 1000;

/// One `local-part@domain`, without the white space and comments that stood inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// As it came, with its quotes.
    pub local: String,
    /// A domain as it came, or an address literal with its brackets.
    pub domain: String,
    /// The local part holds a quoted string.
    pub quoted: bool,
    /// A form in which a reader without the whole grammar goes astray; see `second_reader`.
    pub astray: bool,
}

/// Reads the value of a field: all behind the colon. The result has at least one address.
///
/// # Errors
/// [`Malformed::Empty`] when there is no address, and all the other ways.
pub(super) fn read(value: &[u8]) -> Result<Vec<Address>, Malformed> {
    let mut list = List { at: Cursor { rest: value }, in_group: false, addresses: Vec::new() };
    while list.element()? {
        if list.addresses.len() > MAX_ADDRESSES {
            return Err(Malformed::TooMany);
        }
    }
    if list.addresses.is_empty() { Err(Malformed::Empty) } else { Ok(list.addresses) }
}

struct List<'a> {
    at: Cursor<'a>,
    in_group: bool,
    addresses: Vec<Address>,
}

impl List<'_> {
    /// Reads one element and what ends it; false at the end of the field.
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
                    let address = self.at.angle()?;
                    self.addresses.push(address);
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

    /// `local@domain` without angle brackets; or with others in them behind it, when both have the same domain: that is
    /// all that is judged.
    fn bare(&mut self, words: Words) -> Result<Address, Malformed> {
        let mut address = self.at.address(words)?;
        if self.at.peek() == Some(b'<') {
            let twin = self.at.angle()?;
            if !twin.domain.eq_ignore_ascii_case(&address.domain) {
                return Err(Malformed::Ambiguous);
            }
            address.astray = true;
        }
        Ok(address)
    }

    /// What stands behind an element: a comma, a semicolon, or nothing more.
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
    /// The last gap could lead a reader astray if an address goes on behind it.
    hidden: bool,
}

impl Words {
    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn gap(&mut self, cfws: Cfws) {
        self.hidden |= !self.is_empty() && (cfws.comment || cfws.fold);
    }

    fn begin_word(&mut self) {
        self.phrase |= std::mem::replace(&mut self.after_word, true);
    }
}

impl Cursor<'_> {
    /// One more word, or a dot.
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
                self.skip();
            }
            // no escape that a reader could undo into a special: DOMAIN\user
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

    /// `<...>` with its address; a source route is dropped (RFC 5322 4.4).
    fn angle(&mut self) -> Result<Address, Malformed> {
        self.skip();
        self.cfws()?;
        match self.peek() {
            Some(b'>') => return Err(Malformed::Empty),
            Some(b'@') => self.route()?,
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
        Ok(Address { astray: false, ..address })
    }

    /// `@a,@b:`
    fn route(&mut self) -> Result<(), Malformed> {
        loop {
            self.cfws()?;
            match self.peek() {
                Some(b',') => self.skip(),
                Some(b'@') => {
                    self.skip();
                    self.domain_name(&mut Vec::new())?;
                }
                Some(b':') => {
                    self.skip();
                    return Ok(());
                }
                _ => return Err(Malformed::Syntax),
            }
        }
    }

    /// From the `@` on, up to what follows the domain and the white space behind it.
    fn address(&mut self, words: Words) -> Result<Address, Malformed> {
        if words.is_empty() || words.phrase {
            return Err(Malformed::Syntax);
        }
        self.skip();
        let mut domain = Vec::new();
        let before = self.cfws()?;
        let inside = if self.peek() == Some(b'[') {
            self.literal(&mut domain)?;
            self.cfws()?;
            false
        } else {
            self.domain_name(&mut domain)?
        };
        let astray = words.hidden || before.comment || before.fold || inside;
        let quoted = words.quoted;
        Ok(Address { local: printable(words.text)?, domain: printable(domain)?, quoted, astray })
    }

    /// Atoms and dots, each alone; true when a comment or fold stands inside. Takes the white space behind it along.
    fn domain_name(&mut self, text: &mut Vec<u8>) -> Result<bool, Malformed> {
        let mut inside = false;
        let mut gap = self.cfws()?;
        loop {
            if !self.peek().is_some_and(is_atext) {
                return Err(Malformed::Syntax);
            }
            inside |= gap.comment || gap.fold;
            self.atom(text);
            gap = self.cfws()?;
            if self.peek() != Some(b'.') {
                return Ok(inside);
            }
            inside |= gap.comment || gap.fold;
            text.push(b'.');
            self.skip();
            gap = self.cfws()?;
        }
    }
}

/// Text of an address: UTF-8 (RFC 6532 3.2) without control characters.
fn printable(text: Vec<u8>) -> Result<String, Malformed> {
    let text = String::from_utf8(text).map_err(|_not_utf8| Malformed::Syntax)?;
    if text.chars().any(char::is_control) { Err(Malformed::Control) } else { Ok(text) }
}
