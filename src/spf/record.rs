//! SPF records (RFC 7208 4.5, 4.6, 5, 6, 12): the record among the texts of a name, and its terms.
//!
//! The whole record is checked before any term counts (4.6). Terms are parsed again when they are needed, so that a record of
//! 64 KiB takes no more memory than its octets.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::spf::SpfResult;
use crate::spf::macros::{self, DomainSpec, SyntaxError};

const VERSION: &[u8] = b"v=spf1";

/// A record whose syntax was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpfRecord<'a> {
    terms: &'a str,
    /// Where to go on when no mechanism matched (RFC 7208 6.1).
    pub(super) redirect: Option<DomainSpec<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism<'a> {
    All,
    Include(DomainSpec<'a>),
    A(Option<DomainSpec<'a>>, Prefixes),
    Mx(Option<DomainSpec<'a>>, Prefixes),
    Ptr(Option<DomainSpec<'a>>),
    Ip4(Ipv4Net),
    Ip6(Ipv6Net),
    Exists(DomainSpec<'a>),
}

/// `dual-cidr-length` (RFC 7208 5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefixes {
    pub(super) v4: u8,
    pub(super) v6: u8,
}

impl<'a> SpfRecord<'a> {
    /// The one record among a name's texts.
    pub(super) fn among(texts: &'a [Box<[u8]>]) -> Result<Option<Self>, SyntaxError> {
        let mut records = texts.iter().filter_map(|text| terms_of(text));
        match (records.next(), records.next()) {
            (None, _) => Ok(None),
            (Some(terms), None) => Self::parse(terms).map(Some),
            (Some(_), Some(_)) => Err(SyntaxError),
        }
    }

    fn parse(terms: &'a [u8]) -> Result<Self, SyntaxError> {
        let terms = std::str::from_utf8(terms).map_err(|_not_ascii| SyntaxError)?;
        if !terms.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(SyntaxError);
        }
        let (mut redirect, mut explained) = (None, false);
        for term in split(terms) {
            match Term::parse(term)? {
                Term::Redirect(target) if redirect.is_none() => redirect = Some(target),
                Term::Explanation if !explained => explained = true,
                // RFC 7208 6: each at most once.
                Term::Redirect(_) | Term::Explanation => return Err(SyntaxError),
                Term::Directive(..) | Term::Unknown => {}
            }
        }
        Ok(Self { terms, redirect })
    }

    /// Mechanisms in their order, each with the result where it matches.
    pub(super) fn directives(self) -> impl Iterator<Item = (SpfResult, Mechanism<'a>)> {
        split(self.terms).filter_map(|term| match Term::parse(term) {
            Ok(Term::Directive(outcome, mechanism)) => Some((outcome, mechanism)),
            Ok(Term::Redirect(_) | Term::Explanation | Term::Unknown) | Err(SyntaxError) => None,
        })
    }
}

/// What follows the version, which stands alone or before a blank (RFC 7208 4.5).
pub(super) fn terms_of(text: &[u8]) -> Option<&[u8]> {
    let (version, rest) = text.split_at_checked(VERSION.len())?;
    let is_record = version.eq_ignore_ascii_case(VERSION) && rest.first().is_none_or(|next| *next == b' ');
    is_record.then_some(rest)
}

pub(super) fn split(terms: &str) -> impl Iterator<Item = &str> {
    terms.split(' ').filter(|term| !term.is_empty())
}

/// One word of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Term<'a> {
    Directive(SpfResult, Mechanism<'a>),
    Redirect(DomainSpec<'a>),
    /// `exp`; its target is checked and never asked for.
    Explanation,
    /// An unknown modifier, which RFC 7208 6 permits.
    Unknown,
}

impl<'a> Term<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let mut characters = text.chars();
        let qualified = match characters.next() {
            Some('+') => Some(SpfResult::Pass),
            Some('-') => Some(SpfResult::Fail),
            Some('~') => Some(SpfResult::SoftFail),
            Some('?') => Some(SpfResult::Neutral),
            _ => None,
        };
        let text = if qualified.is_some() { characters.as_str() } else { text };
        let end = text.bytes().take_while(|byte| is_name_octet(*byte)).count();
        let (name, rest) = text.split_at_checked(end).ok_or(SyntaxError)?;
        match rest.strip_prefix('=') {
            Some(_) if qualified.is_some() => Err(SyntaxError),
            Some(value) => Self::modifier(name, value),
            None => {
                let mechanism = Mechanism::parse(name, rest)?;
                Ok(Self::Directive(qualified.unwrap_or(SpfResult::Pass), mechanism))
            }
        }
    }

    fn modifier(name: &str, value: &'a str) -> Result<Self, SyntaxError> {
        if name.eq_ignore_ascii_case("redirect") {
            return DomainSpec::parse(value).map(Self::Redirect);
        }
        if name.eq_ignore_ascii_case("exp") {
            return DomainSpec::parse(value).map(|_| Self::Explanation);
        }
        if !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return Err(SyntaxError);
        }
        macros::check(value).map(|()| Self::Unknown)
    }
}

fn is_name_octet(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

impl<'a> Mechanism<'a> {
    /// `rest` is what follows the name.
    fn parse(name: &str, rest: &'a str) -> Result<Self, SyntaxError> {
        let argument = rest.strip_prefix(':');
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("all") && rest.is_empty() {
            Ok(Self::All)
        } else if is("include") {
            DomainSpec::parse(argument.ok_or(SyntaxError)?).map(Self::Include)
        } else if is("exists") {
            DomainSpec::parse(argument.ok_or(SyntaxError)?).map(Self::Exists)
        } else if is("a") {
            target_and_prefixes(rest).map(|(target, prefixes)| Self::A(target, prefixes))
        } else if is("mx") {
            target_and_prefixes(rest).map(|(target, prefixes)| Self::Mx(target, prefixes))
        } else if is("ptr") {
            optional_target(rest).map(Self::Ptr)
        } else if is("ip4") {
            ip4(argument.ok_or(SyntaxError)?).map(Self::Ip4)
        } else if is("ip6") {
            ip6(argument.ok_or(SyntaxError)?).map(Self::Ip6)
        } else {
            Err(SyntaxError)
        }
    }
}

/// Nothing, or `:domain-spec`.
fn optional_target(text: &str) -> Result<Option<DomainSpec<'_>>, SyntaxError> {
    if text.is_empty() {
        return Ok(None);
    }
    DomainSpec::parse(text.strip_prefix(':').ok_or(SyntaxError)?).map(Some)
}

/// `[":" domain-spec] [dual-cidr-length]`. A domain-spec may hold slashes, but never ends in one and digits.
fn target_and_prefixes(text: &str) -> Result<(Option<DomainSpec<'_>>, Prefixes), SyntaxError> {
    let (text, v6) = match text.rsplit_once("//") {
        Some((before, length)) if is_number(length) => (before, prefix(length, 128)?),
        _ => (text, 128),
    };
    let (text, v4) = match text.rsplit_once('/') {
        Some((before, length)) if is_number(length) => (before, prefix(length, 32)?),
        _ => (text, 32),
    };
    Ok((optional_target(text)?, Prefixes { v4, v6 }))
}

fn ip4(text: &str) -> Result<Ipv4Net, SyntaxError> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, prefix(length, 32)?),
        None => (text, 32),
    };
    let address: Ipv4Addr = address.parse().map_err(|_no_address| SyntaxError)?;
    Ipv4Net::new(address, length).map_err(|_too_long| SyntaxError)
}

fn ip6(text: &str) -> Result<Ipv6Net, SyntaxError> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, prefix(length, 128)?),
        None => (text, 128),
    };
    let address: Ipv6Addr = address.parse().map_err(|_no_address| SyntaxError)?;
    Ipv6Net::new(address, length).map_err(|_too_long| SyntaxError)
}

/// RFC 7208 12: no leading zeros.
fn prefix(text: &str, most: u8) -> Result<u8, SyntaxError> {
    let valid = is_number(text) && (text == "0" || !text.starts_with('0'));
    let length = if valid { text.parse().ok() } else { None };
    length.filter(|length| *length <= most).ok_or(SyntaxError)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &[u8]) -> Result<Option<String>, SyntaxError> {
        let texts = [Box::from(text)];
        Ok(SpfRecord::among(&texts)?.map(|record| format!("{:?}", record.directives().collect::<Vec<_>>())))
    }

    #[test]
    fn records_are_found_among_other_texts() {
        let rows: [(&[&[u8]], Result<bool, SyntaxError>); 14] = [
            (&[], Ok(false)),
            (&[b"v=spf1"], Ok(true)),
            (&[b"V=sPf1 -ALL"], Ok(true)),
            (&[b"v=spf1   "], Ok(true)),
            (&[b"v=spf10"], Ok(false)),
            (&[b"v=spf1-all"], Ok(false)),
            (&[b" v=spf1 -all"], Ok(false)),
            (&[b"v=spf"], Ok(false)),
            (&[b"", b"\xff", b"v=spf1 -all", b"proof=1"], Ok(true)),
            (&[b"v=spf1 -all", b"v=spf1 -all"], Err(SyntaxError)),
            (&[b"v=spf1 -all", b"V=SPF1"], Err(SyntaxError)),
            (&[b"v=spf1 \xff"], Err(SyntaxError)),
            (&[b"v=spf1 a\t-all"], Err(SyntaxError)),
            (&["v=spf1 a:b\u{fc}cher.test".as_bytes()], Err(SyntaxError)),
        ];
        for (texts, expected) in rows {
            let texts: Vec<Box<[u8]>> = texts.iter().map(|text| Box::from(*text)).collect();
            assert_eq!(SpfRecord::among(&texts).map(|record| record.is_some()), expected, "{texts:?}");
        }
    }

    #[test]
    fn a_syntax_error_anywhere_spoils_the_record() {
        for term in [
            "foo",
            "all.",
            "all:a.b",
            "all/8",
            "-",
            "include",
            "include:",
            "include:test",
            "include:a.b/24",
            "exists",
            "exists:a.b/24",
            "ptr/24",
            "ptr:",
            "a:",
            "a/",
            "a/33",
            "a/032",
            "a//129",
            "a/24/64",
            "a//",
            "a:a.b/",
            "a/-1",
            "a:/24",
            "mx:test",
            "mx/abc",
            "ip4",
            "ip4:",
            "ip4:1.2.3",
            "ip4:1.2.3.4/",
            "ip4:1.2.3.4/33",
            "ip4:1.2.3.04",
            "ip4:1.2.3.4:25",
            "ip4:1.2.3.4//32",
            "ip6:1.2.3.4",
            "ip6:::1/129",
            "ip6:",
            "ip6:::1%eth0",
            "redirect=",
            "redirect:a.b",
            "redirect=a.b redirect=a.b",
            "exp=",
            "exp=test",
            "exp=a.b exp=a.b",
            "-exp=a.b",
            "+redirect=a.b",
            "1x=y",
            "=y",
            "x=%{a}",
            "x=%",
            "++all",
            "a.b=%",
            "a;b=c",
        ] {
            let text = format!("v=spf1 {term} ?all");
            assert_eq!(record(text.as_bytes()), Err(SyntaxError), "{term}");
        }
    }

    #[test]
    fn terms_are_read_whatever_their_case() {
        let rows = [
            ("ALL", "[(Pass, All)]"),
            ("-all  ~All ?aLL", "[(Fail, All), (SoftFail, All), (Neutral, All)]"),
            ("a", "[(Pass, A(None, Prefixes { v4: 32, v6: 128 }))]"),
            ("A/0//0", "[(Pass, A(None, Prefixes { v4: 0, v6: 0 }))]"),
            ("mx//64", "[(Pass, Mx(None, Prefixes { v4: 32, v6: 64 }))]"),
            ("mx:A.b/24", "[(Pass, Mx(Some(DomainSpec(\"A.b\")), Prefixes { v4: 24, v6: 128 }))]"),
            ("a:a:b/c.d/24//48", "[(Pass, A(Some(DomainSpec(\"a:b/c.d\")), Prefixes { v4: 24, v6: 48 }))]"),
            ("a:%{d/}/8", "[(Pass, A(Some(DomainSpec(\"%{d/}\")), Prefixes { v4: 8, v6: 128 }))]"),
            ("PTR -ptr:a.b", "[(Pass, Ptr(None)), (Fail, Ptr(Some(DomainSpec(\"a.b\"))))]"),
            ("Ip4:1.2.3.4/8", "[(Pass, Ip4(1.2.3.4/8))]"),
            ("ip6:::ffff:1.2.3.4/0", "[(Pass, Ip6(::ffff:1.2.3.4/0))]"),
            ("Include:a.b", "[(Pass, Include(DomainSpec(\"a.b\")))]"),
            ("exists:%{l}.b", "[(Pass, Exists(DomainSpec(\"%{l}.b\")))]"),
            ("x= y.1-2_3=a/b:%{c} Exp=a.b redirect=c.d x=", "[]"),
        ];
        for (terms, expected) in rows {
            assert_eq!(
                record(format!("v=spf1 {terms}").as_bytes()),
                Ok(Some(expected.to_owned())),
                "{terms}"
            );
        }
    }

    #[test]
    fn redirect_is_kept_for_the_end() {
        let texts = [Box::from(&b"v=spf1 redirect=%{d2}.test a"[..])];
        let record = SpfRecord::among(&texts).unwrap().unwrap();
        assert_eq!(record.redirect, DomainSpec::parse("%{d2}.test").ok());
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_record_holds_its_names_can_be_asked_for(
            terms in "( |[-+~?]|include:|exists:|a|mx|ptr|:|/24|//64|redirect=|%\\{[sldiphv][0-9]?r?[-.]?\\}|[a-z.%{}0-9]{0,40}){0,40}",
            local in "[!-~]{0,64}",
        ) {
            let texts = [format!("v=spf1 {terms}").into_bytes().into_boxed_slice()];
            let Ok(Some(record)) = SpfRecord::among(&texts) else { return Ok(()) };
            let values = macros::Values {
                local: &local, origin: "a.test", domain: "b.test", client: [127, 0, 0, 1].into(), helo: "c d", name: "e",
            };
            let specs = record.directives().filter_map(|(_, mechanism)| match mechanism {
                Mechanism::Include(spec) | Mechanism::Exists(spec) => Some(spec),
                Mechanism::A(spec, _) | Mechanism::Mx(spec, _) | Mechanism::Ptr(spec) => spec,
                Mechanism::All | Mechanism::Ip4(_) | Mechanism::Ip6(_) => None,
            });
            for spec in specs.chain(record.redirect) {
                let name = spec.expand(&values);
                proptest::prop_assert!(name.is_none_or(|name| (1..=253).contains(&name.as_str().len())));
            }
        }

        #[test]
        fn no_octets_upset_the_parser(octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let texts = [[b"v=spf1 ", octets.as_slice()].concat().into_boxed_slice()];
            let ascii = octets.iter().all(|octet| matches!(octet, b' '..=b'~'));
            proptest::prop_assert!(ascii || SpfRecord::among(&texts).is_err());
        }
    }
}
