//! A crowd of senders made by number, for load tests: as many valid domains as wanted, each with its own mail exchanger at
//! its own loopback address, and parents below which any name is bad in one certain way.
//!
//! Only the valid ones take memory: spoofed names don't exist, the other bad ones are wildcards.

use std::net::Ipv4Addr;

use super::{Behaviour, Name, RData, RecordType, Zone, rdata};

/// Below it are the valid domains, `d0.ok.load.test` and so on.
pub const VALID: &str = "ok.load.test";
/// No name below it exists.
pub const SPOOFED: &str = "spoof.load.test";
/// Every name below it has an address and no MX record.
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

/// Time to live: longer than any test.
const TTL: u32 = 86_400;

impl Zone {
    /// The crowd, with this many valid domains, at most [`MOST`].
    #[must_use]
    pub fn crowd(valid: u32) -> Self {
        let mut zone = Self::new();
        let here = RData::A(rdata::A(Ipv4Addr::LOCALHOST));
        insert(&mut zone, CLIENT, here.clone());
        insert(&mut zone, &format!("*.{NO_MX}"), here);
        insert(&mut zone, &format!("*.{NULL_MX}"), RData::MX(rdata::MX::new(0, Name::root())));
        if let Some(broken) = name(BROKEN) {
            zone.behave(&broken, None, Behaviour::ServFail);
        }
        for number in 0..valid.min(MOST) {
            let host = format!("mx{number}.{VALID}");
            let Some(host_name) = name(&host) else { continue };
            let address = address(number);
            insert(&mut zone, &host, RData::A(rdata::A(address)));
            insert(
                &mut zone,
                &format!("d{number}.{VALID}"),
                RData::MX(rdata::MX::new(10, host_name.clone())),
            );
            let reverse = Name::from(address);
            zone.replace(&reverse, RecordType::PTR, TTL, vec![RData::PTR(rdata::PTR(host_name))]);
        }
        zone
    }
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
            ("d3.ok.load.test", RecordType::MX, ResponseCode::NXDomain, &[]),
            ("s7.spoof.load.test", RecordType::MX, ResponseCode::NXDomain, &[]),
            ("d7.nomx.load.test", RecordType::MX, ResponseCode::NoError, &[]),
            ("d7.nomx.load.test", RecordType::A, ResponseCode::NoError, &["127.0.0.1"]),
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
    fn each_has_an_address_of_its_own_on_loopback() {
        assert_eq!(address(0), Ipv4Addr::new(127, 100, 0, 0));
        assert_eq!(address(65_536), Ipv4Addr::new(127, 101, 0, 0));
        assert_eq!(address(MOST - 1), Ipv4Addr::new(127, 115, 255, 255));
    }
}
