//! What counting costs a session: all that a refused one counts, one after the other.

use std::time::Duration;

use divan::Bencher;
use rmxd::evidence::RecordType;
use rmxd::metrics::{CacheResult, Connection, Metrics, QueryOutcome};
use rmxd::policy::decide::Verdict;
use rmxd::policy::door::DoorName;
use rmxd::policy::identity::Identity;
use rmxd::policy::outcome::Outcome;
use rmxd::policy::reason::Reason;
use rmxd::policy::rule::Mode;

/// A connection, the lookups of PTR and MAIL FROM, the question for a domain that nobody asked for before, and the
/// verdict.
#[divan::bench]
fn by_a_refused_session(bencher: Bencher<'_, '_>) {
    let metrics = Metrics::default();
    let why = Some((Some(Identity::MailFrom), Reason::NoSuchDomain));
    bencher.bench(|| {
        metrics.connection(Connection::Served);
        for result in [CacheResult::Hit, CacheResult::Hit, CacheResult::Hit, CacheResult::Negative] {
            metrics.cache_lookup(divan::black_box(result));
        }
        metrics.query(
            RecordType::Mx,
            QueryOutcome::NoSuchDomain,
            Duration::from_micros(divan::black_box(180)),
        );
        metrics.cache_lookup(CacheResult::Miss);
        metrics.verdict(
            DoorName::Smtp,
            divan::black_box(Verdict::Reject),
            divan::black_box(why),
            Mode::Enforce,
            Duration::from_micros(divan::black_box(700)),
        );
        metrics.outcome(DoorName::Smtp, divan::black_box(Outcome::Refused));
    });
}
