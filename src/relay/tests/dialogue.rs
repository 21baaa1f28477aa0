//! The commands and the message for a relay that works.

use crate::relay::HopReply;
use crate::relay::tests::script::{HELLO, ScriptedRelay};
use crate::relay::tests::{begin, begin_as, begin_with, client, deliver, permit, recipient, sender};
use crate::relay::{Capabilities, ClientIdentity, ClientInfo, ClientName, Envelope, Recipient, RelayError};
use crate::smtp::address::DomainName;
use crate::smtp::command::RcptParameters;

const XCLIENT: &str = "\
S 220 relay.test ESMTP
C EHLO gate.test
S 250-relay.test|250-SIZE 100000|250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN|250 8BITMIME";

fn wire(answer: &HopReply) -> String {
    let reply = &answer.reply;
    let mut wire = Vec::new();
    reply.write_to(&mut wire);
    String::from_utf8(wire).unwrap()
}

fn scripts(parts: &[&str]) -> [String; 1] {
    [parts.join("\n")]
}

#[tokio::test]
async fn the_message_is_sent_unchanged_however_it_is_split() {
    let message = b"Subject: x\r\n\r\n..stuffed\r\nend\r\n";
    let chunks: [Vec<&[u8]>; 4] =
        [vec![message], message.chunks(1).collect(), vec![&message[..12], b"", &message[12..]], vec![]];
    for pieces in chunks {
        let heard = if pieces.is_empty() { "M ." } else { "M Subject: x||..stuffed|end|." };
        let scripted = ScriptedRelay::play(&scripts(&[
            HELLO,
            "C MAIL FROM:<a@good.test>\nS 250 2.1.0 Ok\nC RCPT TO:<u@relay.test>\nS 250 2.1.5 Ok\nC DATA\nS 354 go",
            heard,
            "S 250 2.0.0 queued\nREST QUIT",
        ]))
        .await;
        assert_eq!(deliver(&scripted.relay(), &pieces).await, "END 250 2.0.0 queued");
        scripted.played().await;
    }
}

#[tokio::test]
async fn a_message_that_does_not_end_its_line_gets_no_dot() {
    let scripted = ScriptedRelay::play(&scripts(&[
        HELLO,
        "C MAIL FROM:<a@good.test>\nS 250 Ok\nC RCPT TO:<u@relay.test>\nS 250 Ok\nC DATA\nS 354 go",
        "REST",
    ]))
    .await;
    let reply = deliver(&scripted.relay(), &[b"half\r", b"\n", b"x\r\n.", b""]).await;
    assert!(reply.starts_with("END 451 4.4.2 "), "{reply}");
    scripted.played().await;
}

#[tokio::test]
async fn each_recipient_has_its_own_reply() {
    let scripted = ScriptedRelay::play(&scripts(&[
        HELLO,
        "C MAIL FROM:<>\nS 250 2.1.0 Ok",
        "C RCPT TO:<a@relay.test>\nS 250 2.1.5 Ok",
        "C RCPT TO:<b@relay.test>\nS 450-4.2.0 greylisted|450 4.2.0 for five minutes",
        "C RCPT TO:<\"c d\"@relay.test>\nS 251 2.1.5 will forward",
        "C RCPT TO:<Postmaster>\nS 550 5.1.1 \u{1b}[31munknown",
        "C DATA\nS 354 go\nM x|.\nS 250 2.0.0 queued\nREST QUIT",
    ]))
    .await;
    let client = &client();
    let relay = scripted.relay();
    let reverse_path = &sender("");
    let envelope = Envelope::new(client, reverse_path, "1");
    let paths = ["a@relay.test", "b@relay.test", "\"c d\"@relay.test", "Postmaster"].map(recipient);
    let first = Recipient::new(&paths[0]);
    let (mut transaction, reply) = relay.lease().begin(permit(), envelope, first).await.unwrap();
    let mut replies = vec![wire(&reply)];
    for path in &paths[1..] {
        replies.push(wire(&transaction.rcpt(permit(), Recipient::new(path)).await));
    }
    assert_eq!(
        replies,
        [
            "250 2.1.5 Ok\r\n",
            "450-4.2.0 greylisted\r\n450 4.2.0 for five minutes\r\n",
            "251 2.1.5 will forward\r\n",
            "550 5.1.1 ?[31munknown\r\n",
        ]
    );
    transaction.data().await.unwrap();
    transaction.write(b"x\r\n").await.unwrap();
    assert_eq!(transaction.finish(permit()).await.reply.code(), 250);
    scripted.played().await;
}

#[tokio::test]
async fn mail_has_only_parameters_that_the_relay_offers() {
    let rows = [
        ("SIZE 100000|250 8BITMIME", Some(4711), true, " SIZE=25191 BODY=8BITMIME"),
        ("SIZE|250 8BITMIME", Some(4711), false, " SIZE=25191"),
        ("SIZE 16000|250 8BITMIME", Some(4711), false, " SIZE=16000"),
        ("SIZE 4000|250 8BITMIME", Some(4711), false, " SIZE=4711"),
        ("SIZE 100000|250 8BITMIME", None, false, ""),
        ("SIZE 100000|250 DSN", Some(1), true, " SIZE=20481"),
        ("8BITMIME|250 DSN", Some(1), true, " BODY=8BITMIME"),
        ("PIPELINING|250 DSN", Some(1), true, ""),
    ];
    for (offered, size, eight_bit, parameters) in rows {
        let scripted = ScriptedRelay::play(&scripts(&[
            "S 220 relay.test ESMTP\nC EHLO gate.test",
            &format!("S 250-relay.test|250-{offered}"),
            &format!("C MAIL FROM:<a@good.test>{parameters}"),
            "S 250 2.1.0 Ok\nC RCPT TO:<u@relay.test>\nS 250 Ok\nC RSET\nS 250 Ok\nREST QUIT",
        ]))
        .await;
        let (client, reverse_path) = (&client(), &sender("a@good.test"));
        let envelope = Envelope { size, eight_bit, ..Envelope::new(client, reverse_path, "1") };
        let relay = scripted.relay();
        begin_with(&relay.lease(), envelope).await.unwrap().abandon().await;
        drop(relay);
        scripted.played().await;
    }
}

#[tokio::test]
async fn a_relay_without_ehlo_is_greeted_with_helo() {
    let scripted = ScriptedRelay::play(&scripts(&[
        "S 220 relay.test\nC EHLO gate.test\nS 502 what\nC HELO gate.test\nS 250 relay.test",
        "C MAIL FROM:<a@good.test>\nS 250 Ok\nC RCPT TO:<u@relay.test>\nS 250 Ok\nC RSET\nS 250 Ok\nREST QUIT",
    ]))
    .await;
    let relay = scripted.relay();
    begin(&relay).await.unwrap().abandon().await;
    assert_eq!(relay.capabilities(), Capabilities::default());
    drop(relay);
    scripted.played().await;
}

#[tokio::test]
async fn capabilities_follow_the_latest_greeting() {
    let hello = |keyword: &str| format!("S 220 relay.test\nC EHLO gate.test\nS 250-relay.test|250 {keyword}");
    let scripted = ScriptedRelay::play(&[
        format!("{}\nREST QUIT", hello("SIZE 1000")),
        format!("{}\nC MAIL FROM:<a@good.test>\nS 250 Ok\nC RCPT TO:<u@relay.test>\nS 250 Ok\nC RSET\nS 250 Ok\nREST QUIT", hello("SMTPUTF8")),
    ])
    .await;
    let relay = scripted.relay();
    assert!(relay.capabilities().eight_bit_mime, "not known yet");
    assert_eq!(relay.probe().await.unwrap().size, Some(1000));
    assert!(!relay.capabilities().eight_bit_mime);
    begin(&relay.clone()).await.unwrap().abandon().await;
    assert_eq!(relay.capabilities(), Capabilities { smtputf8: true, ..Capabilities::default() });
    drop(relay);
    scripted.played().await;
}

#[tokio::test]
async fn xclient_names_the_client() {
    let row = |address: &str, name, helo: &str, esmtp| ClientInfo {
        address: address.parse().unwrap(),
        name,
        helo: helo.into(),
        esmtp,
    };
    let rows = [
        (
            client(),
            "PROTO=ESMTP HELO=helo.good.test NAME=mx.good.test PORT=4321 ADDR=192.0.2.7",
            "EHLO helo.good.test",
        ),
        (
            row("[2001:db8::1]:25", ClientName::TempUnknown, "a b+c=\u{e9}\r\nDATA", true),
            "PROTO=ESMTP HELO=a+20b+2Bc+3D+C3+A9+0D+0ADATA NAME=[TEMPUNAVAIL] PORT=25 ADDR=IPV6:2001:db8::1",
            "EHLO a?b+c=???DATA",
        ),
        (
            row("[::ffff:192.0.2.7]:25", ClientName::Unknown, "", false),
            "PROTO=SMTP HELO=[UNAVAILABLE] NAME=[UNAVAILABLE] PORT=25 ADDR=192.0.2.7",
            "HELO gate.test",
        ),
    ];
    for (client, attributes, greeting) in rows {
        let scripted = ScriptedRelay::play(&scripts(&[
            XCLIENT,
            &format!("C XCLIENT {attributes}\nS 220 relay.test ESMTP"),
            &format!("C {greeting}\nS 250-relay.test|250 SIZE 5"),
            "C MAIL FROM:<a@good.test>\nS 250 Ok\nC RCPT TO:<u@relay.test>\nS 250 Ok\nC RSET\nS 250 Ok\nREST QUIT",
        ]))
        .await;
        let relay = scripted.relay();
        begin_as(&relay.lease(), &client).await.unwrap().abandon().await;
        assert_eq!(relay.capabilities().size, Some(100_000), "our clients are told what the relay offers us");
        scripted.played().await;
    }
}

#[tokio::test]
async fn mail_uses_the_extensions_that_the_relay_offers_after_xclient() {
    let scripted = ScriptedRelay::play(&scripts(&[
        XCLIENT,
        "C XCLIENT PROTO=ESMTP HELO=helo.good.test NAME=mx.good.test PORT=4321 ADDR=192.0.2.7\nS 220 relay.test",
        "C EHLO helo.good.test\nS 250-relay.test|250 SIZE",
        "C MAIL FROM:<a@good.test> SIZE=20487\nS 250 Ok\nC RCPT TO:<u@relay.test>\nS 250 Ok\nC RSET\nS 250 Ok\nREST QUIT",
    ]))
    .await;
    let (client, reverse_path) = (&client(), &sender("a@good.test"));
    let envelope = Envelope { size: Some(7), eight_bit: true, ..Envelope::new(client, reverse_path, "1") };
    begin_with(&scripted.relay().lease(), envelope).await.unwrap().abandon().await;
    scripted.played().await;
}

#[tokio::test]
async fn a_transaction_fails_if_xclient_fails() {
    for (answers, expected) in [
        ("S 550 5.7.0 Error: insufficient authorization\nREST QUIT", "451 4.4.1 "),
        ("S 250 Ok\nREST", "451 4.4.2 "),
        ("S 421 4.7.0 too many\nREST", "451 4.4.2 "),
        ("S 501 5.5.4 Bad PORT syntax\nREST QUIT", "451 4.4.1 "),
        (
            "S 220 hi\nC EHLO helo.good.test\nS 500 5.5.2 what\nC HELO helo.good.test\nS 502 5.5.2 what\nREST QUIT",
            "451 4.4.1 ",
        ),
        ("S 220 hi\nC EHLO helo.good.test\nS 421 4.7.1 not now\nREST", "451 4.4.2 "),
        ("S 220 hi", "451 4.4.2 "),
    ] {
        let heard = "C XCLIENT PROTO=ESMTP HELO=helo.good.test NAME=mx.good.test PORT=4321 ADDR=192.0.2.7";
        let scripted = ScriptedRelay::play(&scripts(&[XCLIENT, heard, answers])).await;
        let reply = begin(&scripted.relay()).await.unwrap_err();
        assert!(reply.to_string().starts_with(expected), "{answers}: {reply}");
        scripted.played().await;
    }
}

#[tokio::test]
async fn a_refusal_is_passed_to_the_client_only_after_xclient() {
    const REFUSED: &str = "554 5.7.1 <mx.good.test[192.0.2.7]>: Client host rejected: Access denied";
    const HELO: &str = "550 5.7.1 <helo.good.test>: Helo command rejected: Access denied";
    const LATER: &str = "450 4.7.1 <helo.good.test>: Helo command rejected: Host not found";
    const SHORT: &str = "504 5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname";
    let named = |helo: &str| ClientInfo { helo: helo.into(), ..client() };
    let xclient = |helo: &str| {
        format!("{XCLIENT}\nC XCLIENT PROTO=ESMTP HELO={helo} NAME=mx.good.test PORT=4321 ADDR=192.0.2.7")
    };
    let greeting = |helo: &str, said: &str| format!("S 220 relay.test\nC EHLO {helo}\nS {said}");
    // sent as two XCLIENT commands
    let long = ClientInfo {
        name: ClientName::Confirmed(DomainName::parse(&vec!["n".repeat(60); 4].join(".")).unwrap()),
        ..named(&"x".repeat(255))
    };
    let rows = [
        (named("helo.good.test"), format!("{}\nS {REFUSED}", xclient("helo.good.test")), REFUSED),
        (
            named("helo.good.test"),
            format!(
                "{}\n{}\nC HELO helo.good.test\nS {HELO}",
                xclient("helo.good.test"),
                greeting("helo.good.test", HELO)
            ),
            HELO,
        ),
        (
            named("helo.good.test"),
            format!("{}\n{}", xclient("helo.good.test"), greeting("helo.good.test", LATER)),
            LATER,
        ),
        (
            named("localhost"),
            format!(
                "{}\n{}\nC HELO localhost\nS {SHORT}",
                xclient("localhost"),
                greeting("localhost", SHORT)
            ),
            SHORT,
        ),
        // the command is not in the client's own words
        (
            named("a b"),
            format!("{}\n{}\nC HELO a?b\nS {SHORT}", xclient("a+20b"), greeting("a?b", SHORT)),
            "451 4.4.1 ",
        ),
        // in front of XCLIENT, or in the first of two commands, we are the client
        (named("helo.good.test"), format!("S {REFUSED}"), "451 4.4.1 "),
        (
            named("helo.good.test"),
            format!("S 220 relay.test\nC EHLO gate.test\nS {HELO}\nC HELO gate.test\nS {HELO}"),
            "451 4.4.1 ",
        ),
        (
            long.clone(),
            format!("{XCLIENT}\nC XCLIENT PROTO=ESMTP HELO={}\nS {REFUSED}", long.helo),
            "451 4.4.1 ",
        ),
    ];
    for (client, script, expected) in rows {
        let at_the_banner = script.lines().count() == 1;
        let script = format!("{script}\nREST{}", if at_the_banner { "" } else { " QUIT" });
        let scripted = ScriptedRelay::play(std::slice::from_ref(&script)).await;
        let reply = begin_as(&scripted.relay().lease(), &client).await.unwrap_err();
        assert!(reply.to_string().starts_with(expected), "{script}: {reply}");
        scripted.played().await;
    }
}

#[tokio::test]
async fn where_xclient_is_needed_and_missing_nothing_is_sent() {
    let without_address = "\
S 220 relay.test ESMTP
C EHLO gate.test
S 250-relay.test|250 XCLIENT NAME PROTO HELO";
    for hello in [HELLO, without_address] {
        for (identity, required) in
            [(ClientIdentity::Auto, true), (ClientIdentity::None, true), (ClientIdentity::Xclient, false)]
        {
            let script = format!("{hello}\nREST QUIT");
            let scripted = ScriptedRelay::play(&[script.clone(), script]).await;
            let relay = scripted.relay_with(|settings| {
                settings.identity = identity;
                settings.xclient_required = required;
            });
            assert!(matches!(relay.probe().await, Err(RelayError::NoXclient)));
            let reply = begin(&relay).await.unwrap_err();
            assert!(reply.to_string().starts_with("451 4.4.1 "), "{reply}");
            scripted.played().await;
        }
    }
}

#[tokio::test]
async fn xclient_is_used_only_where_it_is_wanted_and_offered() {
    for (identity, hello) in [(ClientIdentity::Auto, HELLO), (ClientIdentity::None, XCLIENT)] {
        let scripted =
            ScriptedRelay::play(&scripts(&[hello, "C MAIL FROM:<a@good.test>\nS 250 Ok\nC RCPT TO:<u@relay.test>\nS 250 Ok\nC RSET\nS 250 Ok\nREST QUIT"])).await;
        let relay = scripted.relay_with(|settings| settings.identity = identity);
        begin(&relay).await.unwrap().abandon().await;
        drop(relay);
        scripted.played().await;
    }
}

#[tokio::test]
async fn dropped_or_abandoned_within_the_message_the_connection_closes_without_a_dot() {
    for abandon in [true, false] {
        let scripted = ScriptedRelay::play(&scripts(&[
            HELLO,
            "C MAIL FROM:<a@good.test>\nS 250 Ok\nC RCPT TO:<u@relay.test>\nS 250 Ok\nC DATA\nS 354 go",
            "TAKE 18000\nREST",
        ]))
        .await;
        let mut transaction = begin(&scripted.relay()).await.unwrap();
        transaction.data().await.unwrap();
        transaction.write(&b"half\r\n".repeat(3000)).await.unwrap();
        if abandon {
            transaction.abandon().await;
        } else {
            drop(transaction);
        }
        scripted.played().await;
    }
}

#[tokio::test]
async fn notification_parameters_go_on_only_where_the_relay_offers_dsn() {
    let rows = [
        ("DSN", " RET=HDRS ENVID=QQ+2B314159", " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;u+2Bv@relay.test"),
        ("SIZE", "", ""),
    ];
    for (offered, of_mail, of_rcpt) in rows {
        let scripted = ScriptedRelay::play(&scripts(&[
            "S 220 relay.test ESMTP\nC EHLO gate.test",
            &format!("S 250-relay.test|250 {offered}"),
            &format!("C MAIL FROM:<a@good.test>{of_mail}\nS 250 Ok"),
            &format!("C RCPT TO:<u@relay.test>{of_rcpt}\nS 250 Ok"),
            "C RCPT TO:<v@relay.test>\nS 250 Ok\nC RSET\nS 250 Ok\nREST QUIT",
        ]))
        .await;
        let (client, reverse_path) = (&client(), &sender("a@good.test"));
        let envelope = Envelope {
            ret: Some("HDRS"),
            envid: Some("QQ+2B314159"),
            ..Envelope::new(client, reverse_path, "1")
        };
        let parameters = RcptParameters {
            notify: Some("SUCCESS,FAILURE".into()),
            orcpt: Some("rfc822;u+2Bv@relay.test".into()),
            utf8: false,
        };
        let (first, second) = (recipient("u@relay.test"), recipient("v@relay.test"));
        let first = Recipient { path: &first, parameters: &parameters };
        let (mut transaction, reply) =
            scripted.relay().lease().begin(permit(), envelope, first).await.unwrap();
        assert!(reply.is_positive());
        assert!(transaction.rcpt(permit(), Recipient::new(&second)).await.is_positive());
        transaction.abandon().await;
        scripted.played().await;
    }
}

#[tokio::test]
async fn smtputf8_is_a_parameter_of_mail_or_the_transaction_fails() {
    for (offered, rest) in [
        (
            "SMTPUTF8",
            "C MAIL FROM:<a@good.test> SMTPUTF8\nS 250 Ok\nC RCPT TO:<u@relay.test>\nS 250 Ok\nC RSET\nS 250 Ok\nREST QUIT",
        ),
        ("DSN", "REST QUIT"),
    ] {
        let scripted = ScriptedRelay::play(&scripts(&[
            "S 220 relay.test ESMTP\nC EHLO gate.test",
            &format!("S 250-relay.test|250 {offered}"),
            rest,
        ]))
        .await;
        let (client, reverse_path) = (&client(), &sender("a@good.test"));
        let envelope = Envelope { smtputf8: true, ..Envelope::new(client, reverse_path, "1") };
        match begin_with(&scripted.relay().lease(), envelope).await {
            Ok(transaction) => {
                assert_eq!(offered, "SMTPUTF8");
                transaction.abandon().await;
            }
            Err(reply) => assert!(reply.to_string().starts_with("451 4.6.7 "), "{reply}"),
        }
        scripted.played().await;
    }
}
