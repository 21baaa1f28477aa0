//! Checks the configured servers in the background: each of them every minute, and all of them at once when questions go
//! unanswered.
//!
//! Two loops run in one task. The periodic check finds what is wrong with a server, for the log; it blocks no question. The
//! guard waits for the breaker's alarm, probes all servers, and if none answers, opens the breaker until one does. Its probes
//! include questions of mail: a server that refuses questions about the root may still answer those that matter here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::dns::breaker::Breaker;
use crate::dns::failover::Servers;
use crate::dns::health::{Condition, Health, Notice};
use crate::dns::probe::{Probe, check_server, more_specific, responds, simple_questions};
use crate::evidence::DnsFailure;

#[derive(Debug, Clone, Copy)]
pub(super) struct Intervals {
    /// From one check to the next.
    pub(super) check: Duration,
    /// To the check that confirms that a server has become slow, or fast again.
    pub(super) recheck: Duration,
    /// From one try to the next while no server answers, at first and later.
    pub(super) retries: (Duration, Duration),
}

impl Intervals {
    pub(super) const DEFAULT: Self = Self {
        check: Duration::from_secs(60),
        recheck: Duration::from_secs(5),
        retries: (Duration::from_millis(500), Duration::from_secs(2)),
    };
}

/// The longest wait for an answer; less than the time between two checks, however patient questions are.
const LIMIT: Duration = Duration::from_secs(5);

/// Dropping it stops the health check.
#[derive(Debug)]
#[must_use = "dropping it stops the health check"]
pub struct Watch {
    _stop: DropGuard,
}

pub(super) fn watch(servers: Arc<Servers>, intervals: Intervals) -> Watch {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let _at_the_end = CloseOnDrop(&servers.breaker);
        let limit = servers.timeout().min(LIMIT);
        let watcher = HealthChecker {
            servers: &servers,
            intervals,
            limit,
            check_now: Notify::new(),
            transitions: AtomicU32::new(0),
        };
        tokio::select! {
            () = stopped.cancelled() => {}
            () = watcher.check_periodically() => {}
            () = watcher.guard_breaker() => {}
        }
    });
    Watch { _stop: stop.drop_guard() }
}

/// Closes the breaker when it is dropped, after a panic too: old sessions may still use these servers, and no other task
/// would close it.
struct CloseOnDrop<'a>(&'a Breaker);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct HealthChecker<'a> {
    servers: &'a Servers,
    intervals: Intervals,
    limit: Duration,
    check_now: Notify,
    /// Times that the breaker was opened or closed.
    transitions: AtomicU32,
}

impl HealthChecker<'_> {
    async fn check_periodically(&self) {
        let mut doubted = Vec::new();
        loop {
            let began = Instant::now();
            let (transitions, answered) =
                (self.transitions.load(Ordering::Relaxed), self.servers.breaker.answered());
            let checks = self.servers.upstreams().map(|(address, server)| async move {
                let of_mail = self.servers.breaker.latest_answered();
                let of_mail = of_mail.map(|(name, rtype)| Probe::of_mail(name, rtype));
                (address, check_server(server, of_mail, self.limit).await)
            });
            let mut servers = join_all(checks).await;
            doubted = doubt(&self.servers.health().servers, &mut servers, &doubted);
            let down = servers.iter().all(|(_, condition)| matches!(condition, Condition::Silent(_)));
            // The guard or mail has newer results.
            let outdated = transitions != self.transitions.load(Ordering::Relaxed)
                || self.servers.breaker.is_open()
                || down && self.servers.breaker.answered_since(answered);
            if !outdated {
                self.report(Health { down, servers });
            }
            let wait = if doubted.is_empty() { self.intervals.check } else { self.intervals.recheck };
            tokio::select! {
                () = sleep_until(began + wait) => {}
                () = self.check_now.notified() => {}
            }
        }
    }

    async fn guard_breaker(&self) {
        let breaker = &self.servers.breaker;
        loop {
            let answered = breaker.alarm().await;
            if let Err(silent) = self.any_server_responds().await
                && !breaker.answered_since(answered)
            {
                let unknown = self.servers.upstreams().map(|(address, _)| (address, Condition::Unknown));
                let unknown = unknown.collect();
                breaker.open();
                self.transitions.fetch_add(1, Ordering::Relaxed);
                self.report(Health { down: true, servers: silent });
                self.wait_for_answer(answered).await;
                breaker.close();
                self.transitions.fetch_add(1, Ordering::Relaxed);
                self.report(Health { down: false, servers: unknown });
                self.check_now.notify_one();
            }
            sleep(self.intervals.retries.1).await;
        }
    }

    /// Returns when a server answers a probe, or a question that was under way before.
    async fn wait_for_answer(&self, answered: u64) {
        let (mut wait, longest) = self.intervals.retries;
        let mut retries = FuturesUnordered::new();
        loop {
            // An answer to this try may take its time, and a packet may be lost: the next doesn't wait for it.
            retries.push(self.any_server_responds());
            let next = Instant::now() + wait;
            wait = (wait * 2).min(longest);
            loop {
                tokio::select! {
                    () = sleep_until(next) => break,
                    () = self.servers.breaker.answer() => if self.servers.breaker.answered_since(answered) { return },
                    Some(there) = retries.next() => if there.is_ok() { return },
                }
            }
        }
    }

    /// Whether any server answers any of the simple questions or of the recent questions of mail. Returns as soon as one
    /// does.
    ///
    /// # Errors
    /// All servers, with the reasons for their silence.
    async fn any_server_responds(&self) -> Result<(), Vec<(SocketAddr, Condition)>> {
        let mut questions = simple_questions();
        let breaker = &self.servers.breaker;
        let of_mail = breaker.latest_answered().into_iter().chain(breaker.latest_blocked());
        questions.extend(of_mail.map(|(name, rtype)| Probe::of_mail(name, rtype)));
        let mut answers: FuturesUnordered<_> = self
            .servers
            .upstreams()
            .flat_map(|(address, server)| {
                questions.iter().map(move |question| async move {
                    (address, responds(server, question, self.limit).await)
                })
            })
            .collect();
        let all = self.servers.upstreams().map(|(address, _)| (address, DnsFailure::Timeout));
        let mut silent: Vec<(SocketAddr, DnsFailure)> = all.collect();
        while let Some((address, responds)) = answers.next().await {
            let Err(why) = responds else { return Ok(()) };
            let of_server = silent.iter_mut().filter(|(known, _)| *known == address);
            of_server.for_each(|(_, before)| *before = more_specific(*before, why));
        }
        Err(silent.into_iter().map(|(address, why)| (address, Condition::Silent(why))).collect())
    }

    fn report(&self, health: Health) {
        let before = self.servers.health();
        for notice in before.notices(&health) {
            match notice {
                Notice::Problem(what) => tracing::warn!(target: "rmxd::dns", "{what}"),
                Notice::Recovery(what) => tracing::info!(target: "rmxd::dns", "{what}"),
            }
        }
        self.servers.set_health(health);
    }
}

/// A server may be slow for a moment, so a change from or to slow counts when two checks in a row find it. Until then the
/// condition stays as it was; returns the servers to check again soon.
fn doubt(
    before: &[(SocketAddr, Condition)],
    found: &mut [(SocketAddr, Condition)],
    doubted: &[SocketAddr],
) -> Vec<SocketAddr> {
    let mut doubtful = Vec::new();
    for ((address, now), (_, before)) in found.iter_mut().zip(before) {
        let turned = matches!(now, Condition::Slow(_)) && !matches!(before, Condition::Slow(_))
            || matches!(before, Condition::Slow(_)) && *now == Condition::Good;
        if turned && !doubted.contains(address) {
            *now = before.clone();
            doubtful.push(*address);
        }
    }
    doubtful
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::dns::test_server::{TestServer, settings};
    use crate::dns::{Account, Budget, Clock, Dns, Urgency};
    use crate::evidence::{Answer, Freshness, Question, RecordType};
    use crate::smtp::address::DomainName;

    fn account() -> Account {
        Account::new(IpAddr::V4(Ipv4Addr::LOCALHOST), Budget::of(u32::MAX), Urgency::Refuses)
    }

    const TIMEOUT: Duration = Duration::from_millis(400);
    /// Much less than a timeout.
    const AT_ONCE: Duration = Duration::from_millis(100);
    const QUICK: Intervals = Intervals {
        check: Duration::from_millis(50),
        recheck: Duration::from_millis(20),
        retries: (Duration::from_millis(50), Duration::from_millis(200)),
    };
    const ZONE: &str = "
        good.test 1 MX 10 mail.good.test
        mail.good.test A 192.0.2.1
        *.dead.test DROP
        *.broken.test SERVFAIL";

    fn dns(server: &TestServer) -> (Dns, Clock) {
        let clock = Clock::standing();
        let settings = crate::dns::Settings { timeout: TIMEOUT, ..settings(&[server.address()]) };
        (Dns::with_clock(settings, clock.clone()).unwrap(), clock)
    }

    fn quickly(dns: &Dns) -> Watch {
        watch(Arc::clone(&dns.0.servers), QUICK)
    }

    fn question(name: &str) -> Question {
        Question { name: DomainName::parse(name).unwrap().into(), rtype: RecordType::Mx }
    }

    async fn ask(dns: &Dns, name: &str) -> Answer {
        (*dns.ask(question(name), &account()).await.evidence.answer).clone()
    }

    /// Asks for so many names side by side, each a new one; what became of them.
    async fn ask_many(dns: &Dns, below: &str, count: usize) -> Vec<Answer> {
        static NAMES: AtomicU32 = AtomicU32::new(0);
        let number = || NAMES.fetch_add(1, Ordering::Relaxed);
        join_all((0..count).map(|_| async move { ask(dns, &format!("n{}.{below}", number())).await })).await
    }

    async fn eventually(what: &str, limit: Duration, holds: impl Fn() -> bool) {
        let wait = async {
            while !holds() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(limit, wait).await.unwrap_or_else(|_elapsed| panic!("{what}"));
    }

    #[tokio::test]
    async fn dns_is_proven_by_the_first_answer_or_the_first_check_which_runs_at_once() {
        let server = TestServer::start(ZONE).await;
        let unwatched = dns(&server).0;
        assert!(!unwatched.is_proven() && !unwatched.health().down);
        assert!(matches!(ask(&unwatched, "good.test").await, Answer::Found(_)));
        assert!(unwatched.is_proven());

        let watched = dns(&server).0;
        let _watch = watch(Arc::clone(&watched.0.servers), Intervals::DEFAULT);
        eventually("a check", TIMEOUT * 2, || watched.is_proven()).await;
        server.silence(true);
        let silent = dns(&server).0;
        let _watch = watch(Arc::clone(&silent.0.servers), Intervals::DEFAULT);
        eventually("a check", TIMEOUT * 3, || silent.health().down).await;
        assert!(!silent.is_proven());
    }

    #[tokio::test]
    async fn while_no_server_answers_questions_are_answered_at_once_and_soon_after_it_is_up_again_truly() {
        let server = TestServer::start(ZONE).await;
        let (dns, clock) = dns(&server);
        let _watch = quickly(&dns);
        assert!(matches!(ask(&dns, "good.test").await, Answer::Found(_)));
        let held = dns.ask(question("held.good.test"), &account()).await.evidence.answer;
        server.silence(true);
        let began = Instant::now();
        assert_eq!(ask_many(&dns, "first.test", 3).await, vec![Answer::Unavailable(DnsFailure::Timeout); 3]);
        assert!(began.elapsed() >= TIMEOUT);
        eventually("the breaker opens", TIMEOUT * 3, || dns.0.servers.breaker.is_open()).await;
        assert!(dns.health().down);

        clock.advance(Duration::from_secs(10));
        let began = Instant::now();
        assert_eq!(ask_many(&dns, "then.test", 50).await, vec![Answer::Unavailable(DnsFailure::Down); 50]);
        let stale = dns.ask(question("good.test"), &account()).await;
        assert_eq!(*stale.evidence.answer, Answer::Unavailable(DnsFailure::Down));
        assert_eq!(stale.stale.map(|held| held.freshness), Some(Freshness::Stale));
        let fresh = dns.ask(question("held.good.test"), &account()).await.evidence;
        assert_eq!((fresh.answer, fresh.freshness), (held, Freshness::Cached));
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());

        sleep(TIMEOUT * 2).await;
        assert!(dns.health().down);
        server.silence(false);
        eventually("the breaker closes", Duration::from_secs(2), || !dns.health().down).await;
        assert!(matches!(ask(&dns, "good.test").await, Answer::Found(_)));
        let seen = |condition: Condition| move |dns: &Dns| dns.health().servers[0].1 == condition;
        eventually("the server is looked at again", TIMEOUT, || seen(Condition::Good)(&dns)).await;
    }

    #[tokio::test]
    async fn domains_whose_servers_are_dead_open_no_breaker() {
        let server = TestServer::start(ZONE).await;
        let (dns, _clock) = dns(&server);
        let _watch = watch(Arc::clone(&dns.0.servers), Intervals { check: Duration::from_secs(60), ..QUICK });
        eventually("a check", TIMEOUT, || dns.health().servers[0].1 == Condition::Good).await;
        server.asked();
        for _ in 0..3 {
            let dead = ask_many(&dns, "dead.test", 60).await;
            assert_eq!(dead, vec![Answer::Unavailable(DnsFailure::Timeout); 60]);
            let broken = ask_many(&dns, "broken.test", 60).await;
            assert_eq!(broken, vec![Answer::Unavailable(DnsFailure::ServerFailure); 60]);
            let began = Instant::now();
            assert!(matches!(ask(&dns, "good.test").await, Answer::Found(_)));
            assert!(began.elapsed() < AT_ONCE);
            assert!(!dns.health().down);
        }
        let probes = server.asked().iter().filter(|asked| asked.contains("invalid")).count();
        assert!((1..20).contains(&probes), "an alarm is looked into, not each question: {probes}");
    }

    #[tokio::test]
    async fn a_server_that_answers_for_the_mail_domains_alone_is_not_down() {
        let deaf = ". DROP\n*.invalid DROP\n1.0.0.127.in-addr.arpa DROP\n*.com DROP\ncom DROP\n";
        let server = TestServer::start(&format!("{deaf}{ZONE}")).await;
        let (dns, _clock) = dns(&server);
        let _watch = quickly(&dns);
        // nothing but dead domains: this once it is taken for down
        ask_many(&dns, "dead.test", 5).await;
        eventually("the breaker opens", TIMEOUT * 3, || dns.0.servers.breaker.is_open()).await;
        // the next question of mail shows that it is up
        assert_eq!(ask(&dns, "good.test").await, Answer::Unavailable(DnsFailure::Down));
        eventually("the breaker closes", Duration::from_secs(1), || !dns.0.servers.breaker.is_open()).await;
        assert!(matches!(ask(&dns, "good.test").await, Answer::Found(_)));
        // from now on the answered question is a probe too, so dead domains alone are never enough
        for _ in 0..3 {
            ask_many(&dns, "dead.test", 5).await;
            sleep(TIMEOUT * 2).await;
            assert!(!dns.0.servers.breaker.is_open());
        }
    }

    #[tokio::test]
    async fn the_end_of_the_health_check_closes_the_breaker() {
        let server = TestServer::start(ZONE).await;
        let (dns, _clock) = dns(&server);
        let watch = quickly(&dns);
        server.silence(true);
        ask_many(&dns, "first.test", 3).await;
        eventually("the breaker opens", TIMEOUT * 3, || dns.0.servers.breaker.is_open()).await;
        drop(watch);
        eventually("the breaker closes", AT_ONCE, || !dns.0.servers.breaker.is_open()).await;
        ask_many(&dns, "second.test", 10).await;
        sleep(TIMEOUT * 2).await;
        assert!(!dns.0.servers.breaker.is_open(), "no task would close it");
    }

    #[tokio::test]
    async fn other_settings_for_the_same_servers_keep_what_is_known_of_them() {
        let server = TestServer::start(ZONE).await;
        let (dns, _clock) = dns(&server);
        let mut settings = dns.0.settings.clone();
        settings.cache.stale = Duration::ZERO;
        assert!(dns.with_settings(settings.clone()).await.unwrap().has_servers_of(&dns));
        settings.timeout *= 2;
        assert!(!dns.with_settings(settings).await.unwrap().has_servers_of(&dns));
    }

    #[test]
    fn slow_or_not_counts_when_two_checks_in_a_row_find_it() {
        use Condition::{Good, Silent, Slow, Unknown};
        let address = SocketAddr::from(([127, 0, 0, 1], 53));
        let slow = Slow(Duration::from_secs(2));
        let silent = Silent(DnsFailure::Timeout);
        let rows = [
            (Unknown, Good, false, Good, false),
            (Unknown, slow.clone(), false, Unknown, true),
            (Unknown, slow.clone(), true, slow.clone(), false),
            (Good, slow.clone(), false, Good, true),
            (slow.clone(), Good, false, slow.clone(), true),
            (slow.clone(), Good, true, Good, false),
            (slow.clone(), silent.clone(), false, silent.clone(), false),
            (Good, silent.clone(), false, silent, false),
        ];
        for (before, now, again, expected, doubtful) in rows {
            let mut found = [(address, now.clone())];
            let doubted = if again { vec![address] } else { vec![] };
            let doubt = doubt(&[(address, before.clone())], &mut found, &doubted);
            assert_eq!((&found[0].1, doubt.len()), (&expected, usize::from(doubtful)), "{before:?} {now:?}");
        }
    }
}
