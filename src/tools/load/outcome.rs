//! What became of a message: an answer with its verdict, or a failure, and at which stage of the session.

use std::fmt;
use std::time::Duration;

use crate::policy::decide::Verdict;
use crate::smtp::reply::Enhanced;

/// One message's end.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageResult {
    pub(super) result: Result<Decided, Failure>,
    /// From when the session was due, for its first message; from the end of the message before, for the others.
    pub(super) took: Duration,
}

/// The reply that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Decided {
    pub(super) verdict: Verdict,
    pub(super) stage: Stage,
    pub(super) code: u16,
    pub(super) enhanced: Option<Enhanced>,
}

impl Decided {
    /// The server closes behind this reply, or there is nothing to be said after it.
    pub(super) fn ends_session(&self) -> bool {
        matches!(self.code, 421 | 521) || (self.stage <= Stage::Ehlo && self.verdict != Verdict::Accept)
    }
}

/// `550 5.1.8 at RCPT`.
impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, "{enhanced} ")?;
        }
        f.write_str(self.stage.name())
    }
}

/// Why there is no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) trouble: FailureKind,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.trouble.name(), self.stage.name())
    }
}

/// In what way a session failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum FailureKind {
    /// No descriptors or ports are left here.
    NoSocket,
    ConnectionRefused,
    TimedOut,
    Closed,
    /// What came is no reply, or none that fits.
    NoReply,
}

impl FailureKind {
    fn name(self) -> &'static str {
        match self {
            Self::NoSocket => "no socket or port left",
            Self::ConnectionRefused => "connection refused",
            Self::TimedOut => "timed out",
            Self::Closed => "connection closed",
            Self::NoReply => "not a reply that fits",
        }
    }
}

/// Where in the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Stage {
    Connect,
    Greeting,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    /// The final dot.
    Dot,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "at connect",
            Self::Greeting => "at the banner",
            Self::Ehlo => "at EHLO",
            Self::Mail => "at MAIL",
            Self::Rcpt => "at RCPT",
            Self::Data => "at DATA",
            Self::Dot => "after DATA",
        }
    }
}
