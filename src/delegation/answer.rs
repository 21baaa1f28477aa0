//! The answer to a request: one line `action=`, then an empty line.

use crate::smtp::reply::{Enhanced, Reply};

/// What Postfix is to do with the command that it asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The next restriction decides. OK is never answered: it would skip those behind.
    Dunno,
    /// Refuses with the reply: a 5xx by its code and text, a 4xx by DEFER_IF_PERMIT, so that what Postfix itself refuses
    /// for good stays refused for good. [`Answer::Trouble`] if the reply is neither.
    Refuse(&'a Reply),
    /// DEFER_IF_PERMIT for trouble of rmxd's own.
    Trouble,
}

impl Answer<'_> {
    /// Appends the two lines.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"action=");
        match self {
            Self::Dunno => out.extend_from_slice(b"DUNNO"),
            Self::Refuse(reply) => match reply.code() {
                400..500 => push(out, "DEFER_IF_PERMIT", 4, reply),
                code @ 500..600 => push(out, &code.to_string(), 5, reply),
                _ => push_trouble(out),
            },
            Self::Trouble => push_trouble(out),
        }
        out.extend_from_slice(b"\n\n");
    }
}

fn push_trouble(out: &mut Vec<u8>) {
    out.extend_from_slice(b"DEFER_IF_PERMIT 4.3.0 Service unavailable, try again later");
}

/// `verb` and the enhanced code, which Postfix asks to be of the same class as the reply, then the text as one line of
/// printable ASCII. A line of `Reply` is at most 510 octets long, with the text's end.
fn push(out: &mut Vec<u8>, verb: &str, class: u8, reply: &Reply) {
    let enhanced = match reply.enhanced() {
        Some(enhanced) if enhanced.0 == class => enhanced,
        _ => Enhanced(class, 0, 0),
    };
    let line = Reply::new(reply.code(), enhanced, reply.text().to_owned()).on_one_line();
    let after_code = line.split_once(' ').map_or("", |(_, rest)| rest);
    out.extend_from_slice(format!("{verb} {after_code}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(answer: Answer<'_>) -> String {
        let mut out = Vec::new();
        answer.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_is_one_line_and_an_empty_one() {
        let reply = |code, class, text: &'static str| Reply::new(code, Enhanced(class, 1, 8), text);
        let trouble = "action=DEFER_IF_PERMIT 4.3.0 Service unavailable, try again later\n\n";
        let rows = [
            (reply(550, 5, "no MX (id 4KXN7Q2M)"), "action=550 5.1.8 no MX (id 4KXN7Q2M)\n\n"),
            (reply(554, 5, "100% of %d"), "action=554 5.1.8 100% of %d\n\n"),
            (reply(450, 4, "greylisted"), "action=DEFER_IF_PERMIT 4.1.8 greylisted\n\n"),
            (reply(451, 4, "later"), "action=DEFER_IF_PERMIT 4.1.8 later\n\n"),
            (reply(421, 4, "later"), "action=DEFER_IF_PERMIT 4.1.8 later\n\n"),
            (reply(550, 4, "odd"), "action=550 5.0.0 odd\n\n"),
            (reply(450, 5, "odd"), "action=DEFER_IF_PERMIT 4.0.0 odd\n\n"),
            (Reply::plain(550, "no"), "action=550 5.0.0 no\n\n"),
            (Reply::plain(450, "no"), "action=DEFER_IF_PERMIT 4.0.0 no\n\n"),
            (reply(550, 5, ""), "action=550 5.1.8 \n\n"),
            (reply(550, 5, "a\n\naction=OK\n\n"), "action=550 5.1.8 a  action=OK  \n\n"),
            (reply(450, 4, "a\r\nb\0\u{e9}\u{85}"), "action=DEFER_IF_PERMIT 4.1.8 a? b?????\n\n"),
            (reply(250, 2, "ok"), trouble),
            (Reply::plain(354, "go on"), trouble),
        ];
        for (reply, expected) in rows {
            assert_eq!(written(Answer::Refuse(&reply)), expected, "{reply:?}");
        }
        assert_eq!(written(Answer::Dunno), "action=DUNNO\n\n");
        assert_eq!(written(Answer::Trouble), trouble);
    }

    #[test]
    fn a_long_text_is_cut_before_its_id() {
        let reply = Reply::new(550, Enhanced(5, 1, 8), "x".repeat(2000)).ending_with(" (id 4KXN7Q2M)");
        let line = written(Answer::Refuse(&reply));
        assert!(line.len() < 530 && line.ends_with("xx (id 4KXN7Q2M)\n\n"), "{line}");
        let reply = Reply::new(450, Enhanced(4, 7, 1), "x".repeat(2000));
        assert!(written(Answer::Refuse(&reply)).len() < 540);
    }
}
