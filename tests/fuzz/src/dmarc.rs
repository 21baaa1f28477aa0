//! The records at the names of a tree walk: whether each is read, which organisation they make, and which record applies.
//!
//! Input: a line with the domain, then one text a line, behind the digit of the target where it stands.

use rmxd::dmarc::{DmarcRecord, Psd, Published, TagScope, Walk, targets};
use rmxd::policy::authentication::Request;
use rmxd::smtp::address::DomainName;

/// Names of one walk (RFC 9989 4.10).
const MOST: usize = 8;

pub fn check(input: &[u8]) {
    let mut lines = input.split(|octet| *octet == b'\n');
    let Some(domain) = lines.next().and_then(|line| std::str::from_utf8(line).ok()) else { return };
    let Ok(domain) = DomainName::parse(domain) else { return };
    let targets = targets(&domain);
    assert_targets(&domain, &targets);
    let mut texts: Vec<Vec<Box<[u8]>>> = vec![Vec::new(); targets.len()];
    for line in lines {
        let Some((place, text)) = line.split_first() else { continue };
        if let Some(there) = texts.get_mut(usize::from(place.wrapping_sub(b'0'))) {
            there.push(text.into());
        }
    }
    let found: Vec<_> = targets.into_iter().zip(texts.iter().map(|texts| record(texts))).collect();
    let walk = Walk::new(&domain, found.clone());
    let organization = walk.organization();
    assert_eq!(organization, expected_organization(&domain, &found));
    assert!(domain.is_at_or_below(&organization), "{domain} {organization}");

    let Some(applied) = walk.applied() else {
        assert!(found.first().is_none_or(|(_, own)| own.is_none()), "an own record applies");
        return;
    };
    assert!(found.contains(&(applied.name.clone(), Some(applied.record))), "it stands where it was found");
    assert_eq!(applied.scope == TagScope::Own, applied.name == domain);
    let is_own = applied.name == domain || applied.name == organization;
    let is_suffix = applied.record.psd == Psd::Yes || applied.name.is_single_label();
    assert!(is_own || is_suffix, "another's record: {}", applied.name);
    let asked = [Some(applied.request()), applied.request_if_nonexistent()];
    let DmarcRecord { policy, subdomains, nonexistent, .. } = applied.record;
    for request in asked.into_iter().flatten() {
        assert!([Some(policy), subdomains, nonexistent].contains(&Some(request)), "it is in the record");
        assert!(applied.scope == TagScope::Below || request == policy);
        assert!(request.weakened() <= request, "t=y makes nothing stronger");
    }
}

fn assert_targets(domain: &DomainName, targets: &[DomainName]) {
    assert_eq!(targets.first(), Some(domain));
    let labels = domain.as_str().split('.').count();
    assert_eq!(targets.len(), labels.min(MOST));
    for pair in targets.windows(2) {
        assert!(pair[0] != pair[1] && pair[0].is_at_or_below(&pair[1]));
    }
    assert!(targets.last().is_some_and(DomainName::is_single_label));
}

fn record(texts: &[Box<[u8]>]) -> Option<DmarcRecord> {
    let published = Published::among(texts);
    let records = texts.iter().filter(|text| is_record(text)).count();
    match published {
        Published::Nothing => assert_eq!(records, 0),
        Published::Record(_) | Published::Malformed => assert_eq!(records, 1),
        Published::Several => assert!(records > 1),
    }
    if let Published::Record(record) = published {
        assert_eq!(Published::among(&[canonical(&record).into_bytes().into()]), published);
    }
    published.record()
}

/// RFC 9989 4.7: `v` is first, and its value is DMARC1.
fn is_record(text: &[u8]) -> bool {
    let first = text.iter().position(|octet| *octet == b';').map_or(text, |end| &text[..end]);
    let mut plain = first.to_vec();
    if let Some(equals) = plain.iter().position(|octet| *octet == b'=') {
        let (name, value) = (plain[..equals].trim_ascii(), plain[equals + 1..].trim_ascii());
        plain = [name, b"=", value].concat();
    }
    matches!(plain.as_slice(), b"v=DMARC1" | b"V=DMARC1")
}

/// A text with the same meaning.
fn canonical(record: &DmarcRecord) -> String {
    let request = |name, request: Option<Request>| request.map(|request| format!(";{name}={request}"));
    let psd = match record.psd {
        Psd::Yes => "y",
        Psd::No => "n",
        Psd::Unset => "u",
    };
    let mode = |alignment| if alignment == rmxd::dmarc::Alignment::Strict { "s" } else { "r" };
    let requests = [
        request("p", Some(record.policy)),
        request("sp", record.subdomains),
        request("np", record.nonexistent),
    ];
    let requests: String = requests.into_iter().flatten().collect();
    let testing = if record.testing { "y" } else { "n" };
    let (dkim, spf) = (mode(record.dkim), mode(record.spf));
    format!("v=DMARC1{requests};adkim={dkim};aspf={spf};psd={psd};t={testing}")
}

/// RFC 9989 4.10.2, word by word, but a top-level domain without `psd` counts as with `psd=y`.
fn expected_organization(domain: &DomainName, found: &[(DomainName, Option<DmarcRecord>)]) -> DomainName {
    let records: Vec<_> = found.iter().filter_map(|(name, record)| Some((name, (*record)?))).collect();
    for (name, record) in &records {
        match record.psd {
            Psd::No => return (*name).clone(),
            Psd::Yes if *name == domain => return domain.clone(), // the walk ends here
            Psd::Yes => return one_label_below(name, domain),
            Psd::Unset if name.is_single_label() && *name != domain => return one_label_below(name, domain),
            Psd::Unset => {}
        }
    }
    records.last().map_or_else(|| domain.clone(), |(name, _)| (*name).clone())
}

fn one_label_below(name: &DomainName, domain: &DomainName) -> DomainName {
    let mut below = domain.clone();
    while below.parent().as_ref() != Some(name) {
        below = below.parent().expect("the domain lies below each target");
    }
    below
}
