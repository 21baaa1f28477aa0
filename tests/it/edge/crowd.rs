//! Ten thousand clients at one time: idle, or sending an octet a second each; and more clients than descriptors.
//!
//! The clients stand on 200 addresses of loopback, fifty on each, so that the default share of a client holds. The
//! crowd lives in the test's own process, whose limit of descriptors is raised for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{start, start_with_descriptors};
use crate::support::client::Client;
use crate::support::daemon::Daemon;
use crate::support::process::{SOON, eventually, missing};
use crate::support::zone::Zone;

const CROWD: usize = 10_000;
/// As `limits.connections_per_client` has it.
const PER_ADDRESS: usize = 50;
/// At one time on their way in: fewer than the backlog holds.
const AT_ONCE: usize = 100;
/// Resident memory with all of them, in KiB.
const MEMORY: u64 = 80 << 10;
/// Room for the crowd and a few more.
const ROOM: &str = "[limits]\nconnections = 10100";
const MESSAGE: &[u8] = b"From: a@good.test\r\nSubject: through the crowd\r\n\r\nhello\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_clients_idle_in_80_mib_and_while_they_talk_slowly_a_new_one_is_served_at_once() {
    if !room_for(CROWD + 500) {
        return;
    }
    let zone = Zone::start();
    let daemon = start(&zone, ROOM).await;
    let crowd = idle(&daemon).await;
    let (mut talkers, talking) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for (nth, member) in crowd.into_iter().enumerate() {
        talkers.spawn(talk(member, nth, Arc::clone(&talking)));
    }
    let all = || (talking.load(Ordering::Relaxed) >= CROWD).then_some(());
    eventually("an octet of each", SOON, all).await;
    for nth in 0..5 {
        newcomer(&daemon, nth).await;
        // newcomers are spread over more than one octet of each talker
        sleep(Duration::from_millis(500)).await;
    }
    let memory = daemon.memory();
    eprintln!("resident: {memory} KiB while all talk");
    assert!(memory < MEMORY, "{memory} KiB with {CROWD} slow talkers");
    assert_eq!((daemon.home().messages().len(), talkers.len()), (5, CROWD));
    assert!(talkers.try_join_next().is_none(), "a talker was sent away");
}

/// The crowd, idle, and then all there still.
async fn idle(daemon: &Daemon) -> Vec<Client> {
    let before = daemon.memory();
    let mut crowd = gather(daemon.address()).await;
    let memory = daemon.memory();
    let each = (memory - before) * 1024 / CROWD as u64;
    eprintln!("resident: {before} KiB empty, {memory} KiB with {CROWD} idle clients, {each} octets each");
    for member in &mut crowd {
        assert_eq!(member.command("NOOP").await.code, 250);
    }
    assert!(memory < MEMORY, "{memory} KiB with {CROWD} idle clients");
    crowd
}

/// A client that comes when all the others are there: banner within a second, and a whole transaction.
async fn newcomer(daemon: &Daemon, nth: usize) {
    let began = Instant::now();
    let mut client = Client::connect(IpAddr::V4(Ipv4Addr::new(127, 9, 0, 1)), daemon.address()).await;
    assert_eq!(client.reply().await.code, 220);
    let banner = began.elapsed();
    assert!(banner < Duration::from_secs(1), "the banner took {banner:?}");
    assert_eq!(client.command("EHLO mail.good.test").await.code, 250);
    let delivered = client.deliver("a@good.test", &format!("user{nth}@here.test"), MESSAGE).await;
    assert_eq!(delivered.code, 250, "{}", delivered.text);
    assert_eq!(client.command("QUIT").await.code, 221);
    eprintln!("banner after {banner:?}, message taken after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_the_daemon_waits_and_goes_on() {
    const DESCRIPTORS: u32 = 60;
    let zone = Zone::start();
    let daemon = start_with_descriptors(&zone, DESCRIPTORS).await;
    daemon.logged("not enough file descriptors").await;
    let mut crowd = Vec::new();
    for nth in 0..100 {
        // The kernel takes them for the daemon; those that it can't accept stay without a banner.
        crowd.push(Client::connect(address_of(nth * PER_ADDRESS), daemon.address()).await);
    }
    daemon.logged_times("the next accept in", 3).await;
    // without a pause between them, so long a time would see thousands
    sleep(Duration::from_secs(3)).await;
    let log = daemon.whole_log().await;
    let failed = log.matches("the next accept in").count();
    assert!(failed < 30, "it backs off, but accept failed {failed} times");
    assert_eq!(log.matches("accept failed").count(), 1, "{log}");
    drop(crowd);
    let mut client =
        Client::greeted(IpAddr::V4(Ipv4Addr::LOCALHOST), daemon.address(), "mail.good.test").await;
    let delivered = client.deliver("a@good.test", "user@here.test", MESSAGE).await;
    assert_eq!(delivered.code, 250, "{}", delivered.text);
}

/// Whether this process may have so many descriptors; the limit is raised as far as needed.
fn room_for(descriptors: usize) -> bool {
    let wanted = descriptors as u64;
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
    let current = limit.current.map(|current| current.max(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    if let Err(error) = raised {
        missing(&format!("{wanted} file descriptors can't be had ({error})"));
    }
    raised.is_ok()
}

/// The crowd, each greeted.
async fn gather(daemon: SocketAddr) -> Vec<Client> {
    let began = Instant::now();
    let mut crowd = Vec::with_capacity(CROWD);
    let mut coming = JoinSet::new();
    for nth in 0..CROWD {
        if coming.len() >= AT_ONCE {
            crowd.push(coming.join_next().await.unwrap().unwrap());
        }
        coming.spawn(Client::greeted(address_of(nth), daemon, "mail.good.test"));
    }
    crowd.extend(coming.join_all().await);
    eprintln!("{CROWD} clients were greeted in {:?}", began.elapsed());
    crowd
}

fn address_of(nth: usize) -> IpAddr {
    let address = u16::try_from(nth / PER_ADDRESS).unwrap() + 1;
    let [high, low] = address.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 8, high, low))
}

/// An octet a second, for ever; ends when the daemon does.
async fn talk(mut member: Client, nth: usize, talking: Arc<AtomicUsize>) {
    sleep(Duration::from_millis(nth as u64 % 1000)).await;
    for octet in b"NOOP\r\n".iter().cycle() {
        if member.try_send([*octet]).await.is_err() {
            return;
        }
        if *octet == b'\n' {
            assert_eq!(member.reply().await.code, 250);
        } else {
            talking.fetch_add(usize::from(*octet == b'N'), Ordering::Relaxed);
            sleep(Duration::from_secs(1)).await;
        }
    }
}
