//! The PROXY header, versions 1 and 2 (HAProxy's specification), which names the client of a load balancer. The only file
//! that names proxy-header.
//!
//! Only connections from `trusted.proxy` are read here, and they must begin with the header: without a valid one the
//! connection is closed, since the proxy's own address must never be judged as a client's by mistake. Exactly the
//! header is taken from the socket, so that the octets of the client stay in it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// For the whole header; a proxy sends it at once.
const WAIT: Duration = Duration::from_secs(5);
/// Longest header: version 2 with IPv6 addresses and room for more (section 2.2 wants 216 octets, for unix sockets; the
/// TLV come on top).
const MOST: usize = 536;
/// Longest header of version 1 (section 2.1).
const MOST_V1: usize = 107;
/// The first octets of version 1.
const V1: &[u8] = b"PROXY ";
/// The first octets of version 2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Why a connection from a trusted proxy can't be served.
#[derive(Debug, thiserror::Error)]
pub enum NoClient {
    /// No header came in time.
    #[error("no PROXY header within {} s", WAIT.as_secs())]
    TimedOut,
    /// Not a header, or not one of a stream.
    #[error("not a PROXY header")]
    Invalid,
    /// The proxy closed the connection.
    #[error("the connection ended within the PROXY header")]
    Gone,
    /// An error of the socket.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The client that a proxy announces; the proxy itself where it announces none (LOCAL, UNKNOWN: health checks).
pub(crate) async fn client(stream: &mut TcpStream, proxy: SocketAddr) -> Result<SocketAddr, NoClient> {
    let read = tokio::time::timeout(WAIT, read(stream)).await;
    Ok(read.map_err(|_elapsed| NoClient::TimedOut)??.unwrap_or(proxy))
}

async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, NoClient> {
    let mut header = Vec::with_capacity(V1.len() + MOST_V1);
    let mut seen = [0; MOST];
    loop {
        let room = MOST - header.len();
        let length = stream.peek(seen.get_mut(..room).unwrap_or_default()).await?;
        if length == 0 {
            return Err(if room == 0 { NoClient::Invalid } else { NoClient::Gone });
        }
        let taken = header.len();
        header.extend_from_slice(seen.get(..length).unwrap_or_default());
        let parsed = parse(&header)?;
        let of_header = parsed.as_ref().map_or(length, |(_, end)| end.saturating_sub(taken));
        stream.read_exact(seen.get_mut(..of_header).unwrap_or_default()).await?;
        if let Some((client, _)) = parsed {
            return Ok(client);
        }
    }
}

/// The client (the proxy itself: `None`) and the length of the header at the front of these octets; `None` while it is
/// not complete.
///
/// # Errors
/// [`NoClient::Invalid`]: more octets can't make it a header.
pub fn parse(octets: &[u8]) -> Result<Option<(Option<SocketAddr>, usize)>, NoClient> {
    let begins = |with: &[u8]| octets.iter().zip(with).all(|(octet, wanted)| octet == wanted);
    if !begins(V1) && !begins(V2) {
        return Err(NoClient::Invalid);
    }
    // Of version 1, only the line counts: the result must not depend on how many octets behind it have arrived.
    let line_end = memchr::memchr(b'\n', octets).filter(|_| begins(V1)).map(|at| at + 1);
    let octets = octets.get(..line_end.unwrap_or(octets.len())).unwrap_or_default();
    let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
    let (header, length) = match ProxyHeader::parse(octets, config) {
        Ok(parsed) => parsed,
        Err(Error::BufferTooShort) if octets.len() < MOST && line_end.is_none() => return Ok(None),
        Err(_) => return Err(NoClient::Invalid),
    };
    let proxied = header.proxied_address();
    let whole = octets.get(..length).unwrap_or_default();
    let plain = if begins(V1) { is_plain_v1(whole, proxied.is_some()) } else { length <= MOST };
    if !plain {
        return Err(NoClient::Invalid);
    }
    match proxied {
        None => Ok(Some((None, length))),
        Some(proxied) if proxied.protocol == Protocol::Stream => {
            let source = proxied.source;
            Ok(Some((Some(SocketAddr::new(source.ip().to_canonical(), source.port())), length)))
        }
        Some(_) => Err(NoClient::Invalid),
    }
}

/// Whether a line follows section 2.1; proxy-header is not as strict.
fn is_plain_v1(header: &[u8], addressed: bool) -> bool {
    let Some(line) = header.strip_suffix(b"\r\n").filter(|_| header.len() <= MOST_V1) else {
        return false;
    };
    if !addressed {
        return line
            .strip_prefix(b"PROXY UNKNOWN")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b" "));
    }
    let mut ports = line.rsplit(|octet| *octet == b' ').take(2);
    ports.all(|port| port.iter().all(u8::is_ascii_digit) && (port == b"0" || !port.starts_with(b"0")))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A header of version 2 with what follows the signature.
    fn v2(rest: &[u8]) -> Vec<u8> {
        [V2, rest].concat()
    }

    fn inet(command: u8, family: u8) -> Vec<u8> {
        v2(&[command, family, 0, 12, 192, 0, 2, 7, 192, 0, 2, 1, 0x10, 0xe1, 0, 25])
    }

    fn shown(octets: &[u8]) -> String {
        match parse(octets) {
            Ok(None) => "more".to_owned(),
            Ok(Some((client, length))) => {
                let client = client.map_or_else(|| "proxy".to_owned(), |client| client.to_string());
                format!("{client} in {length}")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn both_versions_are_read_and_nothing_else() {
        let invalid = "not a PROXY header";
        let inet6 = v2(&[
            &[0x21, 0x21, 0, 36][..],
            &"2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets(),
            &"::1".parse::<std::net::Ipv6Addr>().unwrap().octets(),
            &[0, 99, 0, 25],
        ]
        .concat());
        let with_tlv = [&inet(0x21, 0x11)[..15], &[17], &inet(0x21, 0x11)[16..], &[4, 0, 2, 0, 0]].concat();
        let unix = v2(&[&[0x21, 0x31, 0, 216][..], &[b'/'; 216]].concat());
        let endless = v2(&[&[0x21, 0x11, 0xff, 0xff][..], &[0; 600]].concat());
        let rows: [(&[u8], &str); 29] = [
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 25\r\nEHLO c.test\r\n", "192.0.2.7:4321 in 40"),
            (b"PROXY TCP6 2001:db8::7 ::1 4321 25\r\n", "[2001:db8::7]:4321 in 36"),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4321 25\r\n", "192.0.2.7:4321 in 41"),
            (b"PROXY UNKNOWN\r\n", "proxy in 15"),
            (b"PROXY UNKNOWN ffff:f::ffff ffff:f::ffff 65535 65535\r\n", "proxy in 53"),
            (&inet(0x21, 0x11), "192.0.2.7:4321 in 28"),
            (&inet6, "[2001:db8::7]:99 in 52"),
            (&with_tlv, "192.0.2.7:4321 in 33"),
            (&inet(0x20, 0x11), "proxy in 28"),
            (&v2(&[0x20, 0, 0, 0]), "proxy in 16"),
            (&v2(&[0x21, 0, 0, 0]), "proxy in 16"),
            (&unix, "proxy in 232"),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 4321", "more"),
            (b"PRO", "more"),
            (b"\r\n\r\n", "more"),
            (&inet(0x21, 0x11)[..27], "more"),
            (b"EHLO c.test\r\n", invalid),
            (b"PROXYxTCP4 192.0.2.7 192.0.2.1 4321 25\r\n", invalid),
            (b"PROXY TCP4 2001:db8::7 ::1 4321 25\r\n", invalid),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 25\nE", invalid),
            (b"PROXY UNKNOWN x\ny\r\n", invalid),
            (b"PROXY UNKNOWNS\r\n", invalid),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 +321 25\r\n", invalid),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 321 025\r\n", invalid),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 0 0\r\n", "192.0.2.7:0 in 36"),
            (b"\r\nEHLO c.test\r\n", invalid),
            (&inet(0x21, 0x12), invalid),
            (&inet(0x11, 0x11), invalid),
            (&endless, invalid),
        ];
        for (octets, expected) in rows {
            assert_eq!(shown(octets), expected, "{}", octets.escape_ascii());
        }
        let long = |length: usize| [b"PROXY UNKNOWN ", vec![b'x'; length - 16].as_slice(), b"\r\n"].concat();
        assert_eq!(shown(&long(MOST_V1)), "proxy in 107");
        assert_eq!(shown(&long(MOST_V1 + 1)), invalid);
    }

    proptest::proptest! {
        #[test]
        fn a_header_is_found_as_soon_as_it_is_whole_whatever_follows(
            version in 0..4_usize,
            changes in proptest::collection::vec((0..70_usize, proptest::prelude::any::<u8>()), 0..3),
            behind in proptest::collection::vec(proptest::sample::select(&b"\r\nA \0"[..]), 0..12),
        ) {
            let mut octets = match version {
                0 => inet(0x21, 0x11),
                1 => inet(0x20, 0x11),
                2 => b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 25\r\n".to_vec(),
                _ => b"PROXY UNKNOWN\r\n".to_vec(),
            };
            for (at, octet) in changes {
                let length = octets.len();
                octets[at % length] = octet;
            }
            octets.extend(behind);
            let first = (0..=octets.len()).map(|length| shown(&octets[..length])).find(|found| found != "more");
            proptest::prop_assert_eq!(first.unwrap_or_else(|| "more".to_owned()), shown(&octets));
        }
    }

    #[tokio::test]
    async fn exactly_the_header_is_taken_whatever_the_pieces() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let header = [&inet(0x21, 0x11)[..], b"EHLO c.test\r\n"].concat();
        let v1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 25\r\nEHLO c.test\r\n".to_vec();
        for (octets, piece) in [(&header, 1000), (&header, 5), (&header, 1), (&v1, 1000), (&v1, 3)] {
            let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            sender.set_nodelay(true).unwrap();
            let (mut stream, proxy) = listener.accept().await.unwrap();
            let send = async {
                for piece in octets.chunks(piece) {
                    sender.write_all(piece).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            let (found, ()) = tokio::join!(client(&mut stream, proxy), send);
            assert_eq!(found.unwrap(), "192.0.2.7:4321".parse().unwrap());
            let mut rest = [0; 13];
            stream.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"EHLO c.test\r\n");
        }
    }

    #[tokio::test]
    async fn a_proxy_that_closes_or_sends_nothing_announces_no_client() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (octets, leaves, expected) in [
            (&b"PROXY TCP4 192"[..], true, "the connection ended within the PROXY header"),
            (b"", true, "the connection ended within the PROXY header"),
            (b"PROXY TCP4 192", false, "no PROXY header within 5 s"),
        ] {
            let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut stream, proxy) = listener.accept().await.unwrap();
            sender.write_all(octets).await.unwrap();
            let sender = (!leaves).then_some(sender);
            if !leaves {
                tokio::time::pause(); // the rest of the wait passes at once
            }
            let error = client(&mut stream, proxy).await.unwrap_err();
            assert_eq!(error.to_string(), expected);
            drop(sender);
        }
    }
}
