//! Records in the form of a zone file (RFC 1035 5): absolute names, class IN, one per line.

use std::fmt;
use std::net::IpAddr;

use crate::dns::fcrdns::reverse_name;
use crate::evidence::{QuestionName, Target};
use crate::smtp::address::DomainName;

/// Time to live of new records, in seconds.
const TTL: u32 = 3600;
/// Octets of one string of a TXT record at most (RFC 1035 3.3).
const MAX_STRING: usize = 255;

/// A record for the zone of the domain or of the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MissingRecord {
    owner: String,
    rtype: &'static str,
    data: String,
}

impl MissingRecord {
    /// A or AAAA.
    pub(super) fn address(owner: &DomainName, address: IpAddr) -> Self {
        let rtype = if address.is_ipv4() { "A" } else { "AAAA" };
        Self { owner: absolute(owner), rtype, data: address.to_string() }
    }

    pub(super) fn mx(owner: &DomainName, preference: u16, host: &DomainName) -> Self {
        Self::mx_to(owner, preference, &Target::Host(host.clone()))
    }

    pub(super) fn mx_to(owner: &DomainName, preference: u16, target: &Target) -> Self {
        let dot = if *target == Target::Root { "" } else { "." };
        Self { owner: absolute(owner), rtype: "MX", data: format!("{preference} {target}{dot}") }
    }

    /// `name` has no final dot. Never `None`, since every address has a reverse name.
    pub(super) fn ptr(address: IpAddr, name: &str) -> Option<Self> {
        let owner = absolute(&reverse_name(address)?);
        Some(Self { owner, rtype: "PTR", data: format!("{name}.") })
    }

    /// `text` is ASCII. It is split at blanks into strings that readers join without a separator (RFC 7208 3.3).
    pub(super) fn txt(owner: &DomainName, text: &str) -> Self {
        let strings: Vec<String> = strings(text).iter().map(|string| quoted(string)).collect();
        Self { owner: absolute(owner), rtype: "TXT", data: strings.join(" ") }
    }

    /// A TXT record at `_dmarc.` of the domain; `None` if that name is too long.
    pub(super) fn dmarc(domain: &DomainName, text: &str) -> Option<Self> {
        let owner = QuestionName::parse(format!("_dmarc.{domain}").as_bytes())?;
        Some(Self { owner: format!("{}.", owner.as_str()), ..Self::txt(domain, text) })
    }

    /// The form of an existing record, without the time to live.
    pub(super) fn existing(&self) -> String {
        format!("{} IN {} {}", self.owner, self.rtype, self.data)
    }
}

impl fmt::Display for MissingRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {TTL} IN {} {}", self.owner, self.rtype, self.data)
    }
}

fn absolute(name: &DomainName) -> String {
    format!("{name}.")
}

fn strings(text: &str) -> Vec<String> {
    let mut strings = vec![String::new()];
    for word in text.split_inclusive(' ') {
        for piece in word.as_bytes().chunks(MAX_STRING) {
            let piece = String::from_utf8_lossy(piece);
            match strings.last_mut() {
                Some(last) if last.len() + piece.len() <= MAX_STRING => last.push_str(&piece),
                _ => strings.push(piece.into_owned()),
            }
        }
    }
    strings
}

fn quoted(string: &str) -> String {
    format!("\"{}\"", string.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::{Name, RData, RecordType, Zone};

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[test]
    fn each_record_is_a_line_of_a_zone_file() {
        let host = name("mx2.a.test");
        let v4: IpAddr = "192.0.2.7".parse().unwrap();
        let v6: IpAddr = "2001:db8::4a".parse().unwrap();
        let rows = [
            (MissingRecord::address(&host, v4), "mx2.a.test. 3600 IN A 192.0.2.7"),
            (MissingRecord::address(&host, v6), "mx2.a.test. 3600 IN AAAA 2001:db8::4a"),
            (MissingRecord::mx(&name("a.test"), 20, &host), "a.test. 3600 IN MX 20 mx2.a.test."),
            (MissingRecord::mx_to(&name("a.test"), 0, &Target::Root), "a.test. 3600 IN MX 0 ."),
            (
                MissingRecord::ptr(v4, "mx2.a.test").unwrap(),
                "7.2.0.192.in-addr.arpa. 3600 IN PTR mx2.a.test.",
            ),
            (
                MissingRecord::ptr(v6, "mx2.a.test").unwrap(),
                "a.4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 3600 IN PTR mx2.a.test.",
            ),
            (MissingRecord::txt(&name("a.test"), "v=spf1 mx ~all"), "a.test. 3600 IN TXT \"v=spf1 mx ~all\""),
            (
                MissingRecord::dmarc(&name("a.test"), "v=DMARC1; p=none").unwrap(),
                "_dmarc.a.test. 3600 IN TXT \"v=DMARC1; p=none\"",
            ),
        ];
        for (record, line) in rows {
            assert_eq!(record.to_string(), line);
            assert_eq!(record.existing(), line.replace(" 3600", ""));
            assert_eq!(Zone::parse(line, None).unwrap().names(), 1, "{line}");
        }
    }

    #[test]
    fn a_long_text_is_split_into_strings_that_join_to_the_same_text() {
        let many = format!("v=spf1 {}~all", "ip4:192.0.2.123 ".repeat(40));
        let unbroken = format!("v=spf1 exists:{}.test", "%{d}\\\"".repeat(60));
        for text in [many.as_str(), &unbroken, "v=spf1 \"a\\b\" -all", ""] {
            let line = MissingRecord::txt(&name("a.test"), text).to_string();
            let zone = Zone::parse(&line, None).unwrap();
            let records = zone.records(&Name::from_ascii("a.test.").unwrap(), RecordType::TXT);
            let [RData::TXT(txt)] = records else { panic!("{line}") };
            assert_eq!(String::from_utf8(txt.txt_data.concat()).unwrap(), text);
            assert!(txt.txt_data.iter().all(|string| string.len() <= 255), "{line}");
        }
        let line = MissingRecord::txt(&name("a.test"), &many).to_string();
        assert!(line.contains(" \" \"ip4:"), "{line}");
    }
}
