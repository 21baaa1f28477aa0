//! One check of one server: a few questions, and what is certain from the answers.
//!
//! - It is up if it answers any question that a resolver answers by itself or always has cached: the root's name servers, the
//!   PTR record of 127.0.0.1 (RFC 6303 4.2) and a name below `invalid`; or the question of mail that was answered last. Other
//!   domains, and the network path to them, don't matter.
//! - It invents if it has records for a name that was made up: below `invalid`, which must not exist (RFC 6761 6.4), or
//!   with twenty letters at random below `com`. REFUSED, SERVFAIL and silence are no evidence, and neither is NXDOMAIN: a
//!   network without the real root has no other answer.
//! - It denies if it answers NXDOMAIN for `com` although it knows the real root, whose servers are named below
//!   `root-servers.net`. Without the real root `com` need not exist.
//! - It is slow if half of its answers (NOERROR, NXDOMAIN) took more than a second. Failures may take their time.

use std::time::Duration;

use futures_util::future::join_all;
use rand::RngExt;
use tokio::time::Instant;

use crate::dns::health::Condition;
use crate::dns::message::{ProbeReply, ProbeType, WireName};
use crate::dns::upstream::Upstream;
use crate::evidence::{DnsFailure, RecordType};

/// Half of the answers take longer: slow.
const SLOW: Duration = Duration::from_secs(1);
/// Fewer answers are no evidence of the speed of a server.
const FEW: usize = 3;
/// Below it are the names of the root's servers, since 1995.
const ROOT_SERVERS: &str = "root-servers.net";

/// Looks at a server; takes no longer than `limit`. A question of mail that was answered may show that it is there.
pub(super) async fn check_server(server: &Upstream, of_mail: Option<Probe>, limit: Duration) -> Condition {
    let questions: Vec<_> = questions().into_iter().chain(of_mail).collect();
    let answers = join_all(questions.iter().map(|question| async move {
        let began = Instant::now();
        let reply = put(server, question, limit).await;
        ProbeResult { question, reply, took: began.elapsed() }
    }));
    conclude(&answers.await)
}

/// Whether a server says anything to a question.
///
/// # Errors
/// Why it doesn't.
pub(super) async fn responds(server: &Upstream, question: &Probe, limit: Duration) -> Result<(), DnsFailure> {
    match put(server, question, limit).await {
        ProbeReply::Nothing(why) => Err(why),
        ProbeReply::Records(_) | ProbeReply::NoData | ProbeReply::Denied | ProbeReply::Failure => Ok(()),
    }
}

/// Of two reasons for silence the one that says more than that nothing came in time.
pub(super) fn more_specific(one: DnsFailure, other: DnsFailure) -> DnsFailure {
    if one == DnsFailure::Timeout { other } else { one }
}

async fn put(server: &Upstream, question: &Probe, limit: Duration) -> ProbeReply {
    server.probe(&question.name, question.asked, Instant::now() + limit).await
}

/// A question of the check.
#[derive(Debug)]
pub(super) struct Probe {
    name: WireName,
    asked: ProbeType,
    about: About,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Root,
    Local,
    MadeUp,
    Com,
    Mail,
}

impl Probe {
    /// A question of mail.
    pub(super) fn of_mail(name: WireName, rtype: RecordType) -> Self {
        Self { name, asked: ProbeType::Records(rtype), about: About::Mail }
    }
}

/// Questions that any server answers by itself, to find whether it is up.
pub(super) fn simple_questions() -> Vec<Probe> {
    vec![
        Probe { name: WireName::labels([]), asked: ProbeType::Ns, about: About::Root },
        Probe {
            name: WireName::labels(["1", "0", "0", "127", "in-addr", "arpa"]),
            asked: ProbeType::Records(RecordType::Ptr),
            about: About::Local,
        },
        Probe {
            name: WireName::labels([&*letters(), "invalid"]),
            asked: ProbeType::Records(RecordType::A),
            about: About::MadeUp,
        },
    ]
}

fn questions() -> Vec<Probe> {
    let mut questions = simple_questions();
    let made_up = WireName::labels([&*letters(), "com"]);
    let below_com =
        |rtype| Probe { name: made_up.clone(), asked: ProbeType::Records(rtype), about: About::MadeUp };
    questions.extend([RecordType::A, RecordType::Aaaa, RecordType::Mx].map(below_com));
    questions.push(Probe { name: WireName::labels(["com"]), asked: ProbeType::Soa, about: About::Com });
    questions
}

/// Twenty at random: no such domain is registered.
fn letters() -> String {
    let mut random = rand::rng();
    (0..20).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect()
}

#[derive(Debug)]
struct ProbeResult<'a> {
    question: &'a Probe,
    reply: ProbeReply,
    took: Duration,
}

fn conclude(answers: &[ProbeResult<'_>]) -> Condition {
    if let Some(why) = silence(answers) {
        return Condition::Silent(why);
    }
    let about = |what: About| answers.iter().filter(move |result| result.question.about == what);
    for result in about(About::MadeUp) {
        if let ProbeReply::Records(records) = &result.reply {
            let Probe { name, asked, .. } = result.question;
            return Condition::Invents(format!(
                "{} {} -> {}",
                name.target(),
                asked.name(),
                records.join(", ")
            ));
        }
    }
    let is_real = |name: &String| name.to_ascii_lowercase().ends_with(ROOT_SERVERS);
    let real_root = about(About::Root).any(|result| match &result.reply {
        ProbeReply::Records(names) => names.iter().any(is_real),
        ProbeReply::Nothing(_) | ProbeReply::Denied | ProbeReply::NoData | ProbeReply::Failure => false,
    });
    if real_root && about(About::Com).any(|result| result.reply == ProbeReply::Denied) {
        return Condition::Denies("com");
    }
    match median(answers) {
        Some(median) if median > SLOW => Condition::Slow(median),
        Some(_) | None => Condition::Good,
    }
}

/// Why no question was answered; `None` if one was.
fn silence(answers: &[ProbeResult<'_>]) -> Option<DnsFailure> {
    let mut why = DnsFailure::Timeout;
    for result in answers {
        let ProbeReply::Nothing(its) = result.reply else { return None };
        why = more_specific(why, its);
    }
    Some(why)
}

fn median(answers: &[ProbeResult<'_>]) -> Option<Duration> {
    let answered = answers.iter().filter(|result| match result.reply {
        ProbeReply::Records(_) | ProbeReply::NoData | ProbeReply::Denied => true,
        ProbeReply::Nothing(_) | ProbeReply::Failure => false,
    });
    let mut times: Vec<_> = answered.map(|result| result.took).collect();
    times.sort_unstable();
    if times.len() < FEW { None } else { times.get((times.len() - 1) / 2).copied() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::test_server::TestServer;

    const LIMIT: Duration = Duration::from_secs(2);

    async fn condition_of(server: &TestServer) -> Condition {
        check_server(&Upstream::new(server.address()), None, LIMIT).await
    }

    #[tokio::test]
    async fn answers_about_names_that_can_not_exist_or_must_exist_show_false_ones() {
        let all_refused = [".", "*.invalid", "*.com", "com", "1.0.0.127.in-addr.arpa"];
        let refused = |code: &str| all_refused.map(|name| format!("{name} {code}")).join("\n");
        let rows = [
            // without the real root
            ("good.test A 192.0.2.1".to_owned(), "is as it should be"),
            (". NS ns.mine.test".to_owned(), "is as it should be"),
            (refused("REFUSED"), "is as it should be"),
            (refused("SERVFAIL"), "is as it should be"),
            ("*.com DROP\ncom DROP\n. DROP".to_owned(), "is as it should be"),
            ("1.0.0.127.in-addr.arpa PTR localhost".to_owned(), "is as it should be"),
            // with it
            (". NS a.root-servers.net\ncom TXT x".to_owned(), "is as it should be"),
            (". NS a.root-servers.net\ncom SERVFAIL".to_owned(), "is as it should be"),
            (". NS A.ROOT-SERVERS.NET".to_owned(), "answers that \"com\" doesn't exist"),
            // answers for anything
            ("*.invalid A 10.0.0.1".to_owned(), ".invalid A -> 10.0.0.1): spoofed"),
            ("*.com A 0.0.0.0".to_owned(), ".com A -> 0.0.0.0): spoofed"),
            ("*.com AAAA ::".to_owned(), ".com AAAA -> ::): spoofed"),
            ("*.com MX 10 trap.test".to_owned(), ".com MX -> 10 trap.test): spoofed"),
            ("*.com CNAME trap.test".to_owned(), ".com A -> trap.test): spoofed"),
            (". NS a.root-servers.net\n*.com A 10.0.0.1".to_owned(), ".com A -> 10.0.0.1): spoofed"),
        ];
        for (zone, expected) in rows {
            let server = TestServer::start(&zone).await;
            let condition = condition_of(&server).await.to_string();
            assert!(condition.contains(expected), "{zone}: {condition}");
        }
    }

    #[tokio::test]
    async fn only_a_server_without_any_answer_is_silent() {
        let server = TestServer::start("good.test A 192.0.2.1").await;
        server.silence(true);
        let upstream = Upstream::new(server.address());
        assert_eq!(
            check_server(&upstream, None, Duration::from_millis(300)).await,
            Condition::Silent(DnsFailure::Timeout)
        );
        server.silence(false);
        server.set(". DROP\n*.invalid DROP\n*.com DROP\n1.0.0.127.in-addr.arpa REFUSED");
        assert_eq!(check_server(&upstream, None, Duration::from_millis(300)).await, Condition::Good);
        server.set(
            ". DROP\n*.invalid DROP\n*.com DROP\ncom DROP\n1.0.0.127.in-addr.arpa DROP\ngood.test SERVFAIL",
        );
        assert_eq!(
            check_server(&upstream, None, Duration::from_millis(300)).await,
            Condition::Silent(DnsFailure::Timeout)
        );
        let of_mail = Probe::of_mail(WireName::labels(["good", "test"]), RecordType::Mx);
        assert_eq!(check_server(&upstream, Some(of_mail), Duration::from_millis(300)).await, Condition::Good);
    }

    #[tokio::test]
    async fn a_server_is_slow_when_half_of_its_answers_take_long() {
        let slow = ". DELAY 1200\n*.com DELAY 1200\n*.invalid DELAY 1200";
        let rows = [
            (slow.to_owned(), true),
            ("*.com DELAY 1200".to_owned(), false),
            // it fails after a while, as one without a way out does
            (
                slow.lines()
                    .map(|line| format!("{line}\n{} SERVFAIL\n", line.split(' ').next().unwrap()))
                    .collect(),
                false,
            ),
        ];
        for (zone, expected) in rows {
            let server = TestServer::start(&zone).await;
            let condition = condition_of(&server).await;
            assert_eq!(matches!(condition, Condition::Slow(_)), expected, "{zone}: {condition}");
        }
    }

    #[test]
    fn made_up_names_differ_and_have_letters_only() {
        let (one, other) = (letters(), letters());
        assert_ne!(one, other);
        assert!(one.len() == 20 && one.bytes().all(|octet| octet.is_ascii_lowercase()), "{one}");
    }
}
