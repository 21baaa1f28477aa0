//! The five sender names that rmxd checks.

use std::fmt;

/// A sender name of a message. The order is that in which failures decide: helo, ptr, mail_from, from, reply_to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// The argument of HELO or EHLO (RFC 5321 4.1.1.1).
    Helo,
    /// The PTR name of the client's address.
    Ptr,
    /// The domain of the reverse path (RFC 5321 4.1.1.2).
    MailFrom,
    /// The domains of the From: header field (RFC 5322 3.6.2).
    From,
    /// The domains of the Reply-To: header field (RFC 5322 3.6.2).
    ReplyTo,
}

impl Identity {
    /// All five, in the order of the verdict.
    pub const ALL: [Self; 5] = [Self::Helo, Self::Ptr, Self::MailFrom, Self::From, Self::ReplyTo];

    /// The name in configuration and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Helo => "helo",
            Self::Ptr => "ptr",
            Self::MailFrom => "mail_from",
            Self::From => "from",
            Self::ReplyTo => "reply_to",
        }
    }

    /// The property in Authentication-Results: `ptype.property` (RFC 8601 2.3).
    #[must_use]
    pub fn property(self) -> &'static str {
        match self {
            Self::Helo => "smtp.helo",
            Self::Ptr => "policy.ptr",
            Self::MailFrom => "smtp.mailfrom",
            Self::From => "header.from",
            Self::ReplyTo => "header.reply-to",
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
