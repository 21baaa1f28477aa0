//! SPF (RFC 7208): whether a domain lets this client send mail in its name.
//!
//! `record` and `macros` parse a policy; both are pure. `evaluation` asks DNS by the `Lookups` of its finding, so that cache and
//! budgets are shared and every record is evidence.
//! All of RFC 7208 but the explanation (6.2): a text that the sender writes for our reply, and nothing shows it.
//! `own` is for a domain's administrator: a policy with more addresses in it.

mod evaluation;
mod macros;
mod own;
mod record;
#[cfg(test)]
mod tests;

use crate::dns::lookups::Lookups;
use crate::dns::{Account, Dns};
use crate::evidence::Evidence;
use crate::smtp::address::DomainName;

pub use crate::policy::authentication::SpfResult;
pub use crate::spf::own::{InsertionPoint, Policy, Published, published};

/// The sender that the client claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender<'a> {
    /// The local part; empty = `postmaster` (RFC 7208 4.3).
    pub local: &'a str,
    /// The domain whose policy counts.
    pub domain: &'a DomainName,
    /// The argument of HELO or EHLO.
    pub helo: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub outcome: SpfResult,
    /// Every question that was asked, in the order of asking.
    pub evidence: Vec<Evidence>,
}

/// `check_host()` of RFC 7208 4, for the client whose account it is.
pub async fn check(dns: &Dns, account: &Account, sender: &Sender<'_>) -> Checked {
    let mut lookups = Lookups::new(dns, account);
    let outcome = check_by(&mut lookups, sender).await;
    Checked { outcome, evidence: lookups.into_evidence() }
}

/// The same; the evidence is added to these lookups.
pub(crate) async fn check_by(lookups: &mut Lookups<'_>, sender: &Sender<'_>) -> SpfResult {
    let missing = lookups.missing();
    let result = evaluation::check_host(lookups, sender).await;
    // Some terms take a failure for "no match" (RFC 7208 5.5): by the answers of the past alone that would be a guess.
    if lookups.missing() > missing { SpfResult::TempError } else { result }
}
