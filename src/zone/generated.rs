//! Numbered sender domains for load tests: up to a million valid domains, each with its own mail exchanger at its own
//! loopback address, and parent domains below which every name is bad in one certain way.
//!
//! The domains take no memory and no time at start: the records of a valid domain are generated for each question,
//! spoofed names don't exist, and the other bad names are wildcards.

use std::net::Ipv4Addr;

use hickory_server::proto::rr::LowerName;

use crate::zone::data::{Node, RecordSet};
use crate::zone::{Behaviour, Name, RData, Zone, rdata};

/// All names but those of the PTR records are below it.
const APEX: &str = "load.test";
const REVERSE_APEX: &str = "127.in-addr.arpa";

/// The parent of the valid domains, `d0.ok.load.test` and so on.
pub const VALID: &str = "ok.load.test";
/// No name below it exists.
pub const SPOOFED: &str = "spoof.load.test";
/// Every name below it exists, without an MX record or an address.
pub const NO_MX: &str = "nomx.load.test";
/// Every name below it has a null MX (RFC 7505).
pub const NULL_MX: &str = "nullmx.load.test";
/// The name servers of every name below it answer SERVFAIL.
pub const BROKEN: &str = "servfail.load.test";
/// A host name with an address, for HELO.
pub const CLIENT: &str = "client.load.test";

/// The largest number of valid domains with an address each, 127.100.0.0 to 127.115.255.255.
pub const MAX_DOMAINS: u32 = 16 << 16;

/// The address of the mail exchanger of the valid domain with this number.
#[must_use]
pub fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 100, 0, 0).to_bits() + number % MAX_DOMAINS)
}

/// Time to live of all answers, in seconds: longer than most tests.
const TTL: u32 = 86_400;

impl Zone {
    /// The zones with this many valid domains, at most [`MAX_DOMAINS`].
    #[must_use]
    pub fn generated(valid: u32) -> Self {
        let mut zone = Self::new();
        zone.generated = valid.min(MAX_DOMAINS);
        let loopback = RData::A(rdata::A(Ipv4Addr::LOCALHOST));
        insert(&mut zone, CLIENT, loopback);
        let text = RData::TXT(rdata::TXT::new(vec!["no mail exchanger, no address".to_owned()]));
        insert(&mut zone, &format!("*.{NO_MX}"), text);
        insert(&mut zone, &format!("*.{NULL_MX}"), RData::MX(rdata::MX::new(0, Name::root())));
        for apex in [APEX, REVERSE_APEX] {
            let soa = rdata::SOA::new(Name::root(), Name::root(), 1, 3600, 600, 86_400, TTL);
            insert(&mut zone, apex, RData::SOA(soa));
        }
        if let Some(broken) = name(BROKEN) {
            zone.behave(&broken, None, Behaviour::ServFail);
        }
        zone
    }
}

/// The records of a name that belongs to one of the first `valid` domains.
pub(super) fn node(valid: u32, name: &LowerName) -> Option<Node> {
    if valid == 0 {
        return None;
    }
    let name = name.to_string();
    let name = name.strip_suffix('.').unwrap_or(&name);
    if name == VALID {
        return Some(Node::new());
    }
    let data = if let Some(reversed) = name.strip_suffix(".in-addr.arpa") {
        let number = number_of(reversed)?;
        RData::PTR(rdata::PTR(host(number).filter(|_| number < valid)?))
    } else {
        let label = name.strip_suffix(VALID)?.strip_suffix('.')?;
        let numbered = |start| label.strip_prefix(start).and_then(decimal).filter(|number| *number < valid);
        match (numbered("mx"), numbered("d")) {
            (Some(number), _) => RData::A(rdata::A(address(number))),
            (None, number) => RData::MX(rdata::MX::new(10, host(number?)?)),
        }
    };
    Some(Node::from([(data.record_type(), RecordSet { ttl: TTL, data: vec![data] })]))
}

/// A number in its shortest form: no sign, no leading zero.
fn decimal(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

/// The number of the domain that an address belongs to; `reversed` is the PTR name without its suffix.
fn number_of(reversed: &str) -> Option<u32> {
    let mut octets =
        reversed.splitn(4, '.').map(|octet| decimal(octet).and_then(|octet| u8::try_from(octet).ok()));
    let mut next = || octets.next().flatten();
    let (d, c, b, a) = (next()?, next()?, next()?, next()?);
    let first = address(0).to_bits();
    Ipv4Addr::new(a, b, c, d).to_bits().checked_sub(first).filter(|number| *number < MAX_DOMAINS)
}

fn host(number: u32) -> Option<Name> {
    name(&format!("mx{number}.{VALID}"))
}

fn insert(zone: &mut Zone, owner: &str, data: RData) {
    if let Some(owner) = name(owner) {
        zone.insert(&owner, TTL, data);
    }
}

/// Never `None` for the names of this file; a test looks each of them up.
fn name(text: &str) -> Option<Name> {
    Name::from_ascii(format!("{text}.")).ok()
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::op::ResponseCode;

    use super::super::RecordType;
    use super::*;

    fn ask(zone: &Zone, of: &str, record_type: RecordType) -> (ResponseCode, Vec<String>) {
        let reply = zone.answer(&name(of).unwrap(), record_type).reply.unwrap();
        (reply.code, reply.records.iter().map(|record| record.data.to_string()).collect())
    }

    #[test]
    fn every_name_is_good_or_bad_by_its_parent() {
        let zone = Zone::generated(3);
        let rows = [
            ("d0.ok.load.test", RecordType::MX, ResponseCode::NoError, &["10 mx0.ok.load.test."][..]),
            ("d2.ok.load.test", RecordType::MX, ResponseCode::NoError, &["10 mx2.ok.load.test."]),
            ("mx2.ok.load.test", RecordType::A, ResponseCode::NoError, &["127.100.0.2"]),
            ("2.0.100.127.in-addr.arpa", RecordType::PTR, ResponseCode::NoError, &["mx2.ok.load.test."]),
            ("d2.ok.load.test", RecordType::A, ResponseCode::NoError, &[]),
            ("mx2.ok.load.test", RecordType::AAAA, ResponseCode::NoError, &[]),
            ("ok.load.test", RecordType::MX, ResponseCode::NoError, &[]),
            ("d3.ok.load.test", RecordType::MX, ResponseCode::NXDomain, &[]),
            ("d02.ok.load.test", RecordType::MX, ResponseCode::NXDomain, &[]),
            ("x.d2.ok.load.test", RecordType::MX, ResponseCode::NXDomain, &[]),
            ("3.0.100.127.in-addr.arpa", RecordType::PTR, ResponseCode::NXDomain, &[]),
            ("1.0.0.127.in-addr.arpa", RecordType::PTR, ResponseCode::NXDomain, &[]),
            ("s7.spoof.load.test", RecordType::MX, ResponseCode::NXDomain, &[]),
            ("d7.nomx.load.test", RecordType::MX, ResponseCode::NoError, &[]),
            ("d7.nomx.load.test", RecordType::A, ResponseCode::NoError, &[]),
            ("d7.nullmx.load.test", RecordType::MX, ResponseCode::NoError, &["0 ."]),
            ("d7.servfail.load.test", RecordType::MX, ResponseCode::ServFail, &[]),
            ("client.load.test", RecordType::A, ResponseCode::NoError, &["127.0.0.1"]),
        ];
        for (of, record_type, code, records) in rows {
            let expected: Vec<_> = records.iter().map(|record| (*record).to_owned()).collect();
            assert_eq!(ask(&zone, of, record_type), (code, expected), "{record_type} {of}");
        }
    }

    #[test]
    fn the_last_of_a_million_domains_exists_and_its_address_has_its_name() {
        let zone = Zone::generated(MAX_DOMAINS);
        let last = MAX_DOMAINS - 1;
        let mx = ask(&zone, &format!("d{last}.ok.load.test"), RecordType::MX);
        assert_eq!(mx, (ResponseCode::NoError, vec![format!("10 mx{last}.ok.load.test.")]));
        let ptr = ask(&zone, "255.255.115.127.in-addr.arpa", RecordType::PTR);
        assert_eq!(ptr, (ResponseCode::NoError, vec![format!("mx{last}.ok.load.test.")]));
        let mut merged = Zone::sample();
        merged.merge(zone);
        assert_eq!(ask(&merged, "d0.ok.load.test", RecordType::MX).0, ResponseCode::NoError);
        assert_eq!(ask(&merged, "good.test", RecordType::MX).0, ResponseCode::NoError);
    }

    #[test]
    fn each_domain_has_its_own_loopback_address() {
        assert_eq!(address(0), Ipv4Addr::new(127, 100, 0, 0));
        assert_eq!(address(65_536), Ipv4Addr::new(127, 101, 0, 0));
        assert_eq!(address(MAX_DOMAINS - 1), Ipv4Addr::new(127, 115, 255, 255));
    }
}
