//! A stock Postfix with rmxd as its milter, with the lines of the guide.

mod recorded;

use super::beside_postfix::{EXCHANGER, STRANGER, Site};
use crate::support::process::{SOON, eventually};

const OURS: &str = "Authentication-Results: mx.example.com;";

#[tokio::test(flavor = "multi_thread")]
async fn postfix_has_the_reply_of_rmxd_to_the_letter_at_each_stage() {
    let Some(site) = Site::with_milter(|guide| guide) else { return };
    let rmxd = site.rmxd(&[]).await;
    let from = |author: &str| format!("From: {author}\r\nSubject: x\r\n\r\nHello\r\n");
    let rows = [
        (
            EXCHANGER,
            "a@nowhere.test",
            from("a@nowhere.test"),
            "550 5.1.8 <a@nowhere.test>: nowhere.test does not exist",
        ),
        (
            EXCHANGER,
            "a@nomx.test",
            from("a@nomx.test"),
            "550 5.1.8 <a@nomx.test>: nomx.test has no MX record",
        ),
        (
            EXCHANGER,
            "a@null-mx.test",
            from("a@good.test"),
            "550 5.7.27 <a@null-mx.test>: null-mx.test has a null MX and takes no mail",
        ),
        (
            EXCHANGER,
            "a@broken.test",
            from("a@good.test"),
            "451 4.4.3 <a@broken.test>: broken.test can't be looked up now",
        ),
        (
            EXCHANGER,
            "a@good.test",
            from("b@nowhere.test"),
            "550 5.7.1 <b@nowhere.test>: nowhere.test does not exist",
        ),
        (EXCHANGER, "a@good.test", "Subject: x\r\n\r\nHello\r\n".to_owned(), "550 5.6.0 "),
        (
            STRANGER,
            "a@good.test",
            from("service@treasury.test"),
            "550 5.7.1 <service@treasury.test>: treasury.test asks to reject mail that neither its SPF nor its DKIM vouches for",
        ),
    ];
    for (client, sender, message, expected) in rows {
        let reply = site.send(client, sender, &message).await;
        assert!(reply.starts_with(expected), "{sender} {message:?}: {reply}");
    }
    let log = rmxd.settled("outcome=refused", 7).await;
    assert_eq!(log.matches("door=milter").count(), 7, "{log}");
    assert!(site.postfix.mailbox("user").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_has_our_results_in_front_and_no_forged_ones() {
    let Some(site) = Site::with_milter(|guide| guide) else { return };
    let rmxd = site.rmxd(&[]).await;
    let forged = "Authentication-Results: mx.example.com; dmarc=pass header.from=bank.test\r\n\
                  authentication-results : MX.Example.COM;\r\n\tspf=pass smtp.mailfrom=bank.test\r\n\
                  Authentication-Results: mx.other.test; spf=pass smtp.mailfrom=good.test\r\n";
    let header =
        "From: a@good.test\r\nTo: user@relay.test\r\nSubject:  two  blanks\r\n\tfolded\r\nX-Odd:none\r\n";
    let message = format!("{forged}{header}\r\nHello\r\n.\u{e4}\r\n");
    let reply = site.send(EXCHANGER, "a@good.test", &message).await;
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    let text = site.delivered(1).await.remove(0);
    assert_eq!(text.matches("mx.example.com").count(), 1, "{text}");
    assert!(!text.contains("MX.Example") && text.contains("mx.other.test; spf=pass"), "{text}");
    let results = text.replace("\n\t", " ");
    let ours = results.find(OURS).unwrap();
    assert!(
        ours < results.find("From: a@good.test").unwrap() && ours < results.find("mx.other.test;").unwrap(),
        "{text}"
    );
    for part in [
        "x-reverse-mx=pass (mx) smtp.mailfrom=good.test",
        "x-reverse-mx=pass (mx) header.from=good.test",
        "iprev=pass policy.iprev=127.0.0.10",
    ] {
        assert!(results.contains(part), "{part}: {text}");
    }
    // All else is as it came.
    let unix = |text: &str| text.replace("\r\n", "\n");
    assert!(text.contains(&unix(header)) && text.ends_with("Hello\n.\u{e4}\n"), "{text}");
    let log = rmxd.logged("outcome=passed").await;
    let line = log.lines().find(|line| line.contains("outcome=passed")).unwrap();
    let queue = line.split_once(" queue=").unwrap().1.split(' ').next().unwrap();
    site.postfix.logged(&format!(": {queue}: client=")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_messages_and_recipients_share_a_session() {
    let Some(site) = Site::with_milter(|guide| guide) else { return };
    let rmxd = site.rmxd(&[]).await;
    let mut client = site.client(EXCHANGER).await;
    for number in 0..3 {
        let reply = client.command("MAIL FROM:<a@nowhere.test>").await;
        assert_eq!(reply.code, 250, "{}", reply.text);
        assert_eq!(client.command("RCPT TO:<user@relay.test>").await.code, 550);
        assert_eq!(client.command("RSET").await.code, 250);
        assert_eq!(client.command("MAIL FROM:<a@good.test>").await.code, 250);
        for recipient in ["user@relay.test", "other@relay.test"] {
            assert_eq!(client.command(&format!("RCPT TO:<{recipient}>")).await.code, 250);
        }
        assert_eq!(client.command("DATA").await.code, 354);
        let message =
            format!("From: a@good.test\r\nSubject: {number}\r\n\r\n{}.\r\n", "Hello\r\n".repeat(20_000));
        client.send(message.as_bytes()).await;
        let reply = client.reply().await;
        assert_eq!(reply.code, 250, "{}", reply.text);
    }
    assert_eq!(client.command("QUIT").await.code, 221);
    assert_eq!(site.delivered(3).await.len(), 3);
    site.postfix.wait_for_messages("other", 3, SOON).await;
    let log = rmxd.logged_times("outcome=passed", 3).await;
    assert_eq!(log.matches("rcpts=2").count(), 3, "{log}");
    assert_eq!(log.matches("outcome=refused").count(), 3, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_rmxd_is_away_mail_waits_and_nothing_is_refused_for_good() {
    let Some(site) = Site::with_milter(|guide| guide) else { return };
    let rmxd = site.rmxd(&[]).await;
    let message = "From: a@good.test\r\nSubject: x\r\n\r\nHello\r\n";
    assert!(site.send(EXCHANGER, "a@good.test", message).await.starts_with("250 "));

    // Killed within a message.
    let mut client = site.client(EXCHANGER).await;
    for line in ["MAIL FROM:<a@good.test>", "RCPT TO:<user@relay.test>"] {
        assert_eq!(client.command(line).await.code, 250);
    }
    rmxd.signal("KILL");
    let mut rmxd = rmxd;
    rmxd.ended(SOON).await;
    assert_eq!(client.command("DATA").await.code / 100, 4, "or at its end");
    let reply = site.send(EXCHANGER, "a@good.test", message).await;
    assert!(reply.starts_with("451 ") || reply.starts_with("450 "), "{reply}");
    let reply = site.send(EXCHANGER, "a@nowhere.test", message).await;
    assert!(reply.starts_with("451 ") || reply.starts_with("450 "), "{reply}");

    let rmxd = site.rmxd_at(rmxd.into_home(), &[]).await;
    let listens = || rmxd.log().contains("listening").then_some(());
    eventually("rmxd", SOON, listens).await;
    assert!(site.send(EXCHANGER, "a@good.test", message).await.starts_with("250 "));
    assert!(site.send(EXCHANGER, "a@nowhere.test", message).await.starts_with("550 5.1.8 "));
    assert_eq!(site.delivered(2).await.len(), 2);
}
