//! What the zone server knows: names, their records, and names that misbehave on purpose.
//!
//! One tree of names holds all zones. A zone's apex is simply a name with an SOA record; an NS record below it
//! is a record like any other and no delegation, since nobody else is there to be asked. Nothing is checked
//! here: tests need broken data too. What an administrator writes is checked in `master`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use hickory_server::proto::rr::LowerName;

use super::{Name, RData, RecordType};

/// Records by name and type, and the names that misbehave.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    nodes: BTreeMap<LowerName, Node>,
    behaviours: BTreeMap<LowerName, Vec<(Option<RecordType>, Behaviour)>>,
    /// How many domains of `crowd` it has; their records are not in `nodes`.
    pub(super) crowd: u32,
}

/// The sets of records of one name.
pub(super) type Node = BTreeMap<RecordType, RecordSet>;

/// The records of one name and type.
#[derive(Debug, Clone)]
pub(super) struct RecordSet {
    /// RFC 2181 5.2: one time to live for the whole set.
    pub(super) ttl: u32,
    pub(super) data: Vec<RData>,
}

/// How questions for a name, and for all names below it, are answered instead of with its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// SERVFAIL.
    ServFail,
    /// REFUSED.
    Refused,
    /// No answer at all.
    Silent,
    /// The right answer, after this time.
    Delay(Duration),
}

impl Zone {
    /// Knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one record to its set. The set takes this record's time to live.
    pub fn insert(&mut self, name: &Name, ttl: u32, data: RData) {
        let node = self.nodes.entry(key(name)).or_default();
        let set = node.entry(data.record_type()).or_insert_with(|| RecordSet { ttl, data: Vec::new() });
        set.ttl = ttl;
        if !set.data.contains(&data) {
            set.data.push(data);
        }
    }

    /// Puts `data` in the place of all records of that name and type; without data they are removed.
    pub fn replace(&mut self, name: &Name, record_type: RecordType, ttl: u32, data: Vec<RData>) {
        let name = key(name);
        if !data.is_empty() {
            self.nodes.entry(name).or_default().insert(record_type, RecordSet { ttl, data });
        } else if let Some(node) = self.nodes.get_mut(&name) {
            node.remove(&record_type);
            if node.is_empty() {
                self.nodes.remove(&name);
            }
        }
    }

    /// From now on questions for this type (`None`: any type) of this name, and of all names below it, are
    /// answered like this. The nearest name with a behaviour decides; on one name, a type goes before any.
    pub fn behave(&mut self, name: &Name, record_type: Option<RecordType>, behaviour: Behaviour) {
        let list = self.behaviours.entry(key(name)).or_default();
        list.retain(|(known, _)| *known != record_type);
        list.push((record_type, behaviour));
    }

    /// Takes in everything of `other`. Where both have records of a name and type, or a behaviour, `other` wins.
    pub fn merge(&mut self, other: Self) {
        self.crowd = self.crowd.max(other.crowd);
        for (name, node) in other.nodes {
            self.nodes.entry(name).or_default().extend(node);
        }
        for (name, list) in other.behaviours {
            let name = Name::from(name);
            for (record_type, behaviour) in list {
                self.behave(&name, record_type, behaviour);
            }
        }
    }

    /// The records that stand at exactly this name: no alias is followed, no wildcard applied.
    pub fn records(&self, name: &Name, record_type: RecordType) -> &[RData] {
        self.node(&key(name)).and_then(|node| node.get(&record_type)).map_or(&[], |set| &set.data)
    }

    /// How many names have records.
    pub fn names(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, name: &LowerName) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Whether the name has records, or one below it has (an empty non-terminal, RFC 8020 2).
    pub(super) fn exists(&self, name: &LowerName) -> bool {
        // Canonical order (RFC 4034 6.1) puts everything below a name right behind it.
        let mut from_name = self.nodes.range((Bound::Included(name), Bound::Unbounded));
        from_name.next().is_some_and(|(next, _)| name.zone_of(next))
    }

    /// What was asked to happen to this question.
    pub(super) fn behaviour(&self, name: &LowerName, record_type: RecordType) -> Option<Behaviour> {
        if self.behaviours.is_empty() {
            return None;
        }
        ancestors(name).find_map(|name| {
            let list = self.behaviours.get(&name)?;
            let of = |wanted| list.iter().find(|(known, _)| *known == wanted).map(|(_, b)| *b);
            of(Some(record_type)).or_else(|| of(None))
        })
    }
}

/// The name, its parent, and so on up to and with the root.
pub(super) fn ancestors(name: &LowerName) -> impl Iterator<Item = LowerName> {
    std::iter::successors(Some(name.clone()), |name| (!name.is_root()).then(|| name.base_name()))
}

/// Names compare without regard to case, and as absolute ones.
pub(super) fn key(name: &Name) -> LowerName {
    let mut name = name.to_lowercase();
    name.set_fqdn(true);
    LowerName::from(name)
}
