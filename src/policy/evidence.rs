//! What DNS was asked and what it said, as plain data: made by `dns`, judged by `reverse_mx`, shown by `rmxd check`.
//!
//! "No" is not "don't know": [`Answer`] keeps found, absent and unavailable apart all the way to the reply.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;

use crate::smtp::address::DomainName;

/// The record types that rmxd asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordType {
    /// Mail exchangers (RFC 1035 3.3.9).
    Mx,
    /// IPv4 address.
    A,
    /// IPv6 address (RFC 3596).
    Aaaa,
    /// Name of an address (RFC 1035 3.3.12).
    Ptr,
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mx => "MX",
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Ptr => "PTR",
        })
    }
}

/// One question to DNS, class IN.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// The name asked for; for PTR the name below `in-addr.arpa` or `ip6.arpa`.
    pub name: DomainName,
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

/// The records of an answer, of the type asked for, CNAMEs followed.
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
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// No server answered in time.
    Timeout,
    /// SERVFAIL.
    ServerFailure,
    /// REFUSED.
    Refused,
    /// Another error code, a broken answer, or no connection.
    Broken,
    /// CNAMEs that lead in a circle or on and on.
    AliasLoop,
    /// Too many questions are under way already.
    Busy,
    /// Not asked, since no server answers at present.
    Down,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "time-out",
            Self::ServerFailure => "SERVFAIL",
            Self::Refused => "REFUSED",
            Self::Broken => "broken answer",
            Self::AliasLoop => "CNAME loop",
            Self::Busy => "too many questions under way",
            Self::Down => "no DNS server answers",
        })
    }
}

/// What DNS said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// At least one record.
    Found(Records),
    /// The name exists, this type doesn't (NODATA, RFC 2308 2.2).
    NoData,
    /// The name doesn't exist, nor anything below it (NXDOMAIN, RFC 8020).
    NoSuchDomain,
    /// Unknown: DNS is in trouble.
    Unavailable(Trouble),
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
            Self::NoData => f.write_str("no record of this type"),
            Self::NoSuchDomain => f.write_str("NXDOMAIN"),
            Self::Unavailable(trouble) => trouble.fmt(f),
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
    /// From the cache, expired; DNS is in trouble. May carry a pass, never a failure.
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
    /// What was asked.
    pub question: Question,
    /// What DNS said.
    pub answer: Arc<Answer>,
    /// Where the answer came from.
    pub freshness: Freshness,
    /// How long it stays valid; zero when stale.
    pub ttl_left: Duration,
    /// How long ago it was received.
    pub age: Duration,
    /// How long the asker waited.
    pub took: Duration,
}
