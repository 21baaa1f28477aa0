//! Macro strings (RFC 7208 7): their syntax, and the names that they become.
//!
//! A string is parsed twice, when the record is checked and when it is expanded, and no parsed form is kept: a record of any
//! length costs its own octets only. An expanded name is cut at the left to the longest name that DNS allows (7.3). A name that
//! DNS can't carry becomes `None`.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::evidence::QuestionName;

/// Longest name (RFC 7208 7.3).
const MAX_NAME: usize = 253;

/// A macro string, a record or a set of records breaks the grammar of RFC 7208 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SyntaxError;

/// A `domain-spec` (RFC 7208 7.1) whose syntax was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DomainSpec<'a>(&'a str);

/// What the macros stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    /// The local part of the sender.
    pub(super) local: &'a str,
    /// Its domain.
    pub(super) origin: &'a str,
    /// The domain whose policy is being evaluated.
    pub(super) domain: &'a str,
    pub(super) client: IpAddr,
    pub(super) helo: &'a str,
    /// The confirmed name of the client, or `unknown`.
    pub(super) name: &'a str,
}

impl<'a> DomainSpec<'a> {
    /// It must end in a macro or in a top label (RFC 7208 7.1), before anything is expanded.
    pub(super) fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let mut last = None;
        for piece in Pieces(text) {
            let piece = piece?;
            if matches!(piece, Piece::Macro(Macro { letter: Letter::OfExplanations, .. })) {
                return Err(SyntaxError);
            }
            last = Some(piece);
        }
        match last {
            Some(Piece::Macro(_) | Piece::Sign(_)) => Ok(Self(text)),
            Some(Piece::Literal(end)) => {
                let end = end.strip_suffix('.').unwrap_or(end);
                let top = end.rsplit_once('.').map(|(_, top)| top);
                top.filter(|top| is_top_label(top)).map(|_| Self(text)).ok_or(SyntaxError)
            }
            None => Err(SyntaxError),
        }
    }

    /// Whether it contains the macro `p`, whose value takes lookups.
    pub(super) fn names_client(self) -> bool {
        self.pieces().any(|piece| matches!(piece, Piece::Macro(Macro { letter: Letter::Name, .. })))
    }

    /// The expanded name; `None` where DNS can't carry it.
    pub(super) fn expand(self, values: &Values<'_>) -> Option<QuestionName> {
        let mut name = Vec::new();
        for piece in self.pieces() {
            match piece {
                Piece::Literal(text) | Piece::Sign(text) => name.extend_from_slice(text.as_bytes()),
                // RFC 8616 4: such a term never matches.
                Piece::Macro(Macro { letter: Letter::Sender | Letter::Local, .. })
                    if !values.local.is_ascii() =>
                {
                    return None;
                }
                Piece::Macro(one) => name.extend_from_slice(one.expand(values).as_bytes()),
            }
            // Octets further left are cut off in the end.
            let surplus = name.len().saturating_sub(4 * MAX_NAME);
            name.drain(..surplus);
        }
        let name = name.strip_suffix(b".").unwrap_or(&name);
        QuestionName::parse(right_end(name)?)
    }

    fn pieces(self) -> impl Iterator<Item = Piece<'a>> {
        Pieces(self.0).map_while(Result::ok)
    }
}

/// A `macro-string` that is never expanded: only its syntax counts.
pub(super) fn check(text: &str) -> Result<(), SyntaxError> {
    Pieces(text).try_for_each(|piece| piece.map(|_| ()))
}

/// At most 253 octets: as many labels from the right as there is room for.
fn right_end(name: &[u8]) -> Option<&[u8]> {
    let Some(cut) = name.len().checked_sub(MAX_NAME + 1) else {
        return Some(name);
    };
    let end = name.get(cut..)?;
    let dot = end.iter().position(|octet| *octet == b'.')?;
    end.get(dot + 1..)
}

/// `toplabel` (RFC 7208 7.1): letters, digits and inner hyphens, not digits alone.
fn is_top_label(label: &str) -> bool {
    label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().any(|byte| !byte.is_ascii_digit())
}

/// A part of a macro string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    /// As it stands.
    Literal(&'a str),
    /// What `%%`, `%_` or `%-` stands for.
    Sign(&'static str),
    Macro(Macro<'a>),
}

/// `%{...}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Macro<'a> {
    letter: Letter,
    /// The letter is upper case: the value is URL escaped.
    escaped: bool,
    /// How many parts are kept, from the right.
    parts: usize,
    reversed: bool,
    /// What parts are split at; empty = a dot.
    delimiters: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Letter {
    Sender,
    Local,
    Origin,
    Domain,
    Client,
    Name,
    Version,
    Helo,
    /// `c`, `r` and `t`, which only an explanation may have (RFC 7208 7.2).
    OfExplanations,
}

struct Pieces<'a>(&'a str);

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<Piece<'a>, SyntaxError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0;
        if rest.is_empty() {
            return None;
        }
        let found = match rest.strip_prefix('%') {
            None => {
                let end = rest.find('%').unwrap_or(rest.len());
                rest.split_at_checked(end).map(|(text, after)| (Piece::Literal(text), after))
            }
            Some(after) => sign(after).or_else(|| one_macro(after)),
        };
        let Some((piece, after)) = found else {
            self.0 = "";
            return Some(Err(SyntaxError));
        };
        self.0 = after;
        Some(Ok(piece))
    }
}

fn sign(text: &str) -> Option<(Piece<'_>, &str)> {
    let mut characters = text.chars();
    let stands_for = match characters.next()? {
        '%' => "%",
        '_' => " ",
        '-' => "%20",
        _ => return None,
    };
    Some((Piece::Sign(stands_for), characters.as_str()))
}

fn one_macro(text: &str) -> Option<(Piece<'_>, &str)> {
    let (inner, after) = text.strip_prefix('{')?.split_once('}')?;
    let mut characters = inner.chars();
    let first = characters.next()?;
    let letter = match first.to_ascii_lowercase() {
        's' => Letter::Sender,
        'l' => Letter::Local,
        'o' => Letter::Origin,
        'd' => Letter::Domain,
        'i' => Letter::Client,
        'p' => Letter::Name,
        'v' => Letter::Version,
        'h' => Letter::Helo,
        'c' | 'r' | 't' => Letter::OfExplanations,
        _ => return None,
    };
    let rest = characters.as_str();
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (digits, rest) = rest.split_at_checked(digits)?;
    let parts = match digits {
        "" => usize::MAX,
        // More than can be counted is more than there are.
        digits => digits.parse().unwrap_or(usize::MAX),
    };
    let without = rest.strip_prefix(['r', 'R']);
    let (reversed, delimiters) = (without.is_some(), without.unwrap_or(rest));
    let valid = parts > 0 && delimiters.bytes().all(|byte| b".-+,/_=".contains(&byte));
    let escaped = first.is_ascii_uppercase();
    valid.then_some((Piece::Macro(Macro { letter, escaped, parts, reversed, delimiters }), after))
}

impl Macro<'_> {
    fn expand(&self, values: &Values<'_>) -> String {
        let value = self.letter.value(values);
        let delimiters = if self.delimiters.is_empty() { "." } else { self.delimiters };
        let mut parts: Vec<&str> = value.split(|c| delimiters.contains(c)).collect();
        if self.reversed {
            parts.reverse();
        }
        let left_out = parts.len().saturating_sub(self.parts);
        let text = parts.split_off(left_out).join(".");
        if self.escaped { url_escaped(&text) } else { text }
    }
}

impl Letter {
    fn value<'a>(self, values: &Values<'a>) -> Cow<'a, str> {
        match self {
            Self::Sender => format!("{}@{}", values.local, values.origin).into(),
            Self::Local => values.local.into(),
            Self::Origin => values.origin.into(),
            Self::Domain => values.domain.into(),
            Self::Name => values.name.into(),
            Self::Helo => values.helo.into(),
            Self::Version => if values.client.is_ipv4() { "in-addr" } else { "ip6" }.into(),
            Self::Client => match values.client {
                IpAddr::V4(address) => address.to_string().into(),
                IpAddr::V6(address) => {
                    let nibbles = address.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
                    nibbles.map(|nibble| format!("{nibble:x}")).collect::<Vec<_>>().join(".").into()
                }
            },
            Self::OfExplanations => "".into(),
        }
    }
}

/// All but the unreserved characters of RFC 3986 2.3.
fn url_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'_> = Values {
        local: "strong-bad",
        origin: "email.example.com",
        domain: "email.example.com",
        client: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3)),
        helo: "mail.example.com",
        name: "unknown",
    };

    fn expanded(text: &str, values: &Values<'_>) -> Option<String> {
        let spec = DomainSpec::parse(text).unwrap_or_else(|_| panic!("{text}"));
        spec.expand(values).map(|name| name.as_str().to_owned())
    }

    #[test]
    fn macros_become_what_rfc_7208_7_4_says() {
        let rows = [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d3}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{L1R-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
            ("%{h}", "mail.example.com"),
            ("%{p}.x.test", "unknown.x.test"),
            ("%{d99999999999999999999999}", "email.example.com"),
            ("a%%b%_c%-d.test.", "a%b c%20d.test"),
            ("%{S}.test", "strong-bad%40email.example.com.test"),
            ("Mixed.%{d1}", "mixed.com"),
            ("%{o+,/_=-.}", "email.example.com"),
        ];
        for (text, expected) in rows {
            assert_eq!(expanded(text, &VALUES).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn an_ipv6_client_is_its_nibbles() {
        let values = Values { client: "2001:db8::cb01".parse().unwrap(), ..VALUES };
        let nibbles = "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com";
        assert_eq!(expanded("%{ir}.%{v}._spf.%{d2}", &values).as_deref(), Some(nibbles));
    }

    #[test]
    fn what_dns_cannot_be_asked_for_is_no_name() {
        let rows = [
            ("%{l}.test", "a..b", None),
            ("%{l}.test", "b\u{fc}cher", None),
            ("%{L}.test", "b\u{fc}cher", None),
            ("%{s}.test", "b\u{fc}cher", None),
            ("%{o}.test", "b\u{fc}cher", Some("email.example.com.test")),
            ("%{l}.test", "a+b=c", Some("a+b=c.test")),
            ("%{l}.test", "\"a b\"", Some("\"a b\".test")),
            ("%{L}.test", "\"a b\"", Some("%22a%20b%22.test")),
        ];
        for (text, local, expected) in rows {
            assert_eq!(expanded(text, &Values { local, ..VALUES }).as_deref(), expected, "{text} {local}");
        }
        let label = "l".repeat(64);
        assert_eq!(expanded("%{l}.test", &Values { local: &label, ..VALUES }), None);
    }

    #[test]
    fn of_a_name_that_is_too_long_the_left_labels_are_cut_off() {
        // 18 octets each with its dot: 14 of them and "test" make 256, 250 without the first label
        let fits = format!("example.com.{}test", "email.example.com.".repeat(13));
        for count in [14, 15, 60, 5_000] {
            let text = format!("{}test", "%{d}.".repeat(count));
            assert_eq!(expanded(&text, &VALUES).as_deref(), Some(fits.as_str()), "{count}");
        }
        let exact = format!("{}.test", ["a".repeat(61).as_str(); 4].join(".")); // 252
        assert_eq!(expanded(&format!("b{exact}"), &VALUES), Some(format!("b{exact}")));
        assert_eq!(expanded(&format!("c.{exact}"), &VALUES), Some(exact));
        assert_eq!(expanded(&format!("{}%{{d}}", "a".repeat(300)), &VALUES).as_deref(), Some("example.com"));
    }

    #[test]
    fn what_is_no_domain_spec_is_refused() {
        for text in [
            "",
            ".",
            "test",
            "test.",
            "a.",
            "a..",
            "a.1",
            "a.-b",
            "a.b-",
            "a.b_c",
            "a.b/24",
            "%",
            "%a.test",
            "%{d",
            "%{}.test",
            "%{a}.test",
            "%{d0}.test",
            "%{d00}.test",
            "%{d-r}.test",
            "%{rd}.test",
            "%{d!}.test",
            "%{c}",
            "%{R}.test",
            "%{t}.test",
            "%{d}test",
            "%{d}.",
            "a.b:8080",
            "%(d).test",
        ] {
            assert_eq!(DomainSpec::parse(text), Err(SyntaxError), "{text}");
        }
        for text in ["a.b", "a.b.", "a.b-c", "a.b--c", "a.1b", "a:b/c.test", "%{d}", "a%%", "a..b", "%{d}.c"]
        {
            assert!(DomainSpec::parse(text).is_ok(), "{text}");
        }
        for (text, good) in [("", true), ("a/b=%{c}%{t}", true), ("%{a}", false), ("%", false)] {
            assert_eq!(check(text).is_ok(), good, "{text}");
        }
    }
}
