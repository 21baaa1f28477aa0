//! The doors (contract 7), as a transaction and everything that observes it name them.

/// The way in which a message was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DoorName {
    /// By SMTP: rmxd stands in front of the relay.
    #[default]
    Smtp,
    /// By the milter protocol: Postfix or Sendmail has the client.
    Milter,
    /// By Postfix's policy delegation.
    Policy,
}

impl DoorName {
    pub const ALL: [Self; 3] = [Self::Smtp, Self::Milter, Self::Policy];

    /// The word in logs, metrics and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Milter => "milter",
            Self::Policy => "policy",
        }
    }
}
