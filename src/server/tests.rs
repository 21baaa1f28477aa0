//! The server with a real door, over sockets and pipes; the relay is a folder, and nothing is looked up.

use std::pin::Pin;
use std::task::{Context, Poll};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

use super::*;
use crate::config::{Flags, load};
use crate::dns::Dns;
use crate::gate::Gate;
use crate::relay::Relay;
use crate::reverse_mx::ReverseMx;

const OFF: [&str; 5] =
    ["ptr.exists", "mail_from.exists", "mail_from.matches", "from.exists", "reply_to.exists"];

/// What a server without listeners shares.
fn server(assignments: &[(&str, &str)]) -> (Arc<Shared>, TempDir) {
    let (server, folder) = running(assignments, Vec::new());
    (server.shared, folder)
}

/// A server with these settings over the defaults, without look-ups.
fn running(assignments: &[(&str, &str)], listeners: Vec<Listener>) -> (Server, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut set = vec![
        ("hostname".to_owned(), "gate.test".to_owned()),
        ("dns.servers".to_owned(), "127.0.0.1:9".to_owned()),
        ("relay.next_hop".to_owned(), format!("maildir:{}", folder.path().join("mail").display())),
    ];
    set.extend(OFF.map(|key| (format!("policy.{key}"), "off".to_owned())));
    set.extend(assignments.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let settings = load(None, [], &Flags { set, ..Flags::default() }).unwrap().settings;
    let dns = Dns::new(settings.dns.clone()).unwrap();
    let deadline = settings.dns.timeout;
    let door = Door {
        settings: Arc::new(settings.door.clone()),
        session: Arc::new(settings.session.clone()),
        gate: Gate::new(settings.gate.clone(), ReverseMx::new(dns, settings.reverse_mx.clone()), deadline),
        relay: Relay::new(settings.relay.clone()),
        tls: None,
    };
    (Server::start(settings.server.clone(), door, listeners, Metrics::default()).unwrap(), folder)
}

async fn line(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_u8()).await;
        match read.expect("a line in time") {
            Ok(octet) => line.push(octet),
            Err(_) => return format!("closed after {:?}", String::from_utf8_lossy(&line)),
        }
    }
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

/// Connects, lets the server admit it, says `first`, and gives the first line that comes.
async fn first_line(server: &Arc<Shared>, first: &[u8]) -> (String, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    server.admit(stream, peer);
    client.write_all(first).await.unwrap();
    (line(&mut client).await, client)
}

/// Waits until so many connections are left.
async fn remain(server: &Shared, left: usize) {
    while server.connections.len() > left {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Panics when the client says the word.
struct Mine(DuplexStream);

impl AsyncRead for Mine {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(context, buffer);
        assert!(!buffer.filled().ends_with(b"boom\r\n"), "stepped on");
        read
    }
}

impl AsyncWrite for Mine {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, octets)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_one_connection_is_counted_and_gives_its_place_back() {
    let (server, _folder) = server(&[("limits.connections", "3"), ("limits.connections_per_client", "3")]);
    let address: SocketAddr = "192.0.2.7:1".parse().unwrap();
    let connect = || {
        let (client, stream) = duplex(4096);
        let current = Arc::clone(&server.current.borrow());
        let seat = server.seat(&current.settings).expect("a seat");
        let place = server.place(&current.settings, address.ip()).expect("a place of its own");
        server.serve(current, Mine(stream), address, (seat, place));
        client
    };
    let (mut victim, mut other) = (connect(), connect());
    assert!(line(&mut victim).await.starts_with("220 ") && line(&mut other).await.starts_with("220 "));
    for count in 1..=5 {
        let mut bad = connect();
        assert!(line(&mut bad).await.starts_with("220 "));
        bad.write_all(b"boom\r\n").await.unwrap();
        assert_eq!(line(&mut bad).await, "closed after \"\"");
        remain(&server, 2).await;
        assert_eq!(server.panics.count(), count);
    }
    for stream in [&mut victim, &mut other] {
        stream.write_all(b"NOOP\r\n").await.unwrap();
        assert_eq!(line(stream).await, "250 2.0.0 ok");
    }
}

#[tokio::test]
async fn who_finds_no_room_is_told_why_and_room_comes_back() {
    let rows = [
        ("limits.connections", "421 4.7.0 gate.test too many connections, try again later"),
        (
            "limits.connections_per_client",
            "421 4.7.0 gate.test too many connections from your address, try again later",
        ),
    ];
    for (key, expected) in rows {
        let (server, _folder) = server(&[(key, "2")]);
        let (one, first) = first_line(&server, b"").await;
        let (two, _second) = first_line(&server, b"").await;
        assert_eq!((one.as_str(), two.as_str()), ("220 gate.test ESMTP rmxd", "220 gate.test ESMTP rmxd"));
        let (refused, mut third) = first_line(&server, b"").await;
        assert_eq!(refused, expected);
        assert_eq!(line(&mut third).await, "closed after \"\"");
        drop(first);
        remain(&server, 1).await;
        assert!(first_line(&server, b"").await.0.starts_with("220 "), "{key}");
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_announced_address_is_counted() {
    let trusted = [("trusted.proxy", "127.0.0.0/8"), ("limits.connections_per_client", "1")];
    let (server, _folder) = server(&trusted);
    let header = |client: &str| format!("PROXY TCP4 {client} 127.0.0.1 4321 25\r\n").into_bytes();
    let (served, _first) = first_line(&server, &header("192.0.2.7")).await;
    assert_eq!(served, "220 gate.test ESMTP rmxd");
    let refused = "421 4.7.0 gate.test too many connections from your address, try again later";
    assert_eq!(first_line(&server, &header("192.0.2.7")).await.0, refused);
    let mapped = b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4321 25\r\n";
    assert_eq!(first_line(&server, mapped).await.0, refused, "the same client, IPv4-mapped");
    let (served, _second) = first_line(&server, &header("192.0.2.8")).await;
    assert_eq!(served, "220 gate.test ESMTP rmxd");
    let (served, _third) = first_line(&server, b"PROXY UNKNOWN\r\n").await;
    assert_eq!(served, "220 gate.test ESMTP rmxd", "the proxy itself");
}

#[tokio::test]
async fn a_trusted_proxy_must_announce_and_nobody_else_can() {
    let (server, _folder) = super::tests::server(&[("trusted.proxy", "127.0.0.1")]);
    for octets in [&b"EHLO c.test\r\n"[..], b"PROXY TCP5 a b c d\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0"] {
        let (line, _) = first_line(&server, octets).await;
        assert_eq!(line, "closed after \"\"", "{}", octets.escape_ascii());
    }
    remain(&server, 0).await;
    let (server, _folder) = super::tests::server(&[("trusted.proxy", "192.0.2.0/24")]);
    let header = b"PROXY TCP4 192.0.2.7 127.0.0.1 4321 25\r\n";
    let (banner, mut client) = first_line(&server, header).await;
    assert_eq!(banner, "220 gate.test ESMTP rmxd");
    assert_eq!(line(&mut client).await, "500 5.5.1 command not known");
    let (_, mut client) = first_line(&server, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c............").await;
    assert_eq!(line(&mut client).await, "500 5.5.1 command not known", "an empty line");
    assert_eq!(line(&mut client).await, "500 5.5.1 command not known", "another");
    assert!(line(&mut client).await.starts_with("521 5.5.2 NUL"));
    assert_eq!(line(&mut client).await, "closed after \"\"");
}

#[tokio::test]
async fn xclient_gateways_have_no_share_of_their_own() {
    let trusted = [("trusted.xclient", "127.0.0.1"), ("limits.connections_per_client", "1")];
    let (server, _folder) = server(&trusted);
    let (one, _first) = first_line(&server, b"").await;
    let (two, _second) = first_line(&server, b"").await;
    assert_eq!((one.as_str(), two.as_str()), ("220 gate.test ESMTP rmxd", "220 gate.test ESMTP rmxd"));
}

#[tokio::test]
async fn who_speaks_before_the_banner_is_refused_and_who_waits_is_not() {
    let (server, _folder) = server(&[("limits.banner_delay", "150ms")]);
    let (early, mut client) = first_line(&server, b"EHLO c.test\r\n").await;
    assert_eq!(early, "554 5.5.1 you spoke before the banner; closing connection");
    assert_eq!(line(&mut client).await, "closed after \"\"");
    let began = tokio::time::Instant::now();
    let (banner, mut client) = first_line(&server, b"").await;
    assert!(began.elapsed() >= Duration::from_millis(150));
    assert_eq!(banner, "220 gate.test ESMTP rmxd");
    client.write_all(b"NOOP\r\n").await.unwrap();
    assert_eq!(line(&mut client).await, "250 2.0.0 ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_told_of_the_end_finds_no_listener_any_more() {
    for _ in 0..50 {
        let (server, _folder) = running(&[], vec![Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap()]);
        let address = server.addresses()[0];
        let mut idle = TcpStream::connect(address).await.unwrap();
        assert_eq!(line(&mut idle).await, "220 gate.test ESMTP rmxd");
        let drained = tokio::spawn(server.drain());
        assert_eq!(line(&mut idle).await, "421 4.3.2 gate.test is shutting down, closing connection");
        assert!(TcpStream::connect(address).await.is_err(), "a new client is let in");
        drop(idle);
        assert_eq!(drained.await.unwrap(), 0);
    }
}

#[tokio::test]
async fn an_idle_client_costs_a_small_task() {
    let (server, _folder) = server(&[]);
    let (_client, stream) = duplex(64);
    let current = Arc::clone(&server.current.borrow());
    let seat = server.seat(&current.settings).expect("a seat");
    let address = "192.0.2.7:1".parse().unwrap();
    let task = size_of_val(&Arc::clone(&server).connection(current, stream, address, (seat, None)));
    assert!(task <= 2048, "{task} octets: what has grown belongs into a box");
}
