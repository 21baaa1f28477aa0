//! The senders of a past decision, as the gate had them.

use compact_str::CompactString;

use crate::decision::DecisionRecord;
use crate::dns::kept::Kept;
use crate::gate::evaluation::{envelope_sender, is_malformed_from};
use crate::gate::hindsight::stages::Greylist;
use crate::gate::lookup::EnvelopeSender;
use crate::message::malformed::Malformed;
use crate::message::{header, u_label};
use crate::policy::decide::Verdict;
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Rule};
use crate::reverse_mx::Envelope;
use crate::smtp::address::{DomainName, ForwardPath, ReversePath};
use crate::spf::Sender;
use crate::store::history::KEPT;

pub(super) struct Past<'r> {
    pub(super) record: &'r DecisionRecord,
    /// `None` if it can't be read.
    pub(super) path: Option<ReversePath>,
    envelope_sender: Option<EnvelopeSender>,
}

/// One domain of From: or Reply-To:.
pub(super) struct Named {
    /// The address.
    pub(super) subject: CompactString,
    /// The domain as it stands in a finding.
    pub(super) text: CompactString,
    pub(super) name: Option<DomainName>,
}

/// One address field.
pub(super) enum Field {
    Absent,
    Malformed(Box<Finding>),
    Authors(Vec<Named>),
    /// The record doesn't show it.
    Unknown,
}

impl<'r> Past<'r> {
    pub(super) fn new(record: &'r DecisionRecord) -> Self {
        let inside = record.mail_from.strip_prefix('<').and_then(|text| text.strip_suffix('>'));
        let path = inside.and_then(|text| ReversePath::parse(text).ok());
        let envelope_sender = path.as_ref().and_then(|path| envelope_sender(&record.helo, path));
        Self { record, path, envelope_sender }
    }

    /// The sender of the envelope as SPF sees it.
    pub(super) fn envelope(&self) -> Option<Envelope<'_>> {
        let EnvelopeSender { identity, local, domain } = self.envelope_sender.as_ref()?;
        Some(Envelope { identity: *identity, sender: Sender { local, domain, helo: &self.record.helo } })
    }

    /// The finding of this rule, of the client's names whatever its domain is.
    pub(super) fn own(&self, identity: Identity, rule: Rule, domain: &str) -> Option<&'r Finding> {
        let is_of = |finding: &&Finding| {
            (finding.identity, finding.rule) == (identity, rule)
                && (identity == Identity::Ptr || finding.domain == domain)
        };
        self.record.findings.iter().find(is_of)
    }

    pub(super) fn kept(&self, own: Option<&'r Finding>) -> Kept<'r> {
        Kept {
            client: self.record.client.to_canonical(),
            own: own.map(|own| own.evidence.as_slice()).unwrap_or_default(),
            findings: &self.record.findings,
            whole: KEPT,
        }
    }

    /// Whether the decision is on recipients that are all known, and all as `is` says.
    pub(super) fn recipients_are(&self, is: impl Fn(&ForwardPath) -> bool) -> bool {
        let mut all = self.record.all_recipients().peekable();
        let refused_one = self.record.refused() && self.record.recipients.is_empty();
        let known = refused_one || self.record.rcpts <= self.record.recipients.len() + 1;
        all.peek().is_some() && known && all.all(|text| ForwardPath::parse(text).is_ok_and(|path| is(&path)))
    }

    /// The transaction ended without a recipient, and not by rmxd.
    pub(super) fn ended_at_mail(&self) -> bool {
        self.record.rcpt.is_empty() && !self.record.refused()
    }

    /// A permit may have let in a part of it: one that was refused nevertheless names none.
    fn may_have_permit(&self) -> bool {
        self.record.permit.is_some() || self.record.cause.is_some()
    }

    /// Whether it may have been a permit that exempted this finding.
    pub(super) fn may_be_let_in(&self, own: Option<&Finding>) -> bool {
        own.is_some_and(is_exempt) && self.may_have_permit()
    }

    /// Whether a permit may have let in the domain of MAIL FROM, which exempts the client's names too. The record doesn't
    /// say which of several conditions a permit has.
    pub(super) fn envelope_may_be_let_in(&self) -> bool {
        let of_envelope =
            |finding: &&Finding| !matches!(finding.identity, Identity::From | Identity::ReplyTo);
        self.may_have_permit() && self.record.findings.iter().filter(of_envelope).all(is_exempt)
    }

    /// Whether permits may have let in all recipients but those that are as `is` says.
    pub(super) fn others_may_be_let_in(&self, is: impl Fn(&ForwardPath) -> bool) -> bool {
        let DecisionRecord { rcpts, recipients, .. } = self.record;
        let of_one = self.record.refused() && recipients.is_empty();
        let all_known = *rcpts <= recipients.len() + 1;
        let one_is =
            || self.record.all_recipients().any(|text| ForwardPath::parse(text).is_ok_and(|path| is(&path)));
        self.may_have_permit() && *rcpts > 1 && !of_one && (!all_known || one_is())
    }

    /// What the greylist did. A malformed field has an action of its own, which isn't kept.
    pub(super) fn greylist(&self) -> Greylist {
        let malformed = RuleResult::Fail(Reason::MalformedHeader);
        let failed = |finding: &&Finding| matches!(finding.outcome, RuleResult::Fail(_));
        let mut failed = self.record.findings.iter().filter(failed);
        let greylists =
            |finding: &Finding| finding.outcome != malformed && finding.action == Action::Greylist;
        if self.record.verdict != Verdict::Accept {
            Greylist::New
        } else if failed.clone().any(greylists) {
            Greylist::Passed
        } else if failed.any(|finding| {
            finding.outcome == malformed && !(self.is_nameless() && is_malformed_from(finding))
        }) {
            Greylist::Unknown
        } else {
            Greylist::New
        }
    }

    /// From: of a bounce names no domain, which is only a tag.
    pub(super) fn is_nameless(&self) -> bool {
        let nameless = [Malformed::Empty, Malformed::NoDomain].map(Malformed::name);
        self.path == Some(ReversePath::Null) && nameless.contains(&self.record.from.as_str())
    }

    pub(super) fn field(&self, identity: Identity) -> Field {
        let text = if identity == Identity::From { &self.record.from } else { &self.record.reply_to };
        let of_identity = || self.record.findings.iter().filter(|finding| finding.identity == identity);
        let malformed = RuleResult::Fail(Reason::MalformedHeader);
        if let Some(finding) = of_identity().find(|finding| finding.outcome == malformed) {
            return Field::Malformed(Box::new(Finding { evidence: Vec::new(), ..finding.clone() }));
        }
        if text.is_empty() {
            return Field::Absent;
        }
        let named = |subject: &str| {
            let known =
                of_identity().find(|finding| finding.subject == subject && !finding.domain.is_empty());
            if let Some(Finding { domain, .. }) = known {
                let name = DomainName::parse(domain).ok();
                return Some(Named { subject: subject.into(), text: domain.clone(), name });
            }
            // A longer address is cut.
            let (_, domain) = subject.rsplit_once('@').filter(|_| subject.len() < LONGEST)?;
            let name = u_label::domain(domain);
            let text = name.as_ref().map_or(domain, DomainName::as_str).into();
            Some(Named { subject: subject.into(), text, name })
        };
        let addresses = header::addresses_of(text);
        let authors = addresses.and_then(|all| all.iter().map(|address| named(address)).collect());
        authors.map_or(Field::Unknown, Field::Authors)
    }
}

fn is_exempt(finding: &Finding) -> bool {
    finding.outcome == RuleResult::None(Absence::Exempt)
}

/// Octets of an address that is surely shown whole.
const LONGEST: usize = 250;
