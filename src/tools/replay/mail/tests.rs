//! Lines to messages.

use super::*;

/// What these lines of postfix come to, each sender as `CLIENT HELO DOMAIN TAKEN/REFUSED`, and the numbers.
fn read_lines(lines: &[&str]) -> (Vec<String>, Counts) {
    let mut mail = Mail::new(1000);
    for line in lines {
        mail.line(format!("Nov 23 12:00:00 mx {line}").as_bytes());
    }
    let show = |(sender, volume): (&Sender, &Volume)| {
        let Sender { client, helo, path } = sender;
        let domain = path.key().map(ToString::to_string).unwrap_or_default();
        format!("{client} {helo} {domain} {}/{}", volume.taken, volume.refused)
    };
    let mut senders: Vec<_> = mail.senders.iter().map(show).collect();
    senders.sort();
    (senders, mail.counts())
}

#[test]
fn a_message_is_counted_once_with_the_client_that_began_it() {
    let (senders, counts) = read_lines(&[
        "postfix/smtpd[1]: 4F2A1B3C01: client=a[192.0.2.1]",
        "postfix/smtpd[2]: 4F2A1B3C02: client=b[2001:db8::2]",
        "postfix/qmgr[9]: 4F2A1B3C02: from=<B@B.test>, size=1, nrcpt=1 (queue active)",
        "postfix/qmgr[9]: 4F2A1B3C01: from=<a@a.test>, size=1, nrcpt=1 (queue active)",
        // tried again: the same message
        "postfix/qmgr[9]: 4F2A1B3C01: from=<a@a.test>, size=1, nrcpt=1 (queue active)",
        // a short id is used again
        "postfix/smtpd[1]: 4F2A1B3C01: client=a[192.0.2.1]",
        "postfix/qmgr[9]: 4F2A1B3C01: from=<c@a.test>, size=1, nrcpt=1 (queue active)",
        // another instance has the same id
        "postfix-out/smtpd[1]: 4F2A1B3C02: client=c[192.0.2.3]",
        "postfix-out/qmgr[9]: 4F2A1B3C02: from=<>, size=1, nrcpt=1 (queue active)",
        // of its own
        "postfix/qmgr[9]: 4F2A1B3C09: from=<root@mx.test>, size=1, nrcpt=1 (queue active)",
    ]);
    assert_eq!(senders, ["192.0.2.1  a.test 2/0", "192.0.2.3   1/0", "2001:db8::2  b.test 1/0"]);
    assert_eq!(counts.messages, Volume { taken: 4, refused: 0 });
    assert_eq!(counts.null_sender, Volume { taken: 1, refused: 0 });
}

#[test]
fn the_recipients_of_a_refused_message_are_one_attempt() {
    let reject = |program: &str, client: &str, sender: &str| {
        format!(
            "{program}: NOQUEUE: reject: RCPT from {client}: 550 x; from=<{sender}> to=<u@x> proto=ESMTP helo=<H.test>"
        )
    };
    let lines = [
        "postfix/smtpd[1]: connect from a[192.0.2.1]".to_owned(),
        reject("postfix/smtpd[1]", "a[192.0.2.1]", "a@a.test"),
        reject("postfix/smtpd[1]", "a[192.0.2.1]", "a@a.test"),
        reject("postfix/smtpd[2]", "a[192.0.2.1]", "a@a.test"),
        reject("postfix/smtpd[1]", "a[192.0.2.1]", "b@a.test"),
        "postfix/smtpd[1]: disconnect from a[192.0.2.1]".to_owned(),
        "postfix/smtpd[1]: connect from a[192.0.2.1]".to_owned(),
        reject("postfix/smtpd[1]", "a[192.0.2.1]", "b@a.test"),
        reject("postfix/postscreen[3]", "[192.0.2.9]:1001", "c@c.test"),
        reject("postfix/postscreen[3]", "[192.0.2.9]:1001", "c@c.test"),
        reject("postfix/postscreen[3]", "[192.0.2.9]:1002", "c@c.test"),
        reject("postfix/smtpd[1]", "a[192.0.2.1]", "root"),
        reject("postfix/submission/smtpd[5]", "a[192.0.2.1]", "b@a.test"),
    ];
    let (senders, counts) = read_lines(&lines.each_ref().map(String::as_str));
    assert_eq!(
        senders,
        ["192.0.2.1 h.test  0/1", "192.0.2.1 h.test a.test 0/4", "192.0.2.9 h.test c.test 0/2"]
    );
    assert_eq!((counts.no_address, counts.null_sender), (Volume::default(), Volume::default()));
}

#[test]
fn mail_of_authenticated_users_and_from_a_filter_is_left_out() {
    let (senders, counts) = read_lines(&[
        "postfix/submission/smtpd[1]: 4F2A1B3C01: client=a[192.0.2.1]",
        "postfix/qmgr[9]: 4F2A1B3C01: from=<a@a.test>, size=1, nrcpt=1 (queue active)",
        "postfix/smtpd[1]: 4F2A1B3C02: client=a[192.0.2.1], sasl_method=PLAIN, sasl_username=a",
        "postfix/cleanup[4]: 4F2A1B3C02: milter-reject: END-OF-MESSAGE from a[192.0.2.1]: 5.7.1 no; from=<a@a.test> to=<b@b> proto=ESMTP helo=<x>",
        "postfix/smtpd[1]: 4F2A1B3C03: client=localhost[127.0.0.1], orig_client=a[192.0.2.1]",
        "postfix/qmgr[9]: 4F2A1B3C03: from=<a@a.test>, size=1, nrcpt=1 (queue active)",
        "postfix/smtpd[7]: connect from f[192.0.2.5]",
        "postfix/smtpd[7]: NOQUEUE: client=f[192.0.2.5]",
        "postfix/smtpd[7]: proxy-accept: END-OF-MESSAGE: 250 ok; from=<f@f.test> to=<b@b> proto=ESMTP helo=<f>",
        "postfix/smtpd[8]: NOQUEUE: client=g[192.0.2.6], sasl_username=g",
        "postfix/smtpd[8]: proxy-accept: END-OF-MESSAGE: 250 ok; from=<g@g.test> to=<b@b> proto=ESMTP helo=<g>",
    ]);
    assert_eq!(senders, ["192.0.2.5 f f.test 1/0"]);
    assert_eq!((counts.authenticated, counts.internal), (3, 1));
}

#[test]
fn a_message_refused_after_its_content_does_not_count_as_accepted() {
    let (senders, _) = read_lines(&[
        "postfix/smtpd[1]: 4F2A1B3C01: client=a[192.0.2.1]",
        "postfix/smtpd[1]: 4F2A1B3C01: reject: RCPT from a[192.0.2.1]: 550 x; from=<a@a.test> to=<c@d> proto=ESMTP helo=<h>",
        "postfix/cleanup[4]: 4F2A1B3C01: reject: header Subject: x from a[192.0.2.1]; from=<a@a.test> to=<b@b> proto=ESMTP helo=<x>: 5.7.1 no",
        "postfix/smtpd[2]: 4F2A1B3C02: client=a[192.0.2.1]",
        "postfix/cleanup[4]: 4F2A1B3C02: milter-reject: END-OF-MESSAGE from a[192.0.2.1]: 5.7.1 no; from=<a@a.test> to=<b@b> proto=ESMTP helo=<x>",
    ]);
    assert_eq!(senders, ["192.0.2.1 x a.test 0/2"]);
}

#[test]
fn unreadable_lines_are_counted_and_shown_escaped() {
    let mut mail = Mail::new(1000);
    mail.line(b"\x1b[2Jrubbish\xff");
    mail.line(b"Nov 23 12:00:00 mx sshd[1]: hello");
    mail.too_long(&[b'x'; 1000]);
    (0..10).for_each(|_| mail.line(b"more"));
    let counts = mail.counts();
    assert_eq!((counts.lines, counts.foreign, counts.postfix, counts.unreadable), (13, 1, 0, 12));
    assert_eq!(counts.unreadable_samples[0], "\\x1b[2Jrubbish\\xff");
    assert_eq!(counts.unreadable_samples[1].len(), 200);
    assert_eq!(counts.unreadable_samples.len(), 5);
}
