//! The rules once more, by the answers of a past decision alone: the same code, without DNS.

use futures_util::FutureExt;

use crate::dns::fcrdns::{self, FEW_NAMES};
use crate::dns::kept::Kept;
use crate::dns::lookups::Lookups;
use crate::policy::finding::RuleResult;
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{IdentityRules, Rule};
use crate::reverse_mx::{FcrdnsResult, Settings, Subject, judge};

/// One rule of one domain; `None` where the answers that decide were not asked for then. DKIM and the owner's request are not
/// looked at.
pub(crate) fn again(
    settings: &Settings,
    rule: Rule,
    subject: &Subject<'_>,
    rules: &IdentityRules,
    kept: &Kept<'_>,
) -> Option<RuleResult> {
    let mut lookups = Lookups::kept(kept);
    // Without DNS nothing waits.
    let matched = judge(&mut lookups, settings, rule, subject, rules).now_or_never()?;
    known(matched.outcome, &lookups)
}

/// One rule of the client's names; `names` are those of the decision.
pub(crate) fn again_ptr(
    settings: &Settings,
    rule: Rule,
    names: &FcrdnsResult,
    rules: &IdentityRules,
    kept: &Kept<'_>,
) -> Option<RuleResult> {
    let confirmed = match names {
        FcrdnsResult::Confirmed(confirmed) => confirmed,
        FcrdnsResult::NoPtr => return Some(RuleResult::Fail(Reason::NoPtr)),
        FcrdnsResult::NotConfirmed(_) => return Some(RuleResult::Fail(Reason::PtrNotConfirmed)),
        FcrdnsResult::TempError(trouble) => return Some(RuleResult::TempError(*trouble)),
    };
    let mut trouble = {
        let mut lookups = Lookups::kept(kept);
        fcrdns::look_up(&mut lookups, FEW_NAMES, |_| true).now_or_never()?;
        lookups.trouble()
    };
    let (mut first, mut unknown) = (None, false);
    for domain in confirmed {
        let subject = Subject { identity: Identity::Ptr, text: "", domain, helo: "", envelope: None };
        let mut lookups = Lookups::kept(kept);
        let outcome = judge(&mut lookups, settings, rule, &subject, rules).now_or_never()?.outcome;
        if let RuleResult::Pass(_) = outcome {
            return Some(outcome);
        }
        unknown |= lookups.missing() > 0;
        trouble = trouble.or(lookups.trouble());
        first = first.or(Some(outcome));
    }
    match (unknown, trouble) {
        (true, _) => None,
        (false, Some(trouble)) => Some(RuleResult::TempError(trouble)),
        (false, None) => first,
    }
}

/// A pass holds whatever the missing answers are, since each rung is enough.
fn known(outcome: RuleResult, lookups: &Lookups<'_>) -> Option<RuleResult> {
    let passes = matches!(outcome, RuleResult::Pass(_));
    (passes || lookups.missing() == 0).then_some(outcome)
}
