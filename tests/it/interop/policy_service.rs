//! A stock Postfix that asks rmxd as a policy service, with the lines of the guide.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::beside_postfix::{EXCHANGER, Site, without_id};
use super::mail;
use crate::support::client::Client;
use crate::support::process::{SOON, eventually};

const DRAIN: &str = "20s";

/// The reply to RCPT without its id, in a session of its own.
async fn rcpt_of(site: &Site, sender: &str, recipient: &str) -> String {
    rcpt(&mut site.client(EXCHANGER).await, sender, recipient).await
}

/// The reply to RCPT without its id; the transaction is reset.
async fn rcpt(client: &mut Client, sender: &str, recipient: &str) -> String {
    assert_eq!(client.command(&format!("MAIL FROM:<{sender}>")).await.code, 250);
    let reply = client.command(&format!("RCPT TO:<{recipient}>")).await;
    assert_eq!(client.command("RSET").await.code, 250);
    without_id(&reply.text)
}

fn id(text: &str) -> &str {
    text.split_once(" (id ").and_then(|(_, id)| id.split_once(')')).expect("an id").0
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_carries_out_each_verdict() {
    let Some(site) = Site::with_policy_service(|guide| guide) else { return };
    let rmxd = site.rmxd(&[]).await;
    let refused = |sender: &str, text: &str| format!("<{sender}>: Sender address rejected: {text}");
    let rows = [
        ("a@nowhere.test", "user@relay.test", "550 5.1.8 ", "nowhere.test does not exist"),
        ("a@nomx.test", "user@relay.test", "550 5.1.8 ", "nomx.test has no MX record"),
        ("a@broken.test", "user@relay.test", "450 4.4.3 ", "broken.test can't be looked up now"),
    ];
    for (sender, recipient, code, text) in rows {
        let expected = format!("{code}{}", refused(sender, text));
        assert_eq!(rcpt_of(&site, sender, recipient).await, expected);
    }
    // What a restriction of Postfix refuses for good stays refused for good. It looks for unknown users last.
    let unknown = rcpt_of(&site, "a@broken.test", "nobody@relay.test").await;
    assert!(unknown.starts_with("450 4.4.3 <a@broken.test>: Sender address rejected"), "{unknown}");
    let relaying = rcpt_of(&site, "a@broken.test", "user@elsewhere.test").await;
    assert!(relaying.starts_with("554 5.7.1 <user@elsewhere.test>: Relay access denied"), "{relaying}");

    for (sender, number) in [("a@good.test", 1), ("", 2)] {
        let message = mail::message(number, 1000);
        let reply = site.client(EXCHANGER).await.deliver(sender, "user@relay.test", &message).await;
        assert_eq!(reply.code, 250, "{}", reply.text);
    }
    site.postfix.wait_for_messages("user", 2, SOON).await;
    let log = rmxd.logged_times("outcome=passed", 2).await;
    let events: Vec<_> = log.lines().filter(|line| line.contains("rmxd::decision")).collect();
    assert!(events.iter().all(|line| line.contains("door=policy")), "{events:#?}");
    let good = events.iter().find(|line| line.contains("mail_from=<a@good.test>")).unwrap();
    for part in ["verdict=accept", "outcome=passed", "client=127.0.0.10", "rcpt=user@relay.test"] {
        assert!(good.contains(part), "{part}: {good}");
    }
    assert_eq!(events.iter().filter(|line| line.contains("outcome=refused")).count(), 5, "{events:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_of_a_message_have_one_id_and_are_greylisted_each_for_itself() {
    // Asked twice for each recipient, and for the queue file once more.
    let check = "check_policy_service { unix:rmxd/policy, timeout=30s, default_action=DUNNO }";
    let twice = format!("smtpd_recipient_restrictions = {check}\nsmtpd_data_restrictions = {check}\n");
    let Some(site) = Site::with_policy_service(|guide| guide + &twice) else { return };
    let greylist = ["--set", "policy.mail_from.exists=greylist", "--set", "greylist.delay=2s"];
    let rmxd = site.rmxd(&greylist).await;
    let mut client = site.client(EXCHANGER).await;
    assert_eq!(client.command("MAIL FROM:<a@nomx.test>").await.code, 250);
    let one = client.command("RCPT TO:<user@relay.test>").await.text;
    let two = client.command("RCPT TO:<other@relay.test>").await.text;
    let expected = "450 4.7.1 <a@nomx.test>: Sender address rejected: nomx.test is greylisted, try again in ";
    assert!(one.starts_with(expected) && two.starts_with(expected), "{one}\n{two}");
    assert_eq!(id(&one), id(&two));
    let log = rmxd.settled("reason=greylisted", 2).await;
    assert_eq!(log.matches("reason=greylisted").count(), 2, "one for each recipient: {log}");
    assert_eq!(client.command("RSET").await.code, 250);

    // A third recipient comes for the first time, with the others' second.
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert_eq!(client.command("MAIL FROM:<a@nomx.test>").await.code, 250);
    for (recipient, code) in [("user", 250), ("other", 250), ("user+more", 450)] {
        let reply = client.command(&format!("RCPT TO:<{recipient}@relay.test>")).await;
        assert_eq!(reply.code, code, "{}", reply.text);
    }
    assert_eq!(client.command("DATA").await.code, 354);
    client.send(b"From: a@nomx.test\r\n\r\n.\r\n").await;
    assert_eq!(client.reply().await.code, 250);
    assert_eq!(client.command("QUIT").await.code, 221);
    for user in ["user", "other"] {
        site.postfix.wait_for_messages(user, 1, SOON).await;
    }
    let log = rmxd.logged("outcome=passed").await;
    let line = log.lines().find(|line| line.contains("outcome=passed")).unwrap();
    assert!(line.contains("rcpts=2"), "{line}");
    let queue = line.split_once(" queue=").unwrap().1.split(' ').next().unwrap();
    site.postfix.logged(&format!(": {queue}: client=unknown[127.0.0.10]")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_has_logged_in_is_exempt_and_monitor_refuses_nothing() {
    // Postfix would not even ask.
    let without_permit = |guide: String| {
        assert!(guide.contains("  permit_sasl_authenticated\n"), "{guide}");
        guide.replace("  permit_sasl_authenticated\n", "")
    };
    let Some(site) = Site::with_policy_service(without_permit) else { return };
    let mut rmxd = site.rmxd(&[]).await;
    let mut gateway = Client::greeted(Ipv4Addr::LOCALHOST.into(), site.postfix.address(), "gw.test").await;
    let taken = gateway.command("XCLIENT ADDR=127.0.0.10 PORT=40001 LOGIN=ann").await;
    assert_eq!(taken.code, 220, "{}", taken.text);
    assert_eq!(gateway.command("EHLO laptop.nowhere.test").await.code, 250);
    assert_eq!(rcpt(&mut gateway, "a@nowhere.test", "user@relay.test").await, "250 2.1.5 Ok");
    let refused = "550 5.1.8 <a@nowhere.test>: Sender address rejected: nowhere.test does not exist";
    let mut client = site.client(EXCHANGER).await;
    assert_eq!(rcpt(&mut client, "a@nowhere.test", "user@relay.test").await, refused);

    // In effect at once, for a session and a connection that stand.
    let text = fs::read_to_string(rmxd.home().file()).unwrap();
    rmxd.home().configure(&text.replace("enforce", "monitor"));
    rmxd.reload().await;
    assert_eq!(rcpt(&mut client, "a@nowhere.test", "user@relay.test").await, "250 2.1.5 Ok");
    rmxd.home().configure(&text);
    rmxd.reload().await;
    assert_eq!(rcpt(&mut client, "a@nowhere.test", "user@relay.test").await, refused);
    let log = rmxd.whole_log().await;
    assert!(log.contains("verdict=reject outcome=passed mode=monitor"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_a_second_for_postfix_and_without_rmxd_mail_goes_on() {
    let Some(site) = Site::with_policy_service(|guide| guide) else { return };
    let rmxd = site.rmxd(&["--drain", DRAIN]).await;
    let refused = "550 5.1.8 <a@nowhere.test>: Sender address rejected: nowhere.test does not exist";
    let mut client = site.client(EXCHANGER).await;
    assert_eq!(rcpt(&mut client, "a@nowhere.test", "user@relay.test").await, refused);

    // Postfix holds its connection, which doesn't keep rmxd from ending.
    let began = tokio::time::Instant::now();
    let home = rmxd.terminate().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}: the drain time is {DRAIN}", began.elapsed());
    assert!(!site.socket().exists());
    let rmxd = site.rmxd_at(home, &["--drain", DRAIN]).await;
    assert_eq!(rcpt(&mut client, "a@nowhere.test", "user@relay.test").await, refused);

    // Killed, so that the socket stays behind.
    rmxd.signal("KILL");
    let mut rmxd = rmxd;
    rmxd.ended(SOON).await;
    assert!(site.socket().exists());
    assert_eq!(rcpt(&mut client, "a@nowhere.test", "user@relay.test").await, "250 2.1.5 Ok");
    site.postfix.logged("warning: connect to").await;
    let rmxd = site.rmxd_at(rmxd.into_home(), &["--drain", DRAIN]).await;
    let judged_again = || rmxd.log().contains("listening").then_some(());
    eventually("rmxd", SOON, judged_again).await;
    assert_eq!(rcpt(&mut client, "a@nowhere.test", "user@relay.test").await, refused);
}
