//! Each shape of line, and what is none.

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The event of a line of this program.
fn event<'a>(line: &'a str) -> Event<'a> {
    match parse(line) {
        Line::Postfix(_, entry) => entry.event,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_process_is_parsed_with_any_time_stamp_and_name() {
    let rows = [
        ("Nov 23 12:00:00 mx postfix/smtpd[12]: x", "Nov 23 12:00:00", "mx", "postfix", false),
        ("Nov  3 02:00:00 mx postfix/smtpd[12]: x", "Nov  3 02:00:00", "mx", "postfix", false),
        ("<22>Nov 23 12:00:00 mx postfix/smtpd[12]: x", "Nov 23 12:00:00", "mx", "postfix", false),
        (
            "2026-11-23T12:00:00.123456+01:00 mx postfix-in/smtpd[12]: x",
            "2026-11-23T12:00:00.123456+01:00",
            "mx",
            "postfix-in",
            false,
        ),
        (
            "2026-11-23T12:00:00Z mx1.example postfix/qmgr[1]: x",
            "2026-11-23T12:00:00Z",
            "mx1.example",
            "postfix",
            false,
        ),
        (
            "2026-11-23T12:00:00+0100 mx postfix/cleanup[1]: x",
            "2026-11-23T12:00:00+0100",
            "mx",
            "postfix",
            false,
        ),
        ("Nov 23 12:00:00 mx postfix/submission/smtpd[12]: x", "Nov 23 12:00:00", "mx", "postfix", true),
        ("Nov 23 12:00:00 mx postfix/submissions/smtpd[12]: x", "Nov 23 12:00:00", "mx", "postfix", true),
        ("Nov 23 12:00:00 mx postfix/smtps/smtpd[12]: x", "Nov 23 12:00:00", "mx", "postfix", true),
        ("Nov 23 12:00:00 mx relay7/smtpd[12]: x", "Nov 23 12:00:00", "mx", "relay7", false),
        ("Nov 23 12:00:00 mx postfix/local[12]: x", "Nov 23 12:00:00", "mx", "postfix", false),
        (
            "Nov 23 12:00:00 mx postfix/smtpd[12]: [ID 197553 mail.info] x",
            "Nov 23 12:00:00",
            "mx",
            "postfix",
            false,
        ),
    ];
    for (line, stamp, host, instance, submission) in rows {
        let Line::Postfix(its_stamp, entry) = parse(line) else { panic!("{line}: {:?}", parse(line)) };
        assert_eq!(
            (its_stamp, entry.host, entry.instance, entry.submission),
            (stamp, host, instance, submission),
            "{line}"
        );
        assert_eq!(entry.event, Event::Nothing, "{line}");
    }
}

#[test]
fn a_program_that_was_cut_off_is_known_by_its_text() {
    let of = |text: &str| format!("<22>1 2026-11-23T12:00:00Z mx postfix-in 12 - -  {text}");
    for (program, text) in [
        ("smtpd", "connect from a.test[192.0.2.1]"),
        ("smtpd", "disconnect from a.test[192.0.2.1] ehlo=1"),
        ("smtpd", "4F2A1B3C5D: client=a.test[192.0.2.1], sasl_method=PLAIN, sasl_username=ann"),
        ("smtpd", "NOQUEUE: reject: RCPT from a[192.0.2.1]: 550 x; from=<a@b> to=<c@d> proto=SMTP helo=<e>"),
        (
            "postscreen",
            "NOQUEUE: reject: RCPT from [192.0.2.1]:99: 550 x; from=<a@b>, to=<c@d>, proto=SMTP, helo=<e>",
        ),
        ("smtpd", "proxy-accept: END-OF-MESSAGE: 250 x; from=<a@b.test> to=<c@d> proto=ESMTP helo=<h>"),
        (
            "smtpd",
            "NOQUEUE: proxy-reject: END-OF-MESSAGE: 550 x; from=<a@b.test> to=<c@d> proto=ESMTP helo=<h>",
        ),
        ("qmgr", "4F2A1B3C5D: from=<ann@a.test>, size=1234, nrcpt=1 (queue active)"),
        (
            "cleanup",
            "4F2A1B3C5D: milter-reject: END-OF-MESSAGE from a[192.0.2.1]: 5.7.1 no; from=<a@b> to=<c@d> proto=ESMTP helo=<h>",
        ),
        ("cleanup", "4F2A1B3C5D: message-id=<1@a.test>"),
        ("smtp", "4F2A1B3C5D: to=<a@b>, relay=b[192.0.2.2]:25, status=sent (250 ok)"),
        ("anvil", "statistics: max connection rate 1/60s"),
    ] {
        let whole = format!("Nov 23 12:00:00 mx postfix-in/{program}[12]: {text}");
        let cut = of(text);
        let Line::Postfix(_, entry) = parse(&cut) else { panic!("{text}: {:?}", parse(&cut)) };
        assert_eq!((entry.instance, entry.pid, entry.event), ("postfix-in", "12", event(&whole)), "{text}");
    }
    assert_eq!(parse(&of("NOQUEUE: reject: RCPT from a[192.0.2.1]: 550 x")), Line::Unreadable);
    assert_eq!(parse("Nov 23 12:00:00 mx postfixadmin.py[1]: x"), Line::Foreign);
}

#[test]
fn lines_of_other_programs_are_not_unreadable_lines() {
    let rows = [
        ("Nov 23 12:00:00 mx sshd[1]: Connection from x", Line::Foreign),
        ("Nov 23 12:00:00 mx dovecot: imap-login: x", Line::Foreign),
        ("Nov 23 12:00:00 mx opendkim/worker[1]: x", Line::Foreign),
        ("Nov 23 12:00:00 mx last message repeated 2 times", Line::Foreign),
        ("Nov 23 12:00:00 mx kernel: [  1.0] a/smtpd: x", Line::Foreign),
        ("", Line::Unreadable),
        ("garbage", Line::Unreadable),
        ("Nov 23 12:00:00", Line::Unreadable),
        ("Nov 23 12:00:00 mx", Line::Unreadable),
        ("Nix 23 12:00:00 mx postfix/smtpd[1]: x", Line::Unreadable),
        ("Nov 23 12.00.00 mx postfix/smtpd[1]: x", Line::Unreadable),
        ("2026-11-23 12:00:00 mx postfix/smtpd[1]: x", Line::Unreadable),
        ("2026-11-23T12:00:00x mx postfix/smtpd[1]: x", Line::Unreadable),
        ("Nov 23 12:00:00 mx postfix/smtpd[1]: 4F2A1B3C: client=unknown", Line::Unreadable),
        ("Nov 23 12:00:00 mx postfix/smtpd[1]: 4F2A1B3C: client=unknown[999.1.1.1]", Line::Unreadable),
        (
            "Nov 23 12:00:00 mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from a[192.0.2.1]: 554 5.7.1 x",
            Line::Unreadable,
        ),
        ("Nov 23 12:00:00 mx postfix/qmgr[1]: 4F2A1B3C: from=<a@b.test", Line::Unreadable),
    ];
    for (line, expected) in rows {
        assert_eq!(parse(line), expected, "{line}");
    }
}

#[test]
fn an_accepted_message_has_lines_of_smtpd_and_qmgr() {
    let begin = |id, client: &str, origin| Event::Begin { id, client: ip(client), origin };
    let rows = [
        (
            "smtpd[1]: 4F2A1B3C5D: client=mail.a.test[192.0.2.1]",
            begin(Some("4F2A1B3C5D"), "192.0.2.1", Origin::External),
        ),
        (
            "smtpd[1]: 3yQbzy4fPSzbkw: client=unknown[2001:db8::1]",
            begin(Some("3yQbzy4fPSzbkw"), "2001:db8::1", Origin::External),
        ),
        (
            "smtpd[1]: 4F2A1B3C5D: client=a.test[::ffff:192.0.2.1]:4711",
            begin(Some("4F2A1B3C5D"), "192.0.2.1", Origin::External),
        ),
        ("smtpd[1]: NOQUEUE: client=a.test[192.0.2.1]", begin(None, "192.0.2.1", Origin::External)),
        (
            "smtpd[1]: 4F2A1B3C5D: client=a.test[192.0.2.1], sasl_method=PLAIN, sasl_username=ann",
            begin(Some("4F2A1B3C5D"), "192.0.2.1", Origin::Authenticated),
        ),
        (
            "smtpd[1]: 4F2A1B3C5D: client=localhost[127.0.0.1], orig_queue_id=4F2A1B3C50, orig_client=a.test[192.0.2.1]",
            begin(Some("4F2A1B3C5D"), "127.0.0.1", Origin::Internal),
        ),
        ("smtpd[1]: 4F2A1B3C5D: client=localhost[::1]", begin(Some("4F2A1B3C5D"), "::1", Origin::Internal)),
        ("smtpd[1]: connect from unknown[2001:db8::1]", Event::Connect { client: ip("2001:db8::1") }),
        ("smtpd[1]: connect from unknown[unknown]", Event::Nothing),
        (
            "smtpd[1]: disconnect from a.test[192.0.2.1] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5",
            Event::Disconnect,
        ),
        ("smtpd[1]: warning: hostname a.test does not resolve to address 192.0.2.1", Event::Nothing),
        (
            "smtpd[1]: NOQUEUE: filter: RCPT from a[192.0.2.1]: <a@b>: x; from=<a@b> to=<c@d> proto=SMTP helo=<e>",
            Event::Nothing,
        ),
        (
            "qmgr[1]: 4F2A1B3C5D: from=<ann@a.test>, size=1234, nrcpt=1 (queue active)",
            Event::Queued { id: "4F2A1B3C5D", sender: "ann@a.test" },
        ),
        (
            "qmgr[1]: 3yQbzy4fPSzbkw: from=<>, size=1, nrcpt=2 (queue active)",
            Event::Queued { id: "3yQbzy4fPSzbkw", sender: "" },
        ),
        (
            "qmgr[1]: 4F2A1B3C5D: from=<\"a>, size=x\"@a.test>, size=1, nrcpt=2 (queue active)",
            Event::Queued { id: "4F2A1B3C5D", sender: "\"a>, size=x\"@a.test" },
        ),
        (
            "qmgr[1]: 4F2A1B3C5D: from=<ann@a.test>, status=expired, returned to sender",
            Event::Queued { id: "4F2A1B3C5D", sender: "ann@a.test" },
        ),
        ("qmgr[1]: 4F2A1B3C5D: removed", Event::Nothing),
    ];
    for (line, expected) in rows {
        assert_eq!(event(&format!("Nov 23 12:00:00 mx postfix/{line}")), expected, "{line}");
    }
}

#[test]
fn a_refusal_has_client_sender_and_helo() {
    let refused = |client: Option<&str>, sender, helo| Event::Refused {
        id: None,
        client: client.map(ip),
        session: None,
        sender,
        helo,
    };
    let rows = [
        (
            "smtpd[1]: NOQUEUE: reject: RCPT from mail.a.test[192.0.2.1]: 450 4.7.1 <h.test>: Helo command rejected: Host not \
             found; from=<a@b.test> to=<c@d.test> proto=ESMTP helo=<h.test>",
            refused(Some("192.0.2.1"), "a@b.test", Some("h.test")),
        ),
        (
            "smtpd[1]: NOQUEUE: reject: RCPT from unknown[2001:db8::1]: 554 5.7.1 x; from=<> to=<c@d.test> proto=SMTP helo=<>",
            refused(Some("2001:db8::1"), "", None),
        ),
        (
            "smtpd[1]: NOQUEUE: reject: MAIL from a.test[192.0.2.1]: 552 5.3.4 too big; from=<a@b.test> proto=ESMTP helo=<h>",
            refused(Some("192.0.2.1"), "a@b.test", Some("h")),
        ),
        (
            "postscreen[1]: NOQUEUE: reject: RCPT from [2001:db8::1]:4711: 550 5.7.1 Service unavailable; client [2001:db8::1] \
             blocked using x.test; from=<a@b.test>, to=<c@d.test>, proto=ESMTP, helo=<h.test>",
            Event::Refused {
                id: None,
                client: Some(ip("2001:db8::1")),
                session: Some("[2001:db8::1]:4711"),
                sender: "a@b.test",
                helo: Some("h.test"),
            },
        ),
        (
            "smtpd[1]: 4F2A1B3C5D: milter-reject: END-OF-MESSAGE from a.test[192.0.2.1]: 5.7.1 no; from=<a@b.test> to=<c@d> proto=ESMTP helo=<h>",
            Event::Refused {
                id: Some("4F2A1B3C5D"),
                client: Some(ip("192.0.2.1")),
                session: None,
                sender: "a@b.test",
                helo: Some("h"),
            },
        ),
        (
            "cleanup[1]: 4F2A1B3C5D: reject: header Subject: from a friend; from=<no> from a.test[192.0.2.1]; from=<a@b.test> \
             to=<c@d> proto=ESMTP helo=<h>: 5.7.1 no",
            Event::Refused {
                id: Some("4F2A1B3C5D"),
                client: None,
                session: None,
                sender: "a@b.test",
                helo: Some("h"),
            },
        ),
        (
            "smtpd[1]: NOQUEUE: proxy-accept: END-OF-MESSAGE: 250 2.0.0 Ok: queued as 4F2A1B3C5D; from=<a@b.test> to=<c@d> proto=ESMTP helo=<h>",
            Event::Proxied { accepted: true, sender: "a@b.test", helo: Some("h") },
        ),
        (
            "smtpd[1]: proxy-reject: END-OF-MESSAGE: 554 5.7.0 no; from=<a@b.test> to=<c@d> proto=ESMTP helo=<h>",
            Event::Proxied { accepted: false, sender: "a@b.test", helo: Some("h") },
        ),
        (
            "smtpd[1]: NOQUEUE: reject: CONNECT from a.test[192.0.2.1]: 554 5.7.1 x; proto=SMTP",
            Event::RefusedEarly,
        ),
        (
            "smtpd[1]: NOQUEUE: reject: EHLO from a.test[192.0.2.1]: 504 x; proto=SMTP helo=<x>",
            Event::RefusedEarly,
        ),
        (
            "postscreen[1]: NOQUEUE: reject: CONNECT from [192.0.2.1]:99: too many connections",
            Event::RefusedEarly,
        ),
        (
            "smtpd[1]: 4F2A1B3C5D: reject: RCPT from a.test[192.0.2.1]: 550 x; from=<a@b.test> to=<c@d> proto=ESMTP helo=<h>",
            Event::Nothing,
        ),
        (
            "smtpd[1]: NOQUEUE: reject: RCPT from a.test[192.0.2.1]: 550 x; from=<a@b.test> to=<c@d> proto=ESMTP helo=<h> sasl_username=<ann>",
            Event::Nothing,
        ),
        ("postscreen[1]: PREGREET 14 after 0.1 from [192.0.2.1]:99: EHLO x\\r\\n", Event::Nothing),
        ("postscreen[1]: PASS NEW [192.0.2.1]:99", Event::Nothing),
    ];
    for (line, expected) in rows {
        assert_eq!(event(&format!("2026-11-23T12:00:00Z mx postfix/{line}")), expected, "{line}");
    }
}

proptest! {
    #[test]
    fn any_line_is_parsed_without_a_panic(line in ".{0,200}") {
        parse(&line);
    }

    #[test]
    fn any_text_after_a_valid_beginning_is_parsed_without_a_panic(
        program in "(smtpd|postscreen|qmgr|cleanup)",
        start in "(NOQUEUE: |4F2A1B3C5D: |)(reject: |milter-reject: |client=|from=<|proxy-accept: |)(RCPT from |header |)",
        middle in "[\\[\\]<>;:=, a-z0-9é]{0,60}",
        end in "(; from=<|>|> to=<|helo=<|sasl_username=<|, size=|\\]|)",
        rest in ".{0,30}",
    ) {
        parse(&format!("Nov 23 12:00:00 mx postfix/{program}[1]: {start}{middle}{end}{rest}"));
    }

    #[test]
    fn a_line_cut_anywhere_is_parsed_without_a_panic(at in 0usize..200) {
        let line = "Nov 23 12:00:00 mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from a.test[192.0.2.1]: 450 4.7.1 <h>: no; \
                    from=<a@b.test> to=<c@d.test> proto=ESMTP helo=<h.test>";
        parse(line.get(..at).unwrap_or(line));
    }
}
