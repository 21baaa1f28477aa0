//! A failure at the next hop: a reply for the client without the cause, and a log line with it.
//!
//! The relay's own refusals of a client, recipient or message are in the event of the decision (`rmxd::decision`); the
//! lines of this module are for the operator.

use std::net::IpAddr;

use compact_str::{CompactString, ToCompactString, format_compact};

use crate::relay::error::RelayError;
use crate::relay::{Envelope, HopReply};

/// The fields of a transaction in its log lines.
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

    /// Logs the failure and returns the reply for the client.
    pub(super) fn reply_to(&self, error: &RelayError) -> HopReply {
        let Self { id, client, mail_from } = self;
        match error {
            RelayError::Rejected { stage, reply } if !error.is_about_us() => {
                tracing::debug!(target: "rmxd::relay", %id, %client, %mail_from, %reply, "refused by the relay at {stage}");
            }
            _ if error.is_final() || error.is_about_us() => {
                tracing::error!(target: "rmxd::relay", %id, %client, %error, "no transaction")
            }
            _ => tracing::warn!(target: "rmxd::relay", %id, %client, %error, "transaction failed"),
        }
        error.answer()
    }
}
