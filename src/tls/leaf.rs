//! What our certificate says of itself: when it is valid, and for which names.

use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime};

use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::smtp::address::DomainName;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// From here on a certificate is about to expire, unless it is a short-lived one.
const SOON: Duration = Duration::from_secs(14 * DAY.as_secs());
/// A short-lived certificate is about to expire in the last third of its life, when its renewal is overdue.
const SHARE: u32 = 3;
/// Names in the text of a fault; more are only counted.
const MAX_NAMES: usize = 5;

/// The part of a certificate (RFC 5280) that an operator has to look after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// The dNSName entries of subjectAltName, in lower case. The common name doesn't count (RFC 9525 2).
    pub names: Vec<String>,
}

/// What is wrong with a certificate; shown as the end of a sentence about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    NotYetValid(SystemTime),
    Expired { ago: Duration, at: SystemTime },
    Expires { left: Duration, at: SystemTime },
    OtherName { hostname: DomainName, names: Vec<String> },
}

impl Leaf {
    /// # Errors
    /// The fault of the encoding.
    pub(super) fn read(der: &[u8]) -> Result<Self, String> {
        let certificate = Certificate::from_der(der).map_err(|error| error.to_string())?;
        let content = certificate.tbs_certificate();
        let validity = content.validity();
        let alternatives = content.get_extension::<SubjectAltName>().map_err(|error| error.to_string())?;
        let names = alternatives.map(|(_critical, SubjectAltName(names))| names).unwrap_or_default();
        let names = names.iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
            _ => None,
        });
        Ok(Self {
            not_before: validity.not_before.to_system_time(),
            not_after: validity.not_after.to_system_time(),
            names: names.collect(),
        })
    }

    /// What is wrong with it at `now` for a host of this name, worst first.
    pub(super) fn faults(&self, hostname: &DomainName, now: SystemTime) -> Vec<Fault> {
        let mut faults = Vec::new();
        faults.extend(self.fault_of_time(now));
        if !self.names.iter().any(|name| covers(name, hostname.as_str())) {
            faults.push(Fault::OtherName { hostname: hostname.clone(), names: self.names.clone() });
        }
        faults
    }

    /// Whole days that are left at `now`, negative after it has expired.
    #[must_use]
    pub fn days_left(&self, now: SystemTime) -> i64 {
        let whole = |time: Duration| i64::try_from(time.as_secs() / DAY.as_secs()).unwrap_or(i64::MAX);
        match self.not_after.duration_since(now) {
            Ok(left) => whole(left),
            Err(past) => -whole(past.duration()) - 1,
        }
    }

    fn fault_of_time(&self, now: SystemTime) -> Option<Fault> {
        let at = self.not_after;
        let Ok(left) = at.duration_since(now) else {
            let ago = now.duration_since(at).unwrap_or_default();
            return Some(Fault::Expired { ago, at });
        };
        if now < self.not_before {
            return Some(Fault::NotYetValid(self.not_before));
        }
        let life = at.duration_since(self.not_before).unwrap_or_default();
        (left <= SOON.min(life / SHARE)).then_some(Fault::Expires { left, at })
    }
}

/// Whether the certificate's `name` covers a host (RFC 9525 6.3): a `*` stands for exactly one label, the first; directly
/// below a top-level domain it covers nothing, as clients have it.
fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => host
            .split_once('.')
            .is_some_and(|(_first, rest)| rest.eq_ignore_ascii_case(parent) && parent.contains('.')),
        None => host.eq_ignore_ascii_case(name),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYetValid(from) => write!(f, "is not valid before {}: is the clock right?", date(*from)),
            Self::Expired { ago, at } => {
                write!(f, "expired {} ago ({}): renew it", days(*ago), date(*at))
            }
            Self::Expires { left, at } => write!(f, "expires in {} ({}): renew it", days(*left), date(*at)),
            Self::OtherName { hostname, names } if names.is_empty() => {
                write!(f, "names no host, so it isn't for hostname {hostname}: get one that names it")
            }
            Self::OtherName { hostname, names } => {
                let shown: Vec<&str> = names.iter().map(String::as_str).take(MAX_NAMES).collect();
                let more = names.len().saturating_sub(MAX_NAMES);
                write!(f, "isn't for hostname {hostname} but for {}", shown.join(", "))?;
                if more > 0 {
                    write!(f, " and {more} more")?;
                }
                f.write_str(": get one that names it, or change hostname")
            }
        }
    }
}

/// Whole days: `9 days`.
fn days(time: Duration) -> String {
    match time.as_secs() / DAY.as_secs() {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// In UTC: `2026-12-08`.
fn date(at: SystemTime) -> String {
    let mut text = String::new();
    // humantime has no year from 10000 on, and neither has a certificate.
    write!(text, "{}", humantime::format_rfc3339_seconds(at)).ok();
    text.truncate("2026-12-08".len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).unwrap()
    }

    fn leaf(from: &str, to: &str, names: &[&str]) -> Leaf {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Leaf { not_before: at(from), not_after: at(to), names }
    }

    fn faults(leaf: &Leaf, now: &str) -> Vec<String> {
        let hostname = DomainName::parse("mx.example.com").unwrap();
        leaf.faults(&hostname, at(now)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_wrong_with_the_time() {
        let of_90_days = leaf("2026-09-09T12:00:00Z", "2026-12-08T12:00:00Z", &["mx.example.com"]);
        let of_6_days = leaf("2026-12-02T12:00:00Z", "2026-12-08T12:00:00Z", &["mx.example.com"]);
        let rows: [(&Leaf, &str, &[&str]); 11] = [
            (&of_90_days, "2026-11-24T11:59:59Z", &[]),
            (&of_90_days, "2026-11-24T12:00:00Z", &["expires in 14 days (2026-12-08): renew it"]),
            (&of_90_days, "2026-11-29T10:00:00Z", &["expires in 9 days (2026-12-08): renew it"]),
            (&of_90_days, "2026-12-07T11:00:00Z", &["expires in 1 day (2026-12-08): renew it"]),
            (&of_90_days, "2026-12-08T11:00:00Z", &["expires in less than a day (2026-12-08): renew it"]),
            (&of_90_days, "2026-12-08T12:00:01Z", &["expired less than a day ago (2026-12-08): renew it"]),
            (&of_90_days, "2026-12-11T12:00:01Z", &["expired 3 days ago (2026-12-08): renew it"]),
            (&of_90_days, "2026-09-09T11:00:00Z", &["is not valid before 2026-09-09: is the clock right?"]),
            (&of_6_days, "2026-12-02T12:00:00Z", &[]),
            (&of_6_days, "2026-12-06T11:00:00Z", &[]),
            (&of_6_days, "2026-12-06T13:00:00Z", &["expires in 1 day (2026-12-08): renew it"]),
        ];
        for (leaf, now, expected) in rows {
            assert_eq!(faults(leaf, now), expected, "{now}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_names() {
        let rows: [(&[&str], &str); 6] = [
            (&["mail.example.com", "mx.example.com"], ""),
            (&["*.example.com"], ""),
            (&[], "names no host, so it isn't for hostname mx.example.com: get one that names it"),
            (
                &["mail.example.com"],
                "isn't for hostname mx.example.com but for mail.example.com: get one that names it, or change hostname",
            ),
            (
                &["a.test", "b.test", "c.test", "d.test", "e.test", "f.test", "g.test"],
                "isn't for hostname mx.example.com but for a.test, b.test, c.test, d.test, e.test and 2 more: \
                 get one that names it, or change hostname",
            ),
            (
                &["*.com"],
                "isn't for hostname mx.example.com but for *.com: get one that names it, or change hostname",
            ),
        ];
        for (names, expected) in rows {
            let leaf = leaf("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", names);
            let expected: Vec<&str> = Some(expected).filter(|text| !text.is_empty()).into_iter().collect();
            assert_eq!(faults(&leaf, "2026-06-01T00:00:00Z"), expected, "{names:?}");
        }
        let both = leaf("2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z", &[]);
        assert_eq!(faults(&both, "2026-06-01T00:00:00Z").len(), 2);
        let days = |now| both.days_left(at(now));
        assert_eq!(
            [days("2025-12-29T12:00:00Z"), days("2025-12-31T12:00:00Z"), days("2026-01-01T12:00:00Z")],
            [2, 0, -1]
        );
    }

    #[test]
    fn a_wildcard_stands_for_one_whole_label_in_front() {
        let rows = [
            ("mx.example.com", "mx.example.com", true),
            ("MX.example.com", "mx.Example.com", true),
            ("example.com", "mx.example.com", false),
            ("*.example.com", "mx.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.mx.example.com", false),
            ("m*.example.com", "mx.example.com", false),
            ("mx.*.com", "mx.example.com", false),
            ("*", "localhost", false),
            ("*.", "localhost.", false),
            ("*.com", "example.com", false),
            ("", "mx.example.com", false),
        ];
        for (name, host, expected) in rows {
            assert_eq!(covers(name, host), expected, "{name} {host}");
        }
    }

    #[test]
    fn a_certificate_is_read_with_its_names() {
        let mut parameters =
            rcgen::CertificateParams::new(["MX.Example.com".to_owned(), "*.example.com".to_owned()]).unwrap();
        parameters.subject_alt_names.push(rcgen::SanType::IpAddress([192, 0, 2, 1].into()));
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "cn.example.com");
        parameters.not_before = rcgen::date_time_ymd(2026, 9, 9);
        parameters.not_after = rcgen::date_time_ymd(2055, 12, 8);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let read = Leaf::read(certificate.der()).unwrap();
        let expected =
            leaf("2026-09-09T00:00:00Z", "2055-12-08T00:00:00Z", &["mx.example.com", "*.example.com"]);
        assert_eq!(read, expected);

        let parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        assert_eq!(Leaf::read(certificate.der()).unwrap().names, Vec::<String>::new());
        assert!(Leaf::read(b"\x30\x00").is_err());
    }
}
