//! What the owner of the domain asks receivers to do (DMARC, RFC 9989), and what comes of it for mail over each line.
//!
//! The sender is at the domain, so SPF is aligned in either mode. Signatures are not known: there is no message.

use std::fmt;

use crate::audit::{RIGHT, WARNING};
use crate::dmarc::{self, Alignment, Applied, Discovery, Published, TagScope};
use crate::dns::lookups::Lookups;
use crate::dns::{Account, Dns};
use crate::evidence::{Answer, DnsFailure, Evidence, Records};
use crate::policy::authentication::Request;
use crate::smtp::address::DomainName;
use crate::smtp::escape::Escaped;
use crate::spf::SpfResult;

/// The owner's will, and what is wrong with the records.
pub(super) struct Owner {
    pub(super) asks: Asks,
    pub(super) faults: Vec<Fault>,
}

/// What applies to the domain.
pub(super) enum Asks {
    Record(Asked),
    /// There is no record, or no record that counts.
    Nothing,
    /// The domain's own record can't be read, and no other applies.
    Malformed,
    Unknown(DnsFailure),
}

/// A record, and what it asks for.
pub(super) struct Asked {
    pub(super) applied: Applied,
    pub(super) request: Request,
    /// By the tree walk; `None` if a lookup failed.
    pub(super) organization: Option<DomainName>,
}

/// What is wrong at one name, printable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) name: DomainName,
    pub(super) kind: FaultKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FaultKind {
    Several(Vec<String>),
    Malformed(String),
    /// A tag such as `p=rejct`.
    UnknownRequest(String),
    /// A text that was meant as a record.
    NotARecord(String),
}

/// What DMARC makes of unsigned mail over one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// SPF passes.
    Passes,
    /// Only a signature makes it pass; otherwise this is asked for, `t=y` counted.
    UnlessSigned(Request),
    NoRecord,
    Malformed,
    Unknown,
}

impl Fate {
    /// The word in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Passes => "pass",
            Self::UnlessSigned(_) => "unless_signed",
            Self::NoRecord => "none",
            Self::Malformed => "permerror",
            Self::Unknown => "temperror",
        }
    }
}

impl fmt::Display for Fate {
    /// A cell of the table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passes => write!(f, "{RIGHT} pass"),
            Self::UnlessSigned(Request::None) => f.write_str("- none asked"),
            Self::UnlessSigned(request) => write!(f, "{WARNING} {request} unless signed"),
            Self::NoRecord => f.write_str("- no record"),
            Self::Malformed => f.write_str("- permerror"),
            Self::Unknown => f.write_str("? temperror"),
        }
    }
}

impl Asked {
    /// The tag that counts.
    pub(super) fn tag(&self) -> &'static str {
        let Applied { record, scope, .. } = &self.applied;
        match scope {
            TagScope::Own => "p",
            TagScope::Below if self.request != self.applied.request() => "np",
            TagScope::Below if record.subdomains.is_some() => "sp",
            TagScope::Below => "p",
        }
    }

    /// The request, one step weaker with `t=y`.
    pub(super) fn in_force(&self) -> Request {
        if self.applied.record.testing { self.request.weakened() } else { self.request }
    }
}

impl Owner {
    /// Looks for the record that applies to the domain.
    pub(super) async fn of(dns: &Dns, domain: &DomainName, account: &Account) -> Self {
        let mut lookups = Lookups::new(dns, account);
        let asks = match dmarc::discover(&mut lookups, domain).await {
            Ok(Discovery::Applied { applied, request }) => {
                let organization = dmarc::organization(&mut lookups, domain).await.ok();
                Asks::Record(Asked { applied, request, organization })
            }
            Ok(Discovery::Nothing) => Asks::Nothing,
            Ok(Discovery::Malformed) => Asks::Malformed,
            Err(trouble) => Asks::Unknown(trouble),
        };
        let own = matches!(&asks, Asks::Record(asked) if asked.applied.scope == TagScope::Own);
        let mut faults: Vec<Fault> = Vec::new();
        for fault in lookups.into_evidence().iter().filter_map(fault) {
            // Above an own record nothing counts for the policy.
            if (!own || fault.name == *domain) && !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        Self { asks, faults }
    }

    /// What DMARC makes of mail over a line with this SPF result.
    pub(super) fn fate(&self, spf: SpfResult) -> Fate {
        match (&self.asks, spf) {
            (Asks::Nothing, _) => Fate::NoRecord,
            (Asks::Malformed, _) => Fate::Malformed,
            (Asks::Unknown(_), _) | (Asks::Record(_), SpfResult::TempError) => Fate::Unknown,
            (Asks::Record(_), SpfResult::Pass) => Fate::Passes,
            (Asks::Record(asked), _) => Fate::UnlessSigned(asked.in_force()),
        }
    }

    /// The value of `d=` that makes DMARC pass, in words.
    pub(super) fn signer(&self, domain: &DomainName) -> String {
        match &self.asks {
            Asks::Record(asked) if asked.applied.record.dkim == Alignment::Strict => {
                format!("d={domain}, as adkim=s allows no other")
            }
            Asks::Record(Asked { organization: Some(organization), .. }) if organization == domain => {
                format!("d={domain} or a domain below")
            }
            Asks::Record(Asked { organization: Some(organization), .. }) => {
                format!("d={domain} or another domain of the organisation {organization}")
            }
            Asks::Record(_) | Asks::Nothing | Asks::Malformed | Asks::Unknown(_) => format!("d={domain}"),
        }
    }

    /// What is asked for and where that stands, as a sentence.
    pub(super) fn sentence(&self, domain: &DomainName) -> String {
        let asked = match &self.asks {
            Asks::Record(asked) => asked,
            Asks::Nothing => {
                return format!(
                    "no record applies to {domain}, so nothing asks receivers to refuse mail that others send in its name."
                );
            }
            Asks::Malformed => {
                return format!(
                    "the record at _dmarc.{domain} can't be read, so nothing asks receivers to refuse mail that \
                     others send in its name."
                );
            }
            Asks::Unknown(trouble) => {
                return format!(
                    "whether a record applies to {domain} is unknown, as a lookup failed ({trouble})."
                );
            }
        };
        let Applied { name, record, scope } = &asked.applied;
        let tag = format!("{}={}", asked.tag(), asked.request);
        let asks = match (asked.in_force(), record.testing && asked.request != Request::None) {
            (Request::None, false) => format!(
                "asks receivers for nothing ({tag}): mail that fails is only reported. The next steps are p=quarantine, then \
                 p=reject"
            ),
            (request, false) => format!("asks receivers to {request} mail that fails ({tag})"),
            (Request::None, true) => {
                format!("asks receivers for nothing: {tag}, but with t=y that counts one step weaker")
            }
            (request, true) => format!(
                "asks receivers to {request} mail that fails: {tag}, but with t=y that counts one step weaker"
            ),
        };
        let of = match scope {
            TagScope::Own => String::new(),
            TagScope::Below => format!(
                " {domain} has no record of its own that counts; one at _dmarc.{domain} would go before this one."
            ),
        };
        format!("_dmarc.{name} {asks}.{of}")
    }
}

/// What is wrong at the name of a question for a DMARC record.
fn fault(evidence: &Evidence) -> Option<Fault> {
    let name = evidence.question.name.as_str().strip_prefix("_dmarc.")?;
    let name = DomainName::parse(name).ok()?;
    let Answer::Found(Records::Txt(texts)) = &*evidence.answer else { return None };
    kind(texts).map(|kind| Fault { name, kind })
}

fn kind(texts: &[Box<[u8]>]) -> Option<FaultKind> {
    let counts = |text: &[u8]| Published::among(&[text.into()]) != Published::Nothing;
    let meant = |text: &[u8]| text.to_ascii_lowercase().windows(6).any(|part| part == b"dmarc1");
    let printable = |text: &[u8]| Escaped::new(text).to_string();
    let mut texts_of_records = texts.iter().map(AsRef::as_ref).filter(|text| counts(text));
    match Published::among(texts) {
        Published::Several => Some(FaultKind::Several(texts_of_records.map(printable).collect())),
        Published::Malformed => texts_of_records.next().map(|text| FaultKind::Malformed(printable(text))),
        Published::Record(_) => {
            texts_of_records.next().and_then(unknown_request).map(FaultKind::UnknownRequest)
        }
        Published::Nothing => {
            let text = texts.iter().find(|text| meant(text))?;
            Some(FaultKind::NotARecord(printable(text)))
        }
    }
}

/// The first of `p`, `sp` and `np` with a value that isn't allowed; receivers then ask for nothing (RFC 9989 4.10.1).
fn unknown_request(text: &[u8]) -> Option<String> {
    text.split(|&byte| byte == b';').find_map(|tag| {
        let mut parts = tag.splitn(2, |&byte| byte == b'=').map(<[u8]>::trim_ascii);
        let (name, value) = (parts.next()?, parts.next()?);
        let counts = ["p", "sp", "np"].iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
        let known = Request::ALL.iter().any(|known| value.eq_ignore_ascii_case(known.name().as_bytes()));
        (counts && !known).then(|| format!("{}={}", Escaped::new(name), Escaped::new(value)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dmarc::Walk;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn owner(domain: &str, at: &str, tags: &str, exists: bool) -> Owner {
        let domain = name(domain);
        let text = format!("v=DMARC1; {tags}");
        let record = Published::among(&[text.as_bytes().into()]).record();
        let walk = Walk::new(&domain, [(name(at), record)]);
        let applied = walk.applied().unwrap();
        let request = applied.request_if_nonexistent().filter(|_| !exists).unwrap_or(applied.request());
        let organization = Some(walk.organization());
        Owner { asks: Asks::Record(Asked { applied, request, organization }), faults: Vec::new() }
    }

    #[test]
    fn the_tag_that_counts_is_named_with_what_it_asks_for() {
        let (quarantine, reject) = (Request::Quarantine, Request::Reject);
        let rows = [
            ("a.test", "p=reject", true, "p", "reject", reject, "d=a.test or a domain below"),
            ("a.test", "p=reject; t=y", true, "p", "reject", quarantine, "d=a.test or a domain below"),
            (
                "a.test",
                "p=quarantine; sp=reject; t=y",
                true,
                "p",
                "quarantine",
                Request::None,
                "d=a.test or a domain below",
            ),
            (
                "b.a.test",
                "p=reject",
                true,
                "p",
                "reject",
                reject,
                "d=b.a.test or another domain of the organisation a.test",
            ),
            (
                "b.a.test",
                "p=none; sp=quarantine; adkim=s",
                true,
                "sp",
                "quarantine",
                quarantine,
                "d=b.a.test, as adkim=s allows no other",
            ),
            (
                "b.a.test",
                "p=none; np=reject",
                false,
                "np",
                "reject",
                reject,
                "d=b.a.test or another domain of the organisation a.test",
            ),
            (
                "b.a.test",
                "p=none; np=reject",
                true,
                "p",
                "none",
                Request::None,
                "d=b.a.test or another domain of the organisation a.test",
            ),
        ];
        for (domain, tags, exists, tag, request, in_force, signer) in rows {
            let owner = owner(domain, "a.test", tags, exists);
            let Asks::Record(asked) = &owner.asks else { panic!("{tags}") };
            assert_eq!(
                (asked.tag(), asked.request.name(), asked.in_force()),
                (tag, request, in_force),
                "{domain} {tags}"
            );
            assert_eq!(owner.signer(&name(domain)), signer, "{domain} {tags}");
            assert!(owner.sentence(&name(domain)).contains(&format!("{tag}={request}")), "{domain} {tags}");
        }
    }

    #[test]
    fn spf_decides_where_there_is_a_record_and_nothing_is_known_of_signatures() {
        use SpfResult::{Fail, Neutral, Pass, PermError, SoftFail, TempError};
        let reject = || owner("a.test", "a.test", "p=reject", true).asks;
        let none = || owner("a.test", "a.test", "p=none", true).asks;
        let rows = [
            (reject(), Pass, Fate::Passes),
            (reject(), TempError, Fate::Unknown),
            (reject(), Fail, Fate::UnlessSigned(Request::Reject)),
            (reject(), SoftFail, Fate::UnlessSigned(Request::Reject)),
            (reject(), Neutral, Fate::UnlessSigned(Request::Reject)),
            (reject(), SpfResult::None, Fate::UnlessSigned(Request::Reject)),
            (reject(), PermError, Fate::UnlessSigned(Request::Reject)),
            (none(), Fail, Fate::UnlessSigned(Request::None)),
            (Asks::Nothing, Pass, Fate::NoRecord),
            (Asks::Nothing, Fail, Fate::NoRecord),
            (Asks::Malformed, Fail, Fate::Malformed),
            (Asks::Unknown(DnsFailure::Timeout), Pass, Fate::Unknown),
            (Asks::Unknown(DnsFailure::Timeout), Fail, Fate::Unknown),
        ];
        for (asks, spf, fate) in rows {
            assert_eq!(Owner { asks, faults: Vec::new() }.fate(spf), fate, "{spf} {fate}");
        }
    }

    #[test]
    fn what_is_wrong_at_a_name_is_found_in_its_texts() {
        let several =
            |list: &[&str]| FaultKind::Several(list.iter().map(|text| (*text).to_owned()).collect());
        let rows: [(&[&str], Option<FaultKind>); 12] = [
            (&[], None),
            (&["v=DMARC1; p=reject"], None),
            (&["v=DMARC1; p=reject", "v=spf1 -all"], None),
            (&["v=DMARC1"], None),
            (&["v=spf1 -all"], None),
            (
                &["v=DMARC1; p=reject", "proof=1", "v=DMARC1; p=none"],
                Some(several(&["v=DMARC1; p=reject", "v=DMARC1; p=none"])),
            ),
            (
                &["v=DMARC1; p=none; p=reject"],
                Some(FaultKind::Malformed("v=DMARC1; p=none; p=reject".to_owned())),
            ),
            (
                &["proof=1", "v=DMARC1; p=\n; p=x"],
                Some(FaultKind::Malformed("v=DMARC1; p=\\x0a; p=x".to_owned())),
            ),
            (&["v=DMARC1; p = rejct"], Some(FaultKind::UnknownRequest("p=rejct".to_owned()))),
            (&["v=DMARC1; p=reject; SP="], Some(FaultKind::UnknownRequest("SP=".to_owned()))),
            (&["v=dmarc1; p=reject"], Some(FaultKind::NotARecord("v=dmarc1; p=reject".to_owned()))),
            (&["p=reject; v=DMARC1"], Some(FaultKind::NotARecord("p=reject; v=DMARC1".to_owned()))),
        ];
        for (texts, expected) in rows {
            let octets: Vec<Box<[u8]>> = texts.iter().map(|text| text.as_bytes().into()).collect();
            assert_eq!(kind(&octets), expected, "{texts:?}");
        }
    }
}
