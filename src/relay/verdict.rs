//! Whom a refusal speaks of that the relay gives before MAIL, in a dialogue that is in the client's name: no I/O.
//!
//! Behind XCLIENT a relay may refuse the client at once, in place of its new banner or at the greeting (Postfix with
//! `smtpd_delay_reject = no`). That is what the client would hear if it stood before the relay itself, so it is the
//! client's answer; were it 451, a client refused for good would come for days. What the relay says of our words, or of
//! our right to use XCLIENT, is the operator's trouble: a 5xx goes on only where it can't mean that.

use crate::relay::error::{RelayError, Stage};
use crate::smtp::reply::{Enhanced, Reply};

/// What a failure means to whom it is told: [`RelayError::Rejected`] is a verdict on the client. `verbatim` where the
/// command was the client's own, as it came.
pub(super) fn of_the_client(error: RelayError, verbatim: bool) -> RelayError {
    match error {
        RelayError::Rejected { stage, reply } if is_on_the_client(stage, &reply, verbatim) => {
            RelayError::Rejected { stage, reply }
        }
        other => of_us(other),
    }
}

/// The same for what is said in our own name: it is never the client's.
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
        // RFC 7504: no mail is taken here. It was when we came in our own name.
        (521 | 550 | 554, _) => true,
        // of HELO's argument (Postfix: reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname)
        (501 | 504, Stage::Greeting) => verbatim,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::ReplyParser;

    #[test]
    fn a_5xx_goes_on_only_where_it_can_not_speak_of_us() {
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
        for (stage, said, goes_on) in rows {
            for verbatim in [true, false] {
                assert_eq!(judged(stage, said, verbatim), goes_on, "{stage}: {said}");
            }
        }
        for said in [
            "501 5.5.2 <a_b>: Helo command rejected: Invalid name",
            "504 5.5.2 <mx>: need fully-qualified hostname",
        ] {
            assert!(judged(Greeting, said, true) && !judged(Greeting, said, false), "{said}");
        }
        for code in [500, 502, 503, 530, 534, 535, 538, 551, 552, 553, 555, 556, 571, 599] {
            for stage in [Xclient, Greeting] {
                assert!(!judged(stage, &format!("{code} no"), true), "{code} at {stage}");
            }
        }
    }

    /// Whether that is the client's answer.
    fn judged(stage: Stage, said: &str, verbatim: bool) -> bool {
        let wire = format!("{said}\r\n");
        let (reply, _) = ReplyParser::default().feed(wire.as_bytes()).unwrap().unwrap();
        let error = of_the_client(RelayError::Rejected { stage, reply }, verbatim);
        match error {
            RelayError::Rejected { .. } => assert_eq!(error.reply().to_string(), said),
            _ => assert!(error.reply().to_string().starts_with("451 4.4.1 "), "{error}"),
        }
        matches!(error, RelayError::Rejected { .. })
    }

    #[test]
    fn a_421_and_what_is_no_refusal_stay_what_they_are() {
        for stage in [Stage::Xclient, Stage::Greeting] {
            let bye = RelayError::Closing { stage, reply: Reply::plain(421, "bye") };
            for error in [bye, RelayError::Silent(stage), RelayError::Closed(stage)] {
                let error = of_the_client(error, true);
                assert!(error.reply().to_string().starts_with("451 4.4.2 "), "{error}");
            }
        }
    }
}
