//! From findings, some of them unknown, to the weakest and the strongest decision. A transaction is decided in stages, of which
//! the first that refuses counts: the envelope, the header, the body.

use crate::policy::decide::decide_by;
use crate::policy::finding::Finding;
use crate::policy::operator::Policy;
use crate::policy::rule::{Action, OnDnsError};
use crate::stats::hindsight::{Fate, Kind, Missing, Why, Would};

/// The greylist, for a decision to greylist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greylist {
    /// The client is new to it.
    New,
    /// The mail passes.
    Passed,
    Unknown,
}

pub(super) struct Stages<'p> {
    policy: &'p Policy,
    greylist: Greylist,
    /// The strongest and the weakest refusal so far, if something unknown refuses.
    possible: Option<(Fate, Fate)>,
    missing: Vec<Missing>,
}

impl<'p> Stages<'p> {
    pub(super) fn new(policy: &'p Policy, greylist: Greylist) -> Self {
        Self { policy, greylist, possible: None, missing: Vec::new() }
    }

    /// One stage; findings count for which `counts` returns true. Returns the result if this stage refuses for certain.
    pub(super) fn pass(
        &mut self,
        findings: &[Finding],
        unknown: &[(Missing, Action)],
        counts: impl Fn(&Finding) -> bool,
    ) -> Option<Would> {
        for (missing, action) in unknown {
            self.unknown(missing, &[*action]);
        }
        let decision = decide_by(self.policy, findings, counts);
        let fate = match Fate::of(decision.verdict, decision.cause.as_ref()) {
            Fate::Greylisted if self.greylist == Greylist::New => Fate::Greylisted,
            Fate::Greylisted => {
                if self.greylist == Greylist::Unknown {
                    self.may(Fate::Greylisted, Fate::Greylisted, &Missing::of_message(Why::NotKept));
                }
                Fate::Taken
            }
            fate => fate,
        };
        if fate == Fate::Taken {
            return None;
        }
        let (strongest, weakest) = self.possible.unwrap_or((fate, fate));
        let (at_least, at_most) = (fate.min(weakest), fate.max(strongest));
        let cause = decision.cause.as_ref().map(|cause| Kind::of(cause, findings));
        Some(self.would(at_least, at_most, cause))
    }

    /// Something that isn't known, and the actions that could follow.
    pub(super) fn unknown(&mut self, missing: &Missing, actions: &[Action]) {
        let strong = actions.iter().map(|action| strongest(self.policy, *action)).max();
        let weak = actions.iter().filter_map(|action| weakest(self.policy, *action)).min();
        let (Some(strong), Some(weak)) = (strong.filter(|fate| *fate > Fate::Taken), weak) else { return };
        self.may(strong, weak, missing);
    }

    fn may(&mut self, strong: Fate, weak: Fate, missing: &Missing) {
        let (before, after) = self.possible.unwrap_or((strong, weak));
        self.possible = Some((before.max(strong), after.min(weak)));
        if !self.missing.contains(missing) {
            self.missing.push(missing.clone());
        }
    }

    /// No stage refuses for certain.
    pub(super) fn end(&mut self) -> Would {
        let at_most = self.possible.map_or(Fate::Taken, |(strongest, _)| strongest);
        self.would(Fate::Taken, at_most, None)
    }

    fn would(&mut self, at_least: Fate, at_most: Fate, cause: Option<Kind>) -> Would {
        let missing = if at_least == at_most { Vec::new() } else { std::mem::take(&mut self.missing) };
        Would { at_least, at_most, cause, missing }
    }
}

/// The strongest that can follow from a rule.
pub(super) fn strongest(policy: &Policy, action: Action) -> Fate {
    match action {
        Action::Off | Action::Tag => Fate::Taken,
        Action::Greylist if policy.on_dns_error == OnDnsError::Accept => Fate::Greylisted,
        Action::Greylist | Action::Defer => Fate::Deferred,
        Action::Reject | Action::Dmarc => Fate::Refused,
    }
}

/// The weakest refusal that can follow; a DNS failure is a 4xx.
fn weakest(policy: &Policy, action: Action) -> Option<Fate> {
    match action {
        Action::Off | Action::Tag => None,
        Action::Greylist => Some(Fate::Greylisted),
        Action::Dmarc if policy.dmarc_quarantine == Action::Greylist => Some(Fate::Greylisted),
        Action::Defer | Action::Reject | Action::Dmarc => Some(Fate::Deferred),
    }
}
