//! The reply for what refuses: the reason's words, the id under which it can be asked for, and when to come again.

use crate::policy::finding::Finding;
use crate::policy::reason::Reason;
use crate::record::Because;
use crate::smtp::reply::Reply;

/// The reply; `help_url` is `reply.help_url`, empty for none.
#[must_use]
pub fn refusal(finding: &Finding, because: Because, id: &str, help_url: &str) -> Reply {
    let help = match help_url.trim_end_matches('/') {
        "" => String::new(),
        url => format!(" see {url}/{id}"),
    };
    let suffix = format!("{} (id {id}){help}", again(because));
    if because.reason == Reason::RelayingDenied {
        return because.reason.plain_reply(&format!("<{}>:", finding.subject), &suffix);
    }
    because.reason.reply(finding.identity, because.action, &finding.subject, &finding.domain, &suffix)
}

/// When to come again, where that helps.
fn again(because: Because) -> String {
    match because.wait.map(|wait| wait.as_millis().div_ceil(1000)) {
        _ if because.reason != Reason::Greylisted => String::new(),
        None => ", try again later".to_owned(),
        Some(1) => ", try again in 1 second".to_owned(),
        Some(seconds) => format!(", try again in {seconds} seconds"),
    }
}
