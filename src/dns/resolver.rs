//! One exchange with one upstream server: the only file that names hickory-resolver.
//!
//! UDP is ours (`udp`, `packet`): hickory's pool makes a socket and a task for each question and copies it several times,
//! which was a quarter of what a spoofed sender with a new name cost. That pool, with this one server in it, asks over TCP,
//! and hickory's parser reads what comes. What goes on is plain data. Following aliases, choosing servers and caching
//! are not done here; hickory's high-level `Resolver` is not used because it invents answers for 127/8 and `.invalid`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType as WireType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig, system_conf};
use tokio::time::{Instant, timeout_at};

use crate::dns::SetupError;
use crate::dns::packet::Packet;
use crate::dns::udp::{Outcome, Udp};
use crate::policy::evidence::{QuestionName, RecordType, Target, Trouble};
use crate::smtp::address::DomainName;

/// Requests under way on one TCP connection; the default of 32 is less than the questions that may wait at once.
const TCP_PIPELINE: usize = 512;

/// Records of an answer to a probe that are kept.
const MOST_SHOWN: usize = 3;

/// A server to ask.
pub(super) struct Upstream {
    udp: Udp,
    tcp: NameServerPool<TokioRuntimeProvider>,
}

impl Upstream {
    /// `timeout` bounds any single exchange; the asker gives up earlier.
    pub(super) fn new(server: SocketAddr, timeout: Duration) -> Result<Self, SetupError> {
        Ok(Self { udp: Udp::new(server), tcp: pool(server, timeout)? })
    }

    /// Asks once, until then at the latest; over TCP too when UDP was truncated or its answer didn't echo the question's
    /// case (0x20).
    pub(super) async fn ask(
        &self,
        name: &WireName,
        rtype: RecordType,
        until: Instant,
    ) -> Result<Response, Trouble> {
        let rtype = wire_type(rtype);
        let packet = Packet::new(name.0.iter(), rtype.into(), rand::random);
        match self.udp.ask(&packet, until).await {
            Ok(Outcome::Answer(octets)) => response(read(octets)),
            // Boxed: hardly any question goes this way.
            Ok(Outcome::OverTcp) => response(Box::pin(self.over_tcp(name, rtype, until)).await),
            Ok(Outcome::Silence) => Err(Trouble::Timeout),
            Err(error) => {
                tracing::debug!(%error, "no socket for a question");
                Err(Trouble::Broken)
            }
        }
    }

    /// The same for the sake of the server, not of the name.
    pub(super) async fn probe(&self, name: &WireName, asked: Asked, until: Instant) -> Said {
        let rtype = WireType::from(asked);
        let packet = Packet::new(name.0.iter(), rtype.into(), rand::random);
        match self.udp.ask(&packet, until).await {
            Ok(Outcome::Answer(octets)) => said(&read(octets)),
            Ok(Outcome::OverTcp) => said(&Box::pin(self.over_tcp(name, rtype, until)).await),
            Ok(Outcome::Silence) | Err(_) => Said::Nothing,
        }
    }

    async fn over_tcp(
        &self,
        name: &WireName,
        rtype: WireType,
        until: Instant,
    ) -> Result<DnsResponse, NetError> {
        let query = Query::query(name.0.clone(), rtype);
        let exchange = self.tcp.lookup(query, DnsRequestOptions::default()).first_answer();
        timeout_at(until, exchange).await.unwrap_or(Err(NetError::Timeout))
    }
}

/// What a server is asked for its own sake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// As a question of mail.
    Records(RecordType),
    Ns,
    Soa,
}

impl Asked {
    pub(super) fn name(self) -> &'static str {
        WireType::from(self).into()
    }
}

impl From<Asked> for WireType {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Records(rtype) => wire_type(rtype),
            Asked::Ns => Self::NS,
            Asked::Soa => Self::SOA,
        }
    }
}

/// What it says to that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing.
    Nothing,
    /// NXDOMAIN.
    Denied,
    /// The name exists, records of this type don't.
    NoData,
    /// The data of the first records, aliases too.
    Records(Vec<String>),
    /// Something else, SERVFAIL or REFUSED mostly.
    Failure,
}

/// Of a server that has said something, if only that TCP is the way to have it.
fn said(outcome: &Result<DnsResponse, NetError>) -> Said {
    match outcome {
        Ok(message) if !message.answers.is_empty() => {
            Said::Records(message.answers.iter().take(MOST_SHOWN).map(shown).collect())
        }
        Ok(message) => absent(message.response_code),
        Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => absent(nothing.response_code),
        Err(_) => Said::Failure,
    }
}

fn shown(record: &hickory_resolver::proto::rr::Record) -> String {
    record.data.to_string().trim_end_matches('.').to_owned()
}

fn absent(code: ResponseCode) -> Said {
    match code {
        ResponseCode::NXDomain => Said::Denied,
        ResponseCode::NoError => Said::NoData,
        _ => Said::Failure,
    }
}

fn read(octets: Vec<u8>) -> Result<DnsResponse, NetError> {
    Ok(DnsError::from_response(DnsResponse::from_buffer(octets)?)?)
}

fn pool(server: SocketAddr, timeout: Duration) -> Result<NameServerPool<TokioRuntimeProvider>, SetupError> {
    let mut connection = ConnectionConfig::tcp();
    connection.port = server.port();
    let mut options = ResolverOpts::default();
    options.timeout = timeout;
    options.attempts = 1; // not used by the pool; failover.rs repeats
    options.num_concurrent_reqs = 1;
    options.cache_size = 0;
    options.max_active_requests = TCP_PIPELINE;
    let tls = TlsConfig::new().map_err(|error| SetupError::Resolver(error.to_string()))?;
    let config = NameServerConfig::new(server.ip(), true, vec![connection]);
    let context = Arc::new(PoolContext::new(options, tls));
    Ok(NameServerPool::from_config([config], context, TokioRuntimeProvider::default()))
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

fn response(outcome: Result<DnsResponse, NetError>) -> Result<Response, Trouble> {
    match outcome {
        Ok(message) if matches!(message.response_code, ResponseCode::NoError | ResponseCode::NXDomain) => {
            Ok(Response {
                denied: message.response_code == ResponseCode::NXDomain,
                negative_ttl: message.negative_ttl().map(seconds),
                records: message.answers.iter().filter_map(record).collect(),
            })
        }
        Ok(_) => Err(Trouble::Broken),
        Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => negative(&nothing),
        Err(NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail))) => Err(Trouble::ServerFailure),
        Err(NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused))) => Err(Trouble::Refused),
        Err(NetError::Timeout) => Err(Trouble::Timeout),
        Err(_) => Err(Trouble::Broken),
    }
}

/// NXDOMAIN or NODATA. A referral (NS records, no SOA, no answer; RFC 2308 2.2) says neither: that server doesn't
/// resolve for us.
fn negative(nothing: &NoRecords) -> Result<Response, Trouble> {
    let denied = nothing.response_code == ResponseCode::NXDomain;
    if !denied && nothing.ns.is_some() && nothing.soa.is_none() {
        return Err(Trouble::Broken);
    }
    Ok(Response { denied, negative_ttl: nothing.negative_ttl.map(seconds), records: Vec::new() })
}

fn record(record: &hickory_resolver::proto::rr::Record) -> Option<Record> {
    let data = match &record.data {
        RData::CNAME(target) => Data::Alias(WireName(target.0.clone())),
        RData::MX(mx) => Data::Mx(mx.preference, WireName(mx.exchange.clone())),
        RData::A(address) => Data::A(address.0),
        RData::AAAA(address) => Data::Aaaa(address.0),
        RData::PTR(target) => Data::Ptr(WireName(target.0.clone())),
        RData::TXT(text) => Data::Txt(text.txt_data.concat().into()),
        _ => return None,
    };
    Some(Record { owner: WireName(record.name.clone()), ttl: seconds(record.ttl), data })
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into())
}

/// What a server said, unless it said that it can't.
#[derive(Debug)]
pub(super) struct Response {
    /// NXDOMAIN; of the last name where the records lead through aliases (RFC 6604 3).
    pub(super) denied: bool,
    /// From the SOA record; `None` without one (RFC 2308 5).
    pub(super) negative_ttl: Option<Duration>,
    /// The records of the answer section that matter here.
    pub(super) records: Vec<Record>,
}

/// A record of an answer.
#[derive(Debug)]
pub(super) struct Record {
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

/// The servers of the system's resolver configuration.
pub(super) fn system_servers() -> Result<Vec<SocketAddr>, SetupError> {
    let (config, _) =
        system_conf::read_system_conf().map_err(|error| SetupError::System(error.to_string()))?;
    let servers: Vec<_> = config
        .name_servers()
        .iter()
        .map(|server| {
            let port = server.connections.first().map_or(53, |connection| connection.port);
            SocketAddr::new(server.ip, port)
        })
        .collect();
    if servers.is_empty() { Err(SetupError::System("it names no server".to_owned())) } else { Ok(servers) }
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
