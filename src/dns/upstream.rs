//! One exchange with one upstream server, over UDP or TCP, and whether the server knows EDNS and may prove
//! answers by DNSSEC.
//!
//! The sockets are ours (`udp`, `tcp`): hickory's pool makes a socket and a task for each question and copies it several
//! times, which was a quarter of what a spoofed sender with a new name cost, and it goes on with a connection that has
//! died. hickory's high-level `Resolver` is not used either: it invents answers for 127/8 and `.invalid`.
//!
//! AD says that the server has validated the answer. Any host on the path could set it, so it counts only over loopback
//! (RFC 4035 4.9.3), and only there it is asked for.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::dns::message::{ProbeReply, ProbeType, Reply, Response, WireName};
use crate::dns::packet::{Form, Packet};
use crate::dns::tcp::Tcp;
use crate::dns::udp::{Udp, UdpResult};
use crate::dns::unreached;
use crate::evidence::{DnsFailure, RecordType};

/// How long a server that answered only without EDNS is asked without.
const WITHOUT_EDNS: Duration = Duration::from_secs(15 * 60);

/// A server to ask.
pub(super) struct Upstream {
    udp: Udp,
    tcp: Tcp,
    /// Its AD counts.
    trusted: bool,
    without_edns_until: Mutex<Option<Instant>>,
}

impl Upstream {
    pub(super) fn new(server: SocketAddr) -> Self {
        Self {
            udp: Udp::new(server),
            tcp: Tcp::new(server),
            trusted: server.ip().to_canonical().is_loopback(),
            without_edns_until: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Asks once, until then at the latest; over TCP too when UDP was truncated or its answer didn't echo the question's
    /// case (0x20).
    pub(super) async fn ask(
        &self,
        name: &WireName,
        rtype: RecordType,
        until: Instant,
    ) -> Result<Response, DnsFailure> {
        let reply = self.exchange(name, ProbeType::Records(rtype), until).await?;
        reply.response(name, self.trusted)
    }

    /// Asks a question of the health check.
    pub(super) async fn probe(&self, name: &WireName, asked: ProbeType, until: Instant) -> ProbeReply {
        match self.exchange(name, asked, until).await {
            Ok(reply) => reply.probe_reply(),
            Err(failure) if failure.is_silence() => ProbeReply::Nothing(failure),
            Err(_) => ProbeReply::Failure,
        }
    }

    /// A server that doesn't know EDNS calls a question with it a FORMERR, and is asked again without (RFC 6891 7). That
    /// is remembered when it helped: else the question was at fault.
    async fn exchange(&self, name: &WireName, asked: ProbeType, until: Instant) -> Result<Reply, DnsFailure> {
        let edns = self.knows_edns();
        let reply = self.exchange_once(name, asked, edns, until).await?;
        if !edns || !reply.is_lack_of_edns() {
            return Ok(reply);
        }
        let reply = self.exchange_once(name, asked, false, until).await?;
        if !reply.is_lack_of_edns() {
            let mut without = self.without_edns_until.lock().unwrap_or_else(PoisonError::into_inner);
            *without = Some(Instant::now() + WITHOUT_EDNS);
        }
        Ok(reply)
    }

    fn knows_edns(&self) -> bool {
        let without = self.without_edns_until.lock().unwrap_or_else(PoisonError::into_inner);
        without.is_none_or(|until| until <= Instant::now())
    }

    async fn exchange_once(
        &self,
        name: &WireName,
        asked: ProbeType,
        edns: bool,
        until: Instant,
    ) -> Result<Reply, DnsFailure> {
        let form = Form { edns, authentic: self.trusted };
        let packet = Packet::new(name.iter(), asked.number(), form, rand::random);
        match self.udp.ask(&packet, until).await {
            Ok(UdpResult::Answer(octets)) => Ok(Reply::read(&octets)),
            // Boxed: hardly any question goes this way.
            Ok(UdpResult::OverTcp) => {
                let octets = Box::pin(self.tcp.ask(&packet, until)).await.map_err(over_tcp)?;
                Ok(Reply::read(&octets))
            }
            Ok(UdpResult::Silence(trouble)) => Err(trouble.unwrap_or(DnsFailure::Timeout)),
            Err(error) => {
                tracing::debug!(%error, "no socket for a question");
                Err(unreached::failure(&error))
            }
        }
    }
}

/// The server has answered over UDP, so it isn't silent.
fn over_tcp(failure: DnsFailure) -> DnsFailure {
    if failure.is_silence() && failure != DnsFailure::Timeout { DnsFailure::NoTcp } else { failure }
}
