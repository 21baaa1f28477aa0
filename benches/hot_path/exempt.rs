//! Who is exempt, with a million networks and a million domains on the lists: what each connection and each sender costs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use divan::{Bencher, black_box};
use ipnet::IpNet;
use rmxd::exempt::Exemptions;
use rmxd::smtp::address::DomainName;
use rmxd::smtp::pattern::DomainPattern;

const COUNT: u32 = 1_000_000;
/// Asked for in turn: so many that what is asked is not in the processor's caches.
const ASKED: u32 = 1 << 16;

static EXEMPT: LazyLock<Exemptions> = LazyLock::new(|| Exemptions {
    clients: Arc::new((0..COUNT).map(network).collect()),
    domains: Arc::new((0..COUNT).map(pattern).collect()),
    recipients: Vec::new(),
});

/// Half of them IPv4, none beside another.
fn network(number: u32) -> IpNet {
    let scattered = number.wrapping_mul(0x9e37_79b1);
    if number.is_multiple_of(2) {
        IpNet::new_assert(Ipv4Addr::from_bits(scattered & !0xf).into(), 28)
    } else {
        IpNet::new_assert(Ipv6Addr::from_bits((0x2001_0000 | u128::from(scattered)) << 64).into(), 64)
    }
}

fn pattern(number: u32) -> DomainPattern {
    let dot = if number.is_multiple_of(2) { "." } else { "" };
    DomainPattern::parse(&format!("{dot}mail{number}.partner-domain.example")).expect("a pattern")
}

/// Inputs in turn, without cost.
fn each_in_turn<T: Sync>(
    bencher: Bencher<'_, '_>,
    inputs: Vec<T>,
    expected: bool,
    look: impl Fn(&T) -> bool + Sync,
) {
    assert!(inputs.iter().all(|input| look(input) == expected));
    let mut turn = inputs.iter().cycle();
    bencher
        .with_inputs(|| turn.next().expect("an endless cycle"))
        .bench_local_values(|input| look(black_box(input)));
}

fn scattered(number: u32) -> u32 {
    number.wrapping_mul(0x0100_0193) % COUNT
}

#[divan::bench(sample_size = 1000)]
fn client_listed(bencher: Bencher<'_, '_>) {
    let addresses: Vec<IpAddr> = (0..ASKED).map(|number| network(scattered(number)).addr()).collect();
    each_in_turn(bencher, addresses, true, |address| EXEMPT.client(*address));
}

#[divan::bench(sample_size = 1000)]
fn client_not_listed(bencher: Bencher<'_, '_>) {
    let beside = |number| match network(scattered(number)).addr() {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() ^ 0x10)),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() ^ 1 << 100)),
    };
    let addresses = (0..ASKED).map(beside).filter(|address| !EXEMPT.client(*address)).collect();
    each_in_turn(bencher, addresses, false, |address| EXEMPT.client(*address));
}

/// With one label more than is listed, and with as many as there can be.
#[divan::bench(args = ["", "a.", "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a."], sample_size = 1000)]
fn domain_listed(bencher: Bencher<'_, '_>, below: &str) {
    let name = |number| format!("{below}mail{}.partner-domain.example", scattered(number) & !1);
    let names = (0..ASKED).map(|number| DomainName::parse(&name(number)).expect("a name")).collect();
    each_in_turn(bencher, names, true, |name| EXEMPT.domain(name));
}

#[divan::bench(sample_size = 1000)]
fn domain_not_listed(bencher: Bencher<'_, '_>) {
    let name = |number| format!("host{number}.partner-domain.example");
    let names = (0..ASKED).map(|number| DomainName::parse(&name(number)).expect("a name")).collect();
    each_in_turn(bencher, names, false, |name| EXEMPT.domain(name));
}
