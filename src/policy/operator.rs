//! The operator's policy: the rules of each identity, and which of them apply to a domain.

use crate::policy::identity::Identity;
use crate::policy::rule::{Action, IdentityRules, Mode, OnDnsError, RejectAt};
use crate::policy::senders::{Entry, Senders};
use crate::smtp::address::DomainName;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether refusals are carried out.
    pub mode: Mode,
    pub reject_at: RejectAt,
    pub on_dns_error: OnDnsError,
    /// The action for an ambiguous From: or Reply-To: field and for a missing From: field; [`Action::Reject`] or
    /// [`Action::Tag`].
    pub malformed: Action,
    /// What follows where the owner of a From: domain asks for `quarantine`, and for indirect mail where it asks for `reject`;
    /// of [`Action::Tag`], [`Action::Greylist`], [`Action::Defer`], [`Action::Reject`].
    pub dmarc_quarantine: Action,
    /// `[[policy.senders]]`: other rules for some sender domains.
    pub senders: Senders,
    pub helo: IdentityRules,
    pub ptr: IdentityRules,
    pub mail_from: IdentityRules,
    pub from: IdentityRules,
    pub reply_to: IdentityRules,
}

/// The rules that apply to one domain of an identity.
#[derive(Debug, Clone, Copy)]
pub struct InForce<'p> {
    pub rules: &'p IdentityRules,
    /// The entry of `policy.senders` that they come from.
    pub entry: Option<&'p Entry>,
}

impl Policy {
    /// Whether any rule has the action [`Action::Greylist`].
    #[must_use]
    pub fn greylists(&self) -> bool {
        let greylists = |rules: &IdentityRules| [rules.exists, rules.matches].contains(&Action::Greylist);
        self.all_rules().any(greylists) || self.dmarc_quarantine == Action::Greylist
    }

    /// The rules of one identity.
    #[must_use]
    pub fn rules(&self, identity: Identity) -> &IdentityRules {
        match identity {
            Identity::Helo => &self.helo,
            Identity::Ptr => &self.ptr,
            Identity::MailFrom => &self.mail_from,
            Identity::From => &self.from,
            Identity::ReplyTo => &self.reply_to,
        }
    }

    /// The rules that apply to this domain of one identity: those of the first entry of `policy.senders` that covers it,
    /// else the identity's own.
    #[must_use]
    pub fn in_force(&self, identity: Identity, domain: &DomainName) -> InForce<'_> {
        match self.senders.rules(identity, domain) {
            Some((rules, entry)) => InForce { rules, entry: Some(entry) },
            None => self.general(identity),
        }
    }

    /// The identity's own rules.
    #[must_use]
    pub fn general(&self, identity: Identity) -> InForce<'_> {
        InForce { rules: self.rules(identity), entry: None }
    }

    /// The rules of all identities, and those of `policy.senders`.
    pub fn all_rules(&self) -> impl Iterator<Item = &IdentityRules> {
        let general = Identity::ALL.into_iter().map(|identity| self.rules(identity));
        general.chain(self.senders.all_rules())
    }
}
