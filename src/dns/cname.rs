//! From a question to its answer along CNAMEs (RFC 1034 3.6.2).
//!
//! A recursive server mostly sends the whole chain; where the chain ends without data and without a SOA record, its last name
//! is asked for. Chains are bounded, and a loop is a failure, not absence: no 5xx rests on it. NXDOMAIN behind an alias is
//! about the last name only (RFC 6604 3). The denial covers that name, and all types of it only where DNSSEC proves every
//! answer of the chain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::dns::budget::{Budget, Payment};
use crate::dns::failover::{Failed, Servers};
use crate::dns::message::{Data, ResourceRecord, Response, WireName};
use crate::evidence::{Answer, DnsFailure, Question, QuestionName, RecordType, Records};

/// How many questions one answer may cost.
const MAX_ASKED: usize = 8;
/// How many names a chain may have.
const MAX_NAMES: usize = 16;

/// An answer before the cache decides how long to keep it.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) answer: Answer,
    /// The least TTL of the chain; `None` for a failure, and for absence without a SOA record.
    pub(super) ttl: Option<Duration>,
    /// The name that DNSSEC proves not to exist, with all below it: the one asked for, or the end of its chain of aliases.
    pub(super) proven_absent: Option<QuestionName>,
    /// Of a failure: [`crate::evidence::Evidence::server`].
    pub(super) server: Option<Arc<SocketAddr>>,
}

impl Resolved {
    pub(super) fn new(answer: Answer, ttl: Option<Duration>) -> Self {
        Self { answer, ttl, proven_absent: None, server: None }
    }

    pub(super) fn failure(failure: DnsFailure) -> Self {
        Self::new(Answer::Unavailable(failure), None)
    }
}

/// Asks and follows aliases. `payment` is for the first question; each further one takes from the budget.
pub(super) async fn resolve(
    servers: &Servers,
    question: &Question,
    deadline: Instant,
    payment: Payment,
    budget: &Budget,
) -> Resolved {
    let Some(name) = WireName::of(&question.name) else {
        return Resolved::failure(DnsFailure::Broken);
    };
    let mut chain = Chain { names: vec![name.clone()], last: name, ttl: Duration::MAX, secure: true };
    let mut payment = Some(payment);
    for _ in 0..MAX_ASKED {
        let Some(paid) = payment.take().or_else(|| budget.pay()) else {
            return Resolved::failure(DnsFailure::TooMany);
        };
        paid.spend();
        let response = match servers.ask(&chain.last, question.rtype, deadline).await {
            Ok(response) => response,
            Err(Failed { why, server }) => return Resolved { server, ..Resolved::failure(why) },
        };
        chain.secure &= response.secure;
        let asked = chain.names.len();
        // A question for CNAME is about the alias itself.
        if question.rtype != RecordType::Cname && chain.follow(&response.records).is_err() {
            return Resolved::failure(DnsFailure::AliasLoop);
        }
        if let Some(records) = chain.records(&response.records, question.rtype) {
            return Resolved::new(Answer::Found(records), Some(chain.ttl));
        }
        let moved = chain.names.len() > asked;
        if response.denied || !moved || response.negative_ttl.is_some() {
            return chain.absence(&response, &question.name);
        }
    }
    Resolved::failure(DnsFailure::AliasLoop)
}

struct Chain {
    names: Vec<WireName>,
    last: WireName,
    ttl: Duration,
    /// All answers so far were.
    secure: bool,
}

impl Chain {
    /// Follows the aliases among `records`; an error is a loop, or a chain that is too long.
    fn follow(&mut self, records: &[ResourceRecord]) -> Result<(), ()> {
        while let Some((target, ttl)) = records.iter().find_map(|record| match &record.data {
            Data::Alias(target) if record.owner == self.last => Some((target, record.ttl)),
            Data::Alias(_) | Data::Mx(..) | Data::A(_) | Data::Aaaa(_) | Data::Ptr(_) | Data::Txt(_) => None,
        }) {
            if self.names.contains(target) || self.names.len() >= MAX_NAMES {
                return Err(());
            }
            self.ttl = self.ttl.min(ttl);
            self.names.push(target.clone());
            self.last = target.clone();
        }
        Ok(())
    }

    /// The records of the last name that have the type asked for; lowers the TTL to theirs.
    fn records(&mut self, records: &[ResourceRecord], rtype: RecordType) -> Option<Records> {
        let (mut mx, mut a, mut aaaa) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ptr, mut txt, mut cname) = (Vec::new(), Vec::new(), None);
        for record in records.iter().filter(|record| record.owner == self.last) {
            match (&record.data, rtype) {
                (Data::Mx(preference, host), RecordType::Mx) => mx.push((*preference, host.target())),
                (Data::A(address), RecordType::A) => a.push(*address),
                (Data::Aaaa(address), RecordType::Aaaa) => aaaa.push(*address),
                (Data::Ptr(name), RecordType::Ptr) => ptr.push(name.target()),
                (Data::Txt(text), RecordType::Txt) => txt.push(text.clone()),
                (Data::Alias(name), RecordType::Cname) => cname = Some(name.target()),
                _ => continue,
            }
            self.ttl = self.ttl.min(record.ttl);
        }
        mx.sort_by_key(|(preference, _)| *preference);
        match rtype {
            RecordType::Mx => (!mx.is_empty()).then_some(Records::Mx(mx)),
            RecordType::A => (!a.is_empty()).then_some(Records::A(a)),
            RecordType::Aaaa => (!aaaa.is_empty()).then_some(Records::Aaaa(aaaa)),
            RecordType::Ptr => (!ptr.is_empty()).then_some(Records::Ptr(ptr)),
            RecordType::Txt => (!txt.is_empty()).then_some(Records::Txt(txt)),
            RecordType::Cname => cname.map(Records::Cname),
        }
    }

    fn absence(&self, response: &Response, asked: &QuestionName) -> Resolved {
        let ttl = response.negative_ttl.map(|ttl| ttl.min(self.ttl));
        if !response.denied {
            return Resolved::new(Answer::NoData, ttl);
        }
        let proven_absent = match (self.secure, self.names.len()) {
            (false, _) => None,
            (true, 1) => Some(asked.clone()),
            (true, _) => self.last.domain().map(QuestionName::from),
        };
        Resolved { proven_absent, ..Resolved::new(Answer::NoSuchDomain, ttl) }
    }
}
