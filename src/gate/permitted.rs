//! What temporary permits let in (contract 3.5). They are looked for behind `[exempt]`, when a transaction begins, for each
//! recipient, and for the visible senders; so a permit is in effect from the next transaction of an open connection on, and
//! one that ends or is removed still holds for the transaction that began under it.

use std::net::IpAddr;
use std::time::SystemTime;

use compact_str::{CompactString, ToCompactString};
use ipnet::IpNet;

use crate::decision::LetIn;
use crate::exempt::Exemptions;
use crate::exempt::permits::{Permits, Sender, TemporaryPermit};
use crate::gate::Gate;
use crate::gate::known::for_each_rule;
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::operator::Policy;
use crate::reverse_mx::{ClientNames, FcrdnsResult};
use crate::smtp::address::{Domain, DomainName, ForwardPath, ReversePath};

/// What permits let in of the envelope of one transaction.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Permitted {
    /// The whole message, as of an exempt client.
    pub(super) message: Option<LetIn>,
    /// helo, ptr and mail_from, by the domain of MAIL FROM.
    pub(super) envelope: Option<LetIn>,
    /// Identity `helo`, by its name.
    pub(super) helo: Option<LetIn>,
    /// Identity `ptr`, by a confirmed name.
    pub(super) ptr: Option<LetIn>,
}

impl Permitted {
    /// The permit to be named, if any.
    pub(super) fn any(&self) -> Option<LetIn> {
        self.message.or(self.envelope).or(self.helo).or(self.ptr)
    }
}

impl Gate {
    /// The network of a client by `policy.match_prefix_v4` and `_v6`, as the greylist and permits have it.
    #[must_use]
    pub fn client_network(&self, address: IpAddr) -> IpNet {
        self.reverse_mx.network_of(address)
    }

    /// The permit for all that this client sends.
    pub(super) fn permit_of_client(&self, client: IpAddr) -> Option<LetIn> {
        self.find_permit(|permits, now| permits.message(Sender { client, domain: None }, now))
    }

    /// `mail_from` is the domain of MAIL FROM, if `[exempt]` doesn't have it; `sender` the same in any case, or for `<>` the
    /// HELO name.
    pub(super) fn permits_of_envelope(
        &self,
        client: IpAddr,
        sender: Option<&DomainName>,
        mail_from: Option<&DomainName>,
        helo: &str,
    ) -> Permitted {
        let message =
            self.find_permit(|permits, now| permits.message(Sender { client, domain: sender }, now));
        if message.is_some() {
            return Permitted { message, ..Permitted::default() };
        }
        let envelope =
            mail_from.and_then(|name| self.find_permit(|permits, now| permits.envelope(name, now)));
        let looks_at_helo = envelope.is_none() && self.policy().helo.looks();
        let by_helo =
            || self.find_permit(|permits, now| permits.envelope(Domain::parse(helo).ok()?.name()?, now));
        let helo = if looks_at_helo { by_helo() } else { None };
        Permitted { envelope, helo, ..Permitted::default() }
    }

    /// The permit for a confirmed name of the client, with the findings of identity `ptr` by it.
    pub(super) fn permit_of_names(&self, names: &ClientNames) -> Option<(LetIn, Vec<Finding>)> {
        let FcrdnsResult::Confirmed(names) = &names.outcome else { return None };
        names.iter().find_map(|name| {
            let permit = self.find_permit(|permits, now| permits.envelope(name, now))?;
            let (rules, exempt) = (self.policy().general(Identity::Ptr), RuleResult::None(Absence::Exempt));
            Some((permit, for_each_rule(rules, Identity::Ptr, name.as_str(), name.as_str(), exempt)))
        })
    }

    /// The permit for this domain in From: or Reply-To:, which `identity` is.
    pub(super) fn permit_of_visible(
        &self,
        client: IpAddr,
        identity: Identity,
        domain: &DomainName,
    ) -> Option<LetIn> {
        self.find_permit(|permits, now| permits.visible(client, identity, domain, now))
    }

    /// The permit for a recipient.
    pub(super) fn permit_of_recipient(
        &self,
        client: IpAddr,
        sender: Option<&DomainName>,
        recipient: &ForwardPath,
    ) -> Option<LetIn> {
        self.find_permit(|permits, now| permits.recipient(Sender { client, domain: sender }, recipient, now))
    }

    fn find_permit<F>(&self, look: F) -> Option<LetIn>
    where
        F: for<'p> FnOnce(&'p Permits, SystemTime) -> Option<&'p TemporaryPermit>,
    {
        self.services.permits.as_ref()?.find(look)
    }
}

/// The findings of identity `mail_from` where its domain is let in.
pub(super) fn mail_from(policy: &Policy, path: &ReversePath, name: &DomainName) -> Vec<Finding> {
    let (rules, exempt) = (policy.in_force(Identity::MailFrom, name), RuleResult::None(Absence::Exempt));
    for_each_rule(rules, Identity::MailFrom, &path.to_string(), name.as_str(), exempt)
}

/// The findings of identity `helo` where its name is let in.
pub(super) fn helo(policy: &Policy, argument: &str) -> Vec<Finding> {
    let exempt = RuleResult::None(Absence::Exempt);
    for_each_rule(policy.general(Identity::Helo), Identity::Helo, argument, argument, exempt)
}

/// The name behind the `@` of MAIL FROM.
pub(super) fn domain_name(path: &ReversePath) -> Option<&DomainName> {
    match path {
        ReversePath::Null | ReversePath::NoDomain(_) => None,
        ReversePath::Mailbox(mailbox) => mailbox.domain().name(),
    }
}

/// The text behind the `@`.
pub(super) fn domain_text(path: &ReversePath) -> CompactString {
    match path {
        ReversePath::Null | ReversePath::NoDomain(_) => CompactString::default(),
        ReversePath::Mailbox(mailbox) => mailbox.domain().to_compact_string(),
    }
}

/// Whether `[exempt]` has the domain of MAIL FROM.
pub(super) fn is_exempt_sender(exempt: &Exemptions, path: &ReversePath) -> bool {
    domain_name(path).is_some_and(|name| exempt.domain(name))
}
