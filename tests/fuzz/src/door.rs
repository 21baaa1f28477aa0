//! A whole connection through the door, with the gate and a relay on loopback that records what it is told.
//!
//! Input: an octet of settings, one for the size of the pipe to the client, then what the client sends. The relay reads
//! as gullibly as any server does (LF ends a line) and answers by what stands in the address: a local part of `x..` is
//! refused, `l..` is put off, `g..` gets garbage, `c..` the end of the connection; as sender likewise at MAIL, and `d..`
//! at DATA. No name can be looked up, so only the senders that are exempt, those of good.test, may ever reach the relay.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rmxd::config::{self, Flags, Settings};
use rmxd::dns::Dns;
use rmxd::door::SmtpDoor;
use rmxd::message::header::{self, Field};
use rmxd::relay::NextHop;
use rmxd::smtp::address::{Domain, DomainName, ReversePath};
use rmxd::smtp::transparency::unstuffed;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use super::wire::{assert_message, assert_strict, reply_codes};

const QUEUED: &str = "2.0.0 queued by the relay";

pub fn check(input: &[u8]) {
    let Some(([settings, size], octets)) = input.split_first_chunk() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let [whole, bytewise, cut] = [1 << 16, 1, 2 + usize::from(*size)]
        .map(|pipe| LocalSet::new().block_on(&runtime, connection(*settings, octets, pipe)));
    assert_eq!(whole, bytewise, "octet by octet");
    assert_eq!(whole, cut, "through a pipe of {size}");
}

/// What can be seen from outside and must not depend on how the octets came.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// What became of each command: the class of its code, 4 and 5 taken together.
    answers: Vec<u16>,
    relay: Record,
}

/// What the relay was told.
#[derive(Debug, PartialEq, Eq, Default)]
struct Record {
    envelopes: Vec<String>,
    /// Messages that ended in a dot, without the trace fields of rmxd.
    messages: Vec<Vec<u8>>,
    queued: usize,
}

async fn connection(settings: u8, octets: &[u8], pipe: usize) -> Seen {
    let listener = TcpListener::bind((fresh_address(), 0)).await.unwrap();
    let door = door(settings, listener.local_addr().unwrap());
    let record = Rc::new(RefCell::new(Record::default()));
    let relay = tokio::task::spawn_local(relay(listener, Rc::clone(&record)));
    let (near, far) = tokio::io::duplex(pipe);
    let (mut read, mut write) = tokio::io::split(near);
    let mut output = Vec::new();
    let talk = async {
        // the door may be closed before everything was said
        drop(write.write_all(octets).await);
        drop(write.shutdown().await);
    };
    let client = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 7), 4321));
    let stop = CancellationToken::new();
    let served = async { tokio::join!(door.serve(far, client, stop), talk, read.read_to_end(&mut output)) };
    let ended = tokio::time::timeout(Duration::from_secs(60), served).await;
    assert!(ended.is_ok(), "the connection hangs");
    drop(door);
    tokio::task::yield_now().await;
    relay.abort();
    drop(relay.await);
    let record = record.take();
    let codes = reply_codes(&output);
    let told = String::from_utf8_lossy(&output).matches(&format!("250 {QUEUED}")).count();
    assert_eq!(told, record.queued, "messages that the client was told of, and those that the relay took");
    Seen { answers: codes.iter().map(|code| (code / 100).min(4)).collect(), relay: record }
}

/// Another loopback address each time: thousands of connections a minute to one would use up the ports.
fn fresh_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id() << 8);
    let [_, a, b, c] = number.to_be_bytes();
    Ipv4Addr::new(127, a, b, c.clamp(1, 254))
}

fn door(settings: u8, relay: SocketAddr) -> SmtpDoor {
    static LOADED: OnceLock<Settings> = OnceLock::new();
    let mut loaded = LOADED.get_or_init(load).clone();
    if settings & 1 != 0 {
        loaded.door.bare_newline = rmxd::smtp::framing::BareNewline::Normalize;
    }
    loaded.relay.next_hop = NextHop::Smtp { host: relay.ip().to_string(), port: relay.port() };
    let dns = Dns::new(loaded.dns.clone()).unwrap();
    rmxd::daemon::door_over(dns, &loaded).unwrap()
}

/// Small limits, a name server to which no packet can be sent, and exempt senders.
fn load() -> Settings {
    let set = [
        ("hostname", "gate.test"),
        ("relay.next_hop", "smtp://127.0.0.1:1"),
        ("relay.identity", "none"),
        ("relay.domains", ".relay.test"),
        ("policy.ptr.exists", "off"),
        ("policy.mail_from.matches", "off"),
        ("exempt.domains", ".good.test"),
        ("exempt.recipients", ""),
        ("dns.servers", "255.255.255.255"),
        ("dns.timeout", "1s"),
        ("limits.command_line", "512"),
        ("limits.header_block", "1KiB"),
        ("limits.message", "2KiB"),
        ("limits.recipients", "3"),
        ("limits.errors", "5"),
    ];
    let set = set.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let loaded = config::load(None, [], &Flags { set, ..Flags::default() });
    loaded.unwrap_or_else(|problems| panic!("{problems:?}")).settings
}

async fn relay(listener: TcpListener, record: Rc<RefCell<Record>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::task::spawn_local(conversation(stream, Rc::clone(&record)));
    }
}

/// One connection; ends where the other side does, or in an error of the socket.
async fn conversation(stream: TcpStream, record: Rc<RefCell<Record>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 relay.test\r\n").await?;
    let mut envelope = Vec::new();
    loop {
        let Some(line) = next_line(&mut stream).await? else { return Ok(()) };
        assert_strict(&line);
        let line = String::from_utf8(line).unwrap();
        let line = line.strip_suffix("\r\n").unwrap();
        let verb = line.split(' ').next().unwrap_or_default();
        match verb {
            "MAIL" => {
                assert_may_pass(line);
                envelope.clear();
            }
            "RCPT" => assert!(!envelope.is_empty(), "{line}"),
            _ => {}
        }
        if matches!(verb, "MAIL" | "RCPT") {
            record.borrow_mut().envelopes.push(line.to_owned());
        }
        let sender = envelope.first().map(|line: &String| mood(line));
        let reply = match (verb, mood(line), sender) {
            ("MAIL" | "RCPT", 'x', _) => "550 5.1.0 no",
            ("MAIL" | "RCPT", 'l', _) | ("DATA", _, Some('d')) => "450 4.2.0 later",
            ("MAIL" | "RCPT", 'g', _) => "what\n250 ok",
            ("MAIL" | "RCPT", 'c', _) => return Ok(()),
            ("MAIL" | "RCPT", _, _) => {
                envelope.push(line.to_owned());
                "250 2.1.0 ok"
            }
            ("EHLO", ..) => "250-relay.test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 SIZE 5000",
            ("DATA", ..) => {
                assert!(envelope.len() > 1, "DATA without a recipient");
                stream.write_all(b"354 go ahead\r\n").await?;
                let Some(message) = message(&mut stream).await? else { return Ok(()) };
                envelope.clear();
                let mut record = record.borrow_mut();
                record.queued += 1;
                record.messages.push(message);
                &format!("250 {QUEUED}")
            }
            ("RSET" | "NOOP", ..) => "250 2.0.0 ok",
            ("QUIT", ..) => "221 2.0.0 bye",
            _ => panic!("the relay was told {line:?}"),
        };
        stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
    }
}

/// Up to and with the next LF, as the most gullible of servers reads; none at the end, whatever was begun.
async fn next_line(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).await?;
    Ok(line.ends_with(b"\n").then_some(line))
}

/// A message that ended in a dot, with what rmxd put above it taken off again.
async fn message(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Vec<u8>>> {
    let mut message = Vec::new();
    loop {
        let Some(line) = next_line(stream).await? else { return Ok(None) };
        if matches!(line.as_slice(), b".\r\n" | b".\n") {
            break;
        }
        message.extend(line);
    }
    assert_message(&message);
    assert!(message.starts_with(b"Received: from"), "{}", message.escape_ascii());
    let rest = after_field(&message);
    assert!(rest.starts_with(b"Authentication-Results: gate.test;"), "{}", rest.escape_ascii());
    let rest = after_field(rest);
    let plain = unstuffed(rest).into_owned();
    let end = if plain.starts_with(b"\r\n") { Some(0) } else { find(&plain, b"\r\n\r\n").map(|at| at + 2) };
    let (head, _) = plain.split_at(end.unwrap_or(plain.len()));
    let header = header::read(head);
    for (field, required) in [(&header.from, true), (&header.reply_to, false)] {
        let good = match field {
            Field::Absent => !required,
            Field::Malformed(_) => false,
            Field::Authors(authors) => {
                authors.iter().all(|author| author.domain.as_ref().is_some_and(is_good))
            }
        };
        assert!(good, "{field:?} reached the relay");
    }
    Ok(Some(rest.to_vec()))
}

fn after_field(block: &[u8]) -> &[u8] {
    let mut end = 0;
    for line in block.split_inclusive(|octet| *octet == b'\n') {
        if end > 0 && !line.starts_with(b"\t") {
            break;
        }
        end += line.len();
    }
    &block[end..]
}

fn find(octets: &[u8], part: &[u8]) -> Option<usize> {
    octets.windows(part.len()).position(|window| window == part)
}

/// What the address in a command asks the relay to do: the first letter of its local part.
fn mood(line: &str) -> char {
    line.split_once('<').and_then(|(_, path)| path.chars().next()).unwrap_or(' ')
}

/// The permit: nobody but the exempt domain, and the null sender, whom no rule looks at here.
fn assert_may_pass(line: &str) {
    let path = line.strip_prefix("MAIL FROM:<").and_then(|rest| rest.rsplit_once('>')).unwrap().0;
    let good = match ReversePath::parse(path).unwrap() {
        ReversePath::Null => true,
        ReversePath::NoDomain(_) => false,
        ReversePath::Mailbox(mailbox) => matches!(mailbox.domain(), Domain::Name(name) if is_good(name)),
    };
    assert!(good, "{line:?} reached the relay");
}

fn is_good(name: &DomainName) -> bool {
    name.is_at_or_below(&DomainName::parse("good.test").unwrap())
}
