//! A message from a server, read into plain data: the only file that names hickory-resolver. Pure.
//!
//! Only a complete response to a standard query, with its question, is proof of a record or its absence; anything else is an
//! error at most. `packet` compares the question with the one that was asked.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use compact_str::CompactString;
use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::{self, DNSClass, Name, RData, RecordType as WireType};

use crate::evidence::{DnsFailure, QuestionName, RecordType, Target};
use crate::smtp::address::DomainName;

/// Records of an answer to a probe that are kept.
const MOST_SHOWN: usize = 3;
/// The octet of the header that holds the low bits of RCODE, and which (RFC 1035 4.1.1).
const CODE_AT: usize = 3;
const CODE: u8 = 0x0F;
/// The largest time to live (RFC 2181 8).
const MAX_TTL: u32 = i32::MAX as u32;

/// What a server sent in response to a question.
#[derive(Debug)]
pub(super) enum Reply {
    /// NOERROR or NXDOMAIN.
    Answer(Box<Message>),
    /// An error.
    Failure(ResponseCode),
    /// Octets that are no DNS message, or a message that can't be an answer.
    Malformed,
}

impl Reply {
    /// Reads a message. Of an error the header alone counts: servers that couldn't read the question often put together
    /// a body that can't be read either.
    pub(super) fn read(octets: &[u8]) -> Self {
        let code = octets.get(CODE_AT).map_or(0, |octet| octet & CODE);
        match ResponseCode::from(0, code) {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            code => return Self::Failure(code),
        }
        let Ok(message) = Message::from_vec(octets) else {
            return Self::Malformed;
        };
        match message.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain if is_whole(&message) => {
                Self::Answer(Box::new(message))
            }
            ResponseCode::NoError | ResponseCode::NXDomain => Self::Malformed,
            code => Self::Failure(code), // its high bits are in the OPT record
        }
    }

    /// Whether that may be the answer of a server that doesn't know EDNS (RFC 6891 7).
    pub(super) fn is_lack_of_edns(&self) -> bool {
        matches!(self, Self::Failure(ResponseCode::FormErr | ResponseCode::NotImp))
    }

    /// For a question about this name. AD is believed only of a server that is `trusted`.
    pub(super) fn response(&self, name: &WireName, trusted: bool) -> Result<Response, DnsFailure> {
        let message = match self {
            Self::Answer(message) => message,
            Self::Failure(ResponseCode::ServFail) => return Err(DnsFailure::ServerFailure),
            Self::Failure(ResponseCode::Refused) => return Err(DnsFailure::Refused),
            Self::Failure(ResponseCode::FormErr) => return Err(DnsFailure::FormatError),
            Self::Failure(ResponseCode::NotImp) => return Err(DnsFailure::NotImplemented),
            Self::Failure(_) => return Err(DnsFailure::OtherError),
            Self::Malformed => return Err(DnsFailure::Broken),
        };
        let of_class_in = |record: &&rr::Record| record.dns_class == DNSClass::IN;
        let answers = || message.answers.iter().filter(of_class_in);
        let denied = message.response_code == ResponseCode::NXDomain;
        let about_another = !message.answers.is_empty() && answers().all(|record| record.name != name.0);
        if about_another || !denied && is_referral(message) {
            return Err(DnsFailure::Broken);
        }
        Ok(Response {
            denied,
            secure: trusted && message.authentic_data,
            negative_ttl: negative_ttl(message),
            records: answers().filter_map(record).collect(),
        })
    }

    pub(super) fn probe_reply(&self) -> ProbeReply {
        match self {
            Self::Answer(message) if !message.answers.is_empty() => {
                ProbeReply::Records(message.answers.iter().take(MOST_SHOWN).map(shown).collect())
            }
            Self::Answer(message) if message.response_code == ResponseCode::NXDomain => ProbeReply::Denied,
            Self::Answer(_) => ProbeReply::NoData,
            Self::Failure(_) | Self::Malformed => ProbeReply::Failure,
        }
    }
}

/// A complete response to one standard query. Without its question it could be the answer to any.
fn is_whole(message: &Message) -> bool {
    message.message_type == MessageType::Response
        && message.op_code == OpCode::Query
        && message.queries.len() == 1
        && !message.truncation
}

/// NS records, no SOA, no answer (RFC 2308 2.2): that server doesn't resolve for us, and knows nothing about the name.
fn is_referral(message: &Message) -> bool {
    let has = |wanted| message.authorities.iter().any(|record| record.record_type() == wanted);
    message.answers.is_empty() && has(WireType::NS) && !has(WireType::SOA)
}

/// RFC 2308 5.
fn negative_ttl(message: &Message) -> Option<Duration> {
    message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(time_to_live(record.ttl).min(time_to_live(soa.minimum))),
        _ => None,
    })
}

fn record(record: &rr::Record) -> Option<ResourceRecord> {
    let data = match &record.data {
        RData::CNAME(target) => Data::Alias(WireName(target.0.clone())),
        RData::MX(mx) => Data::Mx(mx.preference, WireName(mx.exchange.clone())),
        RData::A(address) => Data::A(address.0),
        RData::AAAA(address) => Data::Aaaa(address.0),
        RData::PTR(target) => Data::Ptr(WireName(target.0.clone())),
        RData::TXT(text) => Data::Txt(text.txt_data.concat().into()),
        _ => return None,
    };
    Some(ResourceRecord { owner: WireName(record.name.clone()), ttl: time_to_live(record.ttl), data })
}

/// With the top bit set it is zero (RFC 2181 8).
fn time_to_live(seconds: u32) -> Duration {
    Duration::from_secs(if seconds > MAX_TTL { 0 } else { seconds.into() })
}

fn shown(record: &rr::Record) -> String {
    record.data.to_string().trim_end_matches('.').to_owned()
}

/// The type of a probe's question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeType {
    /// As a question of mail.
    Records(RecordType),
    Ns,
    Soa,
}

impl ProbeType {
    pub(super) fn name(self) -> &'static str {
        WireType::from(self).into()
    }

    /// The number of the type.
    pub(super) fn number(self) -> u16 {
        WireType::from(self).into()
    }
}

impl From<ProbeType> for WireType {
    fn from(asked: ProbeType) -> Self {
        match asked {
            ProbeType::Records(rtype) => wire_type(rtype),
            ProbeType::Ns => Self::NS,
            ProbeType::Soa => Self::SOA,
        }
    }
}

/// The answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProbeReply {
    /// No answer, and why.
    Nothing(DnsFailure),
    /// NXDOMAIN.
    Denied,
    /// The name exists, records of this type don't.
    NoData,
    /// The data of the first records, aliases too.
    Records(Vec<String>),
    /// Something else, SERVFAIL or REFUSED mostly.
    Failure,
}

fn wire_type(rtype: RecordType) -> WireType {
    match rtype {
        RecordType::Mx => WireType::MX,
        RecordType::A => WireType::A,
        RecordType::Aaaa => WireType::AAAA,
        RecordType::Ptr => WireType::PTR,
        RecordType::Txt => WireType::TXT,
        RecordType::Cname => WireType::CNAME,
    }
}

/// An answer to a question of mail.
#[derive(Debug)]
pub(super) struct Response {
    /// NXDOMAIN; of the last name where the records lead through aliases (RFC 6604 3).
    pub(super) denied: bool,
    /// DNSSEC proves all of it (AD, RFC 4035 3.2.3).
    pub(super) secure: bool,
    /// From the SOA record; `None` without one (RFC 2308 5).
    pub(super) negative_ttl: Option<Duration>,
    /// The records of the answer section that matter here.
    pub(super) records: Vec<ResourceRecord>,
}

/// A record of an answer.
#[derive(Debug)]
pub(super) struct ResourceRecord {
    pub(super) owner: WireName,
    pub(super) ttl: Duration,
    pub(super) data: Data,
}

/// The data of a record.
#[derive(Debug)]
pub(super) enum Data {
    Alias(WireName),
    Mx(u16, WireName),
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Ptr(WireName),
    /// The strings of the record, joined without a separator.
    Txt(Box<[u8]>),
}

/// A name as the wire has it: labels of any octets. Equal whatever the case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WireName(Name);

impl WireName {
    /// The labels, without the root's.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter()
    }

    /// Always absolute; no search list is ever applied. `None` can't happen for a [`QuestionName`], which fits the wire.
    pub(super) fn of(name: &QuestionName) -> Option<Self> {
        Name::from_labels(name.as_str().split('.').map(str::as_bytes)).ok().map(Self)
    }

    /// Of labels that fit; none is the root.
    pub(super) fn labels<'a>(labels: impl IntoIterator<Item = &'a str>) -> Self {
        let mut name = Name::root();
        for label in labels {
            name = name.append_label(label).unwrap_or_else(|_too_long| Name::root());
        }
        name.set_fqdn(true);
        Self(name)
    }

    /// As a name in record data, or escaped where it is no host name.
    pub(super) fn target(&self) -> Target {
        if self.0.is_root() {
            return Target::Root;
        }
        match self.domain() {
            Some(name) => Target::Host(name),
            None => Target::Invalid(self.escaped()),
        }
    }

    /// The name, where it can be written as one; an octet `.` inside a label must not become two labels.
    pub(super) fn domain(&self) -> Option<DomainName> {
        let mut text = CompactString::default();
        for label in self.0.iter() {
            if label.contains(&b'.') {
                return None;
            }
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(std::str::from_utf8(label).ok()?);
        }
        DomainName::parse(&text).ok()
    }

    /// In the escapes of RFC 1035 5.1, with `\DDD` for all that isn't a visible ASCII character.
    fn escaped(&self) -> CompactString {
        let mut text = CompactString::default();
        for label in self.0.iter() {
            if !text.is_empty() {
                text.push('.');
            }
            for &octet in label {
                match octet {
                    b'.' | b'\\' => text.push_str(&format!("\\{}", char::from(octet))),
                    33..=126 => text.push(char::from(octet)),
                    _ => text.push_str(&format!("\\{octet:03}")),
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(labels: &[&[u8]]) -> WireName {
        WireName(Name::from_labels(labels.iter().copied()).unwrap())
    }

    #[test]
    fn any_octets_in_record_data_become_printable() {
        let rows: [(&[&[u8]], &str, bool); 8] = [
            (&[], ".", false),
            (&[b"Mail", b"GOOD", b"test"], "mail.good.test", true),
            (&[b"under_score", b"test"], "under_score.test", true),
            (&[b"bad name", b"test"], "bad\\032name.test", false),
            (&[b"a\r\nX: y", b"test"], "a\\013\\010X:\\032y.test", false),
            (&[b"mail.good", b"test"], "mail\\.good.test", false),
            (&[b"b\xc3\xbc", b"test"], "b\\195\\188.test", false),
            (&[b"0/25", b"2", b"0", b"192", b"in-addr", b"arpa"], "0/25.2.0.192.in-addr.arpa", false),
        ];
        for (labels, text, is_host) in rows {
            let target = wire(labels).target();
            assert_eq!((target.to_string().as_str(), matches!(target, Target::Host(_))), (text, is_host));
        }
    }

    #[test]
    fn every_domain_name_can_be_asked_for() {
        let longest = format!("{}a", "a.".repeat(126));
        for text in ["a", "_dmarc.under_score.test", "1.2.3.4", "xn--bcher-kva.test", "a--b.test", &longest] {
            let name = DomainName::parse(text).unwrap();
            assert_eq!(WireName::of(&QuestionName::from(&name)).unwrap().domain(), Some(name));
        }
    }
}
