//! kill -9 at every event of a session, and what Postfix's clients get until rmxd is there again.

use std::time::Duration;

use super::tap::{Hold, Tap};
use super::{BAD, GOOD, bad, each_came_once, good, is_well, message, session};
use crate::interop::beside_postfix::{EXCHANGER, Site, without_id};
use crate::support::daemon::Home;
use crate::support::process::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn at_each_event_of_a_milter_session_mail_waits_and_comes_once() {
    let Some(site) = Site::with_milter(|guide| guide) else { return };
    let slow = "b@slow.test"; // its name servers take half a second
    let rows = [
        (Hold::Event('O', 1), GOOD),
        (Hold::Event('C', 1), GOOD),
        (Hold::Event('H', 1), GOOD),
        (Hold::Event('M', 1), GOOD),
        (Hold::Event('R', 1), GOOD),
        (Hold::Event('T', 1), GOOD),
        (Hold::Event('L', 2), GOOD),
        (Hold::Event('N', 1), GOOD),
        (Hold::Event('B', 1), GOOD),
        (Hold::Event('E', 1), GOOD),
        (Hold::Answer('C', 0), GOOD),
        (Hold::Answer('R', 0), GOOD),
        (Hold::Answer('N', 0), slow),
        (Hold::Answer('E', 0), GOOD),
        (Hold::Answer('E', 20), GOOD),
    ];
    let behind = site.socket().with_file_name("behind");
    let text = std::fs::read_to_string(site.home().file()).unwrap().replace("rmxd/milter\"", "rmxd/behind\"");
    let mut home = Home::with(&text);
    for (row, (hold, author)) in rows.into_iter().enumerate() {
        let number = row + 1;
        let tap = Tap::start(site.socket(), behind.clone());
        let mut rmxd = site.rmxd_at(home, &[]).await;
        if row > 0 {
            is_well(&site, row).await; // the sender tries again
        }
        let held = tap.hold(hold);
        let (address, text) = (site.postfix.address(), message(number, author));
        let trying = tokio::spawn(async move { session(address, GOOD, &text).await });
        tokio::time::timeout(SOON, held).await.unwrap().unwrap();
        rmxd.signal("KILL");
        rmxd.ended(SOON).await;
        drop(tap);
        let reply = trying.await.unwrap();
        assert!(reply.is_transient(), "{hold:?}: {}", reply.text);
        for reply in [good(&site, number).await, bad(&site).await] {
            assert!(reply.text.starts_with("451 4.7.1 "), "{hold:?}: {}", reply.text);
        }
        home = rmxd.into_home();
    }
    let _tap = Tap::start(site.socket(), behind);
    let mut rmxd = site.rmxd_at(home, &[]).await;
    is_well(&site, rows.len()).await;

    // Between two messages of a session.
    let mut client = site.client(EXCHANGER).await;
    for (number, expected) in [(rows.len() + 1, "250 2.0.0 "), (rows.len() + 2, "451 4.7.1 ")] {
        let reply = client.deliver(GOOD, "user@relay.test", message(number, GOOD).as_bytes()).await;
        assert!(reply.text.starts_with(expected), "{}", reply.text);
        rmxd.signal("KILL");
        rmxd.ended(SOON).await;
        rmxd = site.rmxd_at(rmxd.into_home(), &[]).await;
    }
    is_well(&site, rows.len() + 2).await;
    each_came_once(&site, rows.len() + 2).await;
}

/// rmxd is killed before the request, while it asks DNS, and between two recipients. `default_action` makes the reply
/// to the recipient that is asked about then, which must begin as `expected`.
async fn at_each_request(default_action: &str, expected: &str) {
    let action = format!("default_action={default_action}");
    let Some(site) = Site::with_policy_service(|guide| {
        assert!(guide.contains("default_action=DUNNO"), "{guide}");
        guide.replace("default_action=DUNNO", &action)
    }) else {
        return;
    };
    let mut home = site.home();
    let rows = [("before", GOOD), ("during", "a@slow.test"), ("between", GOOD)];
    for (row, (when, sender)) in rows.into_iter().enumerate() {
        let mut rmxd = site.rmxd_at(home, &[]).await;
        let mut client = site.client(EXCHANGER).await;
        // Postfix is connected.
        client
            .talk(&[("MAIL FROM:<a@nowhere.test>", "250"), ("RCPT TO:<user@relay.test>", "550 5.1.8 ")])
            .await;
        client.talk(&[("RSET", "250"), (&format!("MAIL FROM:<{sender}>"), "250")]).await;
        if when == "between" {
            client.talk(&[("RCPT TO:<other@relay.test>", "250")]).await;
        }
        if when == "during" {
            client.send("RCPT TO:<user@relay.test>\r\n").await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            rmxd.signal("KILL");
        } else {
            rmxd.signal("KILL");
            client.send("RCPT TO:<user@relay.test>\r\n").await;
        }
        rmxd.ended(SOON).await;
        let reply = client.reply().await;
        assert!(reply.text.starts_with(expected), "{when}: {}", reply.text);
        if reply.code == 250 || when == "between" {
            client.talk(&[("DATA", "354")]).await;
            client.send(message(row + 1, sender) + ".\r\n").await;
            assert_eq!(client.reply().await.code, 250);
        }
        client.talk(&[("QUIT", "221")]).await;
        let mut window = site.client(EXCHANGER).await;
        window.talk(&[(&format!("MAIL FROM:<{BAD}>"), "250")]).await;
        window.talk(&[("RCPT TO:<user@relay.test>", expected), ("QUIT", "221")]).await;
        home = rmxd.into_home();
        let rmxd = site.rmxd_at(home, &[]).await;
        if reply.code != 250 {
            let reply = session(site.postfix.address(), sender, &message(row + 1, sender)).await;
            assert_eq!(reply.code, 250, "{when}: {}", reply.text);
        }
        let refused = without_id(&bad(&site).await.text);
        assert_eq!(
            refused,
            "550 5.1.8 <a@nowhere.test>: Sender address rejected: nowhere.test does not exist"
        );
        home = rmxd.terminate().await;
    }
    each_came_once(&site, rows.len()).await;
    assert_eq!(site.postfix.mailbox("other").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_each_request_of_the_policy_service_mail_passes_unjudged_with_dunno() {
    at_each_request("DUNNO", "250 2.1.5 ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_each_request_of_the_policy_service_mail_waits_with_defer_if_permit() {
    at_each_request("DEFER_IF_PERMIT", "450 4.").await;
}
