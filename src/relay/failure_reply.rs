//! A failure at the next hop goes two ways: to the client as an answer, and to the log with its reason, which the client is
//! not told. What the relay refuses in its own words is in the event of the decision (`rmxd::decision`); here is only
//! what is the operator's trouble.

use std::net::IpAddr;

use compact_str::{CompactString, ToCompactString, format_compact};

use crate::relay::error::RelayError;
use crate::relay::{Envelope, HopReply};

/// A transaction as the log names it.
#[derive(Debug)]
pub(super) struct LogSubject {
    id: CompactString,
    client: IpAddr,
    mail_from: CompactString,
}

impl LogSubject {
    pub(super) fn of(envelope: &Envelope<'_>) -> Self {
        Self {
            id: envelope.id.to_compact_string(),
            client: envelope.client.address.ip().to_canonical(),
            mail_from: format_compact!("<{}>", envelope.reverse_path),
        }
    }

    /// The answer for the client.
    pub(super) fn told(&self, error: &RelayError) -> HopReply {
        let Self { id, client, mail_from } = self;
        match error {
            RelayError::Rejected { stage, reply } if !error.is_operators_trouble() => {
                tracing::debug!(target: "rmxd::relay", %id, %client, %mail_from, %reply, "refused by the relay at {stage}");
            }
            _ if error.is_final() || error.is_operators_trouble() => {
                tracing::error!(target: "rmxd::relay", %id, %client, %error, "no transaction")
            }
            _ => tracing::warn!(target: "rmxd::relay", %id, %client, %error, "transaction failed"),
        }
        error.answer()
    }
}
