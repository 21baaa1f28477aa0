//! The result of a message: a verdict or a failure, and the stage of the session.

use std::fmt;
use std::time::Duration;

use crate::policy::decide::Verdict;
use crate::smtp::reply::Enhanced;

#[derive(Debug, Clone, Copy)]
pub(super) struct MessageResult {
    pub(super) result: Result<Decided, Failure>,
    /// For the first message since the session was due, for the others since the end of the previous message.
    pub(super) took: Duration,
}

/// The deciding reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Decided {
    pub(super) verdict: Verdict,
    pub(super) stage: Stage,
    pub(super) word: Word,
    pub(super) enhanced: Option<Enhanced>,
}

/// How a reply begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Word {
    Code(u16),
    /// Of an answer without a code, such as `DUNNO`.
    Name(&'static str),
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "{code}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// `550 5.1.8 at RCPT`.
impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.word)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, "{enhanced} ")?;
        }
        f.write_str(self.stage.name())
    }
}

/// A session without a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) kind: FailureKind,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.stage.name())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum FailureKind {
    /// This machine has no descriptor or port left.
    NoSocket,
    ConnectionRefused,
    TimedOut,
    Closed,
    /// The input is not a reply, or not one that is allowed here.
    NoReply,
}

impl FailureKind {
    fn name(self) -> &'static str {
        match self {
            Self::NoSocket => "no socket or port left",
            Self::ConnectionRefused => "connection refused",
            Self::TimedOut => "timed out",
            Self::Closed => "connection closed",
            Self::NoReply => "unexpected reply",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Stage {
    Connect,
    Greeting,
    /// Of a milter.
    Negotiation,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    /// EOH of a milter.
    EndOfHeader,
    /// The final dot.
    Dot,
    /// EOM of a milter.
    EndOfMessage,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "at connect",
            Self::Greeting => "at the banner",
            Self::Negotiation => "in the negotiation",
            Self::Ehlo => "at EHLO",
            Self::Mail => "at MAIL",
            Self::Rcpt => "at RCPT",
            Self::Data => "at DATA",
            Self::EndOfHeader => "at the end of the header",
            Self::Dot => "after DATA",
            Self::EndOfMessage => "at the end of the message",
        }
    }
}
