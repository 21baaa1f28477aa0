//! How many questions a network and its neighbourhood may have at a time. Pure.
//!
//! The fewer places are free, the fewer a network may hold and still get one more. A neighbourhood (an IPv4 /24 or an IPv6
//! /48) may hold three quarters of all places, and of the last free quarter fewer than are free. So about seventy networks
//! are needed to take all places, and a client gains nothing from many addresses in one neighbourhood.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Questions under way at once: each holds a socket, and random sub-domains must drown neither the server nor our file
/// descriptors.
pub(super) const MAX_UNDER_WAY: usize = 512;
/// Of these, so many are only for questions that can refuse mail.
const RESERVED: usize = 64;
/// Questions that lost their place to a newcomer and still wait for their answer, in addition: each holds a socket as well.
const MAX_LATE: usize = 512;
/// Of one client network; under load it has fewer, see [`share`].
pub(super) const MAX_PER_CLIENT: usize = 64;
/// Waiting questions of one client network; past it the answer is [`DnsFailure::Busy`](crate::evidence::DnsFailure::Busy) at
/// once. It is more than could be answered: while one waits (2.5 s by default), 64 places that take 50 ms each answer 3200.
pub(super) const MAX_WAITING_PER_CLIENT: usize = 4096;
/// Waiting questions of all clients. A waiting question costs 1 KiB with its caller, one with a place 6 KiB.
const MAX_WAITING: usize = 32_768;

/// The most questions at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Under way, of all clients.
    pub(super) places: usize,
    /// Of these, so many are only for questions that can refuse mail.
    pub(super) reserved: usize,
    /// Without a place, but still waiting for their answer, of all clients.
    pub(super) late: usize,
    /// Under way, of one network.
    pub(super) places_each: usize,
    /// Waiting for a place, of all clients.
    pub(super) waiting: usize,
    /// Waiting for a place, of one network.
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

/// Every network and neighbourhood may have this many as long as any is free.
pub(super) const FEW: usize = 2;

/// The most that a network may have, where `left` of all are left for it.
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

/// Whether a neighbourhood that has `has` may have one more.
pub(super) fn has_room(all: usize, left: usize, has: usize) -> bool {
    has < FEW || has < most_together(all) && (left > all / 4 || has < left)
}

/// The most that the networks of one neighbourhood may have together.
pub(super) fn most_together(all: usize) -> usize {
    all / 4 * 3
}

/// The neighbourhood of a client network: its IPv4 /24 or IPv6 /48.
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
