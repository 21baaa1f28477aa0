//! A frame as a person reads it.

use crate::tools::demo::doors::tap::Side;

/// One packet of the milter protocol, or one request or answer of policy delegation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) from: Side,
    /// Such as `RCPT`, or `continue`.
    pub(super) name: &'static str,
    /// What is in it; several lines are separated by LF.
    pub(super) text: String,
    /// Sent before it: `(i=4F1, auth_authen=ann)`; may be empty.
    pub(super) macros: String,
    /// What follows from it; may be empty.
    pub(super) effect: String,
}

impl Frame {
    pub(super) fn postfix(name: &'static str, text: impl Into<String>) -> Self {
        Self { from: Side::Postfix, name, text: text.into(), macros: String::new(), effect: String::new() }
    }

    pub(super) fn rmxd(name: &'static str, text: impl Into<String>) -> Self {
        Self { from: Side::Rmxd, ..Self::postfix(name, text) }
    }

    pub(super) fn with(self, effect: impl Into<String>) -> Self {
        Self { effect: effect.into(), ..self }
    }
}
