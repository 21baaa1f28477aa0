//! The codes of enum variants in a record: the index in these tables. They are part of the file format, so a table may
//! only grow at its end.

use crate::decision::Scope;
use crate::evidence::{DnsFailure, Freshness, RecordType};
use crate::policy::authentication::{DmarcResult, Request, SignatureResult, SpfResult, WaySign};
use crate::policy::decide::Verdict;
use crate::policy::door::DoorName;
use crate::policy::finding::Absence;
use crate::policy::identity::Identity;
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Mode, Rule, Rung};

/// An enum whose variants have a code.
pub(super) trait Coded: Copy + PartialEq + 'static {
    /// In the order of their codes.
    const TABLE: &'static [Self];

    fn code(self) -> u8 {
        let place = Self::TABLE.iter().position(|variant| *variant == self);
        place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::TABLE.get(usize::from(code)).copied()
    }
}

impl Coded for Verdict {
    const TABLE: &'static [Self] = &[Self::Accept, Self::Defer, Self::Reject];
}

impl Coded for Mode {
    const TABLE: &'static [Self] = &[Self::Enforce, Self::Monitor];
}

impl Coded for Scope {
    const TABLE: &'static [Self] = &[
        Self::ExemptClient,
        Self::ExemptRecipients,
        Self::Envelope,
        Self::Message,
        Self::Nothing,
        Self::Permit,
    ];
}

impl Coded for Identity {
    const TABLE: &'static [Self] = &[Self::Helo, Self::Ptr, Self::MailFrom, Self::From, Self::ReplyTo];
}

impl Coded for Rule {
    const TABLE: &'static [Self] = &[Self::Exists, Self::Matches];
}

impl Coded for Action {
    const TABLE: &'static [Self] =
        &[Self::Off, Self::Tag, Self::Greylist, Self::Defer, Self::Reject, Self::Dmarc];
}

impl Coded for Rung {
    const TABLE: &'static [Self] =
        &[Self::Mx, Self::Address, Self::Organization, Self::Network, Self::Ptr, Self::Spf, Self::Dkim];
}

impl Coded for Absence {
    const TABLE: &'static [Self] = &[Self::NotGiven, Self::Exempt, Self::AwaitsBody];
}

impl Coded for Reason {
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
        Self::DmarcReject,
        Self::DmarcQuarantine,
    ];
}

impl Coded for SpfResult {
    const TABLE: &'static [Self] = &[
        Self::Pass,
        Self::Fail,
        Self::SoftFail,
        Self::Neutral,
        Self::None,
        Self::PermError,
        Self::TempError,
    ];
}

impl Coded for SignatureResult {
    const TABLE: &'static [Self] = &[Self::Pass, Self::Fail, Self::PermError, Self::TempError];
}

impl Coded for DmarcResult {
    const TABLE: &'static [Self] = &[Self::Pass, Self::Fail, Self::None, Self::TempError, Self::PermError];
}

impl Coded for Request {
    const TABLE: &'static [Self] = &[Self::None, Self::Quarantine, Self::Reject];
}

impl Coded for WaySign {
    const TABLE: &'static [Self] = &[Self::ListId, Self::ListPost, Self::Arc, Self::BrokenSignature];
}

impl Coded for Outcome {
    const TABLE: &'static [Self] = &[
        Self::Delivered,
        Self::Refused,
        Self::RelayRefused,
        Self::RelayFailed,
        Self::NotCompleted,
        Self::Passed,
    ];
}

impl Coded for DoorName {
    const TABLE: &'static [Self] = &[Self::Smtp, Self::Milter, Self::Policy];
}

impl Coded for RecordType {
    const TABLE: &'static [Self] = &[Self::Mx, Self::A, Self::Aaaa, Self::Ptr, Self::Txt, Self::Cname];
}

impl Coded for Freshness {
    const TABLE: &'static [Self] = &[Self::Fresh, Self::Cached, Self::Stale];
}

impl Coded for DnsFailure {
    const TABLE: &'static [Self] = &[
        Self::Timeout,
        Self::ServerFailure,
        Self::Refused,
        Self::Broken,
        Self::AliasLoop,
        Self::Busy,
        Self::Down,
        Self::TooMany,
        Self::FormatError,
        Self::NotImplemented,
        Self::OtherError,
        Self::NoRoute,
        Self::Forbidden,
        Self::NoAddress,
        Self::PortClosed,
        Self::NoSocket,
        Self::NoTcp,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that each variant has its fixed code. A variant that is missing here is a compile error.
    macro_rules! each {
        ($enum:ident: $($variant:ident),+) => {
            let place = |variant: $enum| match variant {
                $($enum::$variant => $enum::TABLE.iter().position(|it| *it == $enum::$variant)),+
            };
            for (at, variant) in [$($enum::$variant),+].into_iter().enumerate() {
                assert_eq!((place(variant), usize::from(variant.code())), (Some(at), at), "{variant:?}");
                assert_eq!($enum::from_code(variant.code()), Some(variant));
            }
        };
    }

    #[test]
    fn every_variant_has_its_code() {
        each!(Verdict: Accept, Defer, Reject);
        each!(Mode: Enforce, Monitor);
        each!(Scope: ExemptClient, ExemptRecipients, Envelope, Message, Nothing, Permit);
        each!(Outcome: Delivered, Refused, RelayRefused, RelayFailed, NotCompleted, Passed);
        each!(DoorName: Smtp, Milter, Policy);
        each!(Identity: Helo, Ptr, MailFrom, From, ReplyTo);
        each!(Rule: Exists, Matches);
        each!(Action: Off, Tag, Greylist, Defer, Reject, Dmarc);
        each!(Rung: Mx, Address, Organization, Network, Ptr, Spf, Dkim);
        each!(Absence: NotGiven, Exempt, AwaitsBody);
        each!(Reason: NoSuchDomain, NoMx, MxUnresolvable, MxUnroutable, NullMx, NotAnExchanger, NoPtr, PtrNotConfirmed, InvalidDomain, MalformedHeader, DnsError, Greylisted, RelayingDenied, RelayUnreachable, RelayLost, BareNewline, BadAddress, BadParameter, TooBig, TooManyRecipients, MailLoop, RelayRefused, TooSlow, DmarcReject, DmarcQuarantine);
        each!(SpfResult: Pass, Fail, SoftFail, Neutral, None, PermError, TempError);
        each!(SignatureResult: Pass, Fail, PermError, TempError);
        each!(DmarcResult: Pass, Fail, None, TempError, PermError);
        each!(Request: None, Quarantine, Reject);
        each!(WaySign: ListId, ListPost, Arc, BrokenSignature);
        each!(RecordType: Mx, A, Aaaa, Ptr, Txt, Cname);
        each!(Freshness: Fresh, Cached, Stale);
        each!(DnsFailure: Timeout, ServerFailure, Refused, Broken, AliasLoop, Busy, Down, TooMany, FormatError, NotImplemented, OtherError, NoRoute, Forbidden, NoAddress, PortClosed, NoSocket, NoTcp);
        assert_eq!(Reason::from_code(u8::MAX), None);
    }
}
