//! Looks after the configured servers in the background: each by itself every minute, and all of them at once when
//! questions go unanswered.
//!
//! Two tasks in one. The look tells the operator what is wrong with a server; it turns nobody away. The guard waits for
//! the breaker's alarm, asks whether anybody is there, and if nobody is, opens the breaker until somebody answers.
//! What it asks then includes questions of mail: a server that has nothing to say of the root, and all to say of the names
//! that matter here, must not be taken for dead.

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
use crate::dns::probe::{Probe, look, simple_questions, speaks};

/// How often what happens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// From one look to the next.
    pub(super) look: Duration,
    /// To the look that shows whether a server is still slow.
    pub(super) look_again: Duration,
    /// From one try to the next while nobody answers, at first and later.
    pub(super) tries: (Duration, Duration),
}

impl Pace {
    pub(super) const USUAL: Self = Self {
        look: Duration::from_secs(60),
        look_again: Duration::from_secs(5),
        tries: (Duration::from_millis(500), Duration::from_secs(2)),
    };
}

/// The longest wait for an answer; less than the time between two looks, however patient questions are.
const LIMIT: Duration = Duration::from_secs(5);

/// Servers are looked after while this lives.
#[derive(Debug)]
#[must_use = "when it is dropped, nobody looks any more"]
pub struct Watch {
    _stop: DropGuard,
}

/// Begins.
pub(super) fn watch(servers: Arc<Servers>, pace: Pace) -> Watch {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let _at_the_end = Closing(&servers.breaker);
        let limit = servers.timeout().min(LIMIT);
        let watcher =
            Watcher { servers: &servers, pace, limit, look_now: Notify::new(), turns: AtomicU32::new(0) };
        tokio::select! {
            () = stopped.cancelled() => {}
            () = watcher.look_from_time_to_time() => {}
            () = watcher.guard() => {}
        }
    });
    Watch { _stop: stop.drop_guard() }
}

/// Closes the breaker when it is dropped, be it by a panic: old sessions may go on with these servers, and nobody would
/// let their questions through again.
struct Closing<'a>(&'a Breaker);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Watcher<'a> {
    servers: &'a Servers,
    pace: Pace,
    limit: Duration,
    look_now: Notify,
    /// How often the breaker was opened or closed.
    turns: AtomicU32,
}

impl Watcher<'_> {
    async fn look_from_time_to_time(&self) {
        let mut doubted = Vec::new();
        loop {
            let began = Instant::now();
            let (turns, answered) = (self.turns.load(Ordering::Relaxed), self.servers.breaker.answered());
            let looks = self.servers.upstreams().map(|(address, server)| async move {
                let of_mail = self.servers.breaker.latest_answered();
                let of_mail = of_mail.map(|(name, rtype)| Probe::of_mail(name, rtype));
                (address, look(server, of_mail, self.limit).await)
            });
            let mut servers = join_all(looks).await;
            doubted = doubt(&self.servers.health().servers, &mut servers, &doubted);
            let down = servers.iter().all(|(_, condition)| *condition == Condition::Silent);
            // What the guard or mail has seen since is newer, and says more.
            let outdated = turns != self.turns.load(Ordering::Relaxed)
                || self.servers.breaker.is_open()
                || down && self.servers.breaker.answered_since(answered);
            if !outdated {
                self.tell(Health { down, servers });
            }
            let wait = if doubted.is_empty() { self.pace.look } else { self.pace.look_again };
            tokio::select! {
                () = sleep_until(began + wait) => {}
                () = self.look_now.notified() => {}
            }
        }
    }

    async fn guard(&self) {
        let breaker = &self.servers.breaker;
        loop {
            let answered = breaker.alarm().await;
            if !self.anybody_there().await && !breaker.answered_since(answered) {
                let all = |condition: Condition| {
                    self.servers.upstreams().map(move |(address, _)| (address, condition.clone())).collect()
                };
                breaker.open();
                self.turns.fetch_add(1, Ordering::Relaxed);
                self.tell(Health { down: true, servers: all(Condition::Silent) });
                self.until_somebody_answers(answered).await;
                breaker.close();
                self.turns.fetch_add(1, Ordering::Relaxed);
                self.tell(Health { down: false, servers: all(Condition::Unknown) });
                self.look_now.notify_one();
            }
            sleep(self.pace.tries.1).await;
        }
    }

    /// Or until a question is answered that was under way before.
    async fn until_somebody_answers(&self, answered: u64) {
        let (mut wait, longest) = self.pace.tries;
        let mut tries = FuturesUnordered::new();
        loop {
            // An answer to this try may take its time, and a packet may be lost: the next doesn't wait for it.
            tries.push(self.anybody_there());
            let next = Instant::now() + wait;
            wait = (wait * 2).min(longest);
            loop {
                tokio::select! {
                    () = sleep_until(next) => break,
                    () = self.servers.breaker.answer() => if self.servers.breaker.answered_since(answered) { return },
                    Some(there) = tries.next() => if there { return },
                }
            }
        }
    }

    /// Whether any server says anything to any of the simple questions, or of what mail asked lately.
    async fn anybody_there(&self) -> bool {
        let mut questions = simple_questions();
        let breaker = &self.servers.breaker;
        let of_mail = breaker.latest_answered().into_iter().chain(breaker.latest_turned_away());
        questions.extend(of_mail.map(|(name, rtype)| Probe::of_mail(name, rtype)));
        let mut answers: FuturesUnordered<_> = self
            .servers
            .upstreams()
            .flat_map(|(_, server)| {
                questions.iter().map(move |question| speaks(server, question, self.limit))
            })
            .collect();
        while let Some(speaks) = answers.next().await {
            if speaks {
                return true;
            }
        }
        false
    }

    fn tell(&self, health: Health) {
        let before = self.servers.health();
        for notice in before.notices(&health) {
            match notice {
                Notice::DnsFailure(what) => tracing::warn!(target: "rmxd::dns", "{what}"),
                Notice::Recovery(what) => tracing::info!(target: "rmxd::dns", "{what}"),
            }
        }
        self.servers.set_health(health);
    }
}

/// A server may be slow for a moment: only what two looks in a row find counts. Else it is as it was, and comes back as
/// one to look at again soon.
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
    use crate::evidence::{Answer, DnsFailure, Freshness, Question, RecordType};
    use crate::smtp::address::DomainName;

    fn account() -> Account {
        Account::new(IpAddr::V4(Ipv4Addr::LOCALHOST), Budget::of(u32::MAX), Urgency::Refuses)
    }

    const TIMEOUT: Duration = Duration::from_millis(400);
    /// Much less than a time-out.
    const AT_ONCE: Duration = Duration::from_millis(100);
    const QUICK: Pace = Pace {
        look: Duration::from_millis(50),
        look_again: Duration::from_millis(20),
        tries: (Duration::from_millis(50), Duration::from_millis(200)),
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
    async fn dns_is_proven_by_the_first_answer_or_the_first_look_which_comes_at_once() {
        let server = TestServer::start(ZONE).await;
        let unwatched = dns(&server).0;
        assert!(!unwatched.is_proven() && !unwatched.health().down);
        assert!(matches!(ask(&unwatched, "good.test").await, Answer::Found(_)));
        assert!(unwatched.is_proven());

        let watched = dns(&server).0;
        let _watch = watch(Arc::clone(&watched.0.servers), Pace::USUAL);
        eventually("a look", TIMEOUT * 2, || watched.is_proven()).await;
        server.silence(true);
        let silent = dns(&server).0;
        let _watch = watch(Arc::clone(&silent.0.servers), Pace::USUAL);
        eventually("a look", TIMEOUT * 3, || silent.health().down).await;
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
    async fn domains_whose_servers_are_dead_turn_nobody_away() {
        let server = TestServer::start(ZONE).await;
        let (dns, _clock) = dns(&server);
        let _watch = watch(Arc::clone(&dns.0.servers), Pace { look: Duration::from_secs(60), ..QUICK });
        eventually("a look", TIMEOUT, || dns.health().servers[0].1 == Condition::Good).await;
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
        // whoever comes then shows that it isn't
        assert_eq!(ask(&dns, "good.test").await, Answer::Unavailable(DnsFailure::Down));
        eventually("the breaker closes", Duration::from_secs(1), || !dns.0.servers.breaker.is_open()).await;
        assert!(matches!(ask(&dns, "good.test").await, Answer::Found(_)));
        // and from then on it is asked for what it answered, so that dead domains alone are never enough
        for _ in 0..3 {
            ask_many(&dns, "dead.test", 5).await;
            sleep(TIMEOUT * 2).await;
            assert!(!dns.0.servers.breaker.is_open());
        }
    }

    #[tokio::test]
    async fn who_stops_looking_leaves_nothing_open() {
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
        assert!(!dns.0.servers.breaker.is_open(), "nobody would close it");
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
    fn slow_or_not_is_told_when_two_looks_in_a_row_find_it() {
        use Condition::{Good, Silent, Slow, Unknown};
        let address = SocketAddr::from(([127, 0, 0, 1], 53));
        let slow = Slow(Duration::from_secs(2));
        let rows = [
            (Unknown, Good, false, Good, false),
            (Unknown, slow.clone(), false, Unknown, true),
            (Unknown, slow.clone(), true, slow.clone(), false),
            (Good, slow.clone(), false, Good, true),
            (slow.clone(), Good, false, slow.clone(), true),
            (slow.clone(), Good, true, Good, false),
            (slow.clone(), Silent, false, Silent, false),
            (Good, Silent, false, Silent, false),
        ];
        for (before, now, again, expected, doubtful) in rows {
            let mut found = [(address, now.clone())];
            let doubted = if again { vec![address] } else { vec![] };
            let doubt = doubt(&[(address, before.clone())], &mut found, &doubted);
            assert_eq!((&found[0].1, doubt.len()), (&expected, usize::from(doubtful)), "{before:?} {now:?}");
        }
    }
}
