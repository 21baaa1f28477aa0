//! What another configuration would have done with decisions of the past.

mod sum;

use compact_str::CompactString;

use crate::decision::DecisionRecord;
use crate::policy::decide::{Cause, Verdict};
use crate::policy::finding::Finding;
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Rule};

pub use crate::stats::hindsight::sum::{Hindsight, Row, Total, Way};

/// What rmxd does with mail, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    /// By rmxd, as far as the mail came; what becomes of it then is the next hop's.
    Taken,
    /// 4xx for a client that is new to the greylist.
    Greylisted,
    /// 4xx.
    Deferred,
    /// 5xx.
    Refused,
}

impl Fate {
    pub const ALL: [Self; 4] = [Self::Taken, Self::Greylisted, Self::Deferred, Self::Refused];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Greylisted => "greylisted",
            Self::Deferred => "deferred",
            Self::Refused => "refused",
        }
    }

    /// That of a decision which is carried out.
    #[must_use]
    pub fn of(verdict: Verdict, cause: Option<&Cause>) -> Self {
        match verdict {
            Verdict::Accept => Self::Taken,
            Verdict::Defer if cause.is_some_and(|cause| cause.action == Action::Greylist) => Self::Greylisted,
            Verdict::Defer => Self::Deferred,
            Verdict::Reject => Self::Refused,
        }
    }

    /// What rmxd did: in monitor mode mail is taken.
    #[must_use]
    pub fn of_past(record: &DecisionRecord) -> Self {
        if record.refused() { Self::of(record.verdict, record.cause.as_ref()) } else { Self::Taken }
    }
}

/// Why something can't be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// The rule was off, its finding came too late, or the transaction ended before.
    NotLookedUp,
    /// The rule was looked up, but not all that its rungs need now.
    OtherRungs,
    /// The client, the domain or recipients were exempt, or a permit may have let them in.
    Exempt,
    /// The envelope was refused, so that the header did not come.
    HeaderNotSeen,
    /// The signatures were not verified.
    BodyNotSeen,
    /// The history has only a part of what was seen.
    NotKept,
}

impl Why {
    pub const ALL: [Self; 6] = [
        Self::NotLookedUp,
        Self::OtherRungs,
        Self::Exempt,
        Self::HeaderNotSeen,
        Self::BodyNotSeen,
        Self::NotKept,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotLookedUp => "not_looked_up",
            Self::OtherRungs => "other_rungs",
            Self::Exempt => "exempt",
            Self::HeaderNotSeen => "header_not_seen",
            Self::BodyNotSeen => "body_not_seen",
            Self::NotKept => "not_kept",
        }
    }

    /// Words for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NotLookedUp => "not looked up",
            Self::OtherRungs => "looked up, but not all that its rungs need now",
            Self::Exempt => "exempt then",
            Self::HeaderNotSeen => "envelope taken so far, header not seen",
            Self::BodyNotSeen => "signatures not verified",
            Self::NotKept => "not all of it was kept",
        }
    }
}

/// What would decide and isn't known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// `None`: the whole message.
    pub rule: Option<(Identity, Rule)>,
    pub domain: CompactString,
    pub why: Why,
}

impl Missing {
    /// For the whole message.
    #[must_use]
    pub fn of_message(why: Why) -> Self {
        Self { rule: None, domain: CompactString::default(), why }
    }

    /// The line of the configuration with which the history learns it.
    #[must_use]
    pub fn set(rule: Option<(Identity, Rule)>, why: Why) -> Option<String> {
        match (rule, why) {
            (Some((identity, rule)), Why::NotLookedUp) => Some(format!("policy.{identity}.{rule} = \"tag\"")),
            (_, Why::HeaderNotSeen) => Some("policy.mode = \"monitor\"".to_owned()),
            (_, Why::NotLookedUp | Why::OtherRungs | Why::Exempt | Why::BodyNotSeen | Why::NotKept) => None,
        }
    }
}

/// The decision that another configuration would have made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Would {
    /// The weakest that is possible.
    pub at_least: Fate,
    /// The strongest.
    pub at_most: Fate,
    /// What refuses at least; `None` exactly if `at_least` is [`Fate::Taken`], or the refusal stays that of the past.
    pub cause: Option<Kind>,
    /// What makes the difference; empty exactly if both are the same.
    pub missing: Vec<Missing>,
}

/// Why mail is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// `None` for a refusal without a rule.
    pub rule: Option<(Identity, Rule)>,
    pub reason: Reason,
    pub domain: CompactString,
}

impl Kind {
    /// `findings` are those of the decision.
    #[must_use]
    pub fn of(cause: &Cause, findings: &[Finding]) -> Self {
        let finding = cause.finding_of(findings);
        let rule = finding.map(|finding| (finding.identity, finding.rule));
        let domain = finding.map(|finding| finding.domain.clone()).unwrap_or_default();
        Self { rule, reason: cause.reason, domain }
    }
}

impl Would {
    /// Known, and the same.
    #[must_use]
    pub fn be(fate: Fate) -> Self {
        Self { at_least: fate, at_most: fate, cause: None, missing: Vec::new() }
    }

    /// The same, unless what is missing exempts it.
    #[must_use]
    pub fn or_taken(mut self, missing: Missing) -> Self {
        if self.at_least > Fate::Taken {
            (self.at_least, self.cause) = (Fate::Taken, None);
            self.missing.push(missing);
        }
        self
    }

    fn is_known(&self) -> bool {
        self.at_least == self.at_most
    }
}
