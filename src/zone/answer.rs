//! Answers a question from the zones: aliases, wildcards (RFC 4592), negative answers (RFC 2308).
//!
//! Pure: no socket, no clock. It answers for the whole name space as a resolver does, since stub clients need that: it
//! follows each alias to its end, and names below no apex don't exist. No question is forwarded.

use std::borrow::Cow;
use std::time::Duration;

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::rdata::SOA;
use hickory_server::proto::rr::{LowerName, Record};

use crate::zone::data::{Behaviour, Node, RecordSet, Zone, ancestors, key};
use crate::zone::generated;
use crate::zone::{Name, RData, RecordType};

/// Longest chain of aliases that is followed; a loop is as long as that.
const MAX_ALIASES: usize = 16;

/// Time to live, in seconds, of "no such name" outside of all zones.
const ROOT_MINIMUM: u32 = 60;

/// The records of an empty non-terminal (RFC 8020 2).
static EMPTY: Node = Node::new();

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ZoneAnswer {
    /// How long to wait before the reply.
    pub(super) after: Duration,
    /// `None`: no response is sent.
    pub(super) reply: Option<Reply>,
}

/// The parts of a response that depend on the data.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reply {
    pub(super) code: ResponseCode,
    pub(super) records: Vec<Record>,
    /// The SOA record of a negative answer.
    pub(super) authority: Vec<Record>,
}

impl Zone {
    /// Answers one question. The owner names keep the case of the question (0x20).
    pub(super) fn answer(&self, name: &Name, record_type: RecordType) -> ZoneAnswer {
        let mut after = Duration::ZERO;
        let mut records = Vec::new();
        let mut owner = name.clone();
        for _ in 0..MAX_ALIASES {
            let name = key(&owner);
            match self.behaviour(&name, record_type) {
                Some(Behaviour::Silent) => return ZoneAnswer { after, reply: None },
                Some(Behaviour::ServFail) => return ZoneAnswer::failure(after, ResponseCode::ServFail),
                Some(Behaviour::Refused) => return ZoneAnswer::failure(after, ResponseCode::Refused),
                Some(Behaviour::Delay(time)) => after += time,
                None => {}
            }
            let node = self.node_for(&name);
            let (code, found) = match &node {
                Some(node) => (ResponseCode::NoError, select(node, record_type)),
                None => (ResponseCode::NXDomain, Selected::Nothing),
            };
            match found {
                Selected::Sets(sets) => {
                    for set in sets {
                        records.extend(set.data.iter().map(|data| record(&owner, set.ttl, data.clone())));
                    }
                    return ZoneAnswer::reply(after, ResponseCode::NoError, records, Vec::new());
                }
                Selected::Alias { ttl, target } => {
                    let alias = std::mem::replace(&mut owner, target.clone());
                    records.push(record(&alias, ttl, RData::CNAME(super::rdata::CNAME(target))));
                }
                Selected::Nothing => return ZoneAnswer::reply(after, code, records, vec![self.soa(&name)]),
            }
        }
        ZoneAnswer::failure(after, ResponseCode::ServFail)
    }

    /// The node that answers for a name: its own, or the wildcard's at its closest encloser (RFC 4592 3.3.1).
    /// `None`: there is no such name.
    fn node_for(&self, name: &LowerName) -> Option<Cow<'_, Node>> {
        if let Some(node) = generated::node(self.generated, name) {
            return Some(Cow::Owned(node));
        }
        let existing = |name| self.exists(name).then(|| Cow::Borrowed(self.node(name).unwrap_or(&EMPTY)));
        if let Some(node) = existing(name) {
            return Some(node);
        }
        let encloser = ancestors(name).skip(1).find(|name| name.is_root() || self.exists(name))?;
        // Fails only if the wildcard's name would exceed 255 octets.
        let wildcard = Name::from(encloser).prepend_label(b"*".as_slice()).ok()?;
        existing(&key(&wildcard))
    }

    /// The SOA record of the name's zone, for a negative answer (RFC 2308 3).
    fn soa(&self, name: &LowerName) -> Record {
        let found = ancestors(name).find_map(|apex| {
            let set = self.node(&apex)?.get(&RecordType::SOA)?;
            let RData::SOA(soa) = set.data.first()? else { return None };
            Some(record(&apex.into(), set.ttl.min(soa.minimum), RData::SOA(soa.clone())))
        });
        found.unwrap_or_else(|| {
            let soa = SOA::new(Name::root(), Name::root(), 1, 3600, 600, 86_400, ROOT_MINIMUM);
            record(&Name::root(), ROOT_MINIMUM, RData::SOA(soa))
        })
    }
}

impl ZoneAnswer {
    fn failure(after: Duration, code: ResponseCode) -> Self {
        Self::reply(after, code, Vec::new(), Vec::new())
    }

    fn reply(after: Duration, code: ResponseCode, records: Vec<Record>, authority: Vec<Record>) -> Self {
        Self { after, reply: Some(Reply { code, records, authority }) }
    }
}

/// The answer of one node for one type.
enum Selected<'a> {
    Sets(Vec<&'a RecordSet>),
    Alias { ttl: u32, target: Name },
    Nothing,
}

fn select(node: &Node, record_type: RecordType) -> Selected<'_> {
    if record_type == RecordType::ANY {
        return Selected::Sets(node.values().collect());
    }
    if let Some(set) = node.get(&record_type) {
        return Selected::Sets(vec![set]);
    }
    let alias = node.get(&RecordType::CNAME).and_then(|set| match set.data.first() {
        Some(RData::CNAME(target)) => Some(Selected::Alias { ttl: set.ttl, target: target.0.clone() }),
        _ => None,
    });
    alias.unwrap_or(Selected::Nothing)
}

fn record(owner: &Name, ttl: u32, data: RData) -> Record {
    Record::from_rdata(owner.clone(), ttl, data)
}
