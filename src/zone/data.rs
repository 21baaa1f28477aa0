//! The data of the zone server: names, their records, and names that misbehave on purpose.
//!
//! One tree of names holds all zones. A zone's apex is simply a name with an SOA record; an NS record below it is
//! a record like any other and no delegation, since there is no other server. Data isn't checked here, as tests need
//! broken data too; `master` checks the zone files of an administrator.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use hickory_server::proto::rr::LowerName;

use crate::zone::{Name, RData, RecordType};

/// Records by name and type, and the names that misbehave.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    nodes: BTreeMap<LowerName, Node>,
    behaviours: BTreeMap<LowerName, Vec<(Option<RecordType>, Behaviour)>>,
    /// The number of generated domains; their records aren't in `nodes`.
    pub(super) generated: u32,
}

/// The record sets of one name.
pub(super) type Node = BTreeMap<RecordType, RecordSet>;

/// The records of one name and type.
#[derive(Debug, Clone)]
pub(super) struct RecordSet {
    /// RFC 2181 5.2: one time to live for the whole set.
    pub(super) ttl: u32,
    pub(super) data: Vec<RData>,
}

/// How the server answers questions for a name, and for all names below it, instead of with the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    ServFail,
    Refused,
    Silent,
    /// The correct answer, after this time.
    Delay(Duration),
}

impl Zone {
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

    /// Replaces all records of that name and type with `data`; empty data removes them.
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

    /// Sets the behaviour for questions of this type (`None`: any type) about this name and all names below it. The
    /// nearest name with a behaviour decides; at one name, an entry for the type goes before one for any type.
    pub fn behave(&mut self, name: &Name, record_type: Option<RecordType>, behaviour: Behaviour) {
        let list = self.behaviours.entry(key(name)).or_default();
        list.retain(|(known, _)| *known != record_type);
        list.push((record_type, behaviour));
    }

    /// Adds all data of `other`. Where both have records of a name and type, or a behaviour, that of `other` counts.
    pub fn merge(&mut self, other: Self) {
        self.generated = self.generated.max(other.generated);
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

    /// The records at exactly this name, without aliases and wildcards.
    pub fn records(&self, name: &Name, record_type: RecordType) -> &[RData] {
        self.node(&key(name)).and_then(|node| node.get(&record_type)).map_or(&[], |set| &set.data)
    }

    /// The number of names with records.
    pub fn names(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, name: &LowerName) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Whether the name has records, or a name below it has (then it is an empty non-terminal, RFC 8020 2).
    pub(super) fn exists(&self, name: &LowerName) -> bool {
        // In canonical order (RFC 4034 6.1), all names below a name follow right behind it.
        let mut from_name = self.nodes.range((Bound::Included(name), Bound::Unbounded));
        from_name.next().is_some_and(|(next, _)| name.zone_of(next))
    }

    pub(super) fn behaviour(&self, name: &LowerName, record_type: RecordType) -> Option<Behaviour> {
        if self.behaviours.is_empty() {
            return None;
        }
        ancestors(name).find_map(|name| {
            let list = self.behaviours.get(&name)?;
            let behaviour_for = |wanted| list.iter().find(|(known, _)| *known == wanted).map(|(_, b)| *b);
            behaviour_for(Some(record_type)).or_else(|| behaviour_for(None))
        })
    }
}

/// The name, its parent, and so on, up to and including the root.
pub(super) fn ancestors(name: &LowerName) -> impl Iterator<Item = LowerName> {
    std::iter::successors(Some(name.clone()), |name| (!name.is_root()).then(|| name.base_name()))
}

/// Names compare as absolute names and without regard to case (RFC 4343).
pub(super) fn key(name: &Name) -> LowerName {
    let mut name = name.to_lowercase();
    name.set_fqdn(true);
    LowerName::from(name)
}
