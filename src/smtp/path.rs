//! A path of MAIL or RCPT as clients write it, read as leniently as Postfix reads it (RFC 5321 4.1.2, RFC 5322 4.4).
//!
//! Ignored: missing or repeated angle brackets, a display name, comments, blanks beside `@`, `.` and brackets, a source
//! route (RFC 5321 appendix C), a final dot of the domain. A local part may be any text; one that is no `Dot-string`
//! becomes a `Quoted-string`, so that the next server can't split the address elsewhere. Refused: two addresses, an
//! unquoted `@` in the local part, control characters, and quotes, brackets and parentheses that don't match.

use compact_str::CompactString;

use crate::smtp::domain::{AddressError, Domain};

/// Depth of nested comments; Postfix has no limit.
const MAX_NESTED: usize = 8;

/// The parts of a path; both are absent for `<>`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// In proper form: `Dot-string` or `Quoted-string`.
    pub(super) local: Option<CompactString>,
    pub(super) domain: Option<Domain>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Blank,
    /// In parentheses.
    Comment,
    /// `<`
    Open,
    /// `>`
    Close,
    At,
    Dot,
    Colon,
    Comma,
    /// Unquoted characters without a special meaning.
    Atom(&'a str),
    /// A character behind a backslash, outside of quotes.
    Pair(&'a str),
    /// A quoted string, with its quotes.
    Quoted(&'a str),
    /// From `[` up to `]`, with both.
    Literal(&'a str),
}

/// The end of the path at the start of `text`: the first blank outside of brackets, quotes and comments.
pub(super) fn end(text: &str) -> usize {
    let (mut open, mut nested, mut quoted, mut escaped) = (0_usize, 0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' if nested == 0 => quoted = !quoted,
            _ if quoted => {}
            b'(' => nested += 1,
            b')' => nested = nested.saturating_sub(1),
            _ if nested > 0 => {}
            b'<' => open += 1,
            b'>' => open = open.saturating_sub(1),
            b' ' | b'\t' if open == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

/// Reads a path, in angle brackets or not.
pub(super) fn read(text: &str) -> Result<Read, AddressError> {
    let tokens = tokens(text)?;
    let mut address = without_route(within_brackets(&tokens)?)?;
    for token in &mut address {
        if *token == Token::Comment {
            *token = Token::Blank;
        }
    }
    trim(&mut address);
    let mut halves = address.split(|token| *token == Token::At);
    let local = halves.next().unwrap_or_default();
    let domain = halves.next();
    if halves.next().is_some() {
        return Err(AddressError::Domain);
    }
    let domain = domain.map(domain_of).transpose()?;
    let local = match local_of(local)? {
        None if domain.is_some() => Some(CompactString::const_new("\"\"")),
        local => local,
    };
    Ok(Read { local: local.filter(|local| domain.is_some() || local != "\"\""), domain })
}

fn tokens(text: &str) -> Result<Vec<Token<'_>>, AddressError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.bytes().next() {
        let (length, token) = match first {
            b' ' | b'\t' => (1, Token::Blank),
            b'<' => (1, Token::Open),
            b'>' => (1, Token::Close),
            b'@' => (1, Token::At),
            b'.' => (1, Token::Dot),
            b':' => (1, Token::Colon),
            b',' => (1, Token::Comma),
            b'(' => (comment(rest)?, Token::Comment),
            b'"' => {
                let length = quoted(rest)?;
                (length, Token::Quoted(rest.get(..length).unwrap_or_default()))
            }
            b'[' => {
                let length = rest.find(']').ok_or(AddressError::Literal)? + 1;
                (length, Token::Literal(rest.get(..length).unwrap_or_default()))
            }
            b'\\' => {
                let pair = rest.chars().nth(1).filter(|next| !next.is_ascii_control());
                let length = 1 + pair.ok_or(AddressError::LocalPart)?.len_utf8();
                (length, Token::Pair(rest.get(1..length).unwrap_or_default()))
            }
            _ => {
                let length = rest.bytes().position(|byte| !is_plain(byte)).unwrap_or(rest.len());
                let atom = rest.get(..length).filter(|atom| !atom.is_empty());
                (length, Token::Atom(atom.ok_or(AddressError::LocalPart)?))
            }
        };
        tokens.push(token);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(tokens)
}

/// No control character, and none of the specials (RFC 5322 3.2.3).
fn is_plain(byte: u8) -> bool {
    byte > b' ' && byte != 127 && !b"<>@.:,;()[]\\\"".contains(&byte)
}

/// The length of a comment with its parentheses.
fn comment(text: &str) -> Result<usize, AddressError> {
    let (mut nested, mut escaped) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            ..b' ' | 127 => break,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'(' => nested += 1,
            b')' if nested == 1 => return Ok(at + 1),
            b')' => nested -= 1,
            _ => {}
        }
        if nested > MAX_NESTED {
            break;
        }
    }
    Err(AddressError::Syntax)
}

/// The length of a quoted string with its quotes.
fn quoted(text: &str) -> Result<usize, AddressError> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            ..b' ' | 127 => break,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Ok(at + 1),
            _ => {}
        }
    }
    Err(AddressError::LocalPart)
}

/// The tokens in the innermost brackets, without a display name before them. Both brackets may be missing, but not the
/// right one alone.
fn within_brackets<'a, 't>(tokens: &'a [Token<'t>]) -> Result<&'a [Token<'t>], AddressError> {
    let count = |token| tokens.iter().filter(|other| **other == token).count();
    let (opened, closed) = (count(Token::Open), count(Token::Close));
    let start = tokens.iter().rposition(|token| *token == Token::Open).map_or(0, |at| at + 1);
    let (before, inner) = tokens.split_at_checked(start).unwrap_or_default();
    let end = inner.iter().position(|token| *token == Token::Close).unwrap_or(inner.len());
    let (inner, behind) = inner.split_at_checked(end).unwrap_or_default();
    let named = before.iter().all(|token| {
        matches!(
            token,
            Token::Open | Token::Blank | Token::Comment | Token::Atom(_) | Token::Quoted(_) | Token::Dot
        )
    });
    if !named
        || closed < opened
        || !behind.iter().all(|token| matches!(token, Token::Close | Token::Blank | Token::Comment))
    {
        return Err(AddressError::Syntax);
    }
    Ok(inner)
}

/// `@a,@b:user@domain` without the route. Postfix ends a route at its first colon, even in a literal, a comment or quotes:
/// with one of these in it, or behind a comment, two servers could find two addresses.
fn without_route<'t>(tokens: &[Token<'t>]) -> Result<Vec<Token<'t>>, AddressError> {
    let mut ahead = tokens.iter().skip_while(|token| matches!(token, Token::Blank | Token::Comment));
    if ahead.next() != Some(&Token::At) {
        return Ok(tokens.to_vec());
    }
    let colon = tokens.iter().position(|token| *token == Token::Colon);
    let (route, rest) = tokens.split_at_checked(colon.map_or(tokens.len(), |at| at + 1)).unwrap_or_default();
    let is_plain = |token: &Token<'_>| {
        matches!(token, Token::Blank | Token::At | Token::Atom(_) | Token::Dot | Token::Comma | Token::Colon)
    };
    match colon {
        _ if !route.iter().all(is_plain) => Err(AddressError::SourceRoute),
        Some(_) => Ok(rest.to_vec()),
        None => Ok(tokens.to_vec()),
    }
}

/// Removes the blanks at both ends and beside `@` and `.`.
fn trim(tokens: &mut Vec<Token<'_>>) {
    let glue = |token: Option<&Token<'_>>| {
        matches!(token, None | Some(Token::At | Token::Dot | Token::Colon | Token::Blank))
    };
    let mut kept: Vec<Token<'_>> = Vec::with_capacity(tokens.len());
    for (at, token) in tokens.iter().enumerate() {
        let parts = *token == Token::Blank
            && !glue(kept.last())
            && !glue(tokens.iter().skip(at + 1).find(|next| **next != Token::Blank));
        if *token != Token::Blank || parts {
            kept.push(*token);
        }
    }
    *tokens = kept;
}

/// The local part in proper form; `None` where it is empty.
fn local_of(tokens: &[Token<'_>]) -> Result<Option<CompactString>, AddressError> {
    match tokens {
        [] => return Ok(None),
        [Token::Quoted(whole)] => return Ok(Some(CompactString::new(whole))),
        _ => {}
    }
    let mut value = CompactString::default();
    let mut behind_quotes = false;
    for (at, token) in tokens.iter().enumerate() {
        let is_quoted = matches!(token, Token::Quoted(_));
        // two words without a dot between them: `"u"v`
        if *token != Token::Dot && at > 0 && (behind_quotes || is_quoted && !value.ends_with('.')) {
            return Err(AddressError::LocalPart);
        }
        behind_quotes = is_quoted;
        match token {
            Token::Atom(text) | Token::Pair(text) => value.push_str(text),
            Token::Quoted(text) => push_unquoted(&mut value, text),
            Token::Dot => value.push('.'),
            Token::Colon => value.push(':'),
            Token::Blank | Token::Comment | Token::Comma | Token::Literal(_) => {
                return Err(AddressError::LocalPart);
            }
            Token::Open | Token::Close | Token::At => return Err(AddressError::Syntax),
        }
    }
    Ok(Some(if is_dot_string(&value) { value } else { in_quotes(&value) }))
}

/// `Dot-string` (RFC 5321 4.1.2).
pub(super) fn is_dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
}

/// `atext` (RFC 5322 3.2.3), with the UTF-8 octets of RFC 6531 3.3; the session decides whether they are allowed.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte) || byte >= 128
}

fn push_unquoted(value: &mut CompactString, quoted: &str) {
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
    let mut escaped = false;
    for character in inner.chars() {
        escaped = character == '\\' && !escaped;
        if !escaped {
            value.push(character);
        }
    }
}

fn in_quotes(value: &str) -> CompactString {
    let mut text = CompactString::const_new("\"");
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('"');
    text
}

fn domain_of(tokens: &[Token<'_>]) -> Result<Domain, AddressError> {
    if let [Token::Literal(text)] = tokens {
        // RFC 5321 4.1.3 allows them in a general literal; the next server might take one for the end of the path
        let clear = !text.contains(['<', '>', '"', '(', ')', ',', ';', '@', ' ']);
        return if clear { Domain::parse(text) } else { Err(AddressError::Literal) };
    }
    let mut name = CompactString::default();
    for token in tokens {
        match token {
            Token::Atom(text) => name.push_str(text),
            Token::Quoted(text) => push_unquoted(&mut name, text),
            Token::Dot => name.push('.'),
            Token::Literal(_) => return Err(AddressError::Literal),
            Token::Blank | Token::Comment | Token::Open | Token::Close | Token::At => {
                return Err(AddressError::Domain);
            }
            Token::Colon | Token::Comma | Token::Pair(_) => return Err(AddressError::Domain),
        }
    }
    match name.strip_suffix('.').unwrap_or(&name) {
        name if name.starts_with('[') => Err(AddressError::Domain),
        name => Domain::parse(name),
    }
}
