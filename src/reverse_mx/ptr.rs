//! The client's names: those that its PTR records give and that lead back to its address (iprev, RFC 8601 3).
//!
//! The owner of an address writes its PTR record, so a name counts only if its own A or AAAA record confirms it.

use compact_str::{CompactString, ToCompactString};

use crate::dns::fcrdns::{self, FEW_NAMES, ForwardConfirmation};
use crate::dns::lookups::{Lookups, trouble};
use crate::dns::organization::organization;
use crate::dns::{Account, Dns};
use crate::evidence::{DnsFailure, Evidence};
use crate::smtp::address::DomainName;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientNames {
    /// The names, or why there are none.
    pub outcome: FcrdnsResult,
    /// Every question that was asked, in the order of asking.
    pub evidence: Vec<Evidence>,
}

impl ClientNames {
    /// The first confirmed name.
    #[must_use]
    pub fn first(&self) -> Option<&DomainName> {
        match &self.outcome {
            FcrdnsResult::Confirmed(names) => names.first(),
            FcrdnsResult::NoPtr | FcrdnsResult::NotConfirmed(_) | FcrdnsResult::TempError(_) => None,
        }
    }
}

/// The names of a client, or why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FcrdnsResult {
    /// These lead back to the client's address; at least one, in the order of the records.
    Confirmed(Vec<DomainName>),
    /// The address has no PTR record.
    NoPtr,
    /// None of these (printable) leads back to it.
    NotConfirmed(Vec<CompactString>),
    /// A lookup failed, and no name is confirmed.
    TempError(DnsFailure),
}

pub(super) async fn names_of(dns: &Dns, account: &Account) -> ClientNames {
    let mut lookups = Lookups::new(dns, account);
    let ForwardConfirmation { targets, confirmed, .. } =
        fcrdns::look_up(&mut lookups, FEW_NAMES, |_| true).await;
    let evidence = lookups.into_evidence();
    let outcome = match trouble(&evidence) {
        _ if !confirmed.is_empty() => FcrdnsResult::Confirmed(confirmed),
        Some(trouble) => FcrdnsResult::TempError(trouble),
        None if targets.is_empty() => FcrdnsResult::NoPtr,
        None => FcrdnsResult::NotConfirmed(targets.iter().map(ToCompactString::to_compact_string).collect()),
    };
    ClientNames { outcome, evidence }
}

/// The rung `ptr` of `matches`: one of the client's names is in the organisational domain of `domain`.
pub(super) async fn shares_organization(lookups: &mut Lookups<'_>, domain: &DomainName) -> bool {
    let Some(organization_of_domain) = organization(domain) else {
        return false;
    };
    let below = |name: &DomainName| name.is_at_or_below(&organization_of_domain);
    !fcrdns::look_up(lookups, FEW_NAMES, below).await.confirmed.is_empty()
}
