//! Questions to DNS and their answers as plain data: `dns` makes it, `reverse_mx` judges it, `rmxd check` shows it.
//!
//! "No" is not "don't know": [`Answer`] keeps found, absent and unavailable apart all the way to the reply.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use compact_str::{CompactString, ToCompactString, format_compact};

use crate::smtp::address::DomainName;
use crate::smtp::escape::Escaped;

/// The record types that rmxd asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordType {
    /// Mail exchangers (RFC 1035 3.3.9).
    Mx,
    /// IPv4 address.
    A,
    /// IPv6 address (RFC 3596).
    Aaaa,
    /// Name of an address (RFC 1035 3.3.12).
    Ptr,
    /// Text (RFC 1035 3.3.14), where SPF stands.
    Txt,
    /// What a name is an alias of (RFC 1035 3.3.1). Rules don't ask for it: in their answers aliases are followed.
    Cname,
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mx => "MX",
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Ptr => "PTR",
            Self::Txt => "TXT",
            Self::Cname => "CNAME",
        })
    }
}

/// A name to ask for: a domain name, or an expanded SPF macro, whose labels may contain any printable ASCII
/// character (`a+b=c._spf.example`). Lower case, labels of 1 to 63 octets, at most 253 octets, no final dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QuestionName(CompactString);

impl QuestionName {
    /// Any case; `None` for a name that DNS can't carry.
    #[must_use]
    pub fn parse(octets: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(octets).ok()?;
        let label = |label: &str| (1..=63).contains(&label.len());
        let askable = text.len() <= 253
            && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
            && text.split('.').all(label);
        askable.then(|| {
            let mut name = CompactString::new(text);
            name.make_ascii_lowercase();
            Self(name)
        })
    }

    /// The name, lower case, without a final dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the other name or ends in it.
    #[must_use]
    pub fn is_at_or_below(&self, other: &Self) -> bool {
        let rest = self.0.strip_suffix(other.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// The name above, `None` for a single label.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0.split_once('.').map(|(_, rest)| Self(CompactString::new(rest)))
    }
}

impl From<&DomainName> for QuestionName {
    fn from(name: &DomainName) -> Self {
        Self(CompactString::new(name.as_str()))
    }
}

impl From<DomainName> for QuestionName {
    fn from(name: DomainName) -> Self {
        Self::from(&name)
    }
}

impl fmt::Display for QuestionName {
    /// A blank and a backslash in the escapes of RFC 1035 5.1, so that a name is one word.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.split('\\').enumerate() {
            f.write_str(if at == 0 { "" } else { "\\\\" })?;
            for (at, word) in part.split(' ').enumerate() {
                write!(f, "{}{word}", if at == 0 { "" } else { "\\032" })?;
            }
        }
        Ok(())
    }
}

/// One question to DNS, class IN.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question {
    /// The name asked for; for PTR the name below `in-addr.arpa` or `ip6.arpa`.
    pub name: QuestionName,
    /// The type asked for.
    pub rtype: RecordType,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.rtype, self.name)
    }
}

/// A name in record data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The root, which in an MX record makes it the null MX (RFC 7505 3).
    Root,
    /// A host name.
    Host(DomainName),
    /// Something that is no host name, escaped for printing: `bad\032name.test`.
    Invalid(CompactString),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("."),
            Self::Host(name) => name.fmt(f),
            Self::Invalid(text) => f.write_str(text),
        }
    }
}

/// The records of an answer, of the type asked for, CNAMEs followed (but where they are asked for).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Records {
    /// Preference and exchange, best preference first.
    Mx(Vec<(u16, Target)>),
    /// Addresses.
    A(Vec<Ipv4Addr>),
    /// Addresses.
    Aaaa(Vec<Ipv6Addr>),
    /// Names of an address.
    Ptr(Vec<Target>),
    /// Texts; the strings of one record joined (RFC 7208 3.3).
    Txt(Vec<Box<[u8]>>),
    /// What the name is an alias of.
    Cname(Target),
}

/// A text that begins with a version (`v=spf1 ...`) is shown up to this many octets. The others (proofs of ownership and the
/// like) are only counted.
const MOST_TEXT: usize = 512;
/// Texts of one answer that are shown.
const MOST_TEXTS: usize = 3;

fn texts(f: &mut fmt::Formatter<'_>, texts: &[Box<[u8]>]) -> fmt::Result {
    let versioned = texts.iter().filter(|text| text.get(..2).is_some_and(|v| v.eq_ignore_ascii_case(b"v=")));
    let mut shown = 0;
    for text in versioned.take(MOST_TEXTS) {
        let part = text.get(..MOST_TEXT).unwrap_or(text);
        let dots = if part.len() < text.len() { "..." } else { "" };
        write!(f, "{}\"{}\"{dots}", if shown == 0 { "" } else { ", " }, Escaped::new(part))?;
        shown += 1;
    }
    match texts.len() - shown {
        0 => Ok(()),
        1 => write!(f, "{}1 other text", if shown == 0 { "" } else { " and " }),
        others => write!(f, "{}{others} other texts", if shown == 0 { "" } else { " and " }),
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DnsFailure {
    /// No server answered in time.
    Timeout,
    /// SERVFAIL.
    ServerFailure,
    /// REFUSED.
    Refused,
    /// Octets that are no answer, or a connection that was closed without one.
    Broken,
    /// CNAMEs that lead in a circle or on and on.
    AliasLoop,
    /// Too many questions are under way already.
    Busy,
    /// Not asked, since no server answers at present.
    Down,
    /// Not asked, since this connection, message or identity has caused too many questions.
    TooMany,
    /// FORMERR.
    FormatError,
    /// NOTIMP.
    NotImplemented,
    /// An error code that has no name here.
    OtherError,
    /// No way leads to the server (ENETUNREACH, EHOSTUNREACH).
    NoRoute,
    /// This machine doesn't let the question out (EACCES, EPERM).
    Forbidden,
    /// This machine has no address or port to ask from (EADDRNOTAVAIL).
    NoAddress,
    /// Nothing listens at the server's port (ECONNREFUSED).
    PortClosed,
    /// No socket could be had, mostly for lack of descriptors or memory.
    NoSocket,
    /// The answer is too long for UDP, and no connection over TCP could be made.
    NoTcp,
}

impl DnsFailure {
    /// Whether nothing came back from a server.
    #[must_use]
    pub fn is_silence(self) -> bool {
        match self {
            Self::Timeout
            | Self::Down
            | Self::NoRoute
            | Self::Forbidden
            | Self::NoAddress
            | Self::PortClosed
            | Self::NoSocket => true,
            Self::ServerFailure
            | Self::Refused
            | Self::Broken
            | Self::AliasLoop
            | Self::Busy
            | Self::TooMany
            | Self::FormatError
            | Self::NotImplemented
            | Self::OtherError
            | Self::NoTcp => false,
        }
    }
}

impl fmt::Display for DnsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "timeout",
            Self::ServerFailure => "SERVFAIL",
            Self::Refused => "REFUSED",
            Self::Broken => "broken answer",
            Self::AliasLoop => "CNAME loop",
            Self::Busy => "too many questions under way",
            Self::Down => "no DNS server answers",
            Self::TooMany => "too many questions",
            Self::FormatError => "FORMERR",
            Self::NotImplemented => "NOTIMP",
            Self::OtherError => "an error code",
            Self::NoRoute => "no answer, no route to the server",
            Self::Forbidden => "no answer, this machine doesn't let the question out",
            Self::NoAddress => "no answer, no local address to ask from",
            Self::PortClosed => "no answer, the server's port is closed",
            Self::NoSocket => "no answer, no socket to ask by",
            Self::NoTcp => "too long for UDP, and no connection over TCP",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// At least one record.
    Found(Records),
    /// The name exists, this type doesn't (NODATA, RFC 2308 2.2).
    NoData,
    /// The name doesn't exist, nor anything below it (NXDOMAIN, RFC 8020).
    NoSuchDomain,
    /// Unknown: the lookup failed.
    Unavailable(DnsFailure),
}

impl fmt::Display for Answer {
    /// As `rmxd check` shows it: `10 mx1.example, 20 mx2.example`, `NXDOMAIN`, `no MX record` and so on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(
            f: &mut fmt::Formatter<'_>,
            items: impl IntoIterator<Item = T>,
        ) -> fmt::Result {
            for (at, item) in items.into_iter().enumerate() {
                write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
            }
            Ok(())
        }
        match self {
            Self::Found(Records::Mx(list_of)) => {
                list(f, list_of.iter().map(|(preference, target)| format!("{preference} {target}")))
            }
            Self::Found(Records::A(addresses)) => list(f, addresses),
            Self::Found(Records::Aaaa(addresses)) => list(f, addresses),
            Self::Found(Records::Ptr(names)) => list(f, names),
            Self::Found(Records::Txt(found)) => texts(f, found),
            Self::Found(Records::Cname(target)) => target.fmt(f),
            Self::NoData => f.write_str("no record of this type"),
            Self::NoSuchDomain => f.write_str("NXDOMAIN"),
            Self::Unavailable(failure) => failure.fmt(f),
        }
    }
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// Asked now.
    Fresh,
    /// From the cache, within its TTL.
    Cached,
    /// From the cache, expired, while DNS fails. A pass may rest on it, a failed rule never.
    Stale,
}

impl Freshness {
    /// The word in logs and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Cached => "cached",
            Self::Stale => "stale",
        }
    }
}

/// One question with its answer, as it counted for a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub question: Question,
    pub answer: Arc<Answer>,
    /// Where the answer came from.
    pub freshness: Freshness,
    /// How long it stays valid; zero when stale.
    pub ttl_left: Duration,
    /// How long ago it was received.
    pub age: Duration,
    /// How long the caller waited.
    pub took: Duration,
    /// Of a failure: the server that it is about. `None` where none was asked, and in decisions of earlier versions.
    pub server: Option<Arc<SocketAddr>>,
}

impl Evidence {
    /// The answer, and for a failure the server: `timeout (asked 192.0.2.53:53)`.
    #[must_use]
    pub fn answer(&self) -> CompactString {
        match (&*self.answer, &self.server) {
            (Answer::Unavailable(failure), Some(server)) => format_compact!("{failure} (asked {server})"),
            (answer, _) => answer.to_compact_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_any_printable_name_that_fits_the_wire() {
        let long = format!("{}a", "a.".repeat(126));
        let label = "l".repeat(63);
        for (octets, expected) in [
            (&b"Mail.GOOD.test"[..], Some("mail.good.test")),
            (b"a+b=c._spf.test", Some("a+b=c._spf.test")),
            (b"\"a b\\\".test", Some("\"a\\032b\\\\\".test")),
            (b"test", Some("test")),
            (long.as_bytes(), Some(long.as_str())),
            (label.as_bytes(), Some(label.as_str())),
            (format!("{long}a").as_bytes(), None),
            (format!("{label}l").as_bytes(), None),
            (b"", None),
            (b"a..test", None),
            (b"test.", None),
            (b"a\ttest", None),
            ("b\u{fc}cher.test".as_bytes(), None),
            (b"\xff.test", None),
        ] {
            let name = QuestionName::parse(octets);
            assert_eq!(name.map(|name| name.to_string()).as_deref(), expected, "{octets:?}");
        }
    }

    #[test]
    fn texts_are_shown_printable_and_shortened() {
        let shown = |texts: &[&[u8]]| {
            Answer::Found(Records::Txt(texts.iter().map(|text| Box::from(*text)).collect())).to_string()
        };
        let long = format!("v=spf1 {}", "a".repeat(600));
        let rows: [(&[&[u8]], String); 6] = [
            (&[b"V=spf1 -all"], "\"V=spf1 -all\"".into()),
            (&[b"proof=1", b"v=spf1\r\n\xff\""], "\"v=spf1\\x0d\\x0a\\xff\"\" and 1 other text".into()),
            (&[b"proof=1", b"", b"\0"], "3 other texts".into()),
            (&[b"v=spf1 a", b"v=spf1 b"], "\"v=spf1 a\", \"v=spf1 b\"".into()),
            (&[long.as_bytes()], format!("\"v=spf1 {}\"...", "a".repeat(505))),
            (&[&b"v=1"[..]; 7], format!("{} and 4 other texts", ["\"v=1\""; 3].join(", "))),
        ];
        for (texts, expected) in rows {
            assert_eq!(shown(texts), expected);
        }
    }
}
