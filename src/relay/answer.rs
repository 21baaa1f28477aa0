//! What the client is answered for the next hop: the relay's own words, or why there are none.

use std::fmt;

use crate::policy::reason::Reason;
use crate::smtp::reply::Reply;

/// The answer to a recipient or a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopReply {
    /// For the client.
    pub reply: Reply,
    /// Why the next hop didn't take it; `None` where it did.
    pub trouble: Option<NextHopFailure>,
}

/// Why the next hop didn't take something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHopFailure {
    /// [`Reason::RelayRefused`] where the client is given the relay's own words.
    pub reason: Reason,
    /// The relay's reply, whether the client is given it or not.
    pub reply: Option<Reply>,
}

impl HopReply {
    /// The next hop has taken it.
    #[must_use]
    pub fn taken(reply: Reply) -> Self {
        Self { reply, trouble: None }
    }

    /// The next hop hasn't.
    #[must_use]
    pub fn not_taken(reply: Reply, reason: Reason) -> Self {
        Self { reply, trouble: Some(NextHopFailure { reason, reply: None }) }
    }

    /// Whether the next hop has taken it.
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
