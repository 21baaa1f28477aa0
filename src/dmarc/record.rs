//! One DMARC record (RFC 9989 4.7, 4.8), read. Pure.
//!
//! Records of RFC 7489 are read too: `pct`, `ri`, `rf` and every unknown tag are passed over. A tag with a value that is not
//! allowed counts as absent, but for `p`, `sp` and `np`: with such a value the owner's will is unknown, and nothing is
//! asked for (RFC 9989 4.10.1). A tag that counts and comes twice spoils the record, as in RFC 6376 3.2: two readers would
//! choose differently. Names of tags are read in either case, as the literals of the grammar are (RFC 5234 2.3).

use crate::policy::authentication::Request;

/// Longer records are not read; a record of a few hundred octets has all tags with reasonable addresses.
const MOST_OCTETS: usize = 4096;

/// How far an authenticated domain must be that of From: (RFC 9989 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alignment {
    /// Of the same organisation.
    Relaxed,
    /// The same name.
    Strict,
}

/// Whether the domain is a public suffix domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Psd {
    /// It is; the organisations are one label below.
    Yes,
    /// It is not, and it is an organisational domain.
    No,
    /// The tree walk decides.
    Unset,
}

/// A record that could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DmarcRecord {
    /// `p`.
    pub policy: Request,
    /// `sp`.
    pub subdomains: Option<Request>,
    /// `np`.
    pub nonexistent: Option<Request>,
    /// `adkim`.
    pub dkim: Alignment,
    /// `aspf`.
    pub spf: Alignment,
    pub psd: Psd,
    /// `t=y`: a request counts one step weaker.
    pub testing: bool,
}

/// What stands at `_dmarc.` of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Nothing,
    Record(DmarcRecord),
    /// A record that can't be read: too long, or with a tag twice.
    Malformed,
    /// Several records, which count as none (RFC 9989 4.10).
    Several,
}

impl Published {
    /// Reads the texts of one name; the strings of each are joined.
    #[must_use]
    pub fn among(texts: &[Box<[u8]>]) -> Self {
        let mut records = texts.iter().map(AsRef::as_ref).filter(|text| is_record(text));
        match (records.next(), records.next()) {
            (None, _) => Self::Nothing,
            (Some(text), None) => DmarcRecord::parse(text).map_or(Self::Malformed, Self::Record),
            (Some(_), Some(_)) => Self::Several,
        }
    }

    /// The record, if there is one that can be read.
    #[must_use]
    pub fn record(self) -> Option<DmarcRecord> {
        match self {
            Self::Record(record) => Some(record),
            Self::Nothing | Self::Malformed | Self::Several => None,
        }
    }
}

/// Whether the text begins with the tag `v` and the value `DMARC1`, which is case-sensitive.
fn is_record(text: &[u8]) -> bool {
    let first = text.split(|&byte| byte == b';').next().unwrap_or_default();
    let mut parts = first.splitn(2, |&byte| byte == b'=').map(<[u8]>::trim_ascii);
    parts.next().is_some_and(|name| name.eq_ignore_ascii_case(b"v")) && parts.next() == Some(b"DMARC1")
}

/// The tags that count, each with its value.
#[derive(Default)]
struct Tags<'a>([Option<&'a [u8]>; KNOWN.len()]);

const KNOWN: [&str; 8] = ["v", "p", "sp", "np", "adkim", "aspf", "psd", "t"];

impl<'a> Tags<'a> {
    /// `None` if one of them comes twice.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let mut tags = Self::default();
        for spec in text.split(|&byte| byte == b';') {
            let mut parts = spec.splitn(2, |&byte| byte == b'=').map(<[u8]>::trim_ascii);
            let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
            let known = KNOWN.iter().position(|known| name.eq_ignore_ascii_case(known.as_bytes()));
            let Some(place) = known.and_then(|at| tags.0.get_mut(at)) else { continue };
            if place.replace(value).is_some() {
                return None;
            }
        }
        Some(tags)
    }

    fn get(&self, name: &str) -> Option<&'a [u8]> {
        let at = KNOWN.iter().position(|known| *known == name)?;
        self.0.get(at).copied().flatten()
    }
}

impl DmarcRecord {
    /// A text that begins with `v=DMARC1`; `None` for one that can't be read.
    fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > MOST_OCTETS {
            return None;
        }
        let tags = Tags::parse(text)?;
        let mut readable = true;
        let mut request = |name| {
            let value = tags.get(name)?;
            let known = Request::ALL
                .into_iter()
                .find(|request| value.eq_ignore_ascii_case(request.name().as_bytes()));
            readable &= known.is_some();
            known
        };
        let (policy, subdomains, nonexistent) = (request("p"), request("sp"), request("np"));
        let (policy, subdomains, nonexistent) =
            if readable { (policy, subdomains, nonexistent) } else { (None, None, None) };
        let is =
            |name: &str, value: &[u8]| tags.get(name).is_some_and(|text| text.eq_ignore_ascii_case(value));
        let alignment = |name| if is(name, b"s") { Alignment::Strict } else { Alignment::Relaxed };
        Some(Self {
            policy: policy.unwrap_or(Request::None),
            subdomains,
            nonexistent,
            dkim: alignment("adkim"),
            spf: alignment("aspf"),
            psd: match () {
                () if is("psd", b"y") => Psd::Yes,
                () if is("psd", b"n") => Psd::No,
                () => Psd::Unset,
            },
            testing: is("t", b"y"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `p/sp/np`, then the tags that differ from their defaults.
    fn shown(text: &[u8]) -> String {
        let record = match Published::among(&[text.into()]) {
            Published::Record(record) => record,
            other => return format!("{other:?}").to_lowercase(),
        };
        let of = |request: Option<Request>| request.map_or("-", Request::name);
        let DmarcRecord { policy, subdomains, nonexistent, dkim, spf, psd, testing } = record;
        let mut shown = format!("{policy}/{}/{}", of(subdomains), of(nonexistent));
        let strict = |alignment| alignment == Alignment::Strict;
        let marks = [
            (strict(dkim), " adkim"),
            (strict(spf), " aspf"),
            (psd == Psd::Yes, " psd=y"),
            (psd == Psd::No, " psd=n"),
            (testing, " t"),
        ];
        marks.into_iter().filter(|(there, _)| *there).for_each(|(_, mark)| shown.push_str(mark));
        shown
    }

    #[test]
    fn records_are_read_as_the_rfc_has_it() {
        let longest = format!("{:a<MOST_OCTETS$}", "v=DMARC1; p=reject; x=");
        let long = format!("{longest}a");
        let rows: [(&[u8], &str); 57] = [
            (b"v=DMARC1; p=none", "none/-/-"),
            (b"v=DMARC1;p=quarantine;", "quarantine/-/-"),
            (b"v=DMARC1; p=reject; sp=quarantine; np=none", "reject/quarantine/none"),
            (b"v=DMARC1; p=reject; adkim=s; aspf=s", "reject/-/- adkim aspf"),
            (b"v=DMARC1; p=reject; adkim=r; aspf=r", "reject/-/-"),
            (b"v=DMARC1; p=reject; psd=y; t=y", "reject/-/- psd=y t"),
            (b"v=DMARC1; p=reject; psd=n; t=n", "reject/-/- psd=n"),
            (b"v=DMARC1; p=reject; psd=u", "reject/-/-"),
            // white space, case, order, an end with and without a semicolon
            (b" v = DMARC1 ; p = reject ", "reject/-/-"),
            (b"v=DMARC1\t;\tp\t=\treject\t;\t", "reject/-/-"),
            (b"v=DMARC1;;p=reject;;", "reject/-/-"),
            (b"V=DMARC1; P=reject; SP=none", "reject/none/-"),
            (b"v=DMARC1; p=REJECT; sp=Quarantine; AspF=s; adkim=S; t=Y", "reject/quarantine/- adkim aspf t"),
            (b"v=DMARC1; sp=none; p=reject", "reject/none/-"),
            // tags of RFC 7489, unknown tags, addresses
            (b"v=DMARC1; p=reject; pct=0; ri=86400; rf=afrf; fo=1:d:s", "reject/-/-"),
            (
                b"v=DMARC1; p=reject; rua=mailto:a@x.test,mailto:b@y.test!10m; ruf=mailto:c@x.test",
                "reject/-/-",
            ),
            (b"v=DMARC1; p=reject; x-note=a=b=c, (d)", "reject/-/-"),
            // no request, or one that can't be read
            (b"v=DMARC1", "none/-/-"),
            (b"v=DMARC1; ", "none/-/-"),
            (b"v=DMARC1; sp=reject", "none/reject/-"),
            (b"v=DMARC1; rua=mailto:a@x.test", "none/-/-"),
            (b"v=DMARC1; p=", "none/-/-"),
            (b"v=DMARC1; p=block", "none/-/-"),
            (b"v=DMARC1; p=reject; sp=block", "none/-/-"),
            (b"v=DMARC1; p=reject; np=", "none/-/-"),
            (b"v=DMARC1; p=re ject; rua=mailto:a@x.test", "none/-/-"),
            // other values that can't be read count as absent
            (b"v=DMARC1; p=reject; adkim=x; aspf=strict; psd=maybe; t=1", "reject/-/-"),
            // no record
            (b"", "nothing"),
            (b"v=DMARC2; p=reject", "nothing"),
            (b"v=DMARC1x; p=reject", "nothing"),
            (b"v=DMARC1 p=reject", "nothing"),
            (b"v=dmarc1; p=reject", "nothing"),
            (b"v=DMARC1 ; p=reject; ; ;", "reject/-/-"),
            (b"p=reject; v=DMARC1", "nothing"),
            (b"v=spf1 -all", "nothing"),
            (b"DMARC1; p=reject", "nothing"),
            (b"\"v=DMARC1; p=reject\"", "nothing"),
            (b"v=DMARC1, p=reject", "nothing"),
            (b"\xefv=DMARC1; p=reject", "nothing"),
            // a record that can't be read
            (b"v=DMARC1; p=reject; p=reject", "malformed"),
            (b"v=DMARC1; p=none; p=reject", "malformed"),
            (b"v=DMARC1; v=DMARC1; p=reject", "malformed"),
            (b"v=DMARC1; p=reject; t=y; t=y", "malformed"),
            // what is no tag, or none that is known, is passed over
            (b"v=DMARC1; p", "none/-/-"),
            (b"v=DMARC1; reject", "none/-/-"),
            (b"v=DMARC1; p=reject; rua mailto:a@x.test; =; =x", "reject/-/-"),
            (b"v=DMARC1; p=reject; x=\0; \0; x=\xff\xe9; x=1; x=1", "reject/-/-"),
            (b"v=DMARC1; p=reject; rua=mailto:a@x.test; rua=mailto:b@x.test", "reject/-/-"),
            (b"v=DMARC1; p=none; P=reject", "malformed"),
            // an octet that no value may have
            (b"v=DMARC1; p=reject\0", "none/-/-"),
            (b"v=DMARC1; p=r\xe9ject", "none/-/-"),
            (b"v=DMARC1; \xa0p=reject", "none/-/-"),
            (b"v=DMARC1\0; p=reject", "nothing"),
            (b"v=DMARC1\xa0; p=reject", "nothing"),
            (b"v=DMARC1; p=\r\n reject\n", "reject/-/-"),
            // the octets at the bound, and one more
            (longest.as_bytes(), "reject/-/-"),
            (long.as_bytes(), "malformed"),
        ];
        for (text, expected) in rows {
            assert_eq!(shown(text), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn one_record_counts_among_other_texts_and_two_are_none() {
        let read = |texts: &[&str]| {
            Published::among(&texts.iter().map(|text| text.as_bytes().into()).collect::<Vec<_>>())
        };
        let (record, other) = ("v=DMARC1; p=reject", "v=spf1 -all");
        assert!(read(&[other, record, other]).record().is_some());
        assert_eq!(read(&[other]), Published::Nothing);
        assert_eq!(read(&[record, other, record]), Published::Several);
        assert_eq!(read(&[record, "v=DMARC1; p=none; p=none"]), Published::Several);
        assert_eq!(read(&[]), Published::Nothing);
    }
}
