//! Sockets for questions over UDP: one question at a time on each, repeated while nothing comes.
//!
//! A question to another host goes from a port of its own, which the kernel draws, so that a host that doesn't
//! see the question can't forge its answer (RFC 5452 9.2). A server on this host can't be impersonated from outside: packets with
//! a loopback source don't come in by a wire. So sockets to it are used again, which spares most of a question's system
//! calls. A socket whose question was given up is closed: its late answer goes nowhere.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::dns::packet::{Packet, Reception};
use crate::dns::unreached;
use crate::evidence::DnsFailure;

/// How long the first packet has; each further one twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_millis(333);
/// Packets of one question.
const MAX_SENT: usize = 3;
/// Sockets that are kept for reuse, and of how many descriptors that the process may have one of them can be: clients
/// need these more.
const MAX_KEPT: u64 = 128;
const DESCRIPTORS: u64 = 32;
/// No datagram is longer that answers a question of ours.
const DATAGRAM: usize = 4096;

/// The outcome of a question.
#[derive(Debug)]
pub(super) enum UdpResult {
    /// The answer, as it came.
    Answer(Vec<u8>),
    /// There is one, to be had over TCP.
    OverTcp,
    /// Nothing came in time; with the last error of the system, if there was one.
    Silence(Option<DnsFailure>),
}

/// The sockets to one server.
#[derive(Debug)]
pub(super) struct Udp {
    server: SocketAddr,
    kept: Mutex<Vec<UdpSocket>>,
    most_kept: OnceLock<usize>,
}

impl Udp {
    pub(super) fn new(server: SocketAddr) -> Self {
        Self { server, kept: Mutex::default(), most_kept: OnceLock::new() }
    }

    /// Asks, and asks again while nothing comes, until then at the latest.
    ///
    /// # Errors
    /// There is no socket to be had.
    pub(super) async fn ask(&self, packet: &Packet, until: Instant) -> io::Result<UdpResult> {
        let socket = self.socket()?;
        let (mut wait, mut sent_at, mut trouble) = (FIRST_WAIT, Instant::now(), None);
        for sent in 1..=MAX_SENT {
            // What can't be sent is as lost as what gets lost on the way. That the port was closed a moment ago
            // (ECONNREFUSED) says nothing of now.
            if let Err(error) = SockRef::from(&socket).send(packet.octets()) {
                note(&mut trouble, &error);
            }
            let end = if sent == MAX_SENT { until } else { until.min(sent_at + wait) };
            if let Ok(outcome) = timeout_at(end, answer(&socket, packet, &mut trouble)).await {
                let outcome = outcome?;
                self.keep(socket);
                return Ok(outcome);
            }
            (sent_at, wait) = (end, wait * 2);
            if end == until {
                break;
            }
        }
        Ok(UdpResult::Silence(trouble))
    }

    fn socket(&self) -> io::Result<UdpSocket> {
        if let Some(socket) = self.kept().pop() {
            return Ok(socket);
        }
        let socket = Socket::new(Domain::for_address(self.server), Type::DGRAM.nonblocking(), None)?;
        socket.connect(&self.server.into())?;
        UdpSocket::from_std(socket.into())
    }

    fn keep(&self, socket: UdpSocket) {
        if !self.server.ip().to_canonical().is_loopback() {
            return;
        }
        let most = *self.most_kept.get_or_init(most_kept);
        let mut kept = self.kept();
        if kept.len() < most {
            kept.push(socket);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<UdpSocket>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Read at the first answer: the daemon raises its limit after it has made its resolver.
fn most_kept() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from((limit / DESCRIPTORS).min(MAX_KEPT)).unwrap_or_default()
}

fn note(trouble: &mut Option<DnsFailure>, error: &io::Error) {
    if error.kind() != io::ErrorKind::WouldBlock {
        *trouble = Some(unreached::failure(error));
    }
}

async fn answer(
    socket: &UdpSocket,
    packet: &Packet,
    trouble: &mut Option<DnsFailure>,
) -> io::Result<UdpResult> {
    loop {
        socket.readable().await?;
        let mut datagram = [0; DATAGRAM];
        let length = match socket.try_recv(&mut datagram) {
            Ok(length) => length,
            Err(error) => {
                note(trouble, &error);
                continue; // not readable after all, or the port is closed: a server may open it yet
            }
        };
        let datagram = datagram.get(..length).unwrap_or_default();
        match packet.receive(datagram) {
            Reception::Answer => return Ok(UdpResult::Answer(datagram.to_vec())),
            Reception::OverTcp => return Ok(UdpResult::OverTcp),
            Reception::Unrelated => {}
        }
    }
}
