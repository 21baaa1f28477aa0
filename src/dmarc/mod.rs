//! DMARC (RFC 9989): what the owner of a From: domain asks for if a message is not authenticated as the domain's.
//!
//! `record` and `walk` are pure. Here DNS is asked by the `Lookups` of a finding, so that cache and budgets are shared and
//! every record is evidence. The results are the gate's business; reports are not sent.
//!
//! - An own record is enough for the policy, so that it costs one question; the rest of the walk is asked where it is needed,
//!   all at once.
//! - A failed lookup leaves the walk open. Only that of a public suffix above the domain (`_dmarc.com`, `_dmarc.co.uk`) counts
//!   as no record: a broken server of a registry would hold up the mail of every domain below it. Where rmxd itself doesn't ask, as a budget is
//!   spent, even that is a failure: the sender of a message could choose it, to be free of the record of `bank`.
//! - The organisation of another domain is looked up only if it can be that of the From: domain, so that a sender's own zone
//!   can't spend the questions of the From: domain's check.

mod record;
#[cfg(test)]
mod tests;
mod walk;

pub use crate::dmarc::record::{Alignment, DmarcRecord, Psd, Published};
pub use crate::dmarc::walk::{Applied, TagScope, Walk, targets};

use crate::dns::lookups::{Lookups, Start};
use crate::dns::organization;
use crate::evidence::{Answer, DnsFailure, Question, QuestionName, RecordType, Records};
use crate::policy::authentication::Request;
use crate::smtp::address::DomainName;

/// What applies to a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// A record, and what it asks for (`p`, `sp` or `np`); `t=y` isn't counted.
    Applied { applied: Applied, request: Request },
    /// No record.
    Nothing,
    /// The domain's own record can't be read, and no other applies.
    Malformed,
}

/// The record that applies to a domain (RFC 9989 4.10.1).
///
/// # Errors
/// A lookup that could change the result failed.
pub(crate) async fn discover(
    lookups: &mut Lookups<'_>,
    domain: &DomainName,
) -> Result<Discovery, DnsFailure> {
    if domain.is_single_label() || domain.is_ip_text() {
        return Ok(Discovery::Nothing);
    }
    let own = published(lookups, domain).await?;
    let applied = match own {
        Published::Record(record) => Some(Applied { name: domain.clone(), record, scope: TagScope::Own }),
        Published::Nothing | Published::Malformed | Published::Several => {
            walk(lookups, domain).await?.applied()
        }
    };
    let Some(applied) = applied else {
        let malformed = own == Published::Malformed;
        return Ok(if malformed { Discovery::Malformed } else { Discovery::Nothing });
    };
    let request = match applied.request_if_nonexistent() {
        Some(request) if !exists(lookups, domain).await? => request,
        Some(_) | None => applied.request(),
    };
    Ok(Discovery::Applied { applied, request })
}

/// The organisational domain (RFC 9989 4.10.2).
///
/// # Errors
/// A lookup that could change the result failed.
pub(crate) async fn organization(
    lookups: &mut Lookups<'_>,
    domain: &DomainName,
) -> Result<DomainName, DnsFailure> {
    if domain.is_single_label() || domain.is_ip_text() {
        return Ok(domain.clone());
    }
    Ok(walk(lookups, domain).await?.organization())
}

/// Whether an authenticated domain is aligned with that of From: (RFC 9989 4.4, 4.10.2).
///
/// # Errors
/// A lookup that could change the result failed.
pub(crate) async fn aligned(
    lookups: &mut Lookups<'_>,
    author: &DomainName,
    other: &DomainName,
    mode: Alignment,
) -> Result<bool, DnsFailure> {
    if author == other || mode == Alignment::Strict {
        return Ok(author == other);
    }
    let organization = organization(lookups, author).await?;
    if !other.is_at_or_below(&organization) {
        return Ok(false);
    }
    Ok(self::organization(lookups, other).await? == organization)
}

/// All names of the walk, those that are not known yet at once.
async fn walk(lookups: &mut Lookups<'_>, domain: &DomainName) -> Result<Walk, DnsFailure> {
    let targets = targets(domain);
    let questions = targets.iter().filter_map(question);
    lookups.ask_all(questions.collect(), Start::Together, |_, _| false).await;
    let mut found = Vec::with_capacity(targets.len());
    for target in targets {
        let published = match published(lookups, &target).await {
            Err(failure) if target != *domain && is_public_suffix(&target) && is_of_the_zone(failure) => {
                Published::Nothing
            }
            published => published?,
        };
        let ends = published.record().is_some_and(|record| record.psd != Psd::Unset);
        found.push((target, published.record()));
        if ends {
            break; // a failure further up changes nothing
        }
    }
    Ok(Walk::new(domain, found))
}

/// What stands at `_dmarc.` of a name.
async fn published(lookups: &mut Lookups<'_>, name: &DomainName) -> Result<Published, DnsFailure> {
    let Some(question) = question(name) else { return Ok(Published::Nothing) };
    let answer = lookups.ask(question.name, question.rtype).await;
    match &*answer {
        Answer::Found(Records::Txt(texts)) => Ok(Published::among(texts)),
        Answer::Found(_) | Answer::NoData | Answer::NoSuchDomain => Ok(Published::Nothing),
        Answer::Unavailable(failure) => Err(*failure),
    }
}

fn is_public_suffix(name: &DomainName) -> bool {
    name.is_single_label() || organization::organization(name).is_none()
}

/// Whether a failure can be the fault of the zone's servers; the others are bounds of our own, or all DNS is down.
fn is_of_the_zone(failure: DnsFailure) -> bool {
    match failure {
        DnsFailure::Timeout
        | DnsFailure::ServerFailure
        | DnsFailure::Refused
        | DnsFailure::Broken
        | DnsFailure::FormatError
        | DnsFailure::NotImplemented
        | DnsFailure::OtherError
        | DnsFailure::NoTcp
        | DnsFailure::AliasLoop => true,
        DnsFailure::Busy
        | DnsFailure::Down
        | DnsFailure::TooMany
        | DnsFailure::NoRoute
        | DnsFailure::Forbidden
        | DnsFailure::NoAddress
        | DnsFailure::PortClosed
        | DnsFailure::NoSocket => false,
    }
}

/// `None` for a name so long that it can't have a record.
fn question(name: &DomainName) -> Option<Question> {
    let name = QuestionName::parse(format!("_dmarc.{name}").as_bytes())?;
    Some(Question { name, rtype: RecordType::Txt })
}

/// Whether the domain exists: it has A, AAAA or MX records (RFC 9989 3.2.13).
async fn exists(lookups: &mut Lookups<'_>, domain: &DomainName) -> Result<bool, DnsFailure> {
    let mut failure = None;
    for rtype in [RecordType::Mx, RecordType::A, RecordType::Aaaa] {
        match &*lookups.ask(domain, rtype).await {
            Answer::Found(_) => return Ok(true),
            Answer::NoData | Answer::NoSuchDomain => {}
            Answer::Unavailable(trouble) => failure = failure.or(Some(*trouble)),
        }
    }
    failure.map_or(Ok(false), Err)
}
