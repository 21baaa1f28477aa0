//! Ten thousand clients at one time: idle, or sending an octet a second each; and more clients than descriptors.
//!
//! The clients stand on 200 addresses of loopback, fifty on each, so that the default share of a client holds. The
//! crowd lives in the test's own process, whose limit of descriptors is raised for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::daemon::Daemon;
use crate::interop::client::Client;
use crate::interop::peers;
use crate::interop::zone::Zone;

const CROWD: usize = 10_000;
/// As `limits.connections_per_client` has it.
const PER_ADDRESS: usize = 50;
/// At one time on their way in: fewer than the backlog holds.
const AT_ONCE: usize = 100;
/// For any single step of a client in the crowd.
const PATIENCE: Duration = Duration::from_secs(60);
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
    let zone = Zone::start().await;
    let daemon = Daemon::start(zone.address(), None, ROOM).await;
    let crowd = idle(&daemon).await;
    let mut talkers = JoinSet::new();
    for (nth, member) in crowd.into_iter().enumerate() {
        talkers.spawn(talk(member, nth));
    }
    sleep(Duration::from_secs(3)).await;
    for nth in 0..5 {
        newcomer(&daemon, nth).await;
        sleep(Duration::from_millis(500)).await;
    }
    let memory = daemon.memory();
    eprintln!("resident: {memory} KiB while all talk");
    assert!(memory < MEMORY, "{memory} KiB with {CROWD} slow talkers");
    assert_eq!((daemon.messages().len(), talkers.len()), (5, CROWD));
    assert!(talkers.try_join_next().is_none(), "a talker was sent away");
}

/// The crowd, idle for a moment and then all there still.
async fn idle(daemon: &Daemon) -> Vec<TcpStream> {
    let before = daemon.memory();
    let mut crowd = gather(daemon.address()).await;
    sleep(Duration::from_secs(1)).await;
    let memory = daemon.memory();
    let each = (memory - before) * 1024 / CROWD as u64;
    eprintln!("resident: {before} KiB empty, {memory} KiB with {CROWD} idle clients, {each} octets each");
    for member in &mut crowd {
        say(member, "NOOP", "250").await;
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
    let zone = Zone::start().await;
    let daemon = Daemon::start(zone.address(), Some(DESCRIPTORS), "").await;
    assert!(daemon.log().contains("not enough file descriptors"), "{}", daemon.log());
    let mut crowd = Vec::new();
    for nth in 0..100 {
        // The kernel takes them for the daemon; those that it can't accept stay without a banner.
        crowd.push(connect(address_of(nth * PER_ADDRESS), daemon.address()).await);
    }
    let said = || daemon.log().matches("accept failed").count();
    peers::eventually("accept fails", Duration::from_secs(20), || (said() >= 3).then_some(())).await;
    sleep(Duration::from_secs(3)).await;
    assert!(said() < 30, "it backs off, but said {} times that accept failed", said());
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
        peers::missing(&format!("{wanted} file descriptors can't be had ({error})"));
    }
    raised.is_ok()
}

/// The crowd, each greeted.
async fn gather(daemon: SocketAddr) -> Vec<TcpStream> {
    let began = Instant::now();
    let mut crowd = Vec::with_capacity(CROWD);
    let mut coming = JoinSet::new();
    for nth in 0..CROWD {
        if coming.len() >= AT_ONCE {
            crowd.push(coming.join_next().await.unwrap().unwrap());
        }
        coming.spawn(async move {
            let mut member = connect(address_of(nth), daemon).await;
            expect(&mut member, "220").await;
            say(&mut member, "EHLO mail.good.test", "250").await;
            member
        });
    }
    crowd.extend(coming.join_all().await);
    eprintln!("{CROWD} clients were greeted in {:?}", began.elapsed());
    crowd
}

fn address_of(nth: usize) -> Ipv4Addr {
    let address = u16::try_from(nth / PER_ADDRESS).unwrap() + 1;
    let [high, low] = address.to_be_bytes();
    Ipv4Addr::new(127, 8, high, low)
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    timeout(PATIENCE, socket.connect(to)).await.expect("a connection in time").unwrap()
}

async fn say(member: &mut TcpStream, line: &str, code: &str) {
    member.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    expect(member, code).await;
}

/// A whole reply with this code.
async fn expect(member: &mut TcpStream, code: &str) {
    let mut reply = Vec::new();
    let whole = |reply: &[u8]| {
        let last = reply.strip_suffix(b"\r\n").and_then(|lines| lines.rsplit(|&octet| octet == b'\n').next());
        last.is_some_and(|line| line.starts_with(code.as_bytes()) && line.get(3) == Some(&b' '))
    };
    while !whole(&reply) {
        let read = timeout(PATIENCE, member.read_buf(&mut reply)).await;
        let octets = read.expect("a reply in time").unwrap();
        assert!(octets > 0, "closed after {:?}", String::from_utf8_lossy(&reply));
    }
}

/// An octet a second, for ever; ends when the daemon does.
async fn talk(mut member: TcpStream, nth: usize) {
    sleep(Duration::from_millis(nth as u64 % 1000)).await;
    loop {
        for octet in b"NOOP\r\n" {
            if member.write_all(&[*octet]).await.is_err() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
        let mut reply = [0; 64];
        match member.try_read(&mut reply) {
            Ok(octets) if reply.get(..octets).is_some_and(|reply| reply.starts_with(b"250")) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => return,
        }
    }
}
