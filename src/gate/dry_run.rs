//! A decision without a message: what the gate would decide on these senders now. `rmxd check`, `rmxd audit`, `rmxd replay`
//! and the API drive a [`crate::gate::Transaction`] by it, which is neither logged, kept nor counted.

use std::net::IpAddr;
use std::sync::Arc;

use compact_str::ToCompactString;

use crate::decision::DecisionRecord;
use crate::gate::Gate;
use crate::message::header::{Author, Field, Header};
use crate::smtp::address::{AddressError, ForwardPath, ReversePath};

/// What is to be judged. Identities that are not given are not.
#[derive(Debug, Clone)]
pub struct DryRun {
    /// The client's address.
    pub client: IpAddr,
    /// The argument of HELO.
    pub helo: Option<String>,
    /// The sender of the envelope; `None` is judged as the null sender, which is no identity.
    pub mail_from: Option<ReversePath>,
    /// `None`: only the rules that can refuse the envelope are looked up.
    pub message: Option<DryMessage>,
}

/// The message of a dry run.
#[derive(Debug, Clone)]
pub struct DryMessage {
    /// From: and Reply-To:.
    pub header: Header,
    /// The header block that they come from, where there is one: strict CRLF, without the empty line.
    pub block: Vec<u8>,
    /// The body behind it, without stuffed dots.
    pub body: Vec<u8>,
}

impl DryMessage {
    /// Addresses without a message.
    #[must_use]
    pub fn of_addresses(from: Field, reply_to: Field) -> Self {
        let header = Header { from, reply_to, received: 0 };
        Self { header, block: Vec::new(), body: Vec::new() }
    }
}

impl Gate {
    /// The decision, as the daemon makes it; it has no id. The daemon refuses at RCPT, before it has seen the header; here
    /// the findings of the header are there nevertheless.
    pub async fn dry_run(self: &Arc<Self>, of: &DryRun) -> DecisionRecord {
        let mut client = self.client(of.client);
        if let Some(helo) = &of.helo {
            client.helo(helo);
        }
        let mut transaction = client.dry_transaction(of.mail_from.as_ref());
        let mut envelope = transaction.envelope(&mut client).await;
        let Some(DryMessage { header, block, body }) = &of.message else {
            return DecisionRecord { id: None, ..transaction.record(&envelope) };
        };
        let refused_by = envelope.cause.as_ref().and_then(|cause| cause.finding_of(transaction.findings()));
        let refused_by = refused_by.cloned();
        let whole = transaction.message(&mut client, header, block, body).await;
        if let Some(cause) = &mut envelope.cause {
            // the index among the findings of the whole message
            let mut findings = transaction.findings().iter();
            cause.finding = findings.position(|finding| refused_by.as_ref() == Some(finding));
        }
        client.names().await;
        let decision = if envelope.refuses() { &envelope } else { &whole };
        DecisionRecord { id: None, ..transaction.record(decision) }
    }
}

/// The sender of an envelope as a person writes it, in angle brackets or not.
///
/// # Errors
/// What is wrong with it.
pub fn sender(text: &str) -> Result<ReversePath, String> {
    ReversePath::parse(text).map_err(|error| error.to_string())
}

/// An address of From: or Reply-To: as a person writes it, in angle brackets or not.
///
/// # Errors
/// What is wrong with it.
pub fn author(text: &str) -> Result<Author, String> {
    let path = ForwardPath::parse(text).map_err(|error| error.to_string())?;
    let domain = path.domain().ok_or_else(|| AddressError::NoDomain.to_string())?;
    Ok(Author { address: path.to_compact_string(), domain: domain.name().cloned() })
}
