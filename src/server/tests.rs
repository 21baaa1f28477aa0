//! The server with a real door, over sockets. The relay is a folder, and no DNS is used.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::*;
use crate::config::{Flags, load};
use crate::daemon;
use crate::dns::Dns;
use crate::door::{Door, SmtpDoor};
use crate::net::Stream;
use crate::server::service::connection;

const OFF: [&str; 5] =
    ["ptr.exists", "mail_from.exists", "mail_from.matches", "from.exists", "reply_to.exists"];

/// The shared part of a server without listeners.
fn server(assignments: &[(&str, &str)]) -> (Arc<Shared>, TempDir) {
    let (server, folder) = running(assignments, Vec::new());
    (server.shared, folder)
}

/// The defaults with these settings, without lookups.
fn settings(assignments: &[(&str, &str)], folder: &TempDir) -> crate::config::Settings {
    let mut set = vec![
        ("hostname".to_owned(), "gate.test".to_owned()),
        ("dns.servers".to_owned(), "127.0.0.1:9".to_owned()),
        ("relay.next_hop".to_owned(), format!("maildir:{}", folder.path().join("mail").display())),
    ];
    set.extend(OFF.map(|key| (format!("policy.{key}"), "off".to_owned())));
    set.extend(assignments.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    load(None, [], &Flags { set, ..Flags::default() }).unwrap().settings
}

fn running(assignments: &[(&str, &str)], listeners: Vec<Listener>) -> (Server, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(assignments, &folder);
    let dns = Dns::new(settings.dns.clone()).unwrap();
    let door = daemon::door_over(dns, &settings).unwrap();
    let services = vec![Service::new(Purpose::Smtp, door)];
    (
        Server::start(settings.server, services, listeners, Metrics::default(), Elsewhere::default())
            .unwrap(),
        folder,
    )
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

/// Connects, is admitted, sends `first`, and returns the first line that arrives.
async fn first_line(server: &Arc<Shared>, first: &[u8]) -> (String, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    server.admit(Purpose::Smtp, Stream::Tcp(stream), peer);
    client.write_all(first).await.unwrap();
    (line(&mut client).await, client)
}

/// Waits until so many connections are left.
async fn remain(server: &Shared, left: usize) {
    while server.connections.len() > left {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Echoes each octet, and panics at `!`.
#[derive(Debug)]
struct Echo;

impl Door for Echo {
    async fn serve(&self, mut stream: Stream, _client: SocketAddr, _stop: CancellationToken) {
        while let Ok(octet) = stream.read_u8().await {
            assert_ne!(octet, b'!', "as it was sent");
            stream.write_u8(octet).await.ok();
        }
    }

    async fn refuse(&self, mut stream: Stream, why: &str) {
        stream.write_all(why.as_bytes()).await.ok();
    }
}

fn client_of(server: &Arc<Shared>, purpose: Purpose) -> UnixStream {
    let (client, stream) = UnixStream::pair().unwrap();
    server.admit(purpose, Stream::Unix(stream), "192.0.2.7:1".parse().unwrap());
    client
}

async fn echoes(client: &mut UnixStream, octet: u8) -> bool {
    client.write_u8(octet).await.unwrap();
    client.read_u8().await.is_ok_and(|echo| echo == octet)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_one_connection_is_counted_and_releases_its_permit() {
    let (mut server, _folder) = running(&[("limits.connections", "3")], Vec::new());
    let mut settings = server.shared.current.borrow().settings.clone();
    settings.listen = vec![(Purpose::Smtp, Endpoint::Tcp("127.0.0.1:0".parse().unwrap()))];
    server.reload(settings, vec![Service::new(Purpose::Smtp, Echo)]).unwrap();
    let server = &server.shared;
    let (mut one, mut other) = (client_of(server, Purpose::Smtp), client_of(server, Purpose::Smtp));
    assert!(echoes(&mut one, b'a').await && echoes(&mut other, b'b').await);
    for count in 1..=5 {
        let mut bad = client_of(server, Purpose::Smtp);
        assert!(echoes(&mut bad, b'c').await && !echoes(&mut bad, b'!').await);
        remain(server, 2).await;
        assert_eq!(server.metrics.panics(), count);
    }
    assert!(echoes(&mut one, b'd').await && echoes(&mut other, b'e').await);
}

#[tokio::test]
async fn each_door_serves_its_own_connections_and_the_total_counts_them_all() {
    let (mut server, _folder) =
        running(&[("limits.connections", "3"), ("limits.connections_per_client", "1")], Vec::new());
    let (mut settings, smtp) = {
        let current = server.shared.current.borrow();
        (current.settings.clone(), current.services.clone())
    };
    // A trusted gateway in front of Postfix isn't one for the peer of a milter.
    settings.trusted_proxy = vec!["192.0.2.0/24".parse().unwrap()];
    settings.listen = vec![(Purpose::Milter, Endpoint::Tcp("127.0.0.1:0".parse().unwrap()))];
    let milter = Service::new(Purpose::Milter, Echo);
    server.reload(settings, smtp.into_iter().chain([milter]).collect()).unwrap();
    let server = &server.shared;
    let (mut first, mut second) = (client_of(server, Purpose::Milter), client_of(server, Purpose::Milter));
    assert!(
        echoes(&mut first, b'a').await && echoes(&mut second, b'b').await,
        "no limit of one client there"
    );
    let (banner, _smtp) = first_line(server, b"").await;
    assert_eq!(banner, "220 gate.test ESMTP rmxd");
    let mut why = String::new();
    client_of(server, Purpose::Milter).read_to_string(&mut why).await.unwrap();
    assert_eq!(why, "too many connections, try again later");
}

#[tokio::test]
async fn a_client_over_a_limit_gets_the_reason_and_permits_are_released() {
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
async fn a_trusted_proxy_must_announce_and_no_other_peer_can() {
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
async fn xclient_gateways_have_no_limit_of_their_own() {
    let trusted = [("trusted.xclient", "127.0.0.1"), ("limits.connections_per_client", "1")];
    let (server, _folder) = server(&trusted);
    let (one, _first) = first_line(&server, b"").await;
    let (two, _second) = first_line(&server, b"").await;
    assert_eq!((one.as_str(), two.as_str()), ("220 gate.test ESMTP rmxd", "220 gate.test ESMTP rmxd"));
}

#[tokio::test]
async fn a_client_that_sends_before_the_banner_is_refused_and_one_that_waits_is_not() {
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
async fn the_listeners_close_before_clients_get_the_last_421() {
    let any = Endpoint::Tcp("127.0.0.1:0".parse().unwrap());
    for _ in 0..50 {
        let (server, _folder) = running(&[], vec![Listener::bind(Purpose::Smtp, &any).unwrap()]);
        let address = server.endpoints()[0].tcp().unwrap();
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
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&[], &folder);
    let door: SmtpDoor = daemon::door_over(Dns::new(settings.dns.clone()).unwrap(), &settings).unwrap();
    let (server, _folder) = server(&[]);
    let (_client, stream) = UnixStream::pair().unwrap();
    let permit = server.counts.permit(Purpose::Smtp, 1).unwrap();
    let client = "192.0.2.7:1".parse().unwrap();
    let task = size_of_val(&connection(
        Arc::new(door),
        Arc::clone(&server),
        Stream::Unix(stream),
        client,
        permit,
        server.stop.clone(),
    ));
    assert!(task <= 2048, "{task} octets: what has grown belongs into a box");
}

#[tokio::test]
async fn only_this_machine_and_trusted_mail_servers_may_ask() {
    let (mut server, _folder) = running(&[], Vec::new());
    let mut settings = server.shared.current.borrow().settings.clone();
    settings.listen = vec![(Purpose::Policy, Endpoint::Tcp("127.0.0.1:0".parse().unwrap()))];
    settings.trusted_postfix = vec!["192.0.2.0/24".parse().unwrap()];
    server.reload(settings, vec![Service::new(Purpose::Policy, Echo)]).unwrap();
    let server = &server.shared;
    let rows = [
        ("127.0.0.1:1", true),
        ("127.8.8.8:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("[::1]:1", true),
        ("192.0.2.7:1", true),
        ("[::ffff:192.0.2.7]:1", true),
        ("198.51.100.7:1", false),
        ("[2001:db8::1]:1", false),
    ];
    for (peer, expected) in rows {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        server.admit(Purpose::Policy, Stream::Tcp(stream), peer.parse().unwrap());
        client.write_u8(b'a').await.ok();
        assert_eq!(client.read_u8().await.is_ok_and(|echo| echo == b'a'), expected, "{peer}");
    }
    // A unix socket has no address: the mode of its file says who may connect.
    assert!(echoes(&mut client_of(server, Purpose::Policy), b'b').await);
    remain(server, 0).await;
    assert_eq!(server.counts.open(), 0);
}
