//! What stands in a record for each word: its place in these tables. They belong to the format of the files, so they only
//! ever grow at their ends.

use crate::decision::Scope;
use crate::evidence::{DnsFailure, Freshness, RecordType};
use crate::policy::decide::Verdict;
use crate::policy::finding::Absence;
use crate::policy::identity::Identity;
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Mode, Rule, Rung};

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

impl Word for Scope {
    const TABLE: &'static [Self] =
        &[Self::ExemptClient, Self::ExemptRecipients, Self::Envelope, Self::Message, Self::Nothing];
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
        Self::BareNewline,
        Self::BadAddress,
        Self::BadParameter,
        Self::TooBig,
        Self::TooManyRecipients,
        Self::MailLoop,
        Self::RelayRefused,
        Self::TooSlow,
    ];
}

impl Word for Outcome {
    const TABLE: &'static [Self] =
        &[Self::Delivered, Self::Refused, Self::RelayRefused, Self::RelayFailed, Self::NotCompleted];
}

impl Word for RecordType {
    const TABLE: &'static [Self] = &[Self::Mx, Self::A, Self::Aaaa, Self::Ptr, Self::Txt, Self::Cname];
}

impl Word for Freshness {
    const TABLE: &'static [Self] = &[Self::Fresh, Self::Cached, Self::Stale];
}

impl Word for DnsFailure {
    const TABLE: &'static [Self] = &[
        Self::Timeout,
        Self::ServerFailure,
        Self::Refused,
        Self::Broken,
        Self::AliasLoop,
        Self::Busy,
        Self::Down,
        Self::TooMany,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each variant comes back from its code, and the codes are the same for ever. A variant that is missing here doesn't
    /// compile.
    macro_rules! each {
        ($word:ident: $($variant:ident),+) => {
            let place = |word: $word| match word {
                $($word::$variant => $word::TABLE.iter().position(|it| *it == $word::$variant)),+
            };
            for (at, word) in [$($word::$variant),+].into_iter().enumerate() {
                assert_eq!((place(word), usize::from(word.code())), (Some(at), at), "{word:?}");
                assert_eq!($word::of(word.code()), Some(word));
            }
        };
    }

    #[test]
    fn every_word_of_the_policy_has_a_code() {
        each!(Verdict: Accept, Defer, Reject);
        each!(Mode: Enforce, Monitor);
        each!(Scope: ExemptClient, ExemptRecipients, Envelope, Message, Nothing);
        each!(Outcome: Delivered, Refused, RelayRefused, RelayFailed, NotCompleted);
        each!(Identity: Helo, Ptr, MailFrom, From, ReplyTo);
        each!(Rule: Exists, Matches);
        each!(Action: Off, Tag, Greylist, Defer, Reject);
        each!(Rung: Mx, Address, Organization, Network, Ptr, Spf, Dkim);
        each!(Absence: NotGiven, Exempt, AwaitsBody);
        each!(Reason: NoSuchDomain, NoMx, MxUnresolvable, MxUnroutable, NullMx, NotAnExchanger, NoPtr, PtrNotConfirmed, InvalidDomain, MalformedHeader, DnsError, Greylisted, RelayingDenied, RelayUnreachable, RelayLost, BareNewline, BadAddress, BadParameter, TooBig, TooManyRecipients, MailLoop, RelayRefused, TooSlow);
        each!(RecordType: Mx, A, Aaaa, Ptr, Txt, Cname);
        each!(Freshness: Fresh, Cached, Stale);
        each!(DnsFailure: Timeout, ServerFailure, Refused, Broken, AliasLoop, Busy, Down, TooMany);
        assert_eq!(Reason::of(u8::MAX), None);
    }
}
