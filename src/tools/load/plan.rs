//! The sequence of sessions: session number N follows from the seed and N only.
//!
//! There is no random state, so any number of connections can share a plan without a lock, and two runs with the same seed
//! send the same messages. Each block of as many sessions as the mix has shares has exactly these shares, in its own order.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use crate::tools::load::class::{Class, PerClass};
use crate::tools::load::values::{Mix, Pattern, Sizes, common_divisor};
use crate::zone::generated;

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) mix: Mix,
    pub(super) names: Names,
    pub(super) sizes: Sizes,
    /// Percentage of slow sessions.
    pub(super) slow: u8,
    pub(super) messages: u32,
    pub(super) senders: PerClass<Vec<Sender>>,
    /// For senders without an address of their own.
    pub(super) sources: Vec<Ipv4Net>,
    pub(super) recipient: String,
}

/// The numbers in the names of senders, and the number of client addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// This many of both, used repeatedly.
    Warm(u64),
    /// A new name for each session as long as there are any, and any address.
    Cold,
}

/// One kind of sender within a class.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) helo: Pattern,
    pub(super) domain: Pattern,
    /// Of the header field From:.
    pub(super) from: Pattern,
    pub(super) address: Address,
    /// Number of domains; `None`: unlimited.
    pub(super) domains: Option<u64>,
}

/// The client address of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    /// Any of the sources.
    Source,
    Fixed(IpAddr),
    /// The address of the generated MX host with the number of the domain.
    Generated,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Session<'a> {
    pub(super) number: u64,
    pub(super) class: Class,
    pub(super) sender: &'a Sender,
    /// The number for `%n` in its names.
    pub(super) name: u64,
    /// `None`: the system chooses.
    pub(super) address: Option<IpAddr>,
    pub(super) slow: bool,
}

/// The purpose of a hash, so that hashes of one number for different purposes are independent.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Step = 1,
    Shift,
    Name,
    Address,
    Slow,
    Size,
}

impl Plan {
    /// `None` if the mix has a class without senders, which the options exclude.
    pub(super) fn session(&self, number: u64) -> Option<Session<'_>> {
        let (class, ordinal) = self.class(number)?;
        let senders = self.senders.of(class);
        let kinds = u64::try_from(senders.len()).ok().filter(|kinds| *kinds > 0)?;
        let sender = senders.get(usize::try_from(ordinal % kinds).ok()?)?;
        let drawn = match self.names {
            Names::Warm(names) => self.hash(Purpose::Name, number) % names.max(1),
            Names::Cold => ordinal,
        };
        let name = sender.domains.map_or(drawn, |domains| drawn % domains.max(1));
        let address = match sender.address {
            Address::Fixed(address) => Some(address),
            Address::Generated => u32::try_from(name).ok().map(generated::address).map(IpAddr::from),
            Address::Source => {
                let drawn = self.hash(Purpose::Address, number);
                let place = if let Names::Warm(names) = self.names { drawn % names.max(1) } else { drawn };
                self.source(place).map(IpAddr::from)
            }
        };
        let slow = self.hash(Purpose::Slow, number) % 100 < u64::from(self.slow);
        Some(Session { number, class, sender, name, address, slow })
    }

    pub(super) fn size(&self, token: u64) -> u64 {
        let Sizes { least, most } = self.sizes;
        least + self.hash(Purpose::Size, token) % (most - least + 1)
    }

    /// A unique number for each message.
    pub(super) fn token(&self, session: u64, message: u32) -> u64 {
        session.saturating_mul(u64::from(self.messages)).saturating_add(u64::from(message))
    }

    fn shares(&self) -> u64 {
        self.mix.0.iter().map(|(_, share)| u64::from(*share)).sum()
    }

    /// The class of a session, and the number of earlier sessions of that class in the order of shares.
    fn class(&self, number: u64) -> Option<(Class, u64)> {
        let shares = self.shares();
        let (run, place) = (number.checked_div(shares)?, number % shares);
        // x -> step * x + shift is a permutation if step and the modulus have no common divisor.
        let mut step = 1 + self.hash(Purpose::Step, run) % shares;
        while common_divisor(step, shares) != 1 {
            step += 1;
        }
        let shift = self.hash(Purpose::Shift, run) % shares;
        let mut place = (step * place + shift) % shares;
        for (class, share) in &self.mix.0 {
            let share = u64::from(*share);
            if place < share {
                return Some((*class, run * share + place));
            }
            place -= share;
        }
        None
    }

    /// The address at this index of all sources, modulo their number.
    fn source(&self, place: u64) -> Option<Ipv4Addr> {
        let sizes = || self.sources.iter().map(|net| 1u64 << (32 - net.prefix_len().min(32)));
        let mut at = place.checked_rem(sizes().sum())?;
        for (net, size) in self.sources.iter().zip(sizes()) {
            if let Some(offset) = u32::try_from(at).ok().filter(|_| at < size) {
                return Some(Ipv4Addr::from_bits(net.network().to_bits() | offset));
            }
            at -= size;
        }
        None
    }

    fn hash(&self, purpose: Purpose, number: u64) -> u64 {
        scrambled(scrambled(self.seed ^ (purpose as u64) << 56).wrapping_add(number))
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the result depends on every bit of the input.
fn scrambled(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::tools::load::values::{mix, pattern, sizes, source};

    pub(in crate::tools::load) fn plan(seed: u64, of: &str, names: Names) -> Plan {
        let name = |text: &str| pattern(text).unwrap();
        let sender = |domains, address| Sender {
            helo: name("client.load.test"),
            domain: name("d%n.test"),
            from: name("d%n.test"),
            address,
            domains,
        };
        Plan {
            seed,
            mix: mix(of).unwrap(),
            names,
            sizes: sizes("1000-2000").unwrap(),
            slow: 10,
            messages: 2,
            senders: PerClass::new(|class| {
                if class == Class::Clean {
                    vec![sender(Some(50), Address::Generated)]
                } else {
                    vec![sender(None, Address::Source)]
                }
            }),
            sources: vec![source("127.200.0.0/24").unwrap(), source("127.201.0.1").unwrap()],
            recipient: "load@load.test".to_owned(),
        }
    }

    fn facts(plan: &Plan, sessions: u64) -> Vec<(Class, u64, Option<IpAddr>, bool)> {
        let session = |number| plan.session(number).unwrap();
        (0..sessions).map(session).map(|it| (it.class, it.name, it.address, it.slow)).collect()
    }

    #[test]
    fn a_seed_always_gives_the_same_sessions_and_another_one_others() {
        let of = |seed| facts(&plan(seed, "spoofed=90,clean=10", Names::Warm(500)), 2000);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn each_run_of_the_shares_holds_exactly_the_mix() {
        for of in
            ["spoofed=90,clean=10", "clean=1", "clean=2,spoofed=2,nomx=2", "spoofed=7,foreign=4,badfrom=1"]
        {
            let plan = plan(7, of, Names::Cold);
            let shares = usize::try_from(plan.shares()).unwrap();
            let wanted: BTreeMap<Class, u32> = mix(of).unwrap().0.into_iter().collect();
            let mut orders = BTreeSet::new();
            for run in facts(&plan, 20 * plan.shares()).chunks(shares) {
                let mut counts = BTreeMap::new();
                run.iter().for_each(|(class, ..)| *counts.entry(*class).or_insert(0) += 1);
                assert_eq!(counts, wanted, "{of}");
                orders.insert(run.iter().map(|(class, ..)| *class).collect::<Vec<_>>());
            }
            assert!(wanted.len() == 1 || orders.len() > 1, "{of}: always the same order");
        }
    }

    #[test]
    fn cold_names_are_new_each_time_as_far_as_there_are_any() {
        let facts = facts(&plan(1, "spoofed=9,clean=1", Names::Cold), 1000);
        let names = |class| facts.iter().filter(move |it| it.0 == class).map(|it| it.1);
        assert_eq!(names(Class::Spoofed).collect::<BTreeSet<_>>().len(), 900);
        assert_eq!(names(Class::Clean).collect::<BTreeSet<_>>().len(), 50);
        let plan = plan(1, "spoofed=1", Names::Cold);
        let sources: BTreeSet<_> = (0..5000).map(|number| plan.session(number).unwrap().address).collect();
        assert_eq!(sources.len(), 257);
        assert!(sources.contains(&Some("127.201.0.1".parse().unwrap())));
        assert!(names(Class::Clean).all(|name| name < 50));
    }

    #[test]
    fn warm_names_and_sources_stay_within_what_was_given_and_use_it() {
        let facts = facts(&plan(3, "spoofed=9,clean=1", Names::Warm(20)), 10_000);
        let names: BTreeSet<_> = facts.iter().map(|it| it.1).collect();
        assert_eq!(names, (0..20).collect());
        let spoofed = facts.iter().filter(|it| it.0 == Class::Spoofed);
        let sources: BTreeSet<_> = spoofed.map(|it| it.2.unwrap().to_string()).collect();
        assert_eq!(sources.len(), 20);
        assert!(sources.iter().all(|it| it.starts_with("127.200.0.")));
        let clean = facts.iter().filter(|it| it.0 == Class::Clean);
        assert!(
            clean
                .clone()
                .all(|it| it.2 == u32::try_from(it.1).ok().map(generated::address).map(IpAddr::from))
        );
        let slow = facts.iter().filter(|it| it.3).count();
        assert!((800..1200).contains(&slow), "{slow}");
    }

    #[test]
    fn sizes_and_tokens_follow_from_the_message() {
        let plan = plan(1, "clean=1", Names::Cold);
        let all: BTreeSet<_> = (0..20_000).map(|token| plan.size(token)).collect();
        assert_eq!((all.first(), all.last(), all.len()), (Some(&1000), Some(&2000), 1001));
        assert_eq!([plan.token(0, 1), plan.token(1, 0), plan.token(1, 1)], [1, 2, 3]);
    }
}
