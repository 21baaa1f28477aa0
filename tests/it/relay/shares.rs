//! The connections to the relay as `rmxd serve` shares them out: among clients, and over a reload.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use super::faulty::{Fault, Relay};
use crate::daemon::{Daemon, SOON, configuration, free_address};
use crate::interop::client::Client;
use crate::interop::zone::Zone;
use crate::interop::{mail, peers};

const SLOW: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 40));
const THIRD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 41));

fn text(listen: SocketAddr, zone: &Zone, relay: &Relay, most: usize, wait: &str) -> String {
    let relay = format!(
        "[relay]\nnext_hop = \"smtp://{}\"\ndomains = [\"here.test\"]\nmax_connections = {most}\n\
         connect_timeout = \"{wait}\"\n",
        relay.address
    );
    configuration("gate.test", &[listen], zone.address(), &relay)
}

/// A session amid a message of which nothing more comes; or the reply to RCPT, when it gets no further.
async fn stall(from: IpAddr, address: SocketAddr) -> Result<Client, String> {
    let mut client = Client::greeted(from, address, "mail.good.test").await;
    assert_eq!(client.command("MAIL FROM:<a@good.test>").await.code, 250);
    let reply = client.command("RCPT TO:<user@here.test>").await;
    if reply.code != 250 {
        return Err(reply.text);
    }
    assert_eq!(client.command("DATA").await.code, 354);
    client.send(b"From: a@good.test\r\n\r\nand then").await;
    Ok(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_client_with_many_slow_transactions_anothers_mail_goes_through_at_once() {
    const PATIENCE: Duration = Duration::from_secs(5);
    let (zone, address, relay) = (Zone::start().await, free_address(), Relay::start(Fault::None, true).await);
    let _daemon = Daemon::start(&text(address, &zone, &relay, 10, "5s"), &[]).await;
    let begun: Vec<_> = (0..20).map(|_| tokio::spawn(stall(SLOW, address))).collect();
    // five and the probe's
    let share = || (relay.connections() == 6).then_some(());
    peers::eventually("as many connections as one client gets", SOON, share).await;

    let mut other = Client::greeted(OTHER, address, "mail.good.test").await;
    for number in 0..3 {
        let began = Instant::now();
        let reply = other.deliver("a@good.test", "user@here.test", &mail::message(number, 1000)).await;
        assert_eq!(reply.code, 250, "{}", reply.text);
        assert!(began.elapsed() < PATIENCE, "{:?}: it stood in line", began.elapsed());
    }
    let (mut slow, mut refused) = (Vec::new(), 0);
    for session in begun {
        match session.await.unwrap() {
            Ok(client) => slow.push(client),
            Err(reply) => {
                assert!(reply.starts_with("451 4.3.2 "), "{reply}");
                refused += 1;
            }
        }
    }
    assert_eq!((slow.len(), refused), (5, 15), "half of ten is one client's share");
    assert_eq!(relay.accepted().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_reload_what_old_sessions_hold_counts_against_the_new_limit() {
    let (zone, address, relay) = (Zone::start().await, free_address(), Relay::start(Fault::None, true).await);
    let mut daemon = Daemon::start(&text(address, &zone, &relay, 4, "1s"), &[]).await;
    let old = (stall(SLOW, address).await.unwrap(), stall(OTHER, address).await.unwrap());

    daemon.home().configure(&text(address, &zone, &relay, 3, "900ms"));
    daemon.reload().await;
    let new = stall(THIRD, address).await.unwrap();
    let busy = stall(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 42)), address).await.err();
    assert!(busy.as_ref().is_some_and(|reply| reply.starts_with("451 4.3.2 ")), "{busy:?}");

    // another relay: what is held of the first one is not its business
    let another = Relay::start(Fault::None, true).await;
    daemon.home().configure(&text(address, &zone, &another, 3, "1s"));
    daemon.reload().await;
    let others = (stall(SLOW, address).await.unwrap(), stall(OTHER, address).await.unwrap());
    assert_eq!(another.connections(), 3, "one was the probe's");
    drop((old, new, others));
}
