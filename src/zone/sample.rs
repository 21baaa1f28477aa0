//! The sample zones and their table. The data is in `sample.zone`, which is also an example for users.

use std::net::IpAddr;

use crate::zone::Zone;

const SAMPLE: &str = include_str!("sample.zone");

/// Merged into [`SAMPLE`], it repairs the DNS of `twolines.test`.
const REPAIR: &str = include_str!("sample-repair.zone");

/// The start of each line of the table.
const ROW: &str = ";|";

/// One sender of the sample zones, and the result of its reverse MX lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Row {
    pub domain: &'static str,
    /// The address that its mail comes from; `None` where that doesn't matter.
    pub client: Option<IpAddr>,
    /// The result of the rule `exists`, by MX records: `pass` or a reason.
    pub exists: &'static str,
    /// Whether the client is one of the domain's MX hosts: `yes`, `no`, `unknown` (DNS fails), `-` (no client).
    pub matches: &'static str,
    /// The client's PTR record: `confirmed`, `lies` or `none`.
    pub ptr: &'static str,
    /// The case that this row demonstrates.
    pub shows: &'static str,
}

/// The table in `sample.zone`. Its columns are explained there.
pub fn sample_rows() -> Vec<Row> {
    let lines = SAMPLE.lines().filter_map(|line| line.strip_prefix(ROW));
    lines.skip(1).filter_map(row).collect()
}

impl Zone {
    pub fn sample() -> Self {
        shipped(SAMPLE)
    }

    /// The sample zones with repaired DNS for `twolines.test`.
    pub fn repaired_sample() -> Self {
        let mut zone = Self::sample();
        zone.merge(shipped(REPAIR));
        zone
    }
}

/// A test parses both texts, so that the empty zone is never returned.
fn shipped(text: &str) -> Zone {
    Zone::parse(text, None).unwrap_or_else(|error| {
        debug_assert!(false, "the sample zones: {error}");
        Zone::new()
    })
}

fn row(line: &'static str) -> Option<Row> {
    let mut columns = line.split('|').map(str::trim);
    let mut next = || columns.next();
    let row = Row {
        domain: next()?,
        client: next()?.parse().ok(),
        exists: next()?,
        matches: next()?,
        ptr: next()?,
        shows: next()?,
    };
    Some(row)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use hickory_server::proto::op::ResponseCode;

    use super::super::{Name, RData, RecordType, ZoneError};
    use super::*;

    fn absolute(text: &str) -> Name {
        Name::from_ascii(format!("{text}.")).unwrap()
    }

    /// The data of one type, or the reason for its absence.
    fn ask(zone: &Zone, name: &Name, record_type: RecordType) -> Result<Vec<RData>, &'static str> {
        let reply = zone.answer(name, record_type).reply.ok_or("dns_error")?;
        match reply.code {
            ResponseCode::NoError => Ok(reply
                .records
                .into_iter()
                .map(|record| record.data)
                .filter(|data| data.record_type() == record_type)
                .collect()),
            ResponseCode::NXDomain => Err("no_such_domain"),
            _ => Err("dns_error"),
        }
    }

    fn addresses(zone: &Zone, name: &Name) -> Result<Vec<IpAddr>, &'static str> {
        let mut found = Vec::new();
        for record_type in [RecordType::A, RecordType::AAAA] {
            match ask(zone, name, record_type) {
                Ok(data) => found.extend(data.iter().filter_map(RData::ip_addr)),
                Err("dns_error") => return Err("dns_error"),
                Err(_) => {}
            }
        }
        Ok(found)
    }

    /// `exists` and `matches` by MX records alone, as an independent check.
    fn judge(zone: &Zone, domain: &str, client: Option<IpAddr>) -> (&'static str, &'static str) {
        let host = |data| if let RData::MX(mx) = data { Some(mx.exchange) } else { None };
        let hosts: Vec<Name> = match ask(zone, &absolute(domain), RecordType::MX) {
            Ok(data) => data.into_iter().filter_map(host).collect(),
            Err(reason) => return (reason, if reason == "dns_error" { "unknown" } else { "no" }),
        };
        if hosts.is_empty() {
            return ("no_mx", "no");
        }
        if hosts.iter().all(Name::is_root) {
            return ("null_mx", "no");
        }
        let found: Result<Vec<_>, _> = hosts.iter().map(|host| addresses(zone, host)).collect();
        let found = match found {
            Ok(found) => found.concat(),
            Err(reason) => return (reason, if reason == "dns_error" { "unknown" } else { "no" }),
        };
        if found.is_empty() {
            return ("mx_unresolvable", "no");
        }
        let exists = if found.iter().any(IpAddr::is_loopback) { "pass" } else { "mx_unroutable" };
        let matches = client.is_some_and(|client| found.contains(&client));
        (exists, if matches { "yes" } else { "no" })
    }

    fn ptr(zone: &Zone, client: IpAddr) -> &'static str {
        let names = ask(zone, &Name::from(client), RecordType::PTR).unwrap_or_default();
        let [RData::PTR(name)] = names.as_slice() else { return "none" };
        if addresses(zone, &name.0).is_ok_and(|found| found.contains(&client)) { "confirmed" } else { "lies" }
    }

    #[test]
    fn the_texts_are_master_files() -> Result<(), ZoneError> {
        assert!(Zone::parse(SAMPLE, None)?.names() > 100);
        assert_eq!(Zone::parse(REPAIR, None)?.names(), 1);
        Ok(())
    }

    #[test]
    fn every_row_of_the_table_agrees_with_the_zones() {
        let lines = SAMPLE.lines().filter(|line| line.starts_with(ROW)).count();
        let rows = sample_rows();
        assert_eq!(rows.len(), lines - 1, "a row can't be parsed");
        let zone = Zone::sample();
        for row in rows {
            let (exists, matches) = judge(&zone, row.domain, row.client);
            assert_eq!(row.exists, exists, "{}", row.domain);
            match row.client {
                Some(client) => {
                    assert_eq!(
                        (row.matches, row.ptr),
                        (matches, ptr(&zone, client)),
                        "{} {client}",
                        row.domain
                    );
                }
                None => assert_eq!((row.matches, row.ptr), ("-", "-"), "{}", row.domain),
            }
            assert!(!row.shows.is_empty());
        }
    }

    #[test]
    fn no_two_rows_share_a_client_and_every_client_is_on_loopback() {
        let clients: Vec<_> = sample_rows().into_iter().filter_map(|row| row.client).collect();
        assert!(clients.iter().all(IpAddr::is_loopback));
        assert_eq!(clients.iter().collect::<HashSet<_>>().len(), clients.len());
    }

    #[test]
    fn the_repair_lets_both_lines_pass_and_changes_no_other_sender() {
        let (before, after) = (Zone::sample(), Zone::repaired_sample());
        for row in sample_rows() {
            let expected = match row.domain {
                "twolines.test" => ("pass", "yes"),
                _ => judge(&before, row.domain, row.client),
            };
            assert_eq!(judge(&after, row.domain, row.client), expected, "{}", row.domain);
        }
    }
}
