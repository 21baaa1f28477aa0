//! What was answered where it counts, beside what was to be answered.

use crate::policy::decide::Verdict;
use crate::policy::reason::Reason;
use crate::smtp::reply::Reply;
use crate::tools::demo::observed;

/// The answer that is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Pass,
    /// It passes, and the log has a refusal for this reason.
    Logged(Reason),
    /// 5xx with this enhanced code.
    Reject(&'static str, Reason),
    /// 4xx.
    Defer(&'static str, Reason),
}

impl Wanted {
    pub(super) fn verdict(self) -> Verdict {
        match self {
            Self::Pass | Self::Logged(_) => Verdict::Accept,
            Self::Reject(..) => Verdict::Reject,
            Self::Defer(..) => Verdict::Defer,
        }
    }

    pub(super) fn reason(self) -> Option<Reason> {
        match self {
            Self::Pass => None,
            Self::Logged(reason) | Self::Reject(_, reason) | Self::Defer(_, reason) => Some(reason),
        }
    }

    pub(super) fn enhanced(self) -> Option<&'static str> {
        match self {
            Self::Pass | Self::Logged(_) => None,
            Self::Reject(enhanced, _) | Self::Defer(enhanced, _) => Some(enhanced),
        }
    }
}

/// One decision of a session.
#[derive(Debug)]
pub(super) struct Judged {
    /// Where it fell: `RCPT you@demo.test`, `the end of the header`.
    pub(super) at: String,
    pub(super) verdict: Verdict,
    /// Of a refusal.
    pub(super) reply: Option<Reply>,
    /// From the log.
    pub(super) reason: Option<Reason>,
    pub(super) wanted: Wanted,
    /// The changes of the header.
    pub(super) edits: Vec<String>,
    pub(super) wanted_edits: &'static [&'static str],
}

impl Judged {
    pub(super) fn is_wrong(&self) -> bool {
        let enhanced = self.reply.as_ref().and_then(Reply::enhanced).map(|enhanced| enhanced.to_string());
        self.verdict != self.wanted.verdict()
            || self.reason != self.wanted.reason()
            || enhanced.as_deref() != self.wanted.enhanced()
            || self.edits != self.wanted_edits
    }

    /// Says which message it was about, where the session has several; `at` counts from 0.
    pub(super) fn name_message(&mut self, messages: usize, at: usize) {
        if messages > 1 {
            self.at.push_str(&format!(" (message {})", at + 1));
        }
    }

    /// The id of the decision, in the reply.
    pub(super) fn id(&self) -> Option<String> {
        let text = self.reply.as_ref()?.text();
        observed::id(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::Enhanced;

    fn judged(code: u16, reason: Option<Reason>, wanted: Wanted) -> Judged {
        let verdict = match code / 100 {
            2 => Verdict::Accept,
            4 => Verdict::Defer,
            _ => Verdict::Reject,
        };
        let class = u8::try_from(code / 100).unwrap();
        let reply = (code >= 400).then(|| Reply::new(code, Enhanced(class, 1, 8), "no (id 4KXN7Q2M)"));
        Judged { at: String::new(), verdict, reply, reason, wanted, edits: Vec::new(), wanted_edits: &[] }
    }

    #[test]
    fn every_difference_from_what_is_expected_is_wrong() {
        let (made_up, no_mx) = (Reason::NoSuchDomain, Reason::NoMx);
        let reject = Wanted::Reject("5.1.8", made_up);
        let rows = [
            (550, Some(made_up), reject, false),
            (450, Some(made_up), reject, true),
            (550, Some(no_mx), reject, true),
            (550, None, reject, true),
            (250, None, reject, true),
            (550, Some(made_up), Wanted::Reject("5.7.1", made_up), true),
            (450, Some(made_up), Wanted::Defer("4.1.8", made_up), false),
            (250, None, Wanted::Pass, false),
            (550, Some(made_up), Wanted::Pass, true),
            (250, Some(made_up), Wanted::Logged(made_up), false),
            (250, None, Wanted::Logged(made_up), true),
        ];
        for (code, reason, wanted, is_wrong) in rows {
            assert_eq!(judged(code, reason, wanted).is_wrong(), is_wrong, "{code} {reason:?} {wanted:?}");
        }
        let mut edited = judged(250, None, Wanted::Pass);
        edited.edits.push("insert".to_owned());
        assert!(edited.is_wrong());
        edited.wanted_edits = &["insert"];
        assert!(!edited.is_wrong());
        assert_eq!(judged(550, None, reject).id().as_deref(), Some("4KXN7Q2M"));
    }
}
