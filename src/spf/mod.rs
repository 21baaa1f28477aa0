//! SPF (RFC 7208): whether a domain lets this client send mail in its name.
//!
//! `record` reads a policy, `macros` what stands in it instead of names; both are pure. `evaluation` asks DNS, by the
//! lookups of the finding that it is for, so that it shares the cache and its bounds, and every record asked is evidence.
//! All of RFC 7208 but the explanation (6.2): it is a text that the sender writes for our reply, and nothing shows it.
//! What a result leads to is not decided here.
//! `own` is for a domain's administrator: a policy with more addresses in it.

mod evaluation;
mod macros;
mod own;
mod record;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::dns::lookups::Lookups;
use crate::dns::{Account, Dns};
use crate::evidence::Evidence;
use crate::smtp::address::DomainName;

pub use crate::spf::own::{InsertionPoint, Policy, Published, published};

/// The result of a check (RFC 7208 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpfResult {
    /// The client may send.
    Pass,
    /// It may not.
    Fail,
    /// Probably it may not.
    SoftFail,
    /// The domain doesn't say.
    Neutral,
    /// The domain has no policy.
    None,
    /// The policy can't be read, or takes too many look-ups.
    PermError,
    /// DNS was in trouble.
    TempError,
}

impl SpfResult {
    /// The word of RFC 7208 2.6.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Neutral => "neutral",
            Self::None => "none",
            Self::PermError => "permerror",
            Self::TempError => "temperror",
        }
    }
}

impl fmt::Display for SpfResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// In whose name the client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender<'a> {
    /// What stands before the `@`; empty = `postmaster` (RFC 7208 4.3).
    pub local: &'a str,
    /// The domain whose policy counts.
    pub domain: &'a DomainName,
    /// The argument of HELO or EHLO.
    pub helo: &'a str,
}

/// A result with what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The result.
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

/// The same for the client of a lookups, which takes the evidence.
pub(crate) async fn check_by(lookups: &mut Lookups<'_>, sender: &Sender<'_>) -> SpfResult {
    evaluation::check_host(lookups, sender).await
}
