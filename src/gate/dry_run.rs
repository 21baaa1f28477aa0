//! A decision without a message: what would be said of these senders now. For `rmxd check` and the API.

use std::net::IpAddr;
use std::sync::Arc;

use compact_str::{CompactString, ToCompactString, format_compact};

use crate::decision::DecisionRecord;
use crate::gate::{Gate, MessageInfo};
use crate::message::header::{Author, Field, Header};
use crate::smtp::address::{AddressError, ForwardPath, ReversePath};
use crate::smtp::framing::stuffed;

/// What is to be judged. Identities that are not given are not.
#[derive(Debug, Clone)]
pub struct DryRun {
    /// The client's address.
    pub client: IpAddr,
    /// The argument of HELO.
    pub helo: Option<String>,
    /// The sender of the envelope; `None` is judged as the null sender, which is no identity.
    pub mail_from: Option<ReversePath>,
    /// From: and Reply-To:.
    pub header: Header,
    /// The header block that they come from, where there is one: strict CRLF, without the empty line.
    pub block: Vec<u8>,
    /// The body behind it.
    pub body: Vec<u8>,
}

impl Gate {
    /// The decision, as the daemon makes it; it is neither logged nor counted, and has no id.
    pub async fn dry_run(self: &Arc<Self>, of: &DryRun) -> DecisionRecord {
        let mut guest = self.guest(of.client);
        if let Some(helo) = &of.helo {
            guest.helo(helo);
        }
        let mut inspection = guest.inspect(of.mail_from.as_ref().unwrap_or(&ReversePath::Null));
        // The daemon answers at RCPT, before it has seen the header; all findings are shown nevertheless.
        let mut envelope = inspection.envelope(&mut guest).await;
        let refused_by = envelope.cause.as_ref().and_then(|cause| cause.finding_of(inspection.findings()));
        let refused_by = refused_by.cloned();
        let mut whole = inspection.header(&mut guest, &of.header, &of.block).await;
        if inspection.awaits_body() {
            inspection.body(&stuffed(&of.body));
            whole = inspection.whole().await;
        }
        if let Some(cause) = &mut envelope.cause {
            // its place among all findings
            cause.finding =
                inspection.findings().iter().position(|finding| refused_by.as_ref() == Some(finding));
        }
        let decision = if envelope.refuses() { envelope } else { whole };
        guest.names().await;
        let mail_from = of.mail_from.as_ref().map(|path| format_compact!("<{path}>")).unwrap_or_default();
        let (from, reply_to) = (addresses(&of.header.from), addresses(&of.header.reply_to));
        let facts =
            MessageInfo { mail_from: &mail_from, from: &from, reply_to: &reply_to, ..MessageInfo::default() };
        DecisionRecord { id: None, end: None, ..inspection.record(&decision, &facts) }
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

/// The addresses of a field, for the log.
#[must_use]
pub fn addresses(field: &Field) -> CompactString {
    match field {
        Field::Absent => CompactString::default(),
        Field::Malformed(malformed) => CompactString::new(malformed.name()),
        Field::Authors(authors) => {
            let mut text = CompactString::default();
            for (at, author) in authors.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                text.push_str(&author.address);
            }
            text
        }
    }
}
