//! A reload while sessions are open, and one that moves the socket.

use std::fs;

use super::{GOOD, each_came_once, in_the_middle, is_well, message, other_half};
use crate::interop::beside_postfix::{EXCHANGER, Site};
use crate::support::daemon::Daemon;

const NOWHERE: [(&str, &str); 2] =
    [("MAIL FROM:<a@nowhere.test>", "250"), ("RCPT TO:<user@relay.test>", "550 5.1.8 ")];
const MONITORED: [(&str, &str); 3] =
    [("MAIL FROM:<a@nowhere.test>", "250"), ("RCPT TO:<user@relay.test>", "250"), ("RSET", "250")];
const RESET: [(&str, &str); 1] = [("RSET", "250")];

async fn reconfigure(rmxd: &mut Daemon, text: &str) -> String {
    rmxd.home().configure(text);
    rmxd.reload().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_milter_session_ends_under_the_settings_with_which_it_began() {
    let Some(site) = Site::with_milter(|guide| guide) else { return };
    let mut rmxd = site.rmxd(&[]).await;
    let text = fs::read_to_string(rmxd.home().file()).unwrap();
    let mut before = site.client(EXCHANGER).await;
    before.talk(&NOWHERE).await;
    let mut middle = in_the_middle(&site, 1).await;

    let log = reconfigure(&mut rmxd, &text.replace("enforce", "monitor")).await;
    assert!(log.contains("serve: reloaded"), "{log}");
    before.talk(&RESET).await;
    before.talk(&NOWHERE).await;
    let mut during = site.client(EXCHANGER).await;
    during.talk(&MONITORED).await;

    // The socket moves away: sessions go on, new ones wait.
    let log = reconfigure(&mut rmxd, &text.replace("rmxd/milter\"", "rmxd/moved\"")).await;
    assert!(log.contains("not listening any more"), "{log}");
    let mut after = site.client(EXCHANGER).await;
    after.talk(&[("MAIL FROM:<a@good.test>", "451 4.7.1 "), ("QUIT", "221")]).await;
    assert_eq!(other_half(&mut middle).await.code, 250);
    before.talk(&RESET).await;
    before.talk(&NOWHERE).await;
    during.talk(&MONITORED).await;

    let log = reconfigure(&mut rmxd, &text).await;
    assert!(log.contains("listening address=unix:"), "{log}");
    is_well(&site, 2).await;
    before.talk(&RESET).await;
    before.talk(&NOWHERE).await;
    each_came_once(&site, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_connection_has_the_new_settings_with_the_next_message() {
    let Some(site) = Site::with_policy_service(|guide| guide) else { return };
    let mut rmxd = site.rmxd(&[]).await;
    let text = fs::read_to_string(rmxd.home().file()).unwrap();
    let mut client = site.client(EXCHANGER).await;
    client.talk(&NOWHERE).await;
    reconfigure(&mut rmxd, &text.replace("enforce", "monitor")).await;
    // This message is the one that was refused.
    client.talk(&NOWHERE[1..]).await;
    client.talk(&RESET).await;
    client.talk(&MONITORED).await;

    // The socket moves away: the connection of this session's process stays, other processes find none.
    let log = reconfigure(&mut rmxd, &text.replace("rmxd/policy\"", "rmxd/moved\"")).await;
    assert!(log.contains("not listening any more"), "{log}");
    client.talk(&NOWHERE).await;
    client.talk(&RESET).await;
    let mut other = site.client(EXCHANGER).await;
    other.talk(&MONITORED).await;
    site.postfix.logged("warning: connect to").await;

    reconfigure(&mut rmxd, &text).await;
    other.talk(&NOWHERE).await;
    let reply = client.deliver(GOOD, "user@relay.test", message(1, GOOD).as_bytes()).await;
    assert_eq!(reply.code, 250, "{}", reply.text);
    each_came_once(&site, 1).await;
}
