//! The reply for a refusal: the text of the reason, the id for `rmxd explain`, and the time of a retry.

use crate::policy::decide::Cause;
use crate::policy::door::DoorName;
use crate::policy::finding::Finding;
use crate::policy::reason::Reason;
use crate::smtp::reply::Reply;

/// `finding` is the finding that refused, if a rule did. `help_url` is `reply.help_url`, empty for none. At the policy
/// service the text begins with the domain: Postfix puts the address before it (contract 7.1).
#[must_use]
pub fn refusal(cause: &Cause, finding: Option<&Finding>, door: DoorName, id: &str, help_url: &str) -> Reply {
    let suffix = format!("{}{}", retry(cause), suffix(id, help_url));
    match finding {
        Some(finding) if door == DoorName::Policy && !finding.domain.is_empty() => {
            cause.reason.reply(finding.identity, cause.action, &finding.domain, &finding.domain, &suffix)
        }
        Some(finding) => {
            cause.reason.reply(finding.identity, cause.action, &finding.subject, &finding.domain, &suffix)
        }
        None if cause.reason == Reason::RelayingDenied => {
            cause.reason.plain_reply(&format!("<{}>:", cause.subject), &suffix)
        }
        None => cause.reason.plain_reply(&cause.subject, &suffix),
    }
}

/// The end of each refusal: ` (id 4KXN7Q2M)`, and the help URL if there is one.
#[must_use]
pub fn suffix(id: &str, help_url: &str) -> String {
    match help_url.trim_end_matches('/') {
        "" => format!(" (id {id})"),
        url => format!(" (id {id}) see {url}/{id}"),
    }
}

/// The time of a retry, for a greylisted client.
fn retry(cause: &Cause) -> String {
    match cause.wait.map(|wait| wait.as_millis().div_ceil(1000)) {
        _ if cause.reason != Reason::Greylisted => String::new(),
        None => ", try again later".to_owned(),
        Some(1) => ", try again in 1 second".to_owned(),
        Some(seconds) => format!(", try again in {seconds} seconds"),
    }
}
