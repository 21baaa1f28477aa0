//! Labels of counters: each value has an index and a name.

use crate::evidence::RecordType;
use crate::metrics::{CacheResult, Connection, QueryOutcome, RelayOutcome};
use crate::policy::decide::Verdict;
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::Mode;

/// A label with a fixed set of values.
pub(super) trait Label: Copy + 'static {
    /// Each value at the index [`Label::place`].
    const ALL: &'static [Self];

    fn place(self) -> usize;

    fn name(self) -> &'static str;
}

macro_rules! label {
    ($label:ident: $($value:ident $name:literal),+) => {
        impl Label for $label {
            const ALL: &'static [Self] = &[$(Self::$value),+];

            fn place(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name),+
                }
            }
        }
    };
}

label!(Connection: Served "served", Limit "limit", ClientLimit "client_limit", Stopping "stopping", NotAnnounced "not_announced",
    NotTrusted "not_trusted");
label!(CacheResult: Hit "hit", Negative "negative", Miss "miss", Coalesced "coalesced", Stale "stale");
label!(QueryOutcome: Found "found", NoData "no_data", NoSuchDomain "no_such_domain", ServerFailure "servfail",
    Refused "refused", Timeout "timeout", Broken "broken", Busy "busy", Down "down", TooMany "too_many");
label!(RelayOutcome: Delivered "delivered", Deferred "deferred", Rejected "rejected", Unreachable "unreachable",
    Lost "lost", Busy "busy", Abandoned "abandoned");
label!(RecordType: Mx "MX", A "A", Aaaa "AAAA", Ptr "PTR", Txt "TXT", Cname "CNAME");
label!(Verdict: Accept "accept", Defer "defer", Reject "reject");
label!(Mode: Enforce "enforce", Monitor "monitor");
label!(Outcome: Delivered "delivered", Refused "refused", RelayRefused "relay_refused",
    RelayFailed "relay_failed", NotCompleted "not_completed", Passed "passed");

impl Label for Reason {
    const ALL: &'static [Self] = &Self::ALL;

    fn place(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        Self::name(self)
    }
}
