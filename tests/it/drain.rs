//! The end of the daemon: SIGTERM lets transactions end within the drain time, a second one doesn't wait.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use crate::interop::mail;
use crate::support::client::{Client, on_the_wire};
use crate::support::daemon::{Daemon, configuration};
use crate::support::process::{SOON, free_address, refused};
use crate::support::zone::Zone;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn daemon(zone: &Zone, address: SocketAddr, drain: &str) -> Daemon {
    Daemon::start(&configuration("gate.test", &[address], zone.address(), ""), &["--drain", drain]).await
}

/// A client that has said everything up to DATA and half of the message.
async fn in_the_middle(address: SocketAddr) -> Client {
    let mut client = Client::greeted(CLIENT, address, "mail.good.test").await;
    for line in ["MAIL FROM:<a@good.test>", "RCPT TO:<user@relay.test>", "DATA"] {
        let reply = client.command(line).await;
        assert!(reply.is_positive(), "{line}: {}", reply.text);
    }
    client.send(b"From: a@good.test\r\n\r\nhalf of it\r\n").await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn after_sigterm_a_transaction_is_finished_and_an_idle_client_is_told_to_go() {
    let (zone, address) = (Zone::start(), free_address());
    let mut daemon = daemon(&zone, address, "60s").await;
    let mut idle = Client::greeted(CLIENT, address, "idle.test").await;
    let mut between = Client::greeted(CLIENT, address, "between.test").await;
    assert_eq!(between.command("MAIL FROM:<b@good.test>").await.code, 250);
    let mut middle = in_the_middle(address).await;

    daemon.signal("TERM");
    let told = idle.reply().await;
    assert_eq!(
        (told.code, told.text.as_str()),
        (421, "421 4.3.2 gate.test is shutting down, closing connection")
    );
    assert!(idle.is_closed().await);
    refused(address).await;

    assert_eq!(between.command("RCPT TO:<user@relay.test>").await.code, 250);
    assert_eq!(between.command("DATA").await.code, 354);
    between.send(&on_the_wire(&mail::message(1, 100))).await;
    middle.send(b"the other half\r\n.\r\n").await;
    for client in [&mut between, &mut middle] {
        let stored = client.reply().await;
        assert_eq!(stored.code, 250, "{}", stored.text);
        assert_eq!(client.reply().await.code, 421);
        assert!(client.is_closed().await);
    }
    assert_eq!(daemon.ended(SOON).await.code(), Some(0));
    assert!(daemon.log().contains("drained"), "{}", daemon.log());
    assert_eq!(daemon.home().messages().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_done_when_the_drain_time_is_over_is_cut_off_and_nothing_is_stored() {
    let (zone, address) = (Zone::start(), free_address());
    let mut daemon = daemon(&zone, address, "1500ms").await;
    let mut middle = in_the_middle(address).await;
    let began = Instant::now();
    daemon.signal("TERM");
    let status = daemon.ended(SOON).await;
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    assert_eq!(status.code(), Some(0));
    assert!(daemon.log().contains("connections were cut off open=1"), "{}", daemon.log());
    assert!(middle.is_closed().await);
    assert!(daemon.home().messages().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_does_not_wait() {
    let zone = Zone::start();
    for second in ["TERM", "INT"] {
        let address = free_address();
        let mut daemon = daemon(&zone, address, "1h").await;
        let mut middle = in_the_middle(address).await;
        daemon.signal("TERM");
        daemon.logged("draining for at most 1h").await;
        // neither the end nor a crash
        daemon.signal("HUP");
        daemon.signal(second);
        assert_eq!(daemon.ended(SOON).await.code(), Some(0));
        assert!(daemon.log().contains("stopped while draining"), "{}", daemon.log());
        assert!(middle.is_closed().await);
        assert!(daemon.home().messages().is_empty());
    }
}
