//! Whole sessions over a pipe in memory, and what they are played on.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use rmxd::config::{self, Flags, Settings};
use rmxd::daemon;
use rmxd::dns::Dns;
use rmxd::door::SmtpDoor;
use rmxd::gate::Gate;
use rmxd::zone::{Server, Zone};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Zones, a gate with a warm cache once it was asked, and a relay that takes everything.
pub(super) struct Stage {
    pub(super) runtime: Runtime,
    pub(super) dns: Dns,
    pub(super) gate: Arc<Gate>,
    door: SmtpDoor,
    _zone: Server,
}

impl Stage {
    pub(super) fn new(reject_at: &str) -> Self {
        let runtime = runtime();
        let (zone, dns, door) = runtime.block_on(set_up(reject_at));
        Self { runtime, dns, gate: Arc::clone(&door.gate), door, _zone: zone }
    }

    /// One session; each step is sent, and its reply, which begins with the code, awaited.
    fn play(&self, steps: &[(&[u8], &[u8])]) {
        self.play_by(&self.runtime, steps);
    }

    fn play_by(&self, runtime: &Runtime, steps: &[(&[u8], &[u8])]) {
        let (client, server) = duplex(64 * 1024);
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 10), 40_000));
        runtime.block_on(async {
            tokio::join!(self.door.serve(server, address, CancellationToken::new()), play(client, steps))
        });
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn set_up(reject_at: &str) -> (Server, Dns, SmtpDoor) {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let zone = Server::start(loopback, Zone::sample()).await.expect("a zone server");
    let relay = TcpListener::bind(loopback).await.expect("a port");
    let settings = settings(reject_at, zone.address(), relay.local_addr().expect("an address"));
    tokio::spawn(take_everything(relay));
    let dns = Dns::new(settings.dns.clone()).expect("a resolver");
    let door = daemon::door_over(dns.clone(), &settings).expect("a door");
    door.relay.probe().await.expect("a relay");
    (zone, dns, door)
}

fn settings(reject_at: &str, dns: SocketAddr, relay: SocketAddr) -> Settings {
    let set = [
        ("hostname", "gate.test".to_owned()),
        ("relay.next_hop", format!("smtp://{relay}")),
        ("relay.identity", "none".to_owned()),
        ("relay.domains", "here.test".to_owned()),
        ("policy.reject_at", reject_at.to_owned()),
        ("dns.servers", dns.to_string()),
        ("dns.private_addresses", "accept".to_owned()),
    ];
    let set = set.map(|(key, value)| (key.to_owned(), value)).into();
    config::load(None, [], &Flags { set, ..Flags::default() }).expect("a configuration").settings
}

async fn play(mut client: DuplexStream, steps: &[(&[u8], &[u8])]) {
    let mut reply = [0; 4096];
    for (said, expected) in steps {
        client.write_all(said).await.expect("a pipe that is open");
        let mut length = 0;
        while !reply.get(..length).unwrap_or_default().ends_with(b"\r\n") {
            length +=
                client.read(reply.get_mut(length..).expect("a short reply")).await.expect("an open pipe");
        }
        let heard = reply.get(..length).unwrap_or_default();
        assert!(heard.starts_with(expected), "{}", String::from_utf8_lossy(heard));
    }
}

async fn take_everything(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(take(stream));
    }
}

/// A relay in a few lines: 354 to DATA, 250 to all else.
async fn take(stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    let mut within = false;
    let mut line = Vec::new();
    let mut reply: &[u8] = b"220 sink\r\n";
    loop {
        if !reply.is_empty() && stream.write_all(reply).await.is_err() {
            return;
        }
        line.clear();
        if !matches!(tokio::io::AsyncBufReadExt::read_until(&mut stream, b'\n', &mut line).await, Ok(1..)) {
            return;
        }
        reply = match (within, line.as_slice()) {
            (true, b".\r\n") => {
                within = false;
                b"250 taken\r\n"
            }
            (true, _) => b"",
            (false, b"DATA\r\n") => {
                within = true;
                b"354 go on\r\n"
            }
            (false, _) => b"250 sink\r\n",
        };
    }
}

const GREETING: [(&[u8], &[u8]); 2] = [(b"", b"220"), (b"EHLO mail.good.test\r\n", b"250")];
const QUIT: (&[u8], &[u8]) = (b"QUIT\r\n", b"221");

/// A spoofed sender, refused at MAIL.
#[divan::bench]
fn refused(bencher: Bencher<'_, '_>) {
    let stage = Stage::new("mail");
    let [banner, hello] = GREETING;
    let steps = [banner, hello, (b"MAIL FROM:<u@nosuch.test>\r\n".as_slice(), b"550".as_slice()), QUIT];
    stage.play(&steps);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| stage.play(&steps));
}

/// The same on several cores, which share gate, cache, counters and log: with none of these in the way, a session takes
/// as long on each of two as on one alone.
#[divan::bench(threads = [1, 2], sample_size = 500)]
fn refused_on_cores(bencher: Bencher<'_, '_>) {
    thread_local!(static OWN: Runtime = runtime());
    let stage = Stage::new("mail");
    let [banner, hello] = GREETING;
    let steps = [banner, hello, (b"MAIL FROM:<u@nosuch.test>\r\n".as_slice(), b"550".as_slice()), QUIT];
    stage.play(&steps);
    bencher.counter(ItemsCount::new(1_u32)).bench(|| OWN.with(|own| stage.play_by(own, &steps)));
}

/// The same, everything at once (RFC 2920).
#[divan::bench]
fn refused_pipelined(bencher: Bencher<'_, '_>) {
    let stage = Stage::new("mail");
    let [banner, hello] = GREETING;
    let rest = b"MAIL FROM:<u@nosuch.test>\r\nRCPT TO:<v@here.test>\r\nDATA\r\nQUIT\r\n";
    let steps = [banner, hello, (rest.as_slice(), b"550".as_slice())];
    stage.play(&steps);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| stage.play(&steps));
}

/// A message of this size to the relay, which is reached by TCP.
#[divan::bench(args = [4 << 10, 1 << 20])]
fn relayed(bencher: Bencher<'_, '_>, size: usize) {
    let stage = Stage::new("mail");
    let [banner, hello] = GREETING;
    let mut message = b"From: <u@good.test>\r\nSubject: hello\r\n\r\n".to_vec();
    while message.len() < size {
        message.extend_from_slice(
            b"a line of seventy-six octets, as most programs write them into a mail body.\r\n",
        );
    }
    message.extend_from_slice(b".\r\n");
    let steps = [
        banner,
        hello,
        (b"MAIL FROM:<u@good.test>\r\n", b"250"),
        (b"RCPT TO:<v@here.test>\r\n", b"250"),
        (b"DATA\r\n", b"354"),
        (message.as_slice(), b"250"),
        QUIT,
    ];
    stage.play(&steps);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| stage.play(&steps));
}
