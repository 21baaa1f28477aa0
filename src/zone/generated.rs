//! A crowd of senders made by number, for load tests: as many valid domains as wanted, each with its own mail exchanger at
//! its own loopback address, and parents below which any name is bad in one certain way.
//!
//! However many they are, they take no memory and no time to make: a valid domain's records are made when they are asked for,
//! spoofed names don't exist, and the other bad ones are wildcards.

use std::net::Ipv4Addr;

use hickory_server::proto::rr::LowerName;

use super::data::{Node, RecordSet};
use super::{Behaviour, Name, RData, Zone, rdata};

/// All of it is below this one, and the PTR records are in the other zone.
const APEX: &str = "load.test";
const REVERSE_APEX: &str = "127.in-addr.arpa";

/// Below it are the valid domains, `d0.ok.load.test` and so on.
pub const VALID: &str = "ok.load.test";
/// No name below it exists.
pub const SPOOFED: &str = "spoof.load.test";
/// Every name below it exists, without an MX record or an address.
pub const NO_MX: &str = "nomx.load.test";
/// Every name below it says that it takes no mail (RFC 7505).
pub const NULL_MX: &str = "nullmx.load.test";
/// The name servers of every name below it answer SERVFAIL.
pub const BROKEN: &str = "servfail.load.test";
/// A name with an address, for HELO.
pub const CLIENT: &str = "client.load.test";

/// The most valid domains that have an address of their own, 127.100.0.0 to 127.115.255.255.
pub const MOST: u32 = 16 << 16;

/// The address of the mail exchanger of the valid domain with this number.
#[must_use]
pub fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 100, 0, 0).to_bits() + number % MOST)
}

/// Time to live, of negative answers too: longer than most tests.
const TTL: u32 = 86_400;

impl Zone {
    /// The crowd, with this many valid domains, at most [`MOST`].
    #[must_use]
    pub fn crowd(valid: u32) -> Self {
        let mut zone = Self::new();
        zone.crowd = valid.min(MOST);
        let here = RData::A(rdata::A(Ipv4Addr::LOCALHOST));
        insert(&mut zone, CLIENT, here);
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

/// What a name has that belongs to one of the first `valid` domains; made when it is asked for.
pub(super) fn node(valid: u32, asked: &LowerName) -> Option<Node> {
    if valid == 0 {
        return None;
    }
    let asked = asked.to_string();
    let asked = asked.strip_suffix('.').unwrap_or(&asked);
    if asked == VALID {
        return Some(Node::new());
    }
    let data = if let Some(reversed) = asked.strip_suffix(".in-addr.arpa") {
        let number = number_of(reversed)?;
        RData::PTR(rdata::PTR(host(number).filter(|_| number < valid)?))
    } else {
        let label = asked.strip_suffix(VALID)?.strip_suffix('.')?;
        let numbered = |start| label.strip_prefix(start).and_then(plain).filter(|number| *number < valid);
        match (numbered("mx"), numbered("d")) {
            (Some(number), _) => RData::A(rdata::A(address(number))),
            (None, number) => RData::MX(rdata::MX::new(10, host(number?)?)),
        }
    };
    Some(Node::from([(data.record_type(), RecordSet { ttl: TTL, data: vec![data] })]))
}

/// A number as it is written in names: no sign, no zero before it.
fn plain(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

/// The number of the domain that an address belongs to, from the front of its PTR name.
fn number_of(reversed: &str) -> Option<u32> {
    let mut octets =
        reversed.splitn(4, '.').map(|octet| plain(octet).and_then(|octet| u8::try_from(octet).ok()));
    let mut next = || octets.next().flatten();
    let (d, c, b, a) = (next()?, next()?, next()?, next()?);
    let first = address(0).to_bits();
    Ipv4Addr::new(a, b, c, d).to_bits().checked_sub(first).filter(|number| *number < MOST)
}

fn host(number: u32) -> Option<Name> {
    name(&format!("mx{number}.{VALID}"))
}

fn insert(zone: &mut Zone, owner: &str, data: RData) {
    if let Some(owner) = name(owner) {
        zone.insert(&owner, TTL, data);
    }
}

/// Never `None` for the names made here; a test has each of them asked for.
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
    fn every_name_is_good_or_bad_as_its_parent_says() {
        let zone = Zone::crowd(3);
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
    fn the_last_of_very_many_is_there_at_once_and_leads_back_to_itself() {
        let zone = Zone::crowd(MOST);
        let last = MOST - 1;
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
    fn each_has_an_address_of_its_own_on_loopback() {
        assert_eq!(address(0), Ipv4Addr::new(127, 100, 0, 0));
        assert_eq!(address(65_536), Ipv4Addr::new(127, 101, 0, 0));
        assert_eq!(address(MOST - 1), Ipv4Addr::new(127, 115, 255, 255));
    }
}
