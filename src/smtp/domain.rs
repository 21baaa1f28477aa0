//! Domain names, address literals (RFC 5321 4.1.2, 4.1.3) and the errors of addresses.
//!
//! A [`DomainName`] is a name that DNS can be queried for. Underscores in it are accepted: they occur.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use compact_str::CompactString;

/// Longest domain (RFC 5321 4.5.3.1.2 says 255 octets; DNS holds 253 in text form).
const MAX_DOMAIN: usize = 253;
/// Longest label (RFC 1035 2.3.4).
const MAX_LABEL: usize = 63;

/// A name for DNS queries: lower case, A-labels, 1 to 253 octets, no final dot.
/// Letters, digits, hyphens and underscores; labels of 1 to 63 octets that neither begin nor end with a hyphen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainName(CompactString);

impl DomainName {
    /// Reads a name in A-label (ASCII) form, any case.
    ///
    /// # Errors
    /// [`AddressError::Domain`] for other texts.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() || text.len() > MAX_DOMAIN || !text.split('.').all(is_label) {
            return Err(AddressError::Domain);
        }
        let mut name = CompactString::new(text);
        name.make_ascii_lowercase();
        Ok(Self(name))
    }

    /// Reads a name that may have U-labels, and converts them to A-labels (RFC 5891 5).
    ///
    /// # Errors
    /// [`AddressError::Domain`] for other texts, and for labels that can't be converted.
    pub fn parse_unicode(text: &str) -> Result<Self, AddressError> {
        if text.is_ascii() {
            return Self::parse(text);
        }
        idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::EMPTY)
            .ok()
            .and_then(|ascii| Self::parse(&ascii).ok())
            .ok_or(AddressError::Domain)
    }

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

/// The part behind the `@`: a name or an address literal (RFC 5321 4.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Domain {
    Name(DomainName),
    /// As the client sent it, with its brackets.
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
}
