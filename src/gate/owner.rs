//! What the owner of a From: domain asks for (action `dmarc`, contract 3.3), in the order that costs least.
//!
//! Where no rung held that needs no owner, [`ask`] looks for the DMARC record, and only if that asks for something, at aligned SPF.
//! What SPF does not settle waits in [`Asked`] for the envelope's findings and, where a signature could count, for the body;
//! [`Asked::conclude`] is the one place that turns it into a result.
//!
//! Where the record can't be looked up, SPF and a signature of the very name of From: still pass: they would by any record.
//!
//! No name of the sender's choice is looked up here: SPF and the organisation only of names at or below the organisation of
//! the From: domain.

use compact_str::CompactString;

use crate::dmarc::{self, Alignment};
use crate::dns::Account;
use crate::dns::lookups::Lookups;
use crate::evidence::{DnsFailure, Evidence};
use crate::gate::Gate;
use crate::message::way::WaySigns;
use crate::policy::authentication::{DmarcCheck, DmarcResult, Indirect, Request, SpfResult, WaySign};
use crate::policy::finding::{Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Rung};
use crate::reverse_mx::Envelope;
use crate::smtp::address::DomainName;
use crate::spf;

/// A From: domain whose owner asks for something that SPF did not settle.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// The domain.
    pub(super) domain: DomainName,
    /// Its organisation by the tree walk.
    pub(super) organization: DomainName,
    /// How a signature's domain must be aligned.
    pub(super) dkim: Alignment,
    check: DmarcCheck,
    /// The domain of MAIL FROM, if it is of another organisation.
    foreign: Option<CompactString>,
    /// A lookup of DMARC failed, or an expired answer stands in for it.
    trouble: Option<DnsFailure>,
    /// A rung that needs no owner could not be looked up: DMARC fails, and yet the message may be the domain's.
    rungs: Option<DnsFailure>,
}

/// Whether `mail_from.matches` holds for the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EnvelopeState {
    Holds(Rung),
    DoesNotHold,
    Unknown(DnsFailure),
}

impl From<RuleResult> for EnvelopeState {
    fn from(result: RuleResult) -> Self {
        match result {
            RuleResult::Pass(rung) => Self::Holds(rung),
            RuleResult::TempError(trouble) => Self::Unknown(trouble),
            RuleResult::Fail(_) | RuleResult::None(_) => Self::DoesNotHold,
        }
    }
}

/// What is known of the way that a message came.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// The signs in the header.
    pub(super) signs: WaySigns,
    pub(super) envelope: EnvelopeState,
    /// What was asked for the envelope, if it was looked up for this alone.
    pub(super) evidence: Vec<Evidence>,
    pub(super) quarantine: Action,
}

/// Whether this finding depends on what the owner asks for: its action is `dmarc`, and no rung held.
pub(super) fn is_open(finding: &Finding) -> bool {
    let open = matches!(finding.outcome, RuleResult::Fail(Reason::NotAnExchanger) | RuleResult::TempError(_));
    finding.action == Action::Dmarc && open
}

/// Looks for the record of an open finding, then at SPF. Sets the result, unless the envelope or the body may change it:
/// then it returns what was asked for.
pub(super) async fn ask(
    gate: &Gate,
    finding: &mut Finding,
    domain: &DomainName,
    envelope: Option<Envelope<'_>>,
    account: &Account,
) -> Option<Asked> {
    let mut lookups = Lookups::new(gate.reverse_mx.dns(), account);
    let asked = ask_by(&mut lookups, finding, domain, envelope).await;
    finding.evidence.extend(lookups.into_evidence());
    asked
}

/// The owner could not be asked in time.
pub(super) fn too_late(finding: &mut Finding) {
    finding.outcome = RuleResult::TempError(DnsFailure::Timeout);
    finding.action = Action::Reject;
}

pub(super) async fn ask_by(
    lookups: &mut Lookups<'_>,
    finding: &mut Finding,
    domain: &DomainName,
    envelope: Option<Envelope<'_>>,
) -> Option<Asked> {
    let mut check = DmarcCheck {
        result: None,
        request: None,
        testing: false,
        record_at: CompactString::default(),
        organization: CompactString::default(),
        indirect: None,
    };
    let discovery = match dmarc::discover(lookups, domain).await {
        Ok(discovery) => discovery,
        Err(trouble) => {
            check.result = Some(DmarcResult::TempError);
            return without_record(lookups, finding, domain, envelope, check, trouble).await;
        }
    };
    let (applied, request) = match discovery {
        dmarc::Discovery::Applied { applied, request } => (applied, request),
        dmarc::Discovery::Nothing => {
            check.result = Some(DmarcResult::None);
            set(finding, check, finding.outcome, Action::Tag);
            return None;
        }
        dmarc::Discovery::Malformed => {
            check.result = Some(DmarcResult::PermError);
            set(finding, check, finding.outcome, Action::Tag);
            return None;
        }
    };
    let record = applied.record;
    check.request = Some(request);
    check.testing = record.testing;
    check.record_at = applied.name.as_str().into();
    if check.in_force() == Request::None {
        set(finding, check, finding.outcome, Action::Tag);
        return None;
    }
    let rungs = trouble_of(finding);
    let (mut trouble, mut foreign) = (None, None);
    if let Some(envelope) = envelope {
        let sender = envelope.sender.domain;
        match dmarc::aligned(lookups, domain, sender, Alignment::Relaxed).await {
            Ok(true) if record.spf == Alignment::Relaxed || sender == domain => {
                let result = spf::check_by(lookups, &envelope.sender).await;
                finding.authentication_mut().spf = Some(envelope.checked(result));
                match result {
                    SpfResult::Pass => {
                        check.result = Some(DmarcResult::Pass);
                        set(finding, check, RuleResult::Pass(Rung::Spf), Action::Dmarc);
                        return None;
                    }
                    SpfResult::TempError => trouble = trouble.or(lookups.trouble()),
                    SpfResult::Fail
                    | SpfResult::SoftFail
                    | SpfResult::Neutral
                    | SpfResult::None
                    | SpfResult::PermError => {}
                }
            }
            Ok(true) => {}
            Ok(false) if envelope.identity == Identity::MailFrom => foreign = Some(sender.as_str().into()),
            Ok(false) => {}
            Err(failure) => trouble = trouble.or(Some(failure)),
        }
    }
    let organization = match dmarc::organization(lookups, domain).await {
        Ok(organization) => organization,
        Err(failure) => {
            trouble = trouble.or(Some(failure));
            domain.clone()
        }
    };
    check.organization = organization.as_str().into();
    let trouble = trouble.or(lookups.expired());
    Some(Asked { domain: domain.clone(), organization, dkim: record.dkim, check, foreign, trouble, rungs })
}

/// The record can't be looked up: only the very name of From: counts.
async fn without_record(
    lookups: &mut Lookups<'_>,
    finding: &mut Finding,
    domain: &DomainName,
    envelope: Option<Envelope<'_>>,
    check: DmarcCheck,
    trouble: DnsFailure,
) -> Option<Asked> {
    if let Some(envelope) = envelope.filter(|envelope| envelope.sender.domain == domain) {
        let result = spf::check_by(lookups, &envelope.sender).await;
        finding.authentication_mut().spf = Some(envelope.checked(result));
        if result == SpfResult::Pass {
            set(finding, check, RuleResult::Pass(Rung::Spf), Action::Dmarc);
            return None;
        }
    }
    Some(Asked {
        domain: domain.clone(),
        organization: domain.clone(),
        dkim: Alignment::Strict,
        check,
        foreign: None,
        trouble: Some(trouble),
        rungs: trouble_of(finding),
    })
}

fn trouble_of(finding: &Finding) -> Option<DnsFailure> {
    match finding.outcome {
        RuleResult::TempError(trouble) => Some(trouble),
        RuleResult::Pass(_) | RuleResult::Fail(_) | RuleResult::None(_) => None,
    }
}

fn set(finding: &mut Finding, check: DmarcCheck, outcome: RuleResult, action: Action) {
    (finding.outcome, finding.action) = (outcome, action);
    finding.authentication_mut().dmarc = Some(check);
}

impl Asked {
    /// Whether it matters how the message came: only `reject` is weakened for indirect mail.
    pub(super) fn needs_way(&self) -> bool {
        self.check.in_force() == Request::Reject && self.foreign.is_some()
    }

    /// What is asked, shown while the result is open.
    pub(super) fn show(&self, finding: &mut Finding) {
        finding.authentication_mut().dmarc = Some(self.check.clone());
    }

    /// Whether it matters of which organisation a signer is whose name is another.
    pub(super) fn needs_walk(&self) -> bool {
        self.dkim == Alignment::Relaxed || self.needs_way()
    }

    /// An aligned signature passes.
    pub(super) fn pass(mut self, finding: &mut Finding) {
        if self.check.request.is_some() {
            self.check.result = Some(DmarcResult::Pass);
        }
        set(finding, self.check, RuleResult::Pass(Rung::Dkim), Action::Dmarc);
    }

    /// Neither aligned SPF nor an aligned signature passes: what follows. `trouble` is that of the signatures, and `broken`
    /// whether one of them shows that the message was changed on its way.
    pub(super) fn conclude(
        mut self,
        finding: &mut Finding,
        way: &Way,
        trouble: Option<DnsFailure>,
        broken: bool,
    ) {
        let trouble = self.trouble.or(trouble);
        let sign = way.signs.first().or(broken.then_some(WaySign::BrokenSignature));
        let came_by = sign.zip(self.foreign.as_ref()).filter(|_| self.needs_way());
        let mut unknown = None;
        if let Some((sign, envelope)) = came_by {
            finding.evidence.extend_from_slice(&way.evidence);
            match way.envelope {
                EnvelopeState::Holds(rung) => {
                    self.check.indirect = Some(Indirect { sign, envelope: envelope.clone(), rung });
                }
                EnvelopeState::DoesNotHold => {}
                // Where both are refused alike, it doesn't matter.
                EnvelopeState::Unknown(_) if way.quarantine == Action::Reject => {}
                EnvelopeState::Unknown(failure) => unknown = Some(failure),
            }
        }
        let (reason, action) = match self.check.request.map(|_| self.check.in_force()) {
            Some(Request::Reject) if self.check.indirect.is_none() => (Reason::DmarcReject, Action::Reject),
            Some(Request::Reject | Request::Quarantine | Request::None) => {
                (Reason::DmarcQuarantine, way.quarantine)
            }
            // The record is unknown, and so is what it asks for.
            None => (Reason::DmarcReject, Action::Reject),
        };
        let (result, outcome) = match (trouble, self.rungs.or(unknown)) {
            (Some(failure), _) => (DmarcResult::TempError, RuleResult::TempError(failure)),
            (None, Some(failure)) => (DmarcResult::Fail, RuleResult::TempError(failure)),
            (None, None) => (DmarcResult::Fail, RuleResult::Fail(reason)),
        };
        self.check.result = Some(result);
        set(finding, self.check, outcome, action);
    }
}
