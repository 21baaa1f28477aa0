//! `from.matches`, whose result may depend on signatures and on what the owner of the domain asks for.

use futures_util::FutureExt;

use crate::dkim::are_aligned;
use crate::dns::lookups::Lookups;
use crate::dns::organization::organization;
use crate::evidence::DnsFailure;
use crate::gate::hindsight::Candidate;
use crate::gate::hindsight::past::Past;
use crate::gate::hindsight::rules::{Asked, why};
use crate::gate::owner::{EnvelopeState, Way, ask_by};
use crate::message::way::WaySigns;
use crate::policy::authentication::{Authentication, DmarcCheck, DmarcResult, Request, SignatureResult};
use crate::policy::decide::decide;
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, IdentityRules, Rule, Rung};
use crate::smtp::address::{DomainName, ReversePath};
use crate::stats::hindsight::{Fate, Why};

/// A finding, and whether it waits for the body at the end of the header.
type Result<T = (Finding, bool)> = std::result::Result<T, Why>;

/// What the signatures of the message came to for one domain.
enum Signed {
    Pass,
    /// None passes; whether one was there.
    Fail(bool),
    TempError(DnsFailure),
}

impl Candidate {
    pub(super) fn matches_of_author(&self, past: &Past<'_>, asked: &Asked<'_>) -> Result {
        let rungs = self.result(past, asked);
        let rules = asked.in_force.rules;
        let is_open =
            |outcome| matches!(outcome, RuleResult::Fail(Reason::NotAnExchanger) | RuleResult::TempError(_));
        match rungs {
            Ok(outcome) if !is_open(outcome) => Ok((asked.finding(outcome), false)),
            _ if rules.matches == Action::Dmarc => self.by_owner(past, asked, rungs),
            _ if rules.matches_by.contains(&Rung::Dkim) => {
                let own = past.own(Identity::From, Rule::Matches, asked.name.as_str());
                let (outcome, waits) = match (signed(own, asked.name)?, rungs) {
                    (Signed::Pass, _) => (RuleResult::Pass(Rung::Dkim), true),
                    (_, Err(why)) => return Err(why),
                    (Signed::Fail(waits), Ok(outcome)) => (outcome, waits),
                    (Signed::TempError(_), Ok(outcome @ RuleResult::TempError(_))) => (outcome, true),
                    (Signed::TempError(trouble), Ok(_)) => (RuleResult::TempError(trouble), true),
                };
                Ok((asked.finding(outcome), waits))
            }
            rungs => Ok((asked.finding(rungs?), false)),
        }
    }

    /// The action `dmarc`, where no rung held that needs no owner.
    fn by_owner(&self, past: &Past<'_>, asked: &Asked<'_>, rungs: Result<RuleResult>) -> Result {
        let own = past.own(Identity::From, Rule::Matches, asked.name.as_str());
        let unknown = rungs.err();
        let mut finding = asked.finding(rungs.unwrap_or(RuleResult::Fail(Reason::NotAnExchanger)));
        let kept = past.kept(own);
        let mut lookups = Lookups::kept(&kept);
        // Without DNS nothing waits.
        let request = ask_by(&mut lookups, &mut finding, asked.name, past.envelope()).now_or_never();
        let missing = lookups.missing() > 0;
        let Some(request) = request.flatten() else {
            let passes = matches!(finding.outcome, RuleResult::Pass(_));
            return if passes || !missing { Ok((finding, false)) } else { Err(why(own)) };
        };
        let Some((own, results, check)) = own.and_then(evaluated) else { return Err(why(own)) };
        let waits = !results.dkim.is_empty();
        if missing {
            return Err(Why::OtherRungs);
        }
        if own.outcome == RuleResult::Pass(Rung::Dkim) {
            request.pass(&mut finding);
            return Ok((finding, waits));
        }
        let trouble = match own.outcome {
            RuleResult::TempError(trouble) if check.result == Some(DmarcResult::TempError) => Some(trouble),
            _ if results.dkim_whole => None,
            _ => return Err(Why::BodyNotSeen),
        };
        let signs = if request.needs_way() { sign(past, results, check, asked.name) } else { Some(false) };
        let envelope =
            if request.needs_way() { self.envelope_state(past) } else { Some(EnvelopeState::DoesNotHold) };
        let signs = signs.map_or(vec![true, false], |sign| vec![sign]);
        let envelopes = envelope
            .map_or(vec![EnvelopeState::Holds(Rung::Mx), EnvelopeState::DoesNotHold], |state| vec![state]);
        let mut possible = signs
            .iter()
            .flat_map(|sign| envelopes.iter().map(move |state| (*sign, *state)))
            .map(|(sign, envelope)| {
                let mut finding = finding.clone();
                let quarantine = self.policy.dmarc_quarantine;
                let way = Way { signs: WaySigns::default(), envelope, evidence: Vec::new(), quarantine };
                request.clone().conclude(&mut finding, &way, trouble, sign);
                finding
            });
        let first = possible.next().ok_or(Why::NotKept)?;
        let fate = |finding: &Finding| {
            let decision = decide(&self.policy, std::slice::from_ref(finding));
            Fate::of(decision.verdict, decision.cause.as_ref())
        };
        let same = possible.all(|other| fate(&other) == fate(&first));
        match (unknown, same) {
            (Some(why), _) if fate(&first) > Fate::Taken || !same => Err(why),
            (_, false) => Err(Why::NotKept),
            (_, true) => Ok((first, waits)),
        }
    }

    /// Whether `mail_from.matches` holds, whatever its action is; `None` if that isn't known.
    fn envelope_state(&self, past: &Past<'_>) -> Option<EnvelopeState> {
        let Some(ReversePath::Mailbox(mailbox)) = &past.path else { return Some(EnvelopeState::DoesNotHold) };
        let Some(name) = mailbox.domain().name() else { return Some(EnvelopeState::DoesNotHold) };
        let in_force = self.policy.in_force(Identity::MailFrom, name);
        let rules = IdentityRules { matches: Action::Tag, ..in_force.rules.clone() };
        let in_force = crate::policy::operator::InForce { rules: &rules, entry: None };
        let (identity, rule, subject) = (Identity::MailFrom, Rule::Matches, mailbox.to_string());
        let asked = Asked { identity, rule, in_force, subject: &subject, name };
        self.result(past, &asked).ok().map(EnvelopeState::from)
    }
}

/// A finding whose owner was asked.
fn evaluated(own: &Finding) -> Option<(&Finding, &Authentication, &DmarcCheck)> {
    let results = own.authentication.as_deref()?;
    Some((own, results, results.dmarc.as_ref()?))
}

/// By the public suffix list.
fn signed(own: Option<&Finding>, name: &DomainName) -> Result<Signed> {
    let Some(own) = own else { return Err(Why::NotLookedUp) };
    let Some(results) = own.authentication.as_deref() else { return Err(Why::BodyNotSeen) };
    let is_aligned = |domain: &str| DomainName::parse(domain).is_ok_and(|signer| are_aligned(&signer, name));
    let mut counting = results.dkim.iter().filter(|check| is_aligned(&check.domain)).peekable();
    let some = counting.peek().is_some();
    let found: Vec<_> = counting.map(|check| check.result).collect();
    if found.contains(&SignatureResult::Pass) {
        return Ok(Signed::Pass);
    }
    // For the action `dmarc` those of the organisation by the tree walk were looked for.
    let organization = organization(name);
    let other_organization = results.dmarc.as_ref().is_some_and(|check| {
        organization.as_ref().is_none_or(|organization| check.organization != organization.as_str())
    });
    if !results.dkim_whole || other_organization || own.outcome == RuleResult::None(Absence::AwaitsBody) {
        return Err(Why::BodyNotSeen);
    }
    Ok(match own.outcome {
        RuleResult::TempError(trouble) if found.contains(&SignatureResult::TempError) => {
            Signed::TempError(trouble)
        }
        _ if found.contains(&SignatureResult::TempError) => Signed::TempError(DnsFailure::ServerFailure),
        _ => Signed::Fail(some),
    })
}

/// Whether the message bears a sign of an indirect way; `None` if that isn't known. The header's signs are kept only where they
/// counted.
fn sign(past: &Past<'_>, results: &Authentication, check: &DmarcCheck, name: &DomainName) -> Option<bool> {
    if check.indirect.is_some() {
        return Some(true);
    }
    let matches =
        |finding: &&Finding| (finding.identity, finding.rule) == (Identity::MailFrom, Rule::Matches);
    let held = past.record.findings.iter().find(matches);
    let held = held.is_some_and(|finding| matches!(finding.outcome, RuleResult::Pass(_)));
    if held && check.in_force() == Request::Reject && check.result == Some(DmarcResult::Fail) {
        return Some(false);
    }
    let broken = results.dkim.iter().any(|signature| {
        let of_organization = signature.domain == name.as_str() || signature.domain == check.organization;
        signature.result == SignatureResult::Fail && of_organization
    });
    broken.then_some(true)
}
