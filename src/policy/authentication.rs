//! What SPF, DKIM and DMARC came to for one finding, as plain data: for Authentication-Results, the log and `explain`.

use std::fmt;

use compact_str::CompactString;

use crate::policy::identity::Identity;
use crate::policy::rule::Rung;

/// The results of one finding, as far as they were evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Authentication {
    pub spf: Option<SpfCheck>,
    /// The signatures that could count for the domain, top first.
    pub dkim: Vec<SignatureCheck>,
    /// They are all that could count: they were looked for, and verified.
    pub dkim_whole: bool,
    pub dmarc: Option<DmarcCheck>,
}

/// The result of a check (RFC 7208 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpfResult {
    Pass,
    Fail,
    SoftFail,
    /// The policy decides neither way.
    Neutral,
    /// The domain has no policy.
    None,
    /// The policy can't be read, or takes too many lookups.
    PermError,
    /// A DNS lookup failed.
    TempError,
}

impl SpfResult {
    /// The word of RFC 7208 2.6.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Neutral => "neutral",
            Self::None => "none",
            Self::PermError => "permerror",
            Self::TempError => "temperror",
        }
    }
}

impl fmt::Display for SpfResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// SPF for one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpfCheck {
    pub result: SpfResult,
    /// Whose domain it is: that of MAIL FROM, of HELO, or of the finding itself.
    pub identity: Identity,
    pub domain: CompactString,
}

/// One DKIM signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureCheck {
    pub result: SignatureResult,
    /// `d=`.
    pub domain: CompactString,
    /// `s=`.
    pub selector: CompactString,
    /// Whether it counts for the domain of the finding (RFC 9989 4.4.1, or by the public suffix list).
    pub aligned: bool,
}

/// The result of one signature (RFC 8601 2.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureResult {
    Pass,
    /// There is a key, and the signature does not verify with it: the message was changed on its way, or the signature is made up.
    Fail,
    /// There is no usable key.
    PermError,
    /// The lookup of the key failed.
    TempError,
}

impl SignatureResult {
    pub const ALL: [Self; 4] = [Self::Pass, Self::Fail, Self::PermError, Self::TempError];

    /// The word of RFC 8601 2.7.1.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::PermError => "permerror",
            Self::TempError => "temperror",
        }
    }
}

/// What the owner of a domain asks for if a message in its name isn't authenticated (RFC 9989 4.7), weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    None,
    Quarantine,
    Reject,
}

impl Request {
    pub const ALL: [Self; 3] = [Self::None, Self::Quarantine, Self::Reject];

    /// The value of `p=`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }

    /// One step weaker: what counts with `t=y`.
    #[must_use]
    pub fn weakened(self) -> Self {
        match self {
            Self::Reject => Self::Quarantine,
            Self::Quarantine | Self::None => Self::None,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// DMARC for the domain of one finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmarcCheck {
    /// `None`: not evaluated to its end, since the owner asks for nothing, or since the body is still to come.
    pub result: Option<DmarcResult>,
    /// What the owner asks for here: `p`, `sp` or `np`, before `t=y` weakens it. `None` without a record.
    pub request: Option<Request>,
    /// `t=y`.
    pub testing: bool,
    /// Where the record stands, without `_dmarc.`; empty without a record.
    pub record_at: CompactString,
    /// The organisational domain by the tree walk (RFC 9989 4.10.2); empty where it was not needed.
    pub organization: CompactString,
    /// Why the message counts as one that came over a list or a forwarder.
    pub indirect: Option<Indirect>,
}

impl DmarcCheck {
    /// What counts: the request, one step weaker with `t=y`.
    #[must_use]
    pub fn in_force(&self) -> Request {
        let request = self.request.unwrap_or(Request::None);
        if self.testing { request.weakened() } else { request }
    }
}

/// The result of DMARC (RFC 8601 2.7, RFC 9989 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DmarcResult {
    /// Aligned SPF or an aligned signature passes.
    Pass,
    Fail,
    /// There is no record.
    None,
    TempError,
    /// The record can't be read.
    PermError,
}

impl DmarcResult {
    pub const ALL: [Self; 5] = [Self::Pass, Self::Fail, Self::None, Self::TempError, Self::PermError];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::None => "none",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// Evidence that a message came indirectly (contract 3.3): its envelope is of another organisation and holds by itself, and
/// the message bears a sign of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indirect {
    pub sign: WaySign,
    /// The domain of MAIL FROM.
    pub envelope: CompactString,
    /// The rung by which `mail_from.matches` holds.
    pub rung: Rung,
}

impl fmt::Display for Indirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sign, envelope, rung } = self;
        write!(f, "{}, envelope {envelope} by {rung}", sign.name())
    }
}

/// What lists and forwarders leave in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaySign {
    /// A `List-Id:` field (RFC 2919).
    ListId,
    /// A `List-Post:` field (RFC 2369).
    ListPost,
    /// The three fields of one ARC set (RFC 8617 4.1).
    Arc,
    /// A signature of the From: organisation whose key exists and that does not verify any more.
    BrokenSignature,
}

impl WaySign {
    pub const ALL: [Self; 4] = [Self::ListId, Self::ListPost, Self::Arc, Self::BrokenSignature];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ListId => "list-id",
            Self::ListPost => "list-post",
            Self::Arc => "arc",
            Self::BrokenSignature => "broken dkim signature",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_record_counts_one_step_weaker() {
        let rows = [
            (Some(Request::Reject), Request::Reject, Request::Quarantine),
            (Some(Request::Quarantine), Request::Quarantine, Request::None),
            (Some(Request::None), Request::None, Request::None),
            (None, Request::None, Request::None),
        ];
        for (request, plain, tested) in rows {
            let check = |testing| DmarcCheck {
                result: None,
                request,
                testing,
                record_at: CompactString::default(),
                organization: CompactString::default(),
                indirect: None,
            };
            assert_eq!((check(false).in_force(), check(true).in_force()), (plain, tested), "{request:?}");
        }
    }

    #[test]
    fn indirect_mail_is_named_by_its_sign_and_its_envelope() {
        let indirect = Indirect { sign: WaySign::ListId, envelope: "lists.example".into(), rung: Rung::Spf };
        assert_eq!(indirect.to_string(), "list-id, envelope lists.example by spf");
    }
}
