//! Labels with fixed sets of values, and one counter for each value.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::evidence::RecordType;
use crate::policy::decide::Verdict;
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::Mode;

/// The treatment of an incoming connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// It got a banner, or the reply to octets before the banner.
    Served,
    /// Refused: `limits.connections`.
    Limit,
    /// Refused: `limits.connections_per_client`.
    ClientLimit,
    /// Refused: the daemon stops.
    Stopping,
    /// Closed: a trusted proxy didn't announce its client.
    NotAnnounced,
    /// Closed: not this machine, nor one of `trusted.postfix`.
    NotTrusted,
}

/// The outcome of a question that the cache had no answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryOutcome {
    /// Records, perhaps CNAMEs alone.
    Found,
    /// The name exists, but has no records of the type.
    NoData,
    /// NXDOMAIN.
    NoSuchDomain,
    /// SERVFAIL of all servers.
    ServerFailure,
    /// REFUSED of all servers.
    Refused,
    /// No answer in time.
    Timeout,
    /// An answer that can't be used.
    Broken,
    /// Not sent: too many questions are under way.
    Busy,
    /// Not sent: no server answers at present.
    Down,
    /// Not sent: the budget of the connection or message is spent.
    TooMany,
    /// No way to a server: no route, a closed port, no socket.
    Unreachable,
}

/// The result of a cache lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheResult {
    /// Valid records.
    Hit,
    /// A valid negative answer, or a recent failure.
    Negative,
    /// Nothing: a question follows.
    Miss,
    /// Nothing, but the same question was under way.
    Coalesced,
    /// Nothing valid, and the question failed; expired records may still lead to an accept.
    Stale,
}

/// The end of a transaction with the next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayOutcome {
    /// The next hop has the message.
    Delivered,
    /// It replied 4xx.
    Deferred,
    /// It replied 5xx.
    Rejected,
    /// It can't be reached, or refuses rmxd; the Maildir can't be written.
    Unreachable,
    /// It closed, sent no reply in time, or an invalid one.
    Lost,
    /// `relay.max_connections` were in use.
    Busy,
    /// The client left, or rmxd refused the message.
    Abandoned,
}

/// A part of a transaction with the next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayStage {
    /// A new connection: its address, TCP, TLS, greetings, XCLIENT.
    Connect,
    /// The replies to MAIL with the first RCPT, or to one further RCPT.
    Envelope,
    /// The reply to DATA, the octets, the reply to the end of the message; at a Maildir, the file.
    Message,
}

/// What a client waits for beside the next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// `limits.banner_delay`.
    Banner,
    /// The verdict at MAIL.
    Mail,
    /// The verdict at one RCPT.
    Rcpt,
    /// A connection to the relay that is free.
    Connection,
    /// The client's PTR name, for the relay or for our header fields, after the verdict.
    Name,
    /// The verdict on the header block.
    Header,
    /// The verdict at the end of a message whose body decides.
    Body,
}

/// The version of TLS of a session with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// Why nothing was looked up, for a transaction or for one of its domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exemption {
    /// The client is exempt: `exempt.clients`, a user with a password, this machine.
    Client,
    /// Some domain is: `exempt.domains`.
    Domain,
    /// All recipients are: `exempt.recipients`.
    Recipient,
    /// All or a part of it is, by a temporary permit.
    Permit,
}

/// What became of mail that the greylist decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GreylistResult {
    /// It came again after the delay.
    Passed,
    /// It has to come again.
    Waits,
}

impl TlsVersion {
    /// The name in log and metrics, as OpenSSL and Postfix have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Label::name(self)
    }
}

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
    Refused "refused", Timeout "timeout", Broken "broken", Busy "busy", Down "down", TooMany "too_many", Unreachable "unreachable");
label!(RelayOutcome: Delivered "delivered", Deferred "deferred", Rejected "rejected", Unreachable "unreachable",
    Lost "lost", Busy "busy", Abandoned "abandoned");
label!(Exemption: Client "client", Domain "domain", Recipient "recipient", Permit "permit");
label!(GreylistResult: Passed "passed", Waits "waits");
label!(RelayStage: Connect "connect", Envelope "envelope", Message "message");
label!(Wait: Banner "banner", Mail "mail", Rcpt "rcpt", Connection "connection", Name "name", Header "header", Body "body");
label!(TlsVersion: V1_2 "TLSv1.2", V1_3 "TLSv1.3");
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

/// One counter for each value of a label.
#[derive(Debug)]
pub(super) struct LabelCounts<L> {
    counts: Box<[AtomicU64]>,
    of: std::marker::PhantomData<fn(L)>,
}

impl<L: Label> Default for LabelCounts<L> {
    fn default() -> Self {
        Self { counts: zeros(L::ALL.len()), of: std::marker::PhantomData }
    }
}

impl<L: Label> LabelCounts<L> {
    pub(super) fn add(&self, value: L) {
        add(&self.counts, value.place());
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (L, u64)> {
        L::ALL.iter().copied().zip(self.counts.iter().map(read))
    }
}

pub(super) fn zeros(length: usize) -> Box<[AtomicU64]> {
    (0..length).map(|_| AtomicU64::new(0)).collect()
}

pub(super) fn add(counts: &[AtomicU64], place: usize) {
    if let Some(count) = counts.get(place) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
