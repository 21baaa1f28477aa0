//! What counting costs a session: all that a refused one counts, one after the other.

use std::time::Duration;

use divan::Bencher;
use rmxd::metrics::{CacheResult, Connection, Metrics, QueryOutcome};
use rmxd::policy::decide::{Cause, Decision, Verdict};
use rmxd::policy::evidence::RecordType;
use rmxd::policy::finding::{Finding, Outcome};
use rmxd::policy::identity::Identity;
use rmxd::policy::reason::Reason;
use rmxd::policy::rule::{Action, Mode, Rule};

/// A connection, the look-ups of PTR and MAIL FROM, the question for a domain that nobody asked for before, and the
/// verdict.
#[divan::bench]
fn by_a_refused_session(bencher: Bencher<'_, '_>) {
    let (metrics, decision) = (Metrics::default(), refusal());
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
            divan::black_box(&decision),
            Mode::Enforce,
            Duration::from_micros(divan::black_box(700)),
        );
    });
}

fn refusal() -> Decision {
    let finding = Finding {
        identity: Identity::MailFrom,
        rule: Rule::Exists,
        domain: "spoof.test".into(),
        subject: "a@spoof.test".into(),
        outcome: Outcome::Fail(Reason::NoSuchDomain),
        evidence: Vec::new(),
    };
    let cause = Cause { reason: Reason::NoSuchDomain, action: Action::Reject, wait: None, finding };
    Decision { verdict: Verdict::Reject, cause: Some(cause), mode: Mode::Enforce }
}
