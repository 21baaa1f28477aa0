//! The NXDOMAIN answers about one name. Pure.
//!
//! NXDOMAIN should be about the name (RFC 8020), but some servers send it for one type only, or for a name that has others
//! below it. So it counts only for the type that was asked for, unless DNSSEC proves it: then neither the name nor any below
//! it exists. All denials of a name are one entry of the cache, as invented names come in floods.

use std::mem::size_of;

use smallvec::SmallVec;

use crate::dns::clock::Moment;
use crate::evidence::RecordType;

#[derive(Debug, Clone, Default)]
pub(super) struct Denials(SmallVec<[Denial; 1]>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) of: Of,
    pub(super) received: Moment,
    pub(super) expires: Moment,
}

/// What an NXDOMAIN denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// The name with this type.
    Type(RecordType),
    /// The name and all below it: DNSSEC proves it.
    Name,
}

impl Denial {
    pub(super) fn is_fresh(&self, now: Moment) -> bool {
        now < self.expires
    }
}

impl Denials {
    /// The latest denial that covers this type.
    pub(super) fn of(&self, rtype: RecordType) -> Option<Denial> {
        let of_it = |denial: &&Denial| matches!(denial.of, Of::Name) || denial.of == Of::Type(rtype);
        self.0.iter().rfind(of_it).copied()
    }

    /// The denial of the name itself, which covers all names below.
    pub(super) fn of_name(&self) -> Option<Denial> {
        self.0.iter().find(|denial| denial.of == Of::Name).copied()
    }

    /// Adds a denial; removes those that it replaces and those that have expired.
    pub(super) fn and(mut self, denial: Denial, now: Moment) -> Self {
        let replaced = |old: &Denial| denial.of == Of::Name || old.of == denial.of || !old.is_fresh(now);
        self.0.retain(|old| !replaced(old));
        self.0.push(denial);
        self
    }

    pub(super) fn heap(&self) -> usize {
        if self.0.spilled() { self.0.capacity() * size_of::<Denial>() } else { 0 }
    }
}
