//! Dialogues without a socket: the test gives the lines and the outcomes of effects, and checks the codes.

use super::*;
use crate::smtp::framing::Fault;
use crate::smtp::reply::Enhanced;

fn session(recipients: usize, errors: usize) -> Session {
    let hostname = DomainName::parse("gate.test").unwrap();
    let settings = Settings { hostname, recipients, errors, junk_commands: 100 };
    let offer =
        Offer { size: 1000, eight_bit_mime: true, smtputf8: true, dsn: true, starttls: true, xclient: false };
    Session::new(Arc::new(settings), offer)
}

/// The code of the reply to a line if every effect succeeds, with `close` if the session ends.
fn say(session: &mut Session, line: &str) -> String {
    let good = || Reply::new(250, Enhanced(2, 1, 0), "ok");
    let mut effect = session.step(Event::Line(line.as_bytes()));
    loop {
        effect = match effect {
            Effect::Reply(reply) | Effect::Helo(reply) | Effect::Reset(reply) => {
                return reply.code().to_string();
            }
            Effect::Refuse(refusal) if !refusal.closes => return refusal.reply.code().to_string(),
            Effect::Refuse(Refusal { reply, .. }) | Effect::Close(reply) => {
                return format!("{} close", reply.code());
            }
            Effect::Listen => return "listens".to_owned(),
            Effect::Sender(..) => session.step(Event::SenderAnswered(good())),
            Effect::Recipient(..) => session.step(Event::RecipientAnswered(good())),
            Effect::Message => session.step(Event::MessageAnswered(good())),
            Effect::Client(_) => session.step(Event::ClientAnnounced { xclient: false }),
            Effect::StartTls(reply) => {
                assert_eq!(reply.to_string(), "220 2.0.0 ready to start TLS");
                session.step(Event::TlsStarted)
            }
            Effect::Chunk { .. } => session.step(Event::ChunkAnswered(good())),
            Effect::Discard { octets, reply } => return format!("{} {octets} discarded", reply.code()),
        };
    }
}

fn dialogue(session: &mut Session, lines: &[(&str, &str)]) {
    for (line, expected) in lines {
        assert_eq!(say(session, line), *expected, "{line}");
    }
}

const MAIL: (&str, &str) = ("MAIL FROM:<u@good.test>", "250");
const RCPT: (&str, &str) = ("RCPT TO:<v@here.test>", "250");
const EHLO: (&str, &str) = ("EHLO c.test", "250");

#[test]
fn a_whole_transaction_passes_and_a_second_one_follows() {
    dialogue(
        &mut session(9, 9),
        &[EHLO, MAIL, RCPT, ("DATA", "250"), MAIL, RCPT, ("DATA", "250"), ("QUIT", "221 close")],
    );
}

#[test]
fn commands_out_of_order_are_503() {
    dialogue(
        &mut session(9, 99),
        &[("MAIL FROM:<u@good.test>", "503"), ("RCPT TO:<v@here.test>", "503"), ("DATA", "503")],
    );
    dialogue(
        &mut session(9, 99),
        &[EHLO, ("RCPT TO:<v@here.test>", "503"), MAIL, ("MAIL FROM:<>", "503"), ("DATA", "554")],
    );
}

#[test]
fn rset_and_ehlo_end_a_transaction() {
    for reset in [("RSET", "250"), EHLO] {
        dialogue(&mut session(9, 99), &[EHLO, MAIL, RCPT, reset, ("DATA", "503"), MAIL]);
    }
}

#[test]
fn a_refused_sender_opens_no_transaction() {
    let mut session = session(9, 9);
    say(&mut session, "EHLO c.test");
    assert!(matches!(session.step(Event::Line(b"MAIL FROM:<u@bad.test>")), Effect::Sender(..)));
    session.step(Event::SenderAnswered(Reply::new(550, Enhanced(5, 1, 8), "no")));
    assert_eq!(say(&mut session, "RCPT TO:<v@here.test>"), "503");
}

#[test]
fn a_refused_recipient_does_not_count() {
    let mut session = session(9, 9);
    dialogue(&mut session, &[EHLO, MAIL]);
    assert!(matches!(session.step(Event::Line(b"RCPT TO:<v@here.test>")), Effect::Recipient(..)));
    session.step(Event::RecipientAnswered(Reply::new(550, Enhanced(5, 1, 1), "no")));
    assert_eq!(say(&mut session, "DATA"), "554");
}

#[test]
fn recipients_over_the_limit_are_452_and_the_others_stay() {
    dialogue(
        &mut session(2, 9),
        &[EHLO, MAIL, RCPT, RCPT, ("RCPT TO:<w@here.test>", "452"), ("DATA", "250")],
    );
}

#[test]
fn only_protocol_errors_end_the_session() {
    dialogue(&mut session(9, 2), &[EHLO, ("FROB", "500"), ("FROB", "500"), ("FROB", "421 close")]);
    dialogue(
        &mut session(9, 1),
        &[EHLO, ("MAIL FROM:<u@good.test> SIZE=2000", "552"), ("VRFY u", "252"), MAIL, ("X", "500")],
    );
}

#[test]
fn commands_pipelined_after_a_refusal_count_as_no_errors() {
    let refusal = || Reply::new(550, Enhanced(5, 1, 8), "no");
    let mut session = session(9, 1);
    say(&mut session, "EHLO c.test");
    for _ in 0..5 {
        assert!(matches!(session.step(Event::Line(b"MAIL FROM:<u@bad.test>")), Effect::Sender(..)));
        session.step(Event::SenderAnswered(refusal()));
        dialogue(
            &mut session,
            &[("RCPT TO:<v@here.test>", "503"), ("DATA", "503"), ("BDAT 3 LAST", "503 3 discarded")],
        );
    }
    dialogue(&mut session, &[MAIL]);
    assert!(matches!(session.step(Event::Line(b"RCPT TO:<v@here.test>")), Effect::Recipient(..)));
    session.step(Event::RecipientAnswered(refusal()));
    dialogue(
        &mut session,
        &[
            ("DATA", "554"),
            ("DATA", "554"),
            ("RSET", "250"),
            MAIL,
            ("MAIL FROM:<>", "503"),
            ("DATA", "421 close"),
        ],
    );
}

#[test]
fn commands_pipelined_after_a_message_too_large_count_as_no_errors_and_later_ones_do() {
    let mut session = session(9, 1);
    dialogue(&mut session, &[EHLO, ("MAIL FROM:<u@good.test> SIZE=2000", "552")]);
    for _ in 0..100 {
        dialogue(&mut session, &[("RCPT TO:<v@here.test>", "503")]);
    }
    dialogue(&mut session, &[("DATA", "503"), ("DATA", "503"), ("DATA", "421 close")]);
}

/// RFC 2920 3.1: the client sent them before the refusal could reach it.
#[test]
fn commands_pipelined_after_any_refused_mail_command_count_as_no_errors() {
    let refused = [
        ("MAIL FROM:<u@good.test> FOO=BAR", "555"),
        ("MAIL FROM:<x@y@good.test>", "501"),
        ("MAIL FROM:<u@good.test> BODY=9BIT", "501"),
        ("MAIL FROM:<u@g\u{fc}d.test>", "553"),
        ("MAIL u@good.test", "501"),
    ];
    for refused in refused {
        let mut session = session(9, 1);
        dialogue(&mut session, &[EHLO, refused]);
        for _ in 0..20 {
            dialogue(&mut session, &[("RCPT TO:<v@here.test>", "503")]);
        }
        dialogue(&mut session, &[("DATA", "503"), ("BDAT 3 LAST", "503 3 discarded"), ("RSET", "250")]);
        dialogue(&mut session, &[MAIL, RCPT, ("DATA", "250"), ("FROB", "421 close")]);
    }
    let mut greets_badly = session(9, 2);
    dialogue(&mut greets_badly, &[("EHLO", "501"), ("MAIL FROM:<u@good.test>", "503")]);
    dialogue(&mut greets_badly, &[("RCPT TO:<v@here.test>", "503"), ("DATA", "503"), EHLO, MAIL, RCPT]);
    let mut one_bad_recipient = session(9, 1);
    dialogue(&mut one_bad_recipient, &[EHLO, MAIL, ("RCPT TO:<>", "501"), ("DATA", "554"), ("RSET", "250")]);
    dialogue(&mut one_bad_recipient, &[MAIL, RCPT, ("DATA", "250")]);
}

#[test]
fn a_client_without_mail_is_closed_after_the_limit_of_commands() {
    let closed = "421 4.7.0 gate.test too many commands without mail, closing connection";
    for junk in ["NOOP", "RSET", "VRFY u", "HELP", "EHLO c.test", "HELO c.test"] {
        let mut session = session(9, 9);
        dialogue(&mut session, &[EHLO]);
        for _ in 0..99 {
            assert_ne!(say(&mut session, junk), "421 close", "{junk}");
        }
        let Effect::Close(reply) = session.step(Event::Line(junk.as_bytes())) else { panic!("{junk}") };
        assert_eq!(reply.to_string(), closed);
    }
    let mut session = session(9, 9);
    dialogue(&mut session, &[EHLO]);
    for _ in 0..300 {
        dialogue(&mut session, &[MAIL, RCPT, ("DATA", "250"), ("RSET", "250"), ("NOOP", "250")]);
    }
    // RSET and NOOP after the last message count already
    for _ in 0..98 {
        dialogue(&mut session, &[("RSET", "250"), MAIL]); // MAIL alone brings no mail
    }
    dialogue(&mut session, &[("RSET", "421 close")]);
}

#[test]
fn the_last_reply_of_a_connection_gives_the_reason() {
    let mut session = session(9, 9);
    let rows = [
        (
            Event::Fault(Fault::BareLf),
            "521 5.5.2 bare LF is not allowed, lines end in CRLF; closing connection",
        ),
        (Event::SpokeEarly, "554 5.5.1 you spoke before the banner; closing connection"),
        (Event::TooSlow, "421 4.4.2 gate.test data came too slowly while others wait, closing connection"),
        (Event::TimedOut, "421 4.4.2 gate.test waited too long, closing connection"),
        (Event::ShuttingDown, "421 4.3.2 gate.test is shutting down, closing connection"),
    ];
    for (event, expected) in rows {
        let (Effect::Close(reply) | Effect::Refuse(Refusal { reply, closes: true, .. })) =
            session.step(event)
        else {
            panic!("not closed: {expected}")
        };
        assert_eq!(reply.to_string(), expected);
    }
    assert!(matches!(session.step(Event::LineTooLong), Effect::Reply(reply) if reply.code() == 500));
}

#[test]
fn ehlo_offers_what_the_relay_accepts_and_helo_nothing() {
    let hostname = DomainName::parse("gate.test").unwrap();
    let settings = Settings { hostname, recipients: 1, errors: 1, junk_commands: 100 };
    let offer = Offer {
        size: 77,
        eight_bit_mime: false,
        smtputf8: false,
        dsn: false,
        starttls: false,
        xclient: false,
    };
    let mut session = Session::new(Arc::new(settings), offer);
    let Effect::Helo(reply) = session.step(Event::Line(b"EHLO c.test")) else { panic!("no greeting") };
    assert_eq!(reply.text(), "gate.test\nPIPELINING\nSIZE 77\nCHUNKING\nENHANCEDSTATUSCODES");
    for parameter in ["BODY=8BITMIME", "SMTPUTF8", "RET=FULL", "ENVID=a"] {
        session.errors = 0;
        assert_eq!(say(&mut session, &format!("MAIL FROM:<u@good.test> {parameter}")), "555", "{parameter}");
    }
    let Effect::Helo(reply) = session.step(Event::Line(b"HELO c.test")) else { panic!("no greeting") };
    assert_eq!((reply.text(), session.helo().map(|helo| helo.extended)), ("gate.test", Some(false)));
}

const TLS: (&str, &str) = ("STARTTLS", "listens");

/// RFC 3207 4.2: the server forgets what it learned from the client before.
#[test]
fn a_handshake_clears_the_greeting_and_the_transaction() {
    dialogue(&mut session(9, 99), &[EHLO, TLS, ("MAIL FROM:<u@good.test>", "503"), EHLO, MAIL, RCPT]);
    dialogue(
        &mut session(9, 99),
        &[EHLO, MAIL, RCPT, TLS, ("DATA", "503"), ("RCPT TO:<v@here.test>", "503"), EHLO, ("DATA", "503")],
    );
    let mut session = session(9, 9);
    let offers = |session: &mut Session| match session.step(Event::Line(b"EHLO c.test")) {
        Effect::Helo(reply) => reply.text().lines().any(|line| line == "STARTTLS"),
        other => panic!("no greeting: {other:?}"),
    };
    assert!(offers(&mut session));
    dialogue(&mut session, &[TLS]);
    assert!(!offers(&mut session));
}

#[test]
fn starttls_is_allowed_once_and_only_after_ehlo() {
    dialogue(&mut session(9, 99), &[("STARTTLS", "503"), ("HELO c.test", "250"), ("STARTTLS", "503")]);
    dialogue(&mut session(9, 99), &[EHLO, ("STARTTLS now", "501"), TLS, EHLO, ("STARTTLS", "503"), MAIL]);
    dialogue(&mut session(9, 1), &[EHLO, TLS, ("STARTTLS", "503"), ("STARTTLS", "421 close")]);
    let mut without = session(9, 9);
    without.offer.starttls = false;
    dialogue(&mut without, &[EHLO, ("STARTTLS", "502"), MAIL]);
}

#[test]
fn the_reply_to_unavailable_starttls_is_in_plain_text() {
    let mut session = session(9, 9);
    say(&mut session, "EHLO c.test");
    say(&mut session, "MAIL FROM:<u@good.test>");
    let Effect::Reply(reply) = session.step(Event::TlsUnavailable) else { panic!("no answer") };
    assert_eq!(reply.to_string(), "454 4.7.0 TLS is not available now");
    assert_eq!(say(&mut session, "RCPT TO:<v@here.test>"), "250");
    let Effect::Close(reply) = session.step(Event::PlainTextBehindStartTls) else { panic!("not closed") };
    assert!(reply.to_string().starts_with("554 5.5.1 nothing may follow STARTTLS"), "{reply}");
}

#[test]
fn http_ends_the_session_at_once() {
    for line in ["GET / HTTP/1.1", "post /x HTTP/1.1", "CONNECT mx.test:25 HTTP/1.1", "Host: mx.test"] {
        dialogue(&mut session(9, 99), &[(line, "554 close")]);
        dialogue(&mut session(9, 99), &[EHLO, MAIL, (line, "554 close")]);
    }
}

/// The session of a trusted gateway.
fn gateway() -> Session {
    let mut gateway = session(9, 99);
    gateway.offer.xclient = true;
    gateway
}

#[test]
fn xclient_is_only_for_clients_that_were_offered_it() {
    let offers = |session: &mut Session| match session.step(Event::Line(b"EHLO c.test")) {
        Effect::Helo(reply) => reply.text().contains("\nXCLIENT NAME ADDR PORT PROTO HELO LOGIN"),
        other => panic!("{other:?}"),
    };
    let mut stranger = session(9, 99);
    assert!(!offers(&mut stranger));
    dialogue(&mut stranger, &[("XCLIENT ADDR=192.0.2.7", "502"), ("XCLIENT", "502"), MAIL]);
    let mut gateway = gateway();
    assert!(offers(&mut gateway));
    // the announced client is not trusted, so its own XCLIENT is refused
    dialogue(&mut gateway, &[("XCLIENT ADDR=192.0.2.7", "220"), ("XCLIENT ADDR=192.0.2.8", "502")]);
    assert!(!offers(&mut gateway));
}

#[test]
fn xclient_starts_the_session_anew_and_is_refused_within_a_transaction() {
    dialogue(
        &mut gateway(),
        &[EHLO, MAIL, ("XCLIENT ADDR=192.0.2.7", "503"), RCPT, ("DATA", "250"), ("XCLIENT PORT=1", "220")],
    );
    dialogue(&mut gateway(), &[EHLO, ("XCLIENT ADDR=192.0.2.7", "220"), ("MAIL FROM:<u@good.test>", "503")]);
    dialogue(&mut gateway(), &[("XCLIENT ADDR=unknown", "501"), ("XCLIENT", "501"), EHLO, MAIL]);
}

#[test]
fn the_announced_greeting_replaces_that_of_the_gateway() {
    let mut session = gateway();
    let helo = |session: &mut Session, line: &str| {
        say(session, line);
        session.helo().map(|helo| (helo.argument.to_string(), helo.extended))
    };
    say(&mut session, "XCLIENT HELO=c.test PROTO=SMTP ADDR=192.0.2.7");
    assert_eq!(session.helo(), None);
    assert_eq!(helo(&mut session, "EHLO gateway.test"), Some(("c.test".to_owned(), false)));
    let mut session = gateway();
    say(&mut session, "XCLIENT HELO=[UNAVAILABLE] ADDR=192.0.2.7");
    assert_eq!(helo(&mut session, "EHLO gateway.test"), Some(("gateway.test".to_owned(), true)));
}

#[test]
fn chunks_make_a_message_and_misplaced_ones_are_discarded_by_their_count() {
    dialogue(&mut session(9, 9), &[EHLO, MAIL, RCPT, ("BDAT 10", "250"), ("BDAT 0 LAST", "250"), MAIL]);
    dialogue(
        &mut session(9, 99),
        &[EHLO, ("BDAT 12 LAST", "503 12 discarded"), MAIL, ("BDAT 7", "554 7 discarded")],
    );
    dialogue(
        &mut session(9, 99),
        &[EHLO, MAIL, RCPT, ("BDAT 10", "250"), ("DATA", "503"), RCPT_LATE, ("BDAT 1 LAST", "250")],
    );
    dialogue(&mut session(9, 9), &[EHLO, ("BDAT x", "501 close")]);
}

const RCPT_LATE: (&str, &str) = ("RCPT TO:<v@here.test>", "503");

#[test]
fn after_a_refused_chunk_the_rest_of_the_message_is_discarded() {
    let mut session = session(9, 9);
    dialogue(&mut session, &[EHLO, MAIL, RCPT]);
    assert!(matches!(session.step(Event::Line(b"BDAT 5")), Effect::Chunk { octets: 5, last: false }));
    session.step(Event::ChunkAnswered(Reply::new(550, Enhanced(5, 7, 1), "no")));
    dialogue(
        &mut session,
        &[("BDAT 5", "503 5 discarded"), ("BDAT 9 LAST", "503 9 discarded"), ("RSET", "250"), MAIL],
    );
}

#[test]
fn domains_beyond_ascii_need_smtputf8() {
    dialogue(
        &mut session(9, 99),
        &[EHLO, MAIL, ("RCPT TO:<\u{fc}@here.test>", "250"), ("RCPT TO:<u@h\u{fc}r.test>", "553")],
    );
    dialogue(&mut session(9, 9), &[EHLO, ("MAIL FROM:<u@g\u{fc}d.test>", "553")]);
    // as in Postfix if only the local part isn't ASCII
    dialogue(&mut session(9, 9), &[EHLO, ("MAIL FROM:<\u{fc}@good.test>", "250")]);
    dialogue(
        &mut session(9, 9),
        &[EHLO, ("MAIL FROM:<u@good.test> SMTPUTF8", "250"), ("RCPT TO:<\u{fc}@here.test>", "250")],
    );
}
