//! SIGSTOP and SIGCONT: rmxd is there and says nothing. The time-outs of Postfix are shorter here than in the guide.

use std::time::Duration;

use super::{GOOD, bad, each_came_once, good, in_the_middle, is_well, message, other_half};
use crate::interop::beside_postfix::{EXCHANGER, Site};

#[tokio::test(flavor = "multi_thread")]
async fn a_milter_that_says_nothing_is_a_temporary_failure_after_the_time_out_and_goes_on_later() {
    let short = |guide: String| {
        assert!(guide.contains("connect_timeout=5s"), "{guide}");
        guide.replace("connect_timeout=5s", "connect_timeout=5s, command_timeout=2s, content_timeout=2s")
    };
    let Some(site) = Site::with_milter(short) else { return };
    let rmxd = site.rmxd(&[]).await;

    // Within the time-outs nothing is lost.
    let mut middle = in_the_middle(&site, 1).await;
    rmxd.signal("STOP");
    let (reply, ()) = tokio::join!(other_half(&mut middle), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        rmxd.signal("CONT");
    });
    assert_eq!(reply.code, 250, "{}", reply.text);

    // Past them: at the connection, at a command, at the end of the message.
    let mut before_rcpt = site.client(EXCHANGER).await;
    before_rcpt.talk(&[("MAIL FROM:<a@good.test>", "250")]).await;
    let mut before_end = in_the_middle(&site, 4).await;
    rmxd.signal("STOP");
    let (new, refused, rcpt, end) = tokio::join!(
        good(&site, 2),
        bad(&site),
        before_rcpt.command("RCPT TO:<user@relay.test>"),
        other_half(&mut before_end)
    );
    for reply in [new, refused, rcpt, end] {
        assert!(reply.text.starts_with("451 4.7.1 "), "{}", reply.text);
    }
    rmxd.signal("CONT");
    for client in [&mut before_rcpt, &mut before_end] {
        // Postfix has given up the milter of this session.
        client.talk(&[("RSET", "250"), ("MAIL FROM:<a@good.test>", "451 4.7.1 "), ("QUIT", "221")]).await;
    }
    for number in 2..=4 {
        is_well(&site, number).await;
    }
    each_came_once(&site, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_service_that_says_nothing_is_left_to_default_action_and_goes_on_later() {
    let short = |guide: String| {
        assert!(guide.contains("timeout=30s"), "{guide}");
        guide.replace("timeout=30s", "timeout=2s")
    };
    let Some(site) = Site::with_policy_service(short) else { return };
    let rmxd = site.rmxd(&[]).await;
    let mut client = site.client(EXCHANGER).await;
    let nowhere = [("MAIL FROM:<a@nowhere.test>", "250"), ("RCPT TO:<user@relay.test>", "550 5.1.8 ")];
    client.talk(&nowhere).await;
    client.talk(&[("RSET", "250"), nowhere[0]]).await;

    // Within the time-out the request is answered.
    rmxd.signal("STOP");
    let (reply, ()) = tokio::join!(client.command(nowhere[1].0), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        rmxd.signal("CONT");
    });
    assert!(reply.text.starts_with(nowhere[1].1), "{}", reply.text);

    // Past it twice, Postfix does as the guide says: mail goes on unjudged.
    client.talk(&[("RSET", "250"), (&format!("MAIL FROM:<{GOOD}>"), "250")]).await;
    rmxd.signal("STOP");
    let mut other = site.client(EXCHANGER).await;
    other.talk(&nowhere[..1]).await;
    let (reply, unjudged) = tokio::join!(client.command(nowhere[1].0), other.command(nowhere[1].0));
    assert_eq!((reply.code, unjudged.code), (250, 250), "{} {}", reply.text, unjudged.text);
    client.talk(&[("DATA", "354")]).await;
    client.send(message(1, GOOD) + ".\r\n").await;
    assert_eq!(client.reply().await.code, 250);
    rmxd.signal("CONT");
    other.talk(&[("RSET", "250"), nowhere[0], nowhere[1]]).await;
    is_well(&site, 2).await;
    each_came_once(&site, 2).await;
}
