//! What is known not to exist of one name. Pure.
//!
//! NXDOMAIN should speak of the name (RFC 8020), but servers say it of a type only, or of a name that has others below
//! it. So it counts for the type that was asked for and nothing else, unless DNSSEC proves it: then the name doesn't
//! exist, nor anything below it. All of it is one entry of the cache, as invented names come in floods.

use std::mem::size_of;

use smallvec::SmallVec;

use crate::dns::clock::Moment;
use crate::evidence::RecordType;

/// The denials of one name.
#[derive(Debug, Clone, Default)]
pub(super) struct Denials(SmallVec<[Denial; 1]>);

/// One NXDOMAIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) of: Of,
    pub(super) received: Moment,
    pub(super) expires: Moment,
}

/// What an NXDOMAIN speaks of.
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
    /// The latest that speaks of this type.
    pub(super) fn of(&self, rtype: RecordType) -> Option<Denial> {
        let of_it = |denial: &&Denial| matches!(denial.of, Of::Name) || denial.of == Of::Type(rtype);
        self.0.iter().rfind(of_it).copied()
    }

    /// The one that speaks of all names below.
    pub(super) fn of_name(&self) -> Option<Denial> {
        self.0.iter().find(|denial| denial.of == Of::Name).copied()
    }

    /// With one more; those that it replaces, or that expired, go.
    pub(super) fn and(mut self, denial: Denial, now: Moment) -> Self {
        let replaced = |old: &Denial| denial.of == Of::Name || old.of == denial.of || !old.is_fresh(now);
        self.0.retain(|old| !replaced(old));
        self.0.push(denial);
        self
    }

    /// Octets on the heap.
    pub(super) fn heap(&self) -> usize {
        if self.0.spilled() { self.0.capacity() * size_of::<Denial>() } else { 0 }
    }
}
