//! Mail addresses and domain names as the envelope writes them (RFC 5321 4.1.2, 4.1.3).
//!
//! Parsed once, at the edge, into values that can't be wrong: a [`DomainName`] is what DNS can be asked for, and an
//! address without one is another variant. A local part in the form of the grammar is kept as it came (quotes and all),
//! since only the mailbox's own host may interpret it (RFC 5321 2.3.11); another one is put into quotes. Underscores in
//! domains are taken, they occur.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use compact_str::CompactString;

use crate::smtp::path;

/// Longest domain (RFC 5321 4.5.3.1.2 says 255 octets; DNS holds 253 in text form).
const MAX_DOMAIN: usize = 253;
/// Longest label (RFC 1035 2.3.4).
const MAX_LABEL: usize = 63;
/// Longest path without its brackets. RFC 5321 4.5.3.1 asks for at least 254 octets; bounce addresses are longer.
const MAX_PATH: usize = 1000;

/// A domain name that DNS can be asked for: lower case, A-labels, 1 to 253 octets, no final dot.
/// Letters, digits, hyphens and underscores; labels of 1 to 63 octets that neither begin nor end with a hyphen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainName(CompactString);

impl DomainName {
    /// Reads a name in A-label (ASCII) form, any case.
    ///
    /// # Errors
    /// [`AddressError::Domain`] when it is not a name as described at the type.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() || text.len() > MAX_DOMAIN || !text.split('.').all(is_label) {
            return Err(AddressError::Domain);
        }
        let mut name = CompactString::new(text);
        name.make_ascii_lowercase();
        Ok(Self(name))
    }

    /// Reads a name that may hold U-labels; they are brought into A-label form (RFC 5891 5).
    ///
    /// # Errors
    /// [`AddressError::Domain`] when it is no name or its labels can't be converted.
    pub fn parse_unicode(text: &str) -> Result<Self, AddressError> {
        if text.is_ascii() {
            return Self::parse(text);
        }
        idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::EMPTY)
            .ok()
            .and_then(|ascii| Self::parse(&ascii).ok())
            .ok_or(AddressError::Domain)
    }

    /// The name, lower case, without a final dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name has no dot: `localhost`, `com`.
    #[must_use]
    pub fn is_single_label(&self) -> bool {
        !self.0.contains('.')
    }

    /// Whether the name is the text of an IPv4 address (its last label is a number; no top-level domain is).
    #[must_use]
    pub fn is_ip_text(&self) -> bool {
        self.0.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// The name above, `None` for a single label.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0.split_once('.').map(|(_, rest)| Self(CompactString::new(rest)))
    }

    /// Whether this name is `other` or lies below it.
    #[must_use]
    pub fn is_at_or_below(&self, other: &Self) -> bool {
        self.0.strip_suffix(other.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// What stands behind the `@`: a name, or an address literal (RFC 5321 4.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Domain {
    /// A domain name.
    Name(DomainName),
    /// An address literal as it came, with its brackets.
    Literal(CompactString),
}

impl Domain {
    /// Reads a domain or an address literal (`[192.0.2.1]`, `[IPv6:2001:db8::1]`, `[tag:content]`).
    ///
    /// # Errors
    /// [`AddressError::Domain`] or [`AddressError::Literal`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.starts_with('[') {
            return literal(text).map(Self::Literal);
        }
        DomainName::parse_unicode(text).map(Self::Name)
    }

    /// The name, where it is one.
    #[must_use]
    pub fn name(&self) -> Option<&DomainName> {
        match self {
            Self::Name(name) => Some(name),
            Self::Literal(_) => None,
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Literal(text) => f.write_str(text),
        }
    }
}

fn literal(text: &str) -> Result<CompactString, AddressError> {
    let inner =
        text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(AddressError::Literal)?;
    let valid = match inner.split_once(':') {
        None => inner.parse::<IpAddr>().is_ok(),
        Some((tag, address)) if tag.eq_ignore_ascii_case("ipv6") => address.parse::<Ipv6Addr>().is_ok(),
        Some((tag, content)) => {
            DomainName::parse(tag).is_ok_and(|tag| tag.is_single_label())
                && !content.is_empty()
                && content.bytes().all(|byte| matches!(byte, 33..=90 | 94..=126))
        }
    };
    if valid && text.len() <= MAX_DOMAIN { Ok(CompactString::new(text)) } else { Err(AddressError::Literal) }
}

/// `local-part@domain`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    local: CompactString,
    domain: Domain,
}

impl Mailbox {
    /// Reads `local@domain`; the local part is a dot-atom or a quoted string (RFC 5321 4.1.2).
    ///
    /// # Errors
    /// Which part is wrong.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let at = local_end(text)?;
        let (local, rest) = text.split_at_checked(at).ok_or(AddressError::LocalPart)?;
        let domain = rest.strip_prefix('@').ok_or(AddressError::NoDomain)?;
        if text.len() > MAX_PATH {
            return Err(AddressError::TooLong);
        }
        Ok(Self { local: CompactString::new(local), domain: Domain::parse(domain)? })
    }

    /// The local part as it came, quotes included.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.local
    }

    /// What stands behind the `@`.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

/// Where the local part ends: the offset of the `@`, or of the end.
fn local_end(text: &str) -> Result<usize, AddressError> {
    if !text.starts_with('"') {
        let end = text.find('@').unwrap_or(text.len());
        let local = text.split_at_checked(end).map_or("", |(local, _)| local);
        return if is_dot_string(local) { Ok(end) } else { Err(AddressError::LocalPart) };
    }
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            ..b' ' | 127 => return Err(AddressError::LocalPart),
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Ok(at + 1),
            _ => {}
        }
    }
    Err(AddressError::LocalPart)
}

/// `Dot-string` (RFC 5321 4.1.2).
pub(super) fn is_dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
}

/// `atext` (RFC 5322 3.2.3), with the UTF-8 octets of RFC 6531 3.3; who may send those is the session's question.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte) || byte >= 128
}

/// Where bounces go (RFC 5321 4.1.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: nobody; this is itself a bounce (RFC 5321 4.5.5).
    Null,
    /// A sender without a domain, such as `<MAILER-DAEMON>`: the local part in proper form.
    NoDomain(CompactString),
    /// A sender.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// Reads the path of MAIL FROM, in angle brackets or not, as leniently as Postfix does (see `smtp::path`).
    ///
    /// # Errors
    /// Which part is wrong.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        Ok(match address_of(path::read(text)?)? {
            Address::None => Self::Null,
            Address::NoDomain(local) => Self::NoDomain(local),
            Address::Mailbox(mailbox) => Self::Mailbox(mailbox),
        })
    }
}

impl fmt::Display for ReversePath {
    /// Without angle brackets; nothing for the null sender.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::NoDomain(local) => f.write_str(local),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

/// A recipient (RFC 5321 4.1.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// A recipient without a domain, which only the relay can complete: the local part in proper form. `<Postmaster>`
    /// exists on every host (RFC 5321 4.5.1).
    NoDomain(CompactString),
    /// A mailbox.
    Mailbox(Mailbox),
}

impl ForwardPath {
    /// Reads the path of RCPT TO, likewise; `<>` is no recipient.
    ///
    /// # Errors
    /// Which part is wrong.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match address_of(path::read(text)?)? {
            Address::None => Err(AddressError::LocalPart),
            Address::NoDomain(local) => Ok(Self::NoDomain(local)),
            Address::Mailbox(mailbox) => Ok(Self::Mailbox(mailbox)),
        }
    }

    /// Whether it is `<Postmaster>` without a domain.
    #[must_use]
    pub fn is_bare_postmaster(&self) -> bool {
        matches!(self, Self::NoDomain(local) if local.eq_ignore_ascii_case("postmaster"))
    }

    /// The local part in proper form.
    #[must_use]
    pub fn local(&self) -> &str {
        match self {
            Self::NoDomain(text) => text,
            Self::Mailbox(mailbox) => mailbox.local(),
        }
    }

    /// The domain, where there is one.
    #[must_use]
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Self::NoDomain(_) => None,
            Self::Mailbox(mailbox) => Some(mailbox.domain()),
        }
    }
}

impl fmt::Display for ForwardPath {
    /// Without angle brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDomain(text) => f.write_str(text),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

/// What a path holds.
enum Address {
    None,
    NoDomain(CompactString),
    Mailbox(Mailbox),
}

fn address_of(read: path::Read) -> Result<Address, AddressError> {
    let address = match read {
        path::Read { local: None, .. } => Address::None,
        path::Read { local: Some(local), domain: None } => Address::NoDomain(local),
        path::Read { local: Some(local), domain: Some(domain) } => {
            Address::Mailbox(Mailbox { local, domain })
        }
    };
    // the length of what goes on: A-labels and quotes can make it longer than it came
    let length = match &address {
        Address::None => 0,
        Address::NoDomain(local) => local.len(),
        Address::Mailbox(Mailbox { local, domain: Domain::Name(name) }) => {
            local.len() + 1 + name.as_str().len()
        }
        Address::Mailbox(Mailbox { local, domain: Domain::Literal(text) }) => local.len() + 1 + text.len(),
    };
    if length > MAX_PATH { Err(AddressError::TooLong) } else { Ok(address) }
}

/// What is wrong with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Empty, a control character, a quote without its other half, or two words.
    #[error("the local part is not valid")]
    LocalPart,
    /// No `@domain`.
    #[error("the address has no domain")]
    NoDomain,
    /// Not a domain name.
    #[error("the domain is not a valid name")]
    Domain,
    /// Not an address literal.
    #[error("the address literal is not valid")]
    Literal,
    /// A source route that doesn't parse.
    #[error("the source route is not valid")]
    SourceRoute,
    /// Two addresses, or brackets or parentheses that don't match.
    #[error("this is not one address")]
    Syntax,
    /// Over 1000 octets.
    #[error("the path is longer than 1000 octets")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_lowered_and_bounded() {
        assert_eq!(DomainName::parse("Mail.GOOD.test").unwrap().as_str(), "mail.good.test");
        for good in [
            "a",
            "under_score.test",
            "xn--bcher-kva.test",
            "1.0.0.127.in-addr.arpa",
            &format!("{}a", "a.".repeat(125)),
        ] {
            assert!(DomainName::parse(good).is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in [
            "",
            ".",
            "a..b",
            "good.test.",
            "-a.test",
            "a-.test",
            "a b.test",
            "a\r.test",
            "b\u{fc}cher.test",
            &long,
        ] {
            assert!(DomainName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn u_labels_become_a_labels() {
        assert_eq!(DomainName::parse_unicode("b\u{fc}cher.test").unwrap().as_str(), "xn--bcher-kva.test");
        assert!(DomainName::parse_unicode("b\u{fc}cher.test.").is_err());
    }

    #[test]
    fn below_means_whole_labels() {
        let name = |text| DomainName::parse(text).unwrap();
        assert!(name("a.b.test").is_at_or_below(&name("b.test")));
        assert!(name("b.test").is_at_or_below(&name("b.test")));
        assert!(!name("ab.test").is_at_or_below(&name("b.test")));
        assert!(name("127.0.0.10").is_ip_text() && !name("a1.b2").is_ip_text());
    }

    /// What a stock Postfix made of each was seen; the right column is what it logged, or 501.
    #[test]
    fn paths_are_read_as_postfix_reads_them() {
        let rows: &[(&str, Result<&str, AddressError>)] = &[
            ("u@good.test", Ok("u@good.test")),
            ("<<u@good.test>>", Ok("u@good.test")),
            ("u@good.test>", Ok("u@good.test")),
            ("< u@good.test >", Ok("u@good.test")),
            ("<u @ good. test.>", Ok("u@good.test")),
            ("<Name <u@good.test>>", Ok("u@good.test")),
            ("<(a>b)u@good.test(c)>", Ok("u@good.test")),
            ("<u@\"good\".test>", Ok("u@good.test")),
            ("<\"x@nomx.test\"@good.test>", Ok("\"x@nomx.test\"@good.test")),
            ("\"a\\\"b c\"@good.test", Ok("\"a\\\"b c\"@good.test")),
            ("<u.\"v\".w@good.test>", Ok("u.v.w@good.test")),
            ("<u..v@good.test>", Ok("\"u..v\"@good.test")),
            ("<.u.@good.test>", Ok("\".u.\"@good.test")),
            ("<u\\@v\\\"w@good.test>", Ok("\"u@v\\\"w\"@good.test")),
            ("<mailto:u@good.test>", Ok("\"mailto:u\"@good.test")),
            ("<prvs=1=o'neil&co/x!y#$%*?^`{|}~@good.test>", Ok("prvs=1=o'neil&co/x!y#$%*?^`{|}~@good.test")),
            ("@a.test,@b.test:u@good.test", Ok("u@good.test")),
            ("<@a.test, @b.test: u@good.test>", Ok("u@good.test")),
            ("<@good.test>", Ok("\"\"@good.test")),
            ("<@a.test:>", Ok("")),
            ("<\"\">", Ok("")),
            ("<\"u\"@good.test>", Ok("\"u\"@good.test")),
            ("<\"v\".w@good.test>", Ok("v.w@good.test")),
            ("<u.\"a\\\"b\"@good.test>", Ok("\"u.a\\\"b\"@good.test")),
            ("<(a(b)c)u@good.test>", Ok("u@good.test")),
            ("<(a\\)b)u@good.test>", Ok("u@good.test")),
            ("<((((((((c))))))))u@good.test>", Ok("u@good.test")),
            ("<(((((((((c)))))))))u@good.test>", Err(AddressError::Syntax)),
            ("<(a\u{1}b)u@good.test>", Err(AddressError::Syntax)),
            ("<u@\"[127.0.0.10]\">", Err(AddressError::Domain)),
            ("<MAILER-DAEMON>", Ok("MAILER-DAEMON")),
            ("<postmaster.>", Ok("\"postmaster.\"")),
            ("<host!u>", Ok("host!u")),
            ("u@[127.0.0.10]", Ok("u@[127.0.0.10]")),
            ("<u@[IPv6:::1] >", Ok("u@[IPv6:::1]")),
            ("x@nomx.test@good.test", Err(AddressError::Domain)),
            ("u@good.test..", Err(AddressError::Domain)),
            ("u@", Err(AddressError::Domain)),
            ("u@.", Err(AddressError::Domain)),
            ("a b@good.test", Err(AddressError::LocalPart)),
            ("\"u\"v@good.test", Err(AddressError::LocalPart)),
            ("u\"v\"@good.test", Err(AddressError::LocalPart)),
            ("\"a\rb\"@good.test", Err(AddressError::LocalPart)),
            ("\"a\\\rb\"@good.test", Err(AddressError::LocalPart)),
            ("u\\\r@good.test", Err(AddressError::LocalPart)),
            ("u\u{1}@good.test", Err(AddressError::LocalPart)),
            ("\"u@good.test", Err(AddressError::LocalPart)),
            ("<u@good.test", Err(AddressError::Syntax)),
            ("<u>v@good.test>", Err(AddressError::Syntax)),
            ("<u@good.test>,<v@x>", Err(AddressError::Syntax)),
            ("<u@good.test)>", Err(AddressError::LocalPart)),
            ("<u,v@good.test>", Err(AddressError::LocalPart)),
            ("u@good.test,v@x", Err(AddressError::Domain)),
            ("u@[127.0.0.300]", Err(AddressError::Literal)),
            ("u@[]", Err(AddressError::Literal)),
            ("u@[tag:content]", Ok("u@[tag:content]")),
            ("u@[IPv6:127.0.0.10]", Err(AddressError::Literal)),
            ("u@[tag:]", Err(AddressError::Literal)),
            ("u@[two.labels:content]", Err(AddressError::Literal)),
            ("u@[tag:a\u{e9}]", Err(AddressError::Literal)),
        ];
        for (text, expected) in rows {
            let parsed = ReversePath::parse(text).map(|path| path.to_string());
            assert_eq!(parsed, expected.map(str::to_owned), "{text}");
        }
        assert_eq!(ReversePath::parse(""), Ok(ReversePath::Null));
        assert_eq!(ForwardPath::parse("PostMaster").unwrap().to_string(), "PostMaster");
        assert!(ForwardPath::parse("<PostMaster>").unwrap().is_bare_postmaster());
        assert!(!ForwardPath::parse("<hostmaster>").unwrap().is_bare_postmaster());
        assert_eq!(ForwardPath::parse("<>"), Err(AddressError::LocalPart));
    }

    #[test]
    fn lengths_are_bounded() {
        let of = |octets: usize| format!("{}@good.test", "l".repeat(octets - "@good.test".len()));
        assert_eq!(ReversePath::parse(&of(1000)).unwrap().to_string(), of(1000));
        assert_eq!(ReversePath::parse(&of(1001)), Err(AddressError::TooLong));
        // the quotes count: this is how it goes on
        let dots = format!("{}@good.test", ".".repeat(989));
        assert_eq!(ReversePath::parse(&dots), Err(AddressError::TooLong));
        let literal = |octets: usize| format!("{}@[127.0.0.10]", "l".repeat(octets - "@[127.0.0.10]".len()));
        assert_eq!(ReversePath::parse(&literal(1000)).unwrap().to_string(), literal(1000));
        assert_eq!(ReversePath::parse(&literal(1001)), Err(AddressError::TooLong));
        assert_eq!(Mailbox::parse(&of(1000)).unwrap().to_string(), of(1000));
        assert_eq!(Mailbox::parse(&of(1001)), Err(AddressError::TooLong));
    }

    #[test]
    fn a_mailbox_has_its_local_part_in_proper_form() {
        let rows = [
            ("u@good.test", Ok("u")),
            ("\"a\\\"b\"@good.test", Ok("\"a\\\"b\"")),
            ("\"a\\\\\"@good.test", Ok("\"a\\\\\"")),
            ("\"a\tb\"@good.test", Err(AddressError::LocalPart)),
            ("\"a\u{7f}b\"@good.test", Err(AddressError::LocalPart)),
            ("\"a\\\"@good.test", Err(AddressError::LocalPart)),
            ("\"a\"b@good.test", Err(AddressError::NoDomain)),
        ];
        for (text, expected) in rows {
            let parsed = Mailbox::parse(text).map(|mailbox| mailbox.local().to_owned());
            assert_eq!(parsed, expected.map(str::to_owned), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_goes_on_is_read_as_the_same_and_is_one_word(text in "[ <>@.:,()\\[\\]\\\\\"ab\u{e9}\t\r\n;]{0,24}") {
            if let Ok(path) = ReversePath::parse(&text) {
                let printed = path.to_string();
                prop_assert_eq!(ReversePath::parse(&printed), Ok(path.clone()), "{:?}", printed);
                let bracketed = format!("<{printed}>");
                prop_assert_eq!(ReversePath::parse(&bracketed), Ok(path.clone()), "{:?}", printed);
                // the command that the relay gets has one path, and nothing behind it
                prop_assert_eq!(path::end(&bracketed), bracketed.len());
                prop_assert!(!printed.chars().any(|character| character.is_ascii_control()), "{:?}", printed);
                if let ReversePath::Mailbox(mailbox) = &path {
                    prop_assert_eq!(&Mailbox::parse(&printed), &Ok(mailbox.clone()), "{:?}", printed);
                }
            }
        }
    }
}
