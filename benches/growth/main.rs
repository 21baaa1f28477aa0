//! What a million domains in the cache cost: `cargo bench --bench growth`.
//!
//! Services, the time of a hit beside that with 500 domains, and the longest wait of a reader while all of them expire and
//! are asked again. The domains don't exist, as those of a spoof flood; each was asked over the wire, of a zone server
//! on loopback, for MX and then for A and AAAA, as `exists` does. `GROWTH_DOMAINS` says how many.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program for the terminal")]
#![expect(clippy::disallowed_methods, reason = "the reader has a thread of its own, where it may sleep")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use rmxd::dns::{Account, Budget, CacheSettings, Clock, Dns, Settings, Urgency};
use rmxd::evidence::{Answer, Freshness, Question, RecordType};
use rmxd::smtp::address::DomainName;
use rmxd::zone::{Server, Zone};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Domains that are asked for again and again.
const HOT: usize = 500;
/// Questions under way at once.
const TOGETHER: usize = 64;
/// Reads whose mean is told.
const READS: usize = 2_000_000;
/// How long domains are asked again after they expired, while a reader goes on.
const EXPIRING: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3_600);

fn main() {
    let domains = std::env::var("GROWTH_DOMAINS").map_or(1_000_000, |text| text.parse().expect("a number"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let clock = Clock::standing();
    let dns = runtime.block_on(dns(clock.clone()));

    runtime.block_on(fill(&dns, 0..HOT, RecordType::Mx));
    let few = hit(&runtime, &dns, HOT);
    println!("hit with {HOT} domains: {few} ns");

    let (before, began) = (resident(), Instant::now());
    runtime.block_on(fill(&dns, HOT..domains, RecordType::Mx));
    let rate = domains * 1_000 / usize::try_from(began.elapsed().as_millis()).expect("less than ages");
    println!("{domains} domains: {} MiB more, asked at {rate}/s", (resident() - before) / 1024);
    for rtype in [RecordType::A, RecordType::Aaaa] {
        runtime.block_on(fill(&dns, 0..domains, rtype));
        let (entries, octets) = dns.cache_size();
        let more = (resident() - before) / 1024;
        println!(
            "and {rtype}: {more} MiB more than before, {entries} entries that count {} MiB",
            octets >> 20
        );
    }

    let (many, spread) = (hit(&runtime, &dns, HOT), hit(&runtime, &dns, domains));
    println!(
        "hit with {domains} domains: {many} ns for {HOT} of them, {spread} ns for all, one after the other"
    );

    clock.advance(2 * HOUR);
    runtime.block_on(fill(&dns, 0..HOT, RecordType::Mx));
    let (longest, on_core, asked) = expire(&runtime, &dns, domains);
    println!(
        "all expired, {asked} of them asked again: a reader waited {} us at most, {} us without its waits for a core",
        longest.as_micros(),
        on_core.as_micros()
    );
}

async fn dns(clock: Clock) -> Dns {
    let server = Server::start("127.0.0.1:0".parse().expect("an address"), Zone::sample()).await;
    let server = server.expect("a zone server");
    let cache = CacheSettings {
        memory: 4 << 30,
        min_ttl: HOUR,
        max_ttl: HOUR,
        max_negative_ttl: HOUR,
        stale: Duration::ZERO,
    };
    let settings = Settings { servers: vec![server.address()], timeout: Duration::from_secs(5), cache };
    std::mem::forget(server); // to the end of the program
    Dns::with_clock(settings, clock).expect("a resolver")
}

fn question(number: usize, rtype: RecordType) -> Question {
    let name = DomainName::parse(&format!("s{number}.spoofed.test")).expect("a name");
    Question { name: name.into(), rtype }
}

/// Of its own for each thousand, as bounds are per client.
fn client(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x7F00_0000 + u32::try_from(number / 1_000).unwrap_or_default()))
}

async fn fill(dns: &Dns, numbers: std::ops::Range<usize>, rtype: RecordType) {
    let ask = |number| async move {
        let lookup = dns.ask(question(number, rtype), &account(client(number))).await;
        assert_eq!(*lookup.evidence.answer, Answer::NoSuchDomain, "{}", question(number, rtype));
    };
    stream::iter(numbers.map(ask)).buffer_unordered(TOGETHER).for_each(|()| async {}).await;
}

/// Nanoseconds of a question that the cache answers, in an order without neighbours.
fn hit(runtime: &tokio::runtime::Runtime, dns: &Dns, domains: usize) -> u128 {
    let questions: Vec<_> = (0..domains).map(|at| question(at * 7_919 % domains, RecordType::Mx)).collect();
    let rounds = READS.div_ceil(domains);
    let began = Instant::now();
    runtime.block_on(async {
        for _ in 0..rounds {
            for question in &questions {
                black_box(dns.ask(question.clone(), &account(IpAddr::V4(Ipv4Addr::LOCALHOST))).await);
            }
        }
    });
    began.elapsed().as_nanos() / (rounds * domains) as u128
}

/// Asks for what expired while a reader asks for what is fresh; the reader's longest wait, the same without the time that
/// it waited for a core, and how many were asked.
fn expire(runtime: &tokio::runtime::Runtime, dns: &Dns, domains: usize) -> (Duration, Duration, usize) {
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (dns, done) = (dns.clone(), Arc::clone(&done));
        let runtime = runtime.handle().clone();
        std::thread::spawn(move || {
            let (mut longest, mut on_core) = (Duration::ZERO, Duration::ZERO);
            let mut at = 0;
            while !done.load(Ordering::Relaxed) {
                at = (at + 1) % HOT;
                let question = question(at, RecordType::Mx);
                let (queued, began) = (queued(), Instant::now());
                let lookup = runtime.block_on(dns.ask(question, &account(client(at))));
                let took = began.elapsed();
                longest = longest.max(took);
                on_core = on_core.max(took.saturating_sub(self::queued() - queued));
                assert_eq!(lookup.evidence.freshness, Freshness::Cached);
                std::thread::sleep(Duration::from_micros(100)); // a reader that waits for a core measures the machine
            }
            (longest, on_core)
        })
    };
    let began = Instant::now();
    let mut asked = HOT;
    while began.elapsed() < EXPIRING && asked < domains {
        let next = domains.min(asked + 1_000);
        runtime.block_on(fill(dns, asked..next, RecordType::Mx));
        asked = next;
    }
    done.store(true, Ordering::Relaxed);
    let (longest, on_core) = reader.join().expect("the reader");
    (longest, on_core, asked - HOT)
}

/// How long this thread has been ready to run without a core, since it began.
fn queued() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("/proc");
    let nanoseconds = text.split_whitespace().nth(1).expect("three numbers");
    Duration::from_nanos(nanoseconds.parse().expect("a number"))
}

/// KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

fn account(client: IpAddr) -> Account {
    Account::new(client, Budget::of(u32::MAX), Urgency::Refuses)
}
