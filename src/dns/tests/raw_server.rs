//! A DNS server of octets on loopback, for tests only: what it sends to a question is a function of the test, and its TCP
//! behaves as told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// From a question to what is sent back, if anything is.
pub(super) type Reaction = fn(&Query<'_>) -> Option<Vec<u8>>;

/// What is done over UDP where only TCP matters.
const TRUNCATED: Reaction = |query| Some(truncated(query.octets));

/// A question as it came.
pub(super) struct Query<'a> {
    pub(super) octets: &'a [u8],
    pub(super) tcp: bool,
}

/// How connections are treated.
#[derive(Debug, Clone, Copy)]
pub(super) enum Behaviour {
    /// As they should.
    Serve,
    /// Accepted, and nothing else ever happens.
    Silent,
    /// Closed at once.
    Close,
    /// So many answers on each, then it says nothing more.
    FallSilentAfter(usize),
    /// So many answers on each, then it is closed.
    CloseAfter(usize),
    /// Closed when no question comes for so long.
    CloseIdle(Duration),
    /// One answer after the other, each after this time.
    Serial(Duration),
}

/// The server; ends when dropped.
pub(super) struct RawServer {
    address: SocketAddr,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    seen: Mutex<Vec<Vec<u8>>>,
    connections: AtomicUsize,
    closed: AtomicUsize,
}

impl RawServer {
    /// Reacts over UDP and TCP alike.
    pub(super) async fn start(reaction: Reaction, manner: Behaviour) -> Self {
        Self::launch(reaction, reaction, manner).await
    }

    /// Over UDP it says that TCP is the way.
    pub(super) async fn over_tcp(reaction: Reaction) -> Self {
        Self::launch(TRUNCATED, reaction, Behaviour::Serve).await
    }

    async fn launch(over_udp: Reaction, reaction: Reaction, manner: Behaviour) -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        let counted = Arc::clone(&counts);
        tasks.spawn(async move {
            let mut datagram = [0; 2048];
            loop {
                let (length, from) = udp.recv_from(&mut datagram).await.unwrap();
                let octets = &datagram[..length];
                counted.seen.lock().unwrap().push(octets.to_vec());
                if let Some(answer) = over_udp(&Query { octets, tcp: false }) {
                    udp.send_to(&answer, from).await.unwrap();
                }
            }
        });
        let counted = Arc::clone(&counts);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = tcp.accept().await.unwrap();
                counted.connections.fetch_add(1, Ordering::SeqCst);
                let counted = Arc::clone(&counted);
                connections.spawn(async move {
                    serve(stream, reaction, manner, &counted).await;
                    counted.closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, counts, _tasks: tasks }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The questions since the last call.
    pub(super) fn seen(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.counts.seen.lock().unwrap())
    }

    /// The connections so far.
    pub(super) fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Waits until the server has closed so many connections.
    pub(super) async fn closes(&self, count: usize) {
        while self.counts.closed.load(Ordering::SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn serve(mut stream: TcpStream, reaction: Reaction, manner: Behaviour, counts: &Counts) {
    let mut answered = 0;
    loop {
        match manner {
            Behaviour::Close => return,
            Behaviour::Silent => return std::future::pending().await,
            Behaviour::FallSilentAfter(most) if answered >= most => return std::future::pending().await,
            Behaviour::CloseAfter(most) if answered >= most => return,
            _ => {}
        }
        let limit = if let Behaviour::CloseIdle(limit) = manner { limit } else { Duration::from_secs(600) };
        let Ok(Ok(length)) = timeout(limit, stream.read_u16()).await else { return };
        let mut octets = vec![0; length.into()];
        if stream.read_exact(&mut octets).await.is_err() {
            return;
        }
        counts.seen.lock().unwrap().push(octets.clone());
        if let Behaviour::Serial(time) = manner {
            tokio::time::sleep(time).await;
        }
        if let Some(answer) = reaction(&Query { octets: &octets, tcp: true }) {
            let length = u16::try_from(answer.len()).unwrap();
            stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await.unwrap();
            answered += 1;
        }
    }
}

/// The offset of the question's end.
pub(super) fn question_end(octets: &[u8]) -> usize {
    let mut at = 12;
    while octets[at] != 0 {
        at += usize::from(octets[at]) + 1;
    }
    at + 5
}

/// The header of a response with this RCODE and so many answers and authorities, and the question.
pub(super) fn head(query: &[u8], code: u8, answers: u8, authorities: u8) -> Vec<u8> {
    let header = [query[0], query[1], 0x81, 0x80 | code, 0, 1, 0, answers, 0, authorities, 0, 0];
    [&header[..], &query[12..question_end(query)]].concat()
}

/// A record: its owner is the name at this offset.
pub(super) fn record(owner: u8, rtype: u8, class: u8, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(data.len()).unwrap();
    [&[0xC0, owner, 0, rtype, 0, class][..], &ttl.to_be_bytes(), &[0, length], data].concat()
}

/// `10 m.test`.
pub(super) const MX_DATA: &[u8] = b"\0\x0A\x01m\x04test\0";

/// `. . 1 1 1 1` and this minimum.
pub(super) fn soa_data(minimum: u32) -> Vec<u8> {
    [&[0, 0][..], &[0, 0, 0, 1].repeat(4), &minimum.to_be_bytes()].concat()
}

/// Found: `10 m.test` for 300 s.
pub(super) fn found(query: &[u8]) -> Vec<u8> {
    [head(query, 0, 1, 0), record(12, 15, 1, 300, MX_DATA)].concat()
}

/// NXDOMAIN, for 60 s.
pub(super) fn denied(query: &[u8]) -> Vec<u8> {
    [head(query, 3, 0, 1), record(12, 6, 1, 60, &soa_data(60))].concat()
}

/// TC is set, and there is nothing else.
pub(super) fn truncated(query: &[u8]) -> Vec<u8> {
    let mut octets = head(query, 0, 0, 0);
    octets[2] |= 2;
    octets
}

/// Whether the question has an OPT record.
pub(super) fn has_edns(query: &[u8]) -> bool {
    query[11] == 1
}
