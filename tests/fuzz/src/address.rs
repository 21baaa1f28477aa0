//! Addresses and domain names: what was read can be printed and read again, and holds nothing that steers a line.
//!
//! Input: the text, UTF-8 as far as it goes.

use rmxd::smtp::address::{Domain, DomainName, ForwardPath, Mailbox, ReversePath};
use rmxd::smtp::pattern::DomainPattern;

pub fn check(input: &[u8]) {
    let text = input.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    if let Ok(name) = DomainName::parse(text) {
        assert!(text.eq_ignore_ascii_case(name.as_str()));
    }
    if let Ok(name) = DomainName::parse_unicode(text) {
        assert_name(&name);
    }
    if let Ok(domain) = Domain::parse(text) {
        assert_domain(&domain);
    }
    if let Ok(mailbox) = Mailbox::parse(text) {
        assert_mailbox(&mailbox);
    }
    if let Ok(path) = ReversePath::parse(text) {
        let printed = path.to_string();
        match &path {
            ReversePath::Null => assert!(printed.is_empty()),
            ReversePath::NoDomain(local) => assert_without_domain(local, &printed),
            ReversePath::Mailbox(mailbox) => assert_mailbox(mailbox),
        }
        assert_eq!(ReversePath::parse(&printed), Ok(path), "{printed:?}");
    }
    if let Ok(path) = ForwardPath::parse(text) {
        let printed = path.to_string();
        match &path {
            ForwardPath::NoDomain(local) => assert_without_domain(local, &printed),
            ForwardPath::Mailbox(mailbox) => assert_mailbox(mailbox),
        }
        assert_eq!(ForwardPath::parse(&printed), Ok(path), "{printed:?}");
    }
    if let Ok(pattern) = DomainPattern::parse(text) {
        assert_eq!(DomainPattern::parse(&pattern.to_string()), Ok(pattern.clone()));
        let own = DomainName::parse(pattern.to_string().trim_start_matches('.')).unwrap();
        assert!(pattern.covers(&own));
        if let Ok(below) = DomainName::parse(&format!("a.{own}")) {
            assert_eq!(pattern.covers(&below), pattern.to_string().starts_with('.'));
        }
    }
}

/// What DNS can be asked for.
fn assert_name(name: &DomainName) {
    let text = name.as_str();
    assert!((1..=253).contains(&text.len()), "{text:?}");
    for label in text.split('.') {
        assert!(
            (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-'),
            "{text:?}"
        );
    }
    assert!(
        text.bytes().all(|octet| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.')),
        "{text:?}"
    );
    assert_eq!(DomainName::parse(text).as_ref(), Ok(name));
    assert_eq!(DomainName::parse_unicode(text).as_ref(), Ok(name));
    assert_eq!(DomainName::parse(&text.to_ascii_uppercase()).as_ref(), Ok(name));
    assert_eq!(name.parent().is_none(), name.is_single_label());
    let mut above = Some(name.clone());
    while let Some(other) = above {
        assert!(name.is_at_or_below(&other), "{name} below {other}");
        assert_eq!(other.is_at_or_below(name), other == *name, "{other} below {name}");
        above = other.parent();
    }
}

fn assert_domain(domain: &Domain) {
    let printed = domain.to_string();
    match domain {
        Domain::Name(name) => assert_name(name),
        Domain::Literal(text) => {
            assert!(text.bytes().all(|octet| octet.is_ascii_graphic()), "{text:?}");
            assert!(text.starts_with('[') && text.find(']') == Some(text.len() - 1), "{text:?}");
        }
    }
    assert_eq!(Domain::parse(&printed).as_ref(), Ok(domain), "{printed:?}");
}

fn assert_mailbox(mailbox: &Mailbox) {
    let printed = mailbox.to_string();
    assert!(printed.len() <= 1000, "{printed:?}");
    assert_local(mailbox.local());
    assert_domain(mailbox.domain());
    assert_eq!(printed, format!("{}@{}", mailbox.local(), mailbox.domain()));
    assert_eq!(Mailbox::parse(&printed).as_ref(), Ok(mailbox), "{printed:?}");
}

/// `""` alone would be no address at all.
fn assert_without_domain(local: &str, printed: &str) {
    assert!(printed.len() <= 1000 && printed != "\"\"", "{printed:?}");
    assert_local(local);
    assert_eq!(local, printed);
}

/// `Dot-string` or `Quoted-string` (RFC 5321 4.1.2), of any length, with octets above 127 (RFC 6531 3.3).
fn assert_local(local: &str) {
    let Some(inner) = local.strip_prefix('"') else {
        let is_atext =
            |byte: u8| byte.is_ascii_alphanumeric() || byte > 127 || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
        assert!(local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext)), "{local:?}");
        return;
    };
    let inner = inner.strip_suffix('"').unwrap_or_else(|| panic!("{local:?}"));
    let mut escaped = false;
    for character in inner.chars() {
        assert!(!character.is_ascii_control() && (escaped || character != '"'), "{local:?}");
        escaped = character == '\\' && !escaped;
    }
    assert!(!escaped, "{local:?}");
}
