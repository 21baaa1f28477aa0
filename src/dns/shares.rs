//! How many questions a network and its neighbourhood may have at a time. Pure.
//!
//! The fewer places are free, the fewer a network may hold and still get one more. A neighbourhood (an IPv4 /24 or an IPv6
//! /48) may hold three quarters of all places, and of the last free quarter fewer than are free. So about seventy networks
//! are needed to take all places, and a client gains nothing from many addresses in one neighbourhood.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Questions under way at once: each holds a socket, and random sub-domains must drown neither the server nor our file
/// descriptors.
pub(super) const MAX_UNDER_WAY: usize = 512;
/// Of these, only for what can refuse.
const RESERVED: usize = 64;
/// Besides, those that lost their place to a newcomer and still wait for their answer: each holds a socket as well.
const MAX_LATE: usize = 512;
/// Those of one client. Where many ask it has fewer: see [`share`].
pub(super) const MAX_PER_CLIENT: usize = 64;
/// Questions of one client that wait; past it they are [`DnsFailure::Busy`] at once. It is more than could be answered: while
/// one waits (2.5 s by default), 64 places that take 50 ms each answer 3200.
pub(super) const MAX_WAITING_PER_CLIENT: usize = 4096;
/// The same for all clients together. One that waits costs 1 KiB with its asker, one that has a place 6 KiB.
const MAX_WAITING: usize = 32_768;

/// How many questions there may be at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Of all, under way.
    pub(super) places: usize,
    /// Of these, only for what can refuse.
    pub(super) reserved: usize,
    /// Of all, those that lost their place to a newcomer and still wait for their answer.
    pub(super) late: usize,
    /// Of one network, under way.
    pub(super) places_each: usize,
    /// Of all, waiting.
    pub(super) waiting: usize,
    /// Of one network, waiting.
    pub(super) waiting_each: usize,
}

impl Bounds {
    pub(super) const USUAL: Self = Self {
        places: MAX_UNDER_WAY,
        reserved: RESERVED,
        late: MAX_LATE,
        places_each: MAX_PER_CLIENT,
        waiting: MAX_WAITING,
        waiting_each: MAX_WAITING_PER_CLIENT,
    };
}

/// What a network or a neighbourhood may have as long as anything is free.
pub(super) const FEW: usize = 2;

/// How many a network may have, when so many of all are left for it.
pub(super) fn share(all: usize, left: usize, most: usize) -> usize {
    let few = match left {
        0 => 0,
        _ if left > all / 2 => most,
        _ if left > all / 4 => all / 64,
        _ if left > all / 8 => all / 128,
        _ => all / 256,
    };
    few.min(most).max(FEW.min(left))
}

/// Whether a neighbourhood may have one more than it has.
pub(super) fn has_room(all: usize, left: usize, has: usize) -> bool {
    has < FEW || has < most_together(all) && (left > all / 4 || has < left)
}

/// How many the networks of one neighbourhood may have.
pub(super) fn most_together(all: usize) -> usize {
    all / 4 * 3
}

/// What a client network stands in: an IPv4 /24, an IPv6 /48.
pub(super) fn neighbourhood(network: IpAddr) -> IpAddr {
    match network {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}
