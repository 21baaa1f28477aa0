//! A client's share of the connections, and connections that sessions of older settings still have.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::relay::tests::robot::{GOOD, Robot};
use crate::relay::tests::{IMPATIENCE, begin_as, client, deliver_as};
use crate::relay::{ClientIdentity, ClientInfo, NextHop, Relay, Settings, Transaction};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nbody\r\n";
const QUEUED: &str = "END 250 2.0.0 queued";

fn from(address: &str) -> ClientInfo {
    ClientInfo { address: address.parse().unwrap(), ..client() }
}

/// Begins transactions until the relay refuses one; returns those that began, and the reply.
async fn all_it_gets(relay: &Relay, addresses: impl Iterator<Item = String>) -> (Vec<Transaction>, String) {
    let mut open = Vec::new();
    for address in addresses {
        match begin_as(&relay.lease(), &from(&address)).await {
            Ok(transaction) => open.push(transaction),
            Err(reply) => return (open, reply.to_string()),
        }
    }
    panic!("no end of {}", open.len());
}

fn changed(settings: &mut Settings, most: usize) {
    settings.max_connections = most;
    settings.connect_timeout = IMPATIENCE;
}

fn settings_of(robot: &Robot, most: usize) -> Settings {
    let mut settings = robot.settings();
    changed(&mut settings, most);
    settings
}

#[tokio::test]
async fn a_client_is_an_ipv4_address_or_an_ipv6_network_and_leaves_room_for_others() {
    let ports = |from: u16| (from..).map(|port| format!("192.0.2.7:{port}"));
    let mapped = (1..).map(|port| format!("[::ffff:192.0.2.8]:{port}"));
    let network = (1..).map(|host| format!("[2001:db8:1:1::{host:x}]:25"));
    let robot = Robot::start("PIPELINING XCLIENT_ADDR", GOOD).await;
    let relay = robot.relay_with(|settings| changed(settings, 9));
    let (first, busy) = all_it_gets(&relay, ports(1)).await;
    assert!(busy.starts_with("451 4.3.2 "), "{busy}");
    let (second, _) = all_it_gets(&relay, network).await;
    let (third, _) = all_it_gets(&relay, mapped).await;
    assert_eq!((first.len(), second.len(), third.len()), (5, 2, 1));
    let began = Instant::now();
    assert_eq!(deliver_as(&relay.lease(), &from("192.0.2.9:1"), &[MESSAGE]).await, QUEUED);
    assert!(began.elapsed() < IMPATIENCE, "a newcomer waits for nobody");
    assert!(robot.open() <= 9);
    // a client that ends its transactions may begin new ones
    drop(first);
    assert_eq!(all_it_gets(&relay, ports(100)).await.0.len(), 3);
}

#[tokio::test]
async fn a_client_with_its_full_share_waits_until_one_of_its_transactions_ends() {
    let robot = Robot::start("PIPELINING XCLIENT_ADDR", GOOD).await;
    let relay = robot.relay_with(|settings| settings.max_connections = 2);
    let first = begin_as(&relay.lease(), &client()).await.unwrap();
    let lease = relay.lease();
    let again = client();
    let mut waiting = std::pin::pin!(deliver_as(&lease, &again, &[MESSAGE]));
    assert!(timeout(IMPATIENCE, waiting.as_mut()).await.is_err(), "the other connection is not for it");
    let began = Instant::now();
    let (reply, ()) = tokio::join!(waiting, async {
        sleep(Duration::from_millis(50)).await;
        first.abandon().await;
    });
    assert_eq!(reply, QUEUED);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn sessions_of_older_settings_count_against_the_new_limit() {
    // the old limit, the new one, and how many transactions the new settings allow beside four old ones
    for (before, after, more) in [(8, 8, 4), (8, 6, 2), (8, 4, 0), (8, 2, 0), (4, 6, 2)] {
        let robot = Robot::start("PIPELINING XCLIENT_ADDR", GOOD).await;
        let relay = robot.relay_with(|settings| changed(settings, before));
        let mut old = Vec::new();
        for number in 1..=4 {
            old.push(begin_as(&relay.lease(), &from(&format!("192.0.2.{number}:1"))).await.unwrap());
        }
        let changed = relay.with_settings(settings_of(&robot, after));
        let newcomers = |from: u8| (from..).map(|number| format!("198.51.100.{number}:1"));
        let (new, busy) = all_it_gets(&changed, newcomers(1)).await;
        assert!(busy.starts_with("451 4.3.2 "), "{busy}");
        assert_eq!(new.len(), more, "{before} to {after}");
        assert!(robot.open() <= before.max(after));
        drop((old, new));
        let (new, _) = all_it_gets(&changed, newcomers(100)).await;
        assert_eq!(new.len(), after, "{before} to {after}, and the old ones have ended");
    }
}

#[tokio::test]
async fn an_idle_connection_serves_only_settings_that_would_make_the_same() {
    type Change = fn(&mut Settings);
    let rows: [(Change, usize); 6] = [
        (|_| {}, 1),
        (|settings| settings.max_connections = 2, 1),
        (|settings| settings.connect_timeout = IMPATIENCE, 1),
        (|settings| settings.identity = ClientIdentity::None, 2),
        (|settings| settings.reply_timeout = Duration::from_secs(19), 2),
        (|settings| settings.hostname = "other.test".into(), 2),
    ];
    for (number, (change, connections)) in rows.into_iter().enumerate() {
        let robot = Robot::start("PIPELINING", GOOD).await;
        let relay = robot.relay();
        assert_eq!(deliver_as(&relay.lease(), &client(), &[MESSAGE]).await, QUEUED);
        let mut settings = robot.settings();
        change(&mut settings);
        let changed = relay.with_settings(settings);
        assert_eq!(changed.capabilities(), relay.capabilities(), "what is known of the host is known still");
        assert_eq!(changed.availability(), relay.availability());
        assert!(changed.availability().ok, "row {number}");
        for _ in 0..2 {
            assert_eq!(deliver_as(&changed.lease(), &client(), &[MESSAGE]).await, QUEUED);
            assert_eq!(deliver_as(&relay.lease(), &client(), &[MESSAGE]).await, QUEUED);
        }
        assert_eq!(robot.connections(), connections, "row {number}");
    }
}

#[tokio::test]
async fn idle_connections_are_closed_for_other_settings_and_a_smaller_limit() {
    let robot = Robot::start("PIPELINING", GOOD).await;
    let relay = robot.relay_with(|settings| changed(settings, 4));
    let mut open = Vec::new();
    for number in 1..=4 {
        open.push(begin_as(&relay.lease(), &from(&format!("192.0.2.{number}:1"))).await.unwrap());
    }
    for transaction in open {
        transaction.abandon().await;
    }
    assert_eq!(robot.open(), 4, "they wait for anyone");
    let mut settings = settings_of(&robot, 2);
    settings.hostname = "other.test".into();
    let changed = relay.with_settings(settings);
    let transaction = begin_as(&changed.lease(), &client()).await.unwrap();
    for connection in 0..3 {
        robot.ended(connection).await;
    }
    assert_eq!(robot.open(), 2, "one in use, one that waits");
    transaction.abandon().await;
    assert_eq!(robot.open(), 2);
}

#[tokio::test]
async fn connections_of_another_host_count_separately() {
    let (robot, other) = (Robot::start("XCLIENT_ADDR", GOOD).await, Robot::start("XCLIENT_ADDR", GOOD).await);
    let relay = robot.relay_with(|settings| changed(settings, 1));
    let held = begin_as(&relay.lease(), &client()).await.unwrap();
    let changed = relay.with_settings(settings_of(&other, 1));
    assert_eq!(deliver_as(&changed.lease(), &client(), &[MESSAGE]).await, QUEUED);
    assert_eq!((robot.connections(), other.connections()), (1, 1));
    drop(held);
    let folder = tempfile::tempdir().unwrap();
    let maildir = changed.with_settings(Settings {
        next_hop: NextHop::Maildir(folder.path().to_owned()),
        ..settings_of(&other, 1)
    });
    maildir.probe().await.unwrap();
    assert!(deliver_as(&maildir.lease(), &client(), &[MESSAGE]).await.starts_with("END 250 "));
}
