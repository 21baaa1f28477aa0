//! The outcome of a transaction (contract 2), which is independent of its verdict.

/// The outcome of a transaction that had a MAIL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The next hop has the message.
    Delivered,
    /// rmxd refused the sender, every recipient or the message.
    Refused,
    /// The relay refused the sender, every recipient or the message, with its own reply.
    RelayRefused,
    /// The relay could not be reached, closed the connection, or sent an invalid reply.
    RelayFailed,
    /// The client disconnected or gave up before the end of a message.
    NotCompleted,
    /// rmxd let it pass at a door of a mail server that has the message itself (milter, policy); what became of it there
    /// isn't known.
    Passed,
}

impl Outcome {
    /// All six.
    pub const ALL: [Self; 6] = [
        Self::Delivered,
        Self::Refused,
        Self::RelayRefused,
        Self::RelayFailed,
        Self::NotCompleted,
        Self::Passed,
    ];

    /// The word in logs, metrics and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Refused => "refused",
            Self::RelayRefused => "relay_refused",
            Self::RelayFailed => "relay_failed",
            Self::NotCompleted => "not_completed",
            Self::Passed => "passed",
        }
    }
}
