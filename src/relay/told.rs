//! A failure at the next hop goes two ways: to the client as a reply, and to the log with its reason, which the client is
//! not told. Each refusal by the relay is one line, so that an admin finds why mail was refused without asking Postfix.

use std::net::IpAddr;

use compact_str::{CompactString, ToCompactString, format_compact};

use crate::relay::Envelope;
use crate::relay::error::{RelayError, Stage};
use crate::smtp::address::ForwardPath;
use crate::smtp::reply::Reply;

/// A transaction as the log names it.
#[derive(Debug)]
pub(super) struct Subject {
    id: CompactString,
    client: IpAddr,
    mail_from: CompactString,
}

impl Subject {
    pub(super) fn of(envelope: &Envelope<'_>) -> Self {
        Self {
            id: envelope.id.to_compact_string(),
            client: envelope.client.address.ip().to_canonical(),
            mail_from: format_compact!("<{}>", envelope.reverse_path),
        }
    }

    /// The reply for the client to RCPT, or to the message where there is no `rcpt`.
    pub(super) fn told(&self, rcpt: Option<&ForwardPath>, error: &RelayError) -> Reply {
        let Self { id, client, mail_from } = self;
        match error {
            RelayError::Rejected { stage, reply } if !error.is_operators_trouble() => {
                let rcpt = rcpt.map(tracing::field::display);
                tracing::info!(
                    target: "rmxd::relay", %id, %client, %mail_from, rcpt, %reply, "{} refused by relay", what(*stage)
                );
            }
            _ if error.is_final() || error.is_operators_trouble() => {
                tracing::error!(target: "rmxd::relay", %id, %client, %error, "no transaction")
            }
            _ => tracing::warn!(target: "rmxd::relay", %id, %client, %error, "transaction failed"),
        }
        error.reply()
    }
}

/// What is refused there, in the words of the log's fields.
fn what(stage: Stage) -> &'static str {
    match stage {
        Stage::Banner
        | Stage::Greeting
        | Stage::StartTls
        | Stage::Xclient
        | Stage::Xforward
        | Stage::Reset => "client",
        Stage::Mail => "mail_from",
        Stage::Rcpt => "rcpt",
        Stage::Data | Stage::Message | Stage::End => "message",
    }
}
