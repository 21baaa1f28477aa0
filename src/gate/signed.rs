//! What of From: only the body can decide: whether a DKIM signature is valid where no other rung of `matches` held.
//!
//! It begins at the end of the header and only where a signature is there that could count; the keys are looked up while
//! the body streams. Until the end the finding is [`Absence::AwaitsBody`], which refuses nothing, so that the decision at
//! the end of the header is the best that can become of the message.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::dkim::{self, BodyHasher, Checked, Signatures};
use crate::dns::{Account, Budget, Urgency};
use crate::evidence::DnsFailure;
use crate::gate::Gate;
use crate::gate::pending::Pending;
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Rule, Rung};
use crate::smtp::address::DomainName;

/// Findings that wait, before anything is looked up.
pub(super) struct Open {
    findings: Vec<OpenFinding>,
    signatures: Signatures,
}

#[derive(Debug)]
struct OpenFinding {
    /// Its place among the findings.
    at: usize,
    domain: DomainName,
    /// What the other rungs came to.
    otherwise: RuleResult,
}

/// Findings that wait for the body.
#[derive(Debug)]
pub(super) struct AwaitsBody {
    findings: Vec<OpenFinding>,
    hasher: BodyHasher,
    /// `None` = not in time.
    checked: Pending<Option<Checked>>,
}

/// Opens the findings that a signature may still turn to a pass; `None` where there is none.
pub(super) fn open(gate: &Gate, findings: &mut [Finding], block: &[u8]) -> Option<Open> {
    if !gate.policy().from.matches_by.contains(&Rung::Dkim) {
        return None;
    }
    let mut open: Vec<_> = findings.iter().enumerate().filter_map(could_be_signed).collect();
    if open.is_empty() {
        return None;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let authors: Vec<_> = open.iter().map(|finding| &finding.domain).collect();
    let signatures = Signatures::read(block, &authors, now)?;
    open.retain(|finding| signatures.any_for(&finding.domain));
    for OpenFinding { at, .. } in &open {
        set(findings, *at, RuleResult::None(Absence::AwaitsBody));
    }
    Some(Open { findings: open, signatures })
}

fn could_be_signed((at, finding): (usize, &Finding)) -> Option<OpenFinding> {
    let otherwise = finding.outcome;
    let failed = matches!(otherwise, RuleResult::Fail(Reason::NotAnExchanger) | RuleResult::TempError(_));
    let asked = finding.identity == Identity::From && finding.rule == Rule::Matches;
    let domain = DomainName::parse(&finding.domain).ok().filter(|_| asked && failed)?;
    Some(OpenFinding { at, domain, otherwise })
}

impl Open {
    /// Never mind: the message is refused anyway.
    pub(super) fn close(self, findings: &mut [Finding]) {
        for OpenFinding { at, otherwise, .. } in self.findings {
            set(findings, at, otherwise);
        }
    }

    /// Starts the lookup of the keys, from what is left of the budget of From:.
    pub(super) fn start(self, gate: &Arc<Gate>, client: IpAddr, budget: Budget) -> AwaitsBody {
        let (gate, hasher) = (Arc::clone(gate), self.signatures.body_hasher());
        let refuses = gate.policy().from.matches.refuses();
        let urgency = if refuses { Urgency::Refuses } else { Urgency::Tags };
        let account = Account::new(client, budget, urgency);
        let checked = Pending::start(async move {
            let work = self.signatures.check(gate.reverse_mx.dns(), &account);
            tokio::time::timeout(gate.deadline, work).await.ok()
        });
        AwaitsBody { findings: self.findings, hasher, checked }
    }
}

impl AwaitsBody {
    /// The next octets of the body, without the dots of RFC 5321 4.5.2.
    pub(super) fn push(&mut self, plain: &[u8]) {
        self.hasher.push(plain);
    }

    /// The body has ended: what is found now.
    pub(super) async fn decide(self, findings: &mut [Finding]) {
        let Self { findings: open, hasher, mut checked } = self;
        let hashes = hasher.finish();
        let checked = checked.wait(|| None).await;
        for OpenFinding { at, domain, otherwise } in open {
            let signed = match checked {
                Some(checked) => checked.outcome(&domain, &hashes),
                None => dkim::DkimResult::TempError(DnsFailure::Timeout),
            };
            let outcome = match (signed, otherwise) {
                (dkim::DkimResult::Pass, _) => RuleResult::Pass(Rung::Dkim),
                (_, RuleResult::TempError(_)) | (dkim::DkimResult::Fail, _) => otherwise,
                (dkim::DkimResult::TempError(trouble), _) => RuleResult::TempError(trouble),
            };
            set(findings, at, outcome);
            if let Some((finding, checked)) = findings.get_mut(at).zip(checked.as_ref()) {
                finding.evidence.extend(checked.evidence(&domain).cloned());
            }
        }
    }
}

fn set(findings: &mut [Finding], at: usize, outcome: RuleResult) {
    if let Some(finding) = findings.get_mut(at) {
        finding.outcome = outcome;
    }
}
