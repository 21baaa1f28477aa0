//! What of From: only the body can decide: whether a DKIM signature is valid where no other rung of `matches` held.
//!
//! It begins at the end of the header and only where a signature is there that could count; the keys are looked up while
//! the body streams. Until the end the finding is [`Absence::AwaitsBody`], which refuses nothing, so that the decision at
//! the end of the header is the best that can become of the message.
//!
//! Whether a signature counts is a matter of alignment: for the rung `dkim` by the public suffix list, for the action `dmarc`
//! by the tree walk and `adkim` of the owner's record.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;

use crate::dkim::{BodyHasher, BodyHashes, Checked, DkimResult, Signatures, are_aligned};
use crate::dmarc::{self, Alignment};
use crate::dns::lookups::Lookups;
use crate::dns::{Account, Budget, Dns, Urgency};
use crate::evidence::{DnsFailure, Evidence};
use crate::gate::Gate;
use crate::gate::owner::{Asked, Way};
use crate::gate::pending::Pending;
use crate::policy::authentication::{SignatureCheck, SignatureResult};
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::operator::Policy;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Rule, Rung};
use crate::smtp::address::DomainName;

/// Domains that sign whose organisation is looked up: further ones, which a sender may make up, don't count. The domain of
/// From: and its organisation need no lookup.
const MOST_WALKS: usize = 2;

/// Findings that wait, before anything is looked up.
pub(super) struct Open {
    findings: Vec<OpenFinding>,
    signatures: Signatures,
    way: Way,
}

#[derive(Debug)]
struct OpenFinding {
    /// Its place among the findings.
    at: usize,
    domain: DomainName,
    /// What the other rungs came to.
    otherwise: RuleResult,
    /// A failure can refuse the message.
    refuses: bool,
    /// What the owner of the domain asks for, if the action is `dmarc`.
    asked: Option<Asked>,
}

/// Findings that wait for the body.
#[derive(Debug)]
pub(super) struct AwaitsBody {
    findings: Vec<OpenFinding>,
    hasher: BodyHasher,
    way: Way,
    /// `None` = not in time.
    checked: Pending<Option<Verified>>,
}

/// The signatures, verified over the header.
#[derive(Debug)]
struct Verified {
    checked: Checked,
    /// For some domains that sign, the tree walk, where one was needed.
    organizations: HashMap<DomainName, Walked>,
    /// The lookups of these.
    walks: Vec<Evidence>,
}

/// The tree walk of one domain.
#[derive(Debug)]
struct Walked {
    organization: Result<DomainName, DnsFailure>,
    /// A failure for which an expired answer stands in.
    expired: Option<DnsFailure>,
}

/// Opens the findings that a signature may still turn to a pass, and concludes the others of `asked`; `None` where none is
/// open.
pub(super) fn open(
    policy: &Policy,
    findings: &mut [Finding],
    block: &[u8],
    mut asked: Vec<Asked>,
    way: Way,
) -> Option<Open> {
    let candidates = findings.iter().enumerate();
    let open: Vec<_> =
        candidates.filter_map(|candidate| could_be_signed(policy, candidate, &mut asked)).collect();
    if open.is_empty() {
        return None;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let signatures =
        Signatures::read(block, now, |signer| open.iter().any(|finding| finding.may_count(signer)));
    let any_for = |finding: &OpenFinding| {
        signatures
            .as_ref()
            .is_some_and(|signatures| signatures.domains().any(|signer| finding.may_count(signer)))
    };
    let mut waiting = Vec::with_capacity(open.len());
    for finding in open {
        let Some(shown) = findings.get_mut(finding.at) else { continue };
        match &finding.asked {
            _ if any_for(&finding) => {
                shown.outcome = RuleResult::None(Absence::AwaitsBody);
                if let Some(asked) = &finding.asked {
                    asked.show(shown);
                }
                waiting.push(finding);
            }
            Some(asked) => {
                shown.authentication_mut().dkim_whole = true;
                asked.clone().conclude(shown, &way, None, false);
            }
            None => shown.authentication_mut().dkim_whole = true,
        }
    }
    let signatures = signatures.filter(|_| !waiting.is_empty())?;
    Some(Open { findings: waiting, signatures, way })
}

fn could_be_signed(
    policy: &Policy,
    (at, finding): (usize, &Finding),
    asked: &mut Vec<Asked>,
) -> Option<OpenFinding> {
    if finding.identity != Identity::From || finding.rule != Rule::Matches {
        return None;
    }
    let (otherwise, refuses) = (finding.outcome, finding.action.refuses());
    if let Some(known) = asked.iter().position(|asked| asked.domain.as_str() == finding.domain) {
        let asked = asked.swap_remove(known);
        return Some(OpenFinding {
            at,
            domain: asked.domain.clone(),
            otherwise,
            refuses,
            asked: Some(asked),
        });
    }
    let failed = matches!(otherwise, RuleResult::Fail(Reason::NotAnExchanger) | RuleResult::TempError(_));
    let domain = DomainName::parse(&finding.domain).ok().filter(|_| failed)?;
    let rules = policy.in_force(Identity::From, &domain).rules;
    let counts = rules.matches != Action::Dmarc && rules.matches_by.contains(&Rung::Dkim);
    counts.then_some(OpenFinding { at, domain, otherwise, refuses, asked: None })
}

impl OpenFinding {
    /// Whether a signature of this domain may count, as far as the names alone tell.
    fn may_count(&self, signer: &DomainName) -> bool {
        match &self.asked {
            None => are_aligned(signer, &self.domain),
            Some(asked) => *signer == self.domain || signer.is_at_or_below(&asked.organization),
        }
    }

    /// Whether the organisation of this domain is to be looked up.
    fn needs_walk(&self, signer: &DomainName) -> bool {
        let Some(asked) = &self.asked else { return false };
        let known = *signer == self.domain || *signer == asked.organization;
        !known && asked.needs_walk() && self.may_count(signer)
    }

    /// Whether a signature of this domain counts; the failure if that is unknown.
    fn counts(&self, signer: &DomainName, verified: &Verified) -> Result<bool, DnsFailure> {
        match &self.asked {
            None => Ok(are_aligned(signer, &self.domain)),
            Some(asked) if *signer == self.domain => Ok(true),
            Some(asked) if asked.dkim == Alignment::Strict => Ok(false),
            Some(_) => self.is_of_organization(signer, verified),
        }
    }

    /// Whether the signer is of the organisation of the From: domain.
    fn is_of_organization(&self, signer: &DomainName, verified: &Verified) -> Result<bool, DnsFailure> {
        let Some(asked) = &self.asked else { return Ok(are_aligned(signer, &self.domain)) };
        if *signer == self.domain || *signer == asked.organization {
            return Ok(true);
        }
        let Some(Walked { organization, expired }) = verified.organizations.get(signer) else {
            return Ok(false);
        };
        match (organization, expired) {
            (Ok(organization), _) if *organization == asked.organization => Ok(true),
            (Ok(_), None) => Ok(false),
            (Ok(_), Some(failure)) | (Err(failure), _) => Err(*failure),
        }
    }

    /// The result of the signatures that count, which is shown with the finding.
    fn signed(&self, verified: &Verified, hashes: &BodyHashes, shown: &mut Finding) -> Signed {
        let counts = |signer: &DomainName| self.counts(signer, verified);
        let mut result = verified.checked.outcome(hashes, |signer| counts(signer) == Ok(true));
        let mut broken = false;
        for (signer, selector, one) in verified.checked.results(hashes) {
            if !self.may_count(signer) {
                continue;
            }
            let aligned = counts(signer);
            if let (Err(failure), SignatureResult::Pass | SignatureResult::TempError) = (aligned, one)
                && result == DkimResult::Fail
            {
                result = DkimResult::TempError(failure);
            }
            broken |= one == SignatureResult::Fail && self.is_of_organization(signer, verified) == Ok(true);
            let aligned = aligned == Ok(true);
            let (domain, selector) = (signer.as_str().into(), selector.clone());
            let check = SignatureCheck { result: one, domain, selector, aligned };
            shown.authentication_mut().dkim.push(check);
        }
        let walks = verified.walks.iter().filter(|_| self.asked.is_some());
        shown.evidence.extend(walks.cloned());
        shown.evidence.extend(verified.checked.evidence(|signer| self.may_count(signer)).cloned());
        Signed { result, broken }
    }
}

/// What the signatures came to for one finding.
struct Signed {
    result: DkimResult,
    /// One of the organisation has a key and does not verify.
    broken: bool,
}

impl Signed {
    const TOO_LATE: Self = Self { result: DkimResult::TempError(DnsFailure::Timeout), broken: false };
}

impl Open {
    /// Never mind: the message is refused anyway.
    pub(super) fn close(self, findings: &mut [Finding]) {
        for OpenFinding { at, otherwise, asked, .. } in self.findings {
            if let Some(finding) = findings.get_mut(at).filter(|_| asked.is_none()) {
                finding.outcome = otherwise;
            }
        }
    }

    /// Starts the lookup of the keys, from what is left of the budget of From:.
    pub(super) fn start(self, gate: &Arc<Gate>, client: IpAddr, budget: Budget) -> AwaitsBody {
        let Self { findings, signatures, way } = self;
        let (gate, hasher) = (Arc::clone(gate), signatures.body_hasher());
        let refuses = findings.iter().any(|finding| finding.refuses);
        let urgency = if refuses { Urgency::Refuses } else { Urgency::Tags };
        let account = Account::new(client, budget, urgency);
        let mut signers: Vec<DomainName> = Vec::new();
        for signer in signatures.domains() {
            if findings.iter().any(|finding| finding.needs_walk(signer))
                && !signers.contains(signer)
                && signers.len() < MOST_WALKS
            {
                signers.push(signer.clone());
            }
        }
        let checked = Pending::start(async move {
            let work = verify(gate.reverse_mx.dns(), &account, signatures, signers);
            tokio::time::timeout(gate.deadline, work).await.ok()
        });
        AwaitsBody { findings, hasher, way, checked }
    }
}

async fn verify(dns: &Dns, account: &Account, signatures: Signatures, signers: Vec<DomainName>) -> Verified {
    let walks = signers.into_iter().map(async |signer| {
        let mut lookups = Lookups::new(dns, account);
        let organization = dmarc::organization(&mut lookups, &signer).await;
        let expired = lookups.expired();
        (signer, Walked { organization, expired }, lookups.into_evidence())
    });
    let (checked, walked) = tokio::join!(signatures.check(dns, account), join_all(walks));
    let (mut organizations, mut walks) = (HashMap::new(), Vec::new());
    for (signer, walk, evidence) in walked {
        organizations.insert(signer, walk);
        walks.extend(evidence);
    }
    Verified { checked, organizations, walks }
}

impl AwaitsBody {
    /// The next octets of the body, without the dots of RFC 5321 4.5.2.
    pub(super) fn push(&mut self, plain: &[u8]) {
        self.hasher.push(plain);
    }

    /// The body has ended: what is found now.
    pub(super) async fn decide(self, findings: &mut [Finding]) {
        let Self { findings: open, hasher, way, mut checked } = self;
        let hashes = hasher.finish();
        let verified = checked.wait(|| None).await.as_ref();
        for finding in open {
            let Some(shown) = findings.get_mut(finding.at) else { continue };
            let signed = verified.map(|verified| finding.signed(verified, &hashes, shown));
            shown.authentication_mut().dkim_whole = signed.is_some();
            let Signed { result, broken } = signed.unwrap_or(Signed::TOO_LATE);
            match (finding.asked, result) {
                (Some(asked), DkimResult::Pass) => asked.pass(shown),
                (Some(asked), DkimResult::Fail) => asked.conclude(shown, &way, None, broken),
                (Some(asked), DkimResult::TempError(trouble)) => {
                    asked.conclude(shown, &way, Some(trouble), broken);
                }
                (None, result) => {
                    shown.outcome = match (result, finding.otherwise) {
                        (DkimResult::Pass, _) => RuleResult::Pass(Rung::Dkim),
                        (_, RuleResult::TempError(_)) | (DkimResult::Fail, _) => finding.otherwise,
                        (DkimResult::TempError(trouble), _) => RuleResult::TempError(trouble),
                    };
                }
            }
        }
    }
}
