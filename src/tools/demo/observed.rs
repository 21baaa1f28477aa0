//! Plays a row and collects its result: the reply of the session, the reason from the log of the gate by the id in the reply
//! (as an operator would look for it), the message and its Authentication-Results from the Maildir.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};

use crate::policy::decide::Verdict;
use crate::policy::reason::Reason;
use crate::tools::demo::session::{self, DecidingReply, Mail};
use crate::tools::demo::stage::Stage;
use crate::tools::demo::tour::{Expected, Row};

/// Maximum wait for a line of the log, and the time between two reads.
const LOG_WRITTEN: Duration = Duration::from_secs(2);
const LOG_POLL: Duration = Duration::from_millis(5);

/// A row and its result.
#[derive(Debug)]
pub(super) struct RowResult {
    pub(super) row: Row,
    pub(super) ptr: Vec<String>,
    /// `None` if the machine lacks the address family, an error if there was no reply.
    pub(super) observed: Option<Result<Observed, String>>,
}

impl RowResult {
    /// Whether the result differs from the expected one.
    pub(super) fn is_wrong(&self) -> bool {
        match &self.observed {
            None => false,
            Some(Err(_)) => true,
            Some(Ok(observed)) => !meets(observed, &self.row.expected),
        }
    }

    pub(super) fn is_skipped(&self) -> bool {
        self.observed.is_none()
    }

    pub(super) fn seen(&self) -> Option<&Observed> {
        self.observed.as_ref().and_then(|result| result.as_ref().ok())
    }
}

/// Whether verdict and reasons are as expected, and the Maildir has the message if and only if it was accepted.
fn meets(observed: &Observed, expected: &Expected) -> bool {
    observed.verdict() == expected.verdict()
        && observed.reasons == expected.reasons()
        && observed.delivered.is_some() == (observed.verdict() == Verdict::Accept)
}

#[derive(Debug)]
pub(super) struct Observed {
    pub(super) reply: DecidingReply,
    /// In the reply that refused.
    pub(super) id: Option<String>,
    /// The reason of the refusal, or the reasons in the tags.
    pub(super) reasons: Vec<Reason>,
    pub(super) delivered: Option<PathBuf>,
}

impl Observed {
    pub(super) fn verdict(&self) -> Verdict {
        match self.reply.code {
            500.. => Verdict::Reject,
            400..500 => Verdict::Defer,
            _ => Verdict::Accept,
        }
    }
}

/// Sends the message of a row and collects the result.
pub(super) async fn play(stage: &Stage, row: Row) -> RowResult {
    let ptr = stage.ptr(row.client);
    let observed = match stage.gate(row.policy, row.client) {
        None => None,
        Some(gate) => {
            let literal = format!("[{}]", row.client);
            let token = token(row.name);
            let mail = Mail {
                client: row.client,
                helo: row.helo.unwrap_or(ptr.first().map_or(&literal, |name| name)),
                mail_from: row.mail_from,
                recipient: row.recipient,
                message: &row.message(&token),
            };
            let sent = session::send(&mail, gate).await;
            let seen = match sent {
                Ok(reply) => observe(stage, reply, &token).await,
                Err(error) => Err(error),
            };
            Some(seen.map_err(|error| error.to_string()))
        }
    };
    RowResult { row, ptr, observed }
}

async fn observe(stage: &Stage, reply: DecidingReply, token: &str) -> io::Result<Observed> {
    let delivered = find(&stage.maildir(), token)?;
    let id = id(&reply.text);
    let reasons = match (&delivered, &id) {
        (Some((_, text)), _) => tags(text),
        (None, Some(id)) => logged(&stage.log(), id).await?.into_iter().collect(),
        (None, None) => Vec::new(),
    };
    Ok(Observed { reply, id, reasons, delivered: delivered.map(|(path, _)| path) })
}

/// The reason in the log, which may be written a moment after the reply.
pub(super) async fn logged(log: &Path, id: &str) -> io::Result<Option<Reason>> {
    let until = Instant::now() + LOG_WRITTEN;
    loop {
        let found = reason(&fs::read_to_string(log)?, id);
        if found.is_some() || Instant::now() >= until {
            return Ok(found);
        }
        sleep(LOG_POLL).await;
    }
}

/// A unique Message-ID.
fn token(name: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{name}.{now}@demo.test")
}

/// The message with this Message-ID.
pub(super) fn find(maildir: &Path, token: &str) -> io::Result<Option<(PathBuf, String)>> {
    let wanted = format!("\nMessage-ID: <{token}>\n");
    for entry in fs::read_dir(maildir.join("new"))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        if text.contains(&wanted) {
            return Ok(Some((path, text)));
        }
    }
    Ok(None)
}

/// `550 5.1.8 ... (id 4KXN7Q2M)`.
pub(super) fn id(reply: &str) -> Option<String> {
    let (_, rest) = reply.rsplit_once("(id ")?;
    rest.split_once(')').map(|(id, _)| id.to_owned())
}

/// The reason in the log line of this decision. Fields from `domain=` on may contain text from the sender and are skipped.
fn reason(log: &str, id: &str) -> Option<Reason> {
    let id = format!("id={id}");
    let line = log
        .lines()
        .find(|line| line.contains(" rmxd::decision: ") && line.split(' ').any(|word| word == id))?;
    let words = line.split(' ').take_while(|word| !word.starts_with("domain="));
    words.filter_map(|word| word.strip_prefix("reason=")).find_map(named)
}

/// The reasons of failed rules in the Authentication-Results of the gate, the first field of that name.
fn tags(message: &str) -> Vec<Reason> {
    let header = message.split("\n\n").next().unwrap_or_default().replace("\n\t", " ").replace("\n ", " ");
    let field =
        header.lines().find_map(|line| line.strip_prefix("Authentication-Results:")).unwrap_or_default();
    let failed = field.split(';').filter_map(|result| result.trim().strip_prefix("x-reverse-mx=fail ("));
    failed.filter_map(|rest| named(rest.split(')').next()?)).collect()
}

fn named(name: &str) -> Option<Reason> {
    Reason::ALL.into_iter().find(|reason| reason.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_by_the_id_and_not_in_text_of_the_sender() {
        let log = "T INFO rmxd::relay: refused id=AAAAAAAA reason=null_mx\n\
                   T INFO rmxd::decision: id=BBBBBBBB verdict=reject reason=no_mx domain=a.test\n\
                   T INFO rmxd::decision: id=AAAAAAAA verdict=reject domain=a.test helo=\"x reason=no_ptr\"\n\
                   T INFO rmxd::decision: id=CCCCCCCC verdict=reject reason=no_ptr domain=a.test\n";
        let rows = [("AAAAAAAA", None), ("BBBBBBBB", Some(Reason::NoMx)), ("DDDDDDDD", None)];
        for (id, expected) in rows {
            assert_eq!(reason(log, id), expected, "{id}");
        }
        assert_eq!(id("550 5.1.8 <(id x>: no (id 4KXN7Q2M)").as_deref(), Some("4KXN7Q2M"));
        assert_eq!(id("250 2.0.0 ok"), None);
    }

    #[test]
    fn tags_are_the_failures_in_the_gates_own_field() {
        let message = "Authentication-Results: mx.demo.test;\n\tx-reverse-mx=fail (no_ptr)\n\tpolicy.ptr=a;\n\
                       \tx-reverse-mx=pass (mx) smtp.mailfrom=a.test;\n\
                       \tx-reverse-mx=fail (not_an_exchanger) policy.rule=matches\n\
                       Subject: a\n\nAuthentication-Results: x; x-reverse-mx=fail (no_mx)\n";
        assert_eq!(tags(message), [Reason::NoPtr, Reason::NotAnExchanger]);
        assert_eq!(tags("Subject: a\n\nx"), []);
    }
}
