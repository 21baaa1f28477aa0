//! A refusal before MAIL in the client's name: whether it is about the client or about rmxd. No I/O.
//!
//! After XCLIENT a relay may refuse the client at once, instead of its new banner or at the greeting (Postfix with
//! `smtpd_delay_reject = no`). Connected directly, the client would get this reply, so it gets it here; with 451 a
//! client that is refused for good would retry for days. A refusal of our syntax, or of our right to use XCLIENT, needs
//! the operator: a 5xx is passed on only where it can't be one of these.

use crate::relay::error::{RelayError, Stage};
use crate::smtp::reply::{Enhanced, Reply};

/// For a command in the client's name: [`RelayError::Rejected`] stays only where it is about the client. `verbatim`
/// where the argument of the command is the client's own.
pub(super) fn of_the_client(error: RelayError, verbatim: bool) -> RelayError {
    match error {
        RelayError::Rejected { stage, reply } if is_on_the_client(stage, &reply, verbatim) => {
            RelayError::Rejected { stage, reply }
        }
        other => of_us(other),
    }
}

/// For a command in our own name: a refusal is never about the client.
pub(super) fn of_us(error: RelayError) -> RelayError {
    match error {
        RelayError::Rejected { stage, reply }
        | RelayError::Closing { stage: stage @ Stage::Banner, reply } => RelayError::Refused { stage, reply },
        other => other,
    }
}

fn is_on_the_client(stage: Stage, reply: &Reply, verbatim: bool) -> bool {
    match (reply.code(), stage) {
        (400..=499, _) => true,
        // XCLIENT_README: not authorised. A rule of the operator's has a code that says more.
        (550, Stage::Xclient) => {
            !matches!(reply.enhanced(), None | Some(Enhanced(_, 7, 0) | Enhanced(_, 0, 0)))
        }
        // RFC 7504: no mail is accepted here. In our own name the relay did accept us.
        (521 | 550 | 554, _) => true,
        // about HELO's argument (Postfix: reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname)
        (501 | 504, Stage::Greeting) => verbatim,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::ReplyParser;

    #[test]
    fn a_5xx_is_passed_on_only_where_it_can_not_be_about_us() {
        use Stage::{Greeting, Xclient};
        let rows = [
            (Xclient, "554 5.7.1 <unknown[192.0.2.7]>: Client host rejected: Access denied", true),
            (Xclient, "554 No SMTP service here", true),
            (Xclient, "521 5.7.1 <unknown[192.0.2.7]>: Client host rejected: go away", true),
            (Xclient, "550 5.7.1 <unknown[192.0.2.7]>: Client host rejected: listed", true),
            (Xclient, "550 5.7.25 Client host rejected: cannot find your hostname", true),
            (Xclient, "550 5.7.0 Error: insufficient authorization", false),
            (Xclient, "550 you are not authorised", false),
            (Xclient, "550 5.0.0 no", false),
            (Xclient, "450 4.7.25 Client host rejected: cannot find your hostname", true),
            (Xclient, "501 5.5.4 Bad ADDR syntax", false),
            (Xclient, "504 5.5.4 what is PORT", false),
            (Xclient, "555 5.5.4 Unsupported option", false),
            (Greeting, "550 5.7.1 <mx.test>: Helo command rejected: Access denied", true),
            (Greeting, "550 no", true),
            (Greeting, "554 5.7.1 <mx.test>: Helo command rejected: Access denied", true),
            (Greeting, "450 4.7.1 <mx.test>: Helo command rejected: Host not found", true),
        ];
        for (stage, reply_text, goes_on) in rows {
            for verbatim in [true, false] {
                assert_eq!(judged(stage, reply_text, verbatim), goes_on, "{stage}: {reply_text}");
            }
        }
        for reply_text in [
            "501 5.5.2 <a_b>: Helo command rejected: Invalid name",
            "504 5.5.2 <mx>: need fully-qualified hostname",
        ] {
            assert!(
                judged(Greeting, reply_text, true) && !judged(Greeting, reply_text, false),
                "{reply_text}"
            );
        }
        for code in [500, 502, 503, 530, 534, 535, 538, 551, 552, 553, 555, 556, 571, 599] {
            for stage in [Xclient, Greeting] {
                assert!(!judged(stage, &format!("{code} no"), true), "{code} at {stage}");
            }
        }
    }

    /// Whether the client gets this reply.
    fn judged(stage: Stage, reply_text: &str, verbatim: bool) -> bool {
        let wire = format!("{reply_text}\r\n");
        let (reply, _) = ReplyParser::default().feed(wire.as_bytes()).unwrap().unwrap();
        let error = of_the_client(RelayError::Rejected { stage, reply }, verbatim);
        match error {
            RelayError::Rejected { .. } => assert_eq!(error.reply().to_string(), reply_text),
            _ => assert!(error.reply().to_string().starts_with("451 4.4.1 "), "{error}"),
        }
        matches!(error, RelayError::Rejected { .. })
    }

    #[test]
    fn a_421_and_failures_without_a_reply_stay_4xx() {
        for stage in [Stage::Xclient, Stage::Greeting] {
            let bye = RelayError::Closing { stage, reply: Reply::plain(421, "bye") };
            for error in [bye, RelayError::Silent(stage), RelayError::Closed(stage)] {
                let error = of_the_client(error, true);
                assert!(error.reply().to_string().starts_with("451 4.4.2 "), "{error}");
            }
        }
    }
}
