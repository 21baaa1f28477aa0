//! The answer of a policy server, as Postfix carries it out.

use crate::smtp::reply::Reply;
use crate::tools::mta::answer::reply_of;

/// The longest answer in octets.
const LONGEST: usize = 16 * 1024;

/// What Postfix is to do (access(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The next restriction decides.
    Dunno,
    /// OK, PERMIT: the restrictions behind are skipped.
    Permit,
    /// A 4xx or 5xx by its code.
    Reply(Reply),
    /// DEFER_IF_PERMIT: 450, unless a restriction behind refuses for good. The reply has the code 450.
    DeferIfPermit(Reply),
    /// Anything else: the first word.
    Other(String),
}

/// What isn't an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAction {
    #[error("an answer of more than {LONGEST} octets")]
    TooLong,
    #[error("an answer without action=")]
    NoAction,
}

impl Action {
    /// The answer at the front of the buffer, and how many octets it takes there; `None` where it is incomplete.
    ///
    /// # Errors
    /// It isn't an answer.
    pub fn first(buffer: &[u8]) -> Result<Option<(Self, usize)>, BadAction> {
        let Some(end) = memchr::memmem::find(buffer, b"\n\n") else {
            return if buffer.len() < LONGEST { Ok(None) } else { Err(BadAction::TooLong) };
        };
        let text = buffer.get(..end).map(String::from_utf8_lossy).unwrap_or_default();
        let action = text.lines().find_map(|line| line.strip_prefix("action=")).ok_or(BadAction::NoAction)?;
        Ok(Some((Self::of(action.trim()), end + 2)))
    }

    fn of(action: &str) -> Self {
        let (word, text) = action.split_once(' ').unwrap_or((action, ""));
        let known = match word.to_ascii_uppercase().as_str() {
            "DUNNO" => Some(Self::Dunno),
            "OK" | "PERMIT" => Some(Self::Permit),
            "DEFER_IF_PERMIT" => reply_of(&format!("450 {text}")).map(Self::DeferIfPermit),
            _ => reply_of(action).map(Self::Reply),
        };
        known.unwrap_or_else(|| Self::Other(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delegation;
    use crate::smtp::reply::Enhanced;

    #[test]
    fn what_rmxd_answers_is_read() {
        let no = Reply::new(550, Enhanced(5, 1, 8), "nowhere.test does not exist (id 4KXN7Q2M)");
        let later = |code| Reply::new(code, Enhanced(4, 4, 3), "broken.test can't be looked up now");
        let trouble = Reply::new(450, Enhanced(4, 3, 0), "Service unavailable, try again later");
        let (first, second) = (later(451), later(450));
        let rows = [
            (delegation::Answer::Dunno, Action::Dunno),
            (delegation::Answer::Refuse(&no), Action::Reply(no.clone())),
            (delegation::Answer::Refuse(&first), Action::DeferIfPermit(second)),
            (delegation::Answer::Trouble, Action::DeferIfPermit(trouble)),
        ];
        for (answer, expected) in rows {
            let mut out = Vec::new();
            answer.write_to(&mut out);
            assert_eq!(Action::first(&out), Ok(Some((expected, out.len()))), "{answer:?}");
        }
    }

    #[test]
    fn other_answers_are_read_when_they_are_whole() {
        let rows: [(&[u8], Result<Option<(Action, usize)>, BadAction>); 8] = [
            (b"action=DUNNO\n", Ok(None)),
            (b"action=dunno\n\naction=", Ok(Some((Action::Dunno, 14)))),
            (b"action=OK\n\n", Ok(Some((Action::Permit, 11)))),
            (b"x=y\naction=421 away\n\n", Ok(Some((Action::Reply(Reply::plain(421, "away")), 21)))),
            (b"action=250 fine\n\n", Ok(Some((Action::Other("250".to_owned()), 17)))),
            (b"action=HOLD why\n\n", Ok(Some((Action::Other("HOLD".to_owned()), 17)))),
            (b"hello\n\n", Err(BadAction::NoAction)),
            (&[b'x'; LONGEST], Err(BadAction::TooLong)),
        ];
        for (octets, expected) in rows {
            assert_eq!(Action::first(octets), expected, "{}", octets.escape_ascii());
        }
    }
}
