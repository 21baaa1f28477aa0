//! Mailboxes and the paths of MAIL and RCPT (RFC 5321 4.1.2).
//!
//! They are parsed once, at the edge, into values that can't be wrong: an address without a domain is another variant.
//! A local part in the form of the grammar stays as it came, quotes included, since only the mailbox's own host may
//! interpret it (RFC 5321 2.3.11); any other local part is put into quotes.

use std::fmt;

use compact_str::CompactString;

use crate::smtp::path;

pub use crate::smtp::domain::{AddressError, Domain, DomainName};

/// Longest path without its brackets. RFC 5321 4.5.3.1 asks for at least 254 octets; bounce addresses are longer.
const MAX_PATH: usize = 1000;

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
    /// The part that isn't valid.
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

/// The end of the local part: the offset of the `@`, or of the end of the text.
fn local_end(text: &str) -> Result<usize, AddressError> {
    if !text.starts_with('"') {
        let end = text.find('@').unwrap_or(text.len());
        let local = text.split_at_checked(end).map_or("", |(local, _)| local);
        return if path::is_dot_string(local) { Ok(end) } else { Err(AddressError::LocalPart) };
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

/// The address for bounces (RFC 5321 4.1.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`, the sender of bounces (RFC 5321 4.5.5).
    Null,
    /// A sender without a domain, such as `<MAILER-DAEMON>`: the local part in proper form.
    NoDomain(CompactString),
    Mailbox(Mailbox),
}

impl ReversePath {
    /// Reads the path of MAIL FROM, in angle brackets or not, as leniently as Postfix does (see `smtp::path`).
    ///
    /// # Errors
    /// The part that isn't valid.
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
    Mailbox(Mailbox),
}

impl ForwardPath {
    /// Reads the path of RCPT TO as leniently; `<>` is no recipient.
    ///
    /// # Errors
    /// The part that isn't valid.
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
    // the length as it is passed on: A-labels and quotes can make it longer than the client's
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Observed with a stock Postfix: the right column is the address in its log, or 501.
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
            // Postfix ends the route at the first colon.
            ("<@[:v@nowhere.test (]:u@good.test ()>", Err(AddressError::SourceRoute)),
            ("<@[:v@nowhere.test(]:()>", Err(AddressError::SourceRoute)),
            ("<@(:v+):u@good.test>", Err(AddressError::SourceRoute)),
            ("<(x)@(:v@nowhere.test)good.test>", Err(AddressError::SourceRoute)),
            ("<@(:v@nowhere.test) good.test>", Err(AddressError::SourceRoute)),
            ("<@a.test,@[127.0.0.10]:u@good.test>", Err(AddressError::SourceRoute)),
            ("<@\":v@nowhere.test\":u@good.test>", Err(AddressError::SourceRoute)),
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
        // the quotes count: the address is passed on with them
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
        fn a_printed_path_is_read_as_the_same_and_is_one_word(text in "[ <>@.:,()\\[\\]\\\\\"ab\u{e9}\t\r\n;]{0,24}") {
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
