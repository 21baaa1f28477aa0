//! The client's reply to a recipient or a message: the relay's own, or ours where the relay has none for it.

use std::fmt;

use crate::policy::reason::Reason;
use crate::smtp::reply::Reply;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopReply {
    pub reply: Reply,
    /// `None` where the next hop accepted it.
    pub trouble: Option<NextHopFailure>,
}

/// The cause of a recipient or message that the next hop didn't accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHopFailure {
    /// [`Reason::RelayRefused`] where the client gets the relay's own reply.
    pub reason: Reason,
    /// The relay's reply, also where the client gets another one.
    pub reply: Option<Reply>,
}

impl HopReply {
    #[must_use]
    pub fn taken(reply: Reply) -> Self {
        Self { reply, trouble: None }
    }

    #[must_use]
    pub fn not_taken(reply: Reply, reason: Reason) -> Self {
        Self { reply, trouble: Some(NextHopFailure { reason, reply: None }) }
    }

    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.trouble.is_none() && self.reply.is_positive()
    }
}

impl fmt::Display for HopReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reply.fmt(f)
    }
}
