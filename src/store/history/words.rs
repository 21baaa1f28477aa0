//! What stands in a record for each word: its place in these tables. They belong to the format of the files, so they only
//! ever grow at their ends.

use crate::policy::decide::Verdict;
use crate::policy::evidence::{Freshness, RecordType, Trouble};
use crate::policy::finding::Absence;
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Mode, Rule, Rung};
use crate::record::Extent;

/// A word of a closed set.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// In the order of their codes.
    const TABLE: &'static [Self];

    /// Its code.
    fn code(self) -> u8 {
        let place = Self::TABLE.iter().position(|word| *word == self);
        place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
    }

    /// The word of a code.
    fn of(code: u8) -> Option<Self> {
        Self::TABLE.get(usize::from(code)).copied()
    }
}

impl Word for Verdict {
    const TABLE: &'static [Self] = &[Self::Accept, Self::Defer, Self::Reject];
}

impl Word for Mode {
    const TABLE: &'static [Self] = &[Self::Enforce, Self::Monitor];
}

impl Word for Extent {
    const TABLE: &'static [Self] =
        &[Self::ExemptClient, Self::ExemptRecipients, Self::Envelope, Self::Message];
}

impl Word for Identity {
    const TABLE: &'static [Self] = &[Self::Helo, Self::Ptr, Self::MailFrom, Self::From, Self::ReplyTo];
}

impl Word for Rule {
    const TABLE: &'static [Self] = &[Self::Exists, Self::Matches];
}

impl Word for Action {
    const TABLE: &'static [Self] = &[Self::Off, Self::Tag, Self::Greylist, Self::Defer, Self::Reject];
}

impl Word for Rung {
    const TABLE: &'static [Self] =
        &[Self::Mx, Self::Address, Self::Organization, Self::Network, Self::Ptr, Self::Spf, Self::Dkim];
}

impl Word for Absence {
    const TABLE: &'static [Self] = &[Self::NotGiven, Self::Exempt, Self::AwaitsBody];
}

impl Word for Reason {
    const TABLE: &'static [Self] = &[
        Self::NoSuchDomain,
        Self::NoMx,
        Self::MxUnresolvable,
        Self::MxUnroutable,
        Self::NullMx,
        Self::NotAnExchanger,
        Self::NoPtr,
        Self::PtrNotConfirmed,
        Self::InvalidDomain,
        Self::MalformedHeader,
        Self::DnsError,
        Self::Greylisted,
        Self::RelayingDenied,
        Self::RelayUnreachable,
        Self::RelayLost,
        Self::BadOctet,
    ];
}

impl Word for RecordType {
    const TABLE: &'static [Self] = &[Self::Mx, Self::A, Self::Aaaa, Self::Ptr, Self::Txt, Self::Cname];
}

impl Word for Freshness {
    const TABLE: &'static [Self] = &[Self::Fresh, Self::Cached, Self::Stale];
}

impl Word for Trouble {
    const TABLE: &'static [Self] = &[
        Self::Timeout,
        Self::ServerFailure,
        Self::Refused,
        Self::Broken,
        Self::AliasLoop,
        Self::Busy,
        Self::Down,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_policy_has_a_code() {
        assert!(Reason::ALL.iter().all(|reason| Reason::of(reason.code()) == Some(*reason)));
        assert!(Identity::ALL.iter().all(|identity| Identity::of(identity.code()) == Some(*identity)));
        assert!(Rule::ALL.iter().all(|rule| Rule::of(rule.code()) == Some(*rule)));
        assert_eq!(Verdict::of(Verdict::Reject.code()), Some(Verdict::Reject));
        assert_eq!(Reason::of(u8::MAX), None);
    }
}
