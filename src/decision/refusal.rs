//! The reply for what refuses: the reason's words, the id under which it can be asked for, and when to come again.

use crate::policy::decide::Cause;
use crate::policy::finding::Finding;
use crate::policy::reason::Reason;
use crate::smtp::reply::Reply;

/// The reply; `finding` is the one that refused, where a rule did. `help_url` is `reply.help_url`, empty for none.
#[must_use]
pub fn refusal(cause: &Cause, finding: Option<&Finding>, id: &str, help_url: &str) -> Reply {
    let suffix = format!("{}{}", again(cause), suffix(id, help_url));
    match finding {
        Some(finding) => {
            cause.reason.reply(finding.identity, cause.action, &finding.subject, &finding.domain, &suffix)
        }
        None if cause.reason == Reason::RelayingDenied => {
            cause.reason.plain_reply(&format!("<{}>:", cause.subject), &suffix)
        }
        None => cause.reason.plain_reply(&cause.subject, &suffix),
    }
}

/// What stands at the end of each reply that refuses: ` (id 4KXN7Q2M)`.
#[must_use]
pub fn suffix(id: &str, help_url: &str) -> String {
    match help_url.trim_end_matches('/') {
        "" => format!(" (id {id})"),
        url => format!(" (id {id}) see {url}/{id}"),
    }
}

/// When to come again, where that helps.
fn again(cause: &Cause) -> String {
    match cause.wait.map(|wait| wait.as_millis().div_ceil(1000)) {
        _ if cause.reason != Reason::Greylisted => String::new(),
        None => ", try again later".to_owned(),
        Some(1) => ", try again in 1 second".to_owned(),
        Some(seconds) => format!(", try again in {seconds} seconds"),
    }
}
