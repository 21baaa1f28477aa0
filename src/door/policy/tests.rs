//! The policy service over a connection in memory: a real gate, over a name server on loopback.

use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::*;
use crate::config::Settings;
use crate::daemon;
use crate::dns::Dns;
use crate::dns::test_server::TestServer;
use crate::door::bomb::panic_at;
use crate::door::tests::settings;
use crate::gate::Services;
use crate::metrics::{Format, Gauges, Metrics};
use crate::policy::door::DoorName;
use crate::policy::outcome::Outcome;
use crate::store::greylist::Greylist;
use crate::tls::tests::logged;

const SOON: Duration = Duration::from_secs(10);

/// nowhere.test doesn't exist.
const ZONE: &str = "
    good.test MX 10 mail.good.test
    mail.good.test A 127.0.0.10
    10.0.0.127.in-addr.arpa PTR mail.good.test
    other.test MX 10 mail.other.test
    mail.other.test A 127.0.0.20
    nomx.test TXT nothing
    broken.test SERVFAIL";

/// A door, and what it is put together from.
struct Service {
    door: PolicyDoor,
    current: watch::Sender<Arc<Gate>>,
    metrics: Metrics,
    dns: Dns,
    server: TestServer,
    folder: TempDir,
}

fn gate(settings: &Settings, dns: &Dns, metrics: &Metrics) -> Arc<Gate> {
    let greylist = settings.greylist.clone().map(|settings| Greylist::in_memory(settings).unwrap());
    let services = Services { greylist, metrics: metrics.clone(), ..Services::default() };
    daemon::gate_with_services(dns.clone(), settings, services)
}

impl Service {
    async fn start(lines: &[(&str, &str)]) -> Self {
        let server = TestServer::start(ZONE).await;
        let (settings, metrics) = (settings(lines, &server), Metrics::default());
        let dns = Dns::new(settings.dns.clone()).unwrap();
        let current = watch::Sender::new(gate(&settings, &dns, &metrics));
        let door = PolicyDoor::new(current.subscribe(), metrics.clone());
        Self { door, current, metrics, dns, server, folder: tempfile::tempdir().unwrap() }
    }

    fn reload(&self, lines: &[(&str, &str)]) {
        let gate = gate(&settings(lines, &self.server), &self.dns, &self.metrics);
        self.current.send_replace(gate);
    }

    fn connect(&self) -> Postfix {
        let (stream, served) = duplex(64 * 1024);
        let (door, stop) = (self.door.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move { door.serve(served, stopped).await });
        Postfix { stream, stop, task }
    }

    /// How often each outcome of this door was counted.
    fn outcomes(&self) -> Vec<(Outcome, u64)> {
        let text = self.metrics.text(&Gauges::of_nothing(), Format::Prometheus);
        let count = |outcome: Outcome| {
            let line = format!("rmxd_outcomes_total{{door=\"policy\",outcome=\"{}\"}} ", outcome.name());
            text.lines().find_map(|found| found.strip_prefix(&line)).unwrap().parse().unwrap()
        };
        Outcome::ALL
            .into_iter()
            .map(|outcome| (outcome, count(outcome)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// The other end of a connection.
struct Postfix {
    stream: DuplexStream,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// A request; `lines` go over what Postfix sends for the first recipient of a message from ann@good.test.
fn request(lines: &[(&str, &str)]) -> String {
    let usual = [
        ("request", "smtpd_access_policy"),
        ("protocol_state", "RCPT"),
        ("protocol_name", "ESMTP"),
        ("client_address", "127.0.0.10"),
        ("client_name", "mail.bank.test"),
        ("reverse_client_name", "mail.bank.test"),
        ("client_port", "42716"),
        ("helo_name", "mail.good.test"),
        ("sender", "ann@good.test"),
        ("recipient", "user@here.test"),
        ("queue_id", ""),
        ("instance", "1.2.3.0"),
        ("sasl_username", ""),
        ("encryption_protocol", ""),
    ];
    let value = |(name, usual): (&'static str, &'static str)| {
        let given = lines.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
        format!("{name}={}\n", given.unwrap_or(usual))
    };
    usual.map(value).concat() + "\n"
}

impl Postfix {
    async fn send(&mut self, octets: &[u8]) {
        timeout(SOON, self.stream.write_all(octets)).await.unwrap().unwrap();
    }

    /// The next answer without `action=`, or "closed".
    async fn answer(&mut self) -> String {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n\n") {
            match timeout(SOON, self.stream.read_u8()).await.expect("an answer in time") {
                Ok(octet) => answer.push(octet),
                Err(_) => return "closed".to_owned(),
            }
        }
        let text = String::from_utf8(answer).unwrap();
        text.trim_end().strip_prefix("action=").unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    async fn ask(&mut self, lines: &[(&str, &str)]) -> String {
        self.send(request(lines).as_bytes()).await;
        self.answer().await
    }

    async fn leave(self) {
        drop(self.stream);
        timeout(SOON, self.task).await.unwrap().unwrap();
    }
}

/// The answer without its id.
fn without_id(answer: &str) -> String {
    match answer.split_once("(id ").and_then(|(text, id)| Some((text, id.split_once(')')?.1))) {
        Some((text, rest)) => format!("{text}(id){rest}"),
        None => answer.to_owned(),
    }
}

fn id(answer: &str) -> &str {
    answer.split_once("(id ").and_then(|(_, id)| id.split_once(')')).expect("an id").0
}

const TROUBLE: &str = "DEFER_IF_PERMIT 4.3.0 Service unavailable, try again later";

#[tokio::test]
async fn each_sender_has_its_answer() {
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], &'a str);
    let nowhere = ("sender", "a@nowhere.test");
    let does_not_exist = "550 5.1.8 nowhere.test does not exist (id)";
    let no_address = "DEFER_IF_PERMIT 4.4.3 the client's address can't be looked up now (id)";
    let rows: [Row<'_>; 21] = [
        (&[], &[], "DUNNO"),
        (&[], &[("sender", "")], "DUNNO"),
        (&[], &[nowhere], does_not_exist),
        (&[], &[("sender", "a@nomx.test")], "550 5.1.8 nomx.test has no MX record (id)"),
        (
            &[],
            &[("sender", "a@broken.test")],
            "DEFER_IF_PERMIT 4.4.3 broken.test can't be looked up now (id)",
        ),
        (&[("policy.on_dns_error", "accept")], &[("sender", "a@broken.test")], "DUNNO"),
        (
            &[("policy.mail_from.exists", "defer")],
            &[nowhere],
            "DEFER_IF_PERMIT 4.1.8 nowhere.test does not exist (id)",
        ),
        (
            &[("policy.mail_from.exists", "greylist")],
            &[nowhere],
            "DEFER_IF_PERMIT 4.7.1 nowhere.test is greylisted, try again in 300 seconds (id)",
        ),
        (&[("policy.mode", "monitor")], &[nowhere], "DUNNO"),
        (&[("exempt.clients", "127.0.0.10")], &[nowhere], "DUNNO"),
        (&[("exempt.domains", "nowhere.test")], &[nowhere], "DUNNO"),
        (&[("exempt.recipients", "user@here.test")], &[nowhere], "DUNNO"),
        (&[], &[nowhere, ("sasl_username", "ann")], "DUNNO"),
        // The names that Postfix has found aren't believed: the PTR record is looked up.
        (
            &[("policy.ptr.exists", "reject")],
            &[("client_address", "127.0.0.77")],
            "550 5.7.25 127.0.0.77 has no PTR record (id)",
        ),
        (
            &[("policy.helo.exists", "reject")],
            &[("helo_name", "x.nowhere.test")],
            "550 5.7.1 x.nowhere.test does not exist (id)",
        ),
        (&[], &[nowhere, ("client_address", "unknown")], no_address),
        (&[], &[nowhere, ("client_address", "unknown"), ("sasl_username", "ann")], "DUNNO"),
        (&[("exempt.recipients", "user@here.test")], &[nowhere, ("client_address", "unknown")], "DUNNO"),
        (&[("policy.on_dns_error", "accept")], &[nowhere, ("client_address", "unknown")], "DUNNO"),
        (&[("policy.mode", "monitor")], &[nowhere, ("client_address", "")], "DUNNO"),
        (
            &[("reply.help_url", "https://here.test/why")],
            &[nowhere],
            "550 5.1.8 nowhere.test does not exist (id) see https://here.test/why/ID",
        ),
    ];
    for (lines, given, expected) in rows {
        let service = Service::start(lines).await;
        let mut postfix = service.connect();
        let answer = postfix.ask(given).await;
        let shown = match answer.contains("see https") {
            true => without_id(&answer).replace(id(&answer), "ID"),
            false => without_id(&answer),
        };
        assert_eq!(shown, expected, "{lines:?} {given:?}");
    }
}

#[tokio::test]
async fn addresses_that_only_postfix_takes_are_judged_too() {
    let service = Service::start(&[]).await;
    let mut postfix = service.connect();
    let rows = [
        (&[("sender", "a b@good.test"), ("instance", "1")], "DUNNO"),
        (
            &[("sender", "MAILER-DAEMON"), ("instance", "2")],
            "550 5.1.8 MAILER-DAEMON is not a domain that can have an MX record (id)",
        ),
        (
            &[("sender", "a@bad domain.test"), ("instance", "3")],
            "550 5.1.8 a@bad domain.test is not a domain that can have an MX record (id)",
        ),
        (
            &[("sender", "a@nowhere.test"), ("recipient", "user@")],
            "550 5.1.8 nowhere.test does not exist (id)",
        ),
        (&[("recipient", "user@"), ("instance", "5")], "DUNNO"),
    ];
    for (given, expected) in rows {
        assert_eq!(without_id(&postfix.ask(given).await), expected, "{given:?}");
    }
}

#[tokio::test]
async fn octets_that_are_not_utf_8_spoil_no_verdict() {
    let service = Service::start(&[]).await;
    let mut postfix = service.connect();
    let rows: [(&[u8], &str); 4] = [
        (b"sender=a\xff@good.test\nrecipient=u@here.test", "DUNNO"),
        (b"sender=a\xff@nowhere.test\nrecipient=u@here.test", "550 5.1.8 nowhere.test does not exist (id)"),
        (b"sender=a@nowhere.test\nrecipient=\xff@here.test", "550 5.1.8 nowhere.test does not exist (id)"),
        (
            b"sender=a@nowhere.test\nccert_subject=\xff\nrecipient=u@here.test",
            "550 5.1.8 nowhere.test does not exist (id)",
        ),
    ];
    for (number, (lines, expected)) in rows.into_iter().enumerate() {
        let before = format!(
            "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=127.0.0.10\nclient_port=1\ninstance={number}\n"
        );
        postfix.send(&[before.as_bytes(), lines, b"\n\n"].concat()).await;
        assert_eq!(without_id(&postfix.answer().await), expected, "{}", lines.escape_ascii());
    }
}

#[tokio::test]
async fn another_helo_is_another_transaction() {
    let service = Service::start(&[("policy.helo.exists", "reject"), ("policy.reject_at", "mail")]).await;
    let mut postfix = service.connect();
    let mail = ("protocol_state", "MAIL");
    let unnamed = ("instance", "");
    assert_eq!(postfix.ask(&[mail, unnamed]).await, "DUNNO");
    let answer = postfix.ask(&[mail, unnamed, ("helo_name", "x.nowhere.test")]).await;
    assert_eq!(without_id(&answer), "550 5.7.1 x.nowhere.test does not exist (id)");
}

#[tokio::test]
async fn the_state_says_whether_there_is_a_verdict() {
    let states = ["CONNECT", "HELO", "EHLO", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN", "BDAT", ""];
    for reject_at in ["rcpt", "mail"] {
        let service =
            Service::start(&[("policy.reject_at", reject_at), ("policy.ptr.exists", "greylist")]).await;
        let mut postfix = service.connect();
        let spoof = ("sender", "a@nowhere.test");
        for state in states {
            assert_eq!(
                postfix.ask(&[("protocol_state", state), spoof]).await,
                "DUNNO",
                "{state} {reject_at}"
            );
        }
        let before = [("protocol_state", "MAIL"), ("instance", ""), ("recipient", ""), spoof];
        let at_mail = postfix.ask(&before).await;
        let at_rcpt = postfix.ask(&[spoof]).await;
        assert_eq!(without_id(&at_rcpt), "550 5.1.8 nowhere.test does not exist (id)");
        if reject_at == "mail" {
            assert_eq!(at_mail, at_rcpt, "one transaction, one id");
            assert_ne!(postfix.ask(&before).await, at_mail, "the instance is over with the next MAIL");
        } else {
            assert_eq!(at_mail, "DUNNO");
        }
        // Greylisting waits for the recipient.
        let unknown = ("client_address", "127.0.0.77");
        let mail = postfix.ask(&[("protocol_state", "MAIL"), ("instance", ""), unknown]).await;
        assert_eq!(mail, "DUNNO", "{reject_at}");
        let rcpt = postfix.ask(&[unknown, ("instance", "9")]).await;
        assert!(rcpt.starts_with("DEFER_IF_PERMIT 4.7.1 127.0.0.77 is greylisted"), "{rcpt}");
    }
}

#[tokio::test]
async fn an_instance_is_one_transaction_and_repeated_requests_have_one_answer() {
    let service = Service::start(&[]).await;
    let mut postfix = service.connect();
    let of = |instance| [("sender", "a@nowhere.test"), ("instance", instance)];
    let first = postfix.ask(&of("1.0")).await;
    assert_eq!(postfix.ask(&of("1.0")).await, first);
    let other_recipient = [("sender", "a@nowhere.test"), ("instance", "1.0"), ("recipient", "two@here.test")];
    assert_eq!(id(&postfix.ask(&other_recipient).await), id(&first));
    assert_eq!(service.outcomes(), [], "it isn't over");
    let second = postfix.ask(&of("1.1")).await;
    assert_ne!(id(&second), id(&first));
    assert_eq!(service.outcomes(), [(Outcome::Refused, 1)]);
    let mut other = service.connect();
    assert_ne!(id(&other.ask(&of("1.1")).await), id(&second), "another connection is another transaction");
    postfix.leave().await;
    other.leave().await;
    assert_eq!(service.outcomes(), [(Outcome::Refused, 3)]);
    // The name of the client and that of the sender are looked up once.
    let asked = service.server.asked();
    let distinct: std::collections::HashSet<_> = asked.iter().collect();
    assert!(asked.len() > 3 && distinct.len() == asked.len(), "{asked:?}");
}

#[tokio::test]
async fn each_recipient_is_greylisted_for_itself() {
    let lines = [("policy.mail_from.exists", "greylist"), ("greylist.delay", "1s")];
    let service = Service::start(&lines).await;
    let mut postfix = service.connect();
    let of = |instance, recipient| {
        [("sender", "a@nowhere.test"), ("instance", instance), ("recipient", recipient)]
    };
    let one = postfix.ask(&of("1", "one@here.test")).await;
    assert!(
        one.starts_with("DEFER_IF_PERMIT 4.7.1 nowhere.test is greylisted, try again in 1 second (id "),
        "{one}"
    );
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(postfix.ask(&of("1", "one@here.test")).await, one, "the same instance, the same answer");
    assert_eq!(postfix.ask(&of("2", "one@here.test")).await, "DUNNO");
    let two = postfix.ask(&of("2", "two@here.test")).await;
    assert!(two.starts_with("DEFER_IF_PERMIT 4.7.1 "), "{two}");
    postfix.leave().await;
    assert_eq!(service.outcomes(), [(Outcome::Refused, 1), (Outcome::Passed, 1)]);
}

#[tokio::test]
async fn requests_may_be_pipelined_and_split() {
    let service = Service::start(&[]).await;
    let stream: String = (0..40)
        .map(|number| {
            let sender = if number % 2 == 0 { "a@good.test" } else { "a@nowhere.test" };
            request(&[("sender", sender), ("instance", &format!("1.{number}"))])
        })
        .collect();
    for size in [1, 7, 100, stream.len()] {
        let mut postfix = service.connect();
        let (mut reading, mut writing) = tokio::io::split(postfix.stream);
        let sent = stream.clone();
        let sender = tokio::spawn(async move {
            for piece in sent.as_bytes().chunks(size) {
                writing.write_all(piece).await.unwrap();
                if size == 7 {
                    tokio::task::yield_now().await;
                }
            }
            writing
        });
        let mut answers = String::new();
        while answers.matches("\n\n").count() < 40 {
            let mut octets = [0; 4096];
            let length = timeout(SOON, reading.read(&mut octets)).await.unwrap().unwrap();
            assert!(length > 0, "{answers}");
            answers.push_str(std::str::from_utf8(&octets[..length]).unwrap());
        }
        let pair = ["action=DUNNO", "action=550 5.1"];
        for (number, answer) in answers.split_terminator("\n\n").enumerate() {
            assert!(answer.starts_with(pair[number % 2]), "by {size}, {number}: {answer}");
        }
        let writing = sender.await.unwrap();
        postfix.stream = reading.unsplit(writing);
        postfix.leave().await;
    }
}

#[tokio::test]
async fn anything_else_is_closed_after_the_answers_before_it() {
    let service = Service::start(&[]).await;
    let too_long = format!("request=smtpd_access_policy\nx={}", "y".repeat(70_000));
    let rows: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n\n",
        b"request=junk_mail_policy\n\n",
        b"\n",
        b"request=smtpd_access_policy\nsender\n\n",
        &b"request=smtpd_access_policy\nx=y\n".repeat(300),
        too_long.as_bytes(),
    ];
    for octets in rows {
        let mut postfix = service.connect();
        postfix.send(request(&[]).as_bytes()).await;
        postfix.stream.write_all(octets).await.ok(); // it may be closed before all is written
        assert_eq!(postfix.answer().await, "DUNNO");
        // Without an answer, Postfix would do as its default_action says.
        assert_eq!(postfix.answer().await, TROUBLE);
        assert_eq!(postfix.answer().await, "closed", "{}", octets[..20.min(octets.len())].escape_ascii());
        postfix.leave().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_has_an_hour_and_is_closed_then() {
    let service = Service::start(&[("exempt.clients", "127.0.0.10")]).await;
    let mut postfix = service.connect();
    assert_eq!(postfix.ask(&[]).await, "DUNNO");
    let began = Instant::now();
    let text = request(&[]);
    let (first, rest) = text.split_at(20);
    postfix.send(first.as_bytes()).await;
    tokio::time::sleep(Duration::from_secs(3500)).await;
    postfix.send(rest.as_bytes()).await;
    assert_eq!(postfix.answer().await, "DUNNO");
    // Octets one by one don't prolong it.
    let again = Instant::now();
    for octet in text.as_bytes().iter().take(10) {
        postfix.send(&[*octet]).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
    }
    let end = postfix.stream.read_u8();
    assert!(timeout(Duration::from_secs(2000), end).await.expect("closed").is_err());
    let took = again.elapsed().as_secs();
    assert!((3590..3610).contains(&took), "{took} {:?}", began.elapsed());
}

#[tokio::test]
async fn the_version_of_tls_is_in_the_event() {
    let (log, _guard) = logged(tracing::Level::INFO);
    let service = Service::start(&[]).await;
    let nowhere = ("sender", "a@nowhere.test");
    for version in ["TLSv1.2", ""] {
        let mut postfix = service.connect();
        assert!(postfix.ask(&[nowhere, ("encryption_protocol", version)]).await.starts_with("550 "));
    }
    let log = log.text();
    let decisions: Vec<&str> = log.lines().filter(|line| line.contains("rmxd::decision")).collect();
    assert_eq!(decisions.len(), 2, "{log}");
    assert!(decisions[0].contains(" tls=TLSv1.2 ") && !decisions[1].contains("tls="), "{log}");
}

#[tokio::test(start_paused = true)]
async fn the_outcome_is_recorded_when_nothing_more_comes() {
    let service = Service::start(&[("exempt.clients", "127.0.0.10")]).await;
    let mut postfix = service.connect();
    assert_eq!(postfix.ask(&[]).await, "DUNNO");
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(service.outcomes(), []);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(service.outcomes(), [(Outcome::Passed, 1)]);
    assert_eq!(postfix.ask(&[]).await, "DUNNO", "still the same instance");
    assert_eq!(
        postfix.ask(&[("protocol_state", "CONNECT"), ("instance", ""), ("client_port", "1")]).await,
        "DUNNO"
    );
    postfix.leave().await;
    assert_eq!(service.outcomes(), [(Outcome::Passed, 1)]);
}

#[tokio::test]
async fn another_session_ends_the_transaction_of_the_last_one() {
    let service = Service::start(&[]).await;
    let mut postfix = service.connect();
    assert_eq!(postfix.ask(&[]).await, "DUNNO");
    for state in ["DATA", "END-OF-MESSAGE"] {
        let lines = [("protocol_state", state), ("queue_id", "4jcGdd1D05z1VcKC")];
        assert_eq!(postfix.ask(&lines).await, "DUNNO");
        assert_eq!(service.outcomes(), []);
    }
    let next = [("protocol_state", "CONNECT"), ("instance", ""), ("client_port", "42717")];
    assert_eq!(postfix.ask(&next).await, "DUNNO");
    assert_eq!(service.outcomes(), [(Outcome::Passed, 1)]);
}

#[tokio::test]
async fn many_instances_and_recipients_take_bounded_memory() {
    let service = Service::start(&[("exempt.clients", "127.0.0.10")]).await;
    let mut postfix = service.connect();
    for number in 0..3000 {
        let recipient = format!("user{number}@here.test");
        assert_eq!(postfix.ask(&[("recipient", &recipient)]).await, "DUNNO");
    }
    for number in 0..3000 {
        assert_eq!(postfix.ask(&[("instance", &format!("2.{number}"))]).await, "DUNNO");
    }
    postfix.leave().await;
    assert_eq!(service.outcomes(), [(Outcome::Passed, 3001)]);

    let mut dialogue = dialogue::Dialogue::new(service.current.subscribe());
    let mut answers = Vec::new();
    for number in 0..3000 {
        let text = request(&[("recipient", &format!("user{number}@here.test"))]);
        let (request, _) = crate::delegation::Reader::default().next(text.as_bytes()).unwrap().unwrap();
        dialogue.answer(&request, &mut answers).await;
    }
    assert_eq!(dialogue.remembered(), 1000);
}

#[tokio::test]
async fn at_the_end_an_idle_connection_is_closed_and_a_request_that_has_come_is_answered() {
    let service = Service::start(&[]).await;
    let mut idle = service.connect();
    assert_eq!(idle.ask(&[]).await, "DUNNO");
    idle.stop.cancel();
    assert_eq!(idle.answer().await, "closed");

    let mut busy = service.connect();
    busy.send(request(&[("sender", "a@nowhere.test")]).as_bytes()).await;
    busy.stop.cancel();
    assert_eq!(without_id(&busy.answer().await), "550 5.1.8 nowhere.test does not exist (id)");
    assert_eq!(busy.answer().await, "closed");

    let mut half = service.connect();
    let text = request(&[]);
    let (first, rest) = text.split_at(50);
    half.send(first.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    half.stop.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    half.send(rest.as_bytes()).await;
    assert_eq!(half.answer().await, "DUNNO");
    assert_eq!(half.answer().await, "closed");
}

#[tokio::test]
async fn a_reload_is_in_effect_for_the_next_message_of_an_open_connection() {
    let service = Service::start(&[("policy.mode", "monitor")]).await;
    let mut postfix = service.connect();
    let of = |instance| [("sender", "a@nowhere.test"), ("instance", instance)];
    assert_eq!(postfix.ask(&of("1")).await, "DUNNO");
    service.reload(&[]);
    assert_eq!(postfix.ask(&of("1")).await, "DUNNO", "the message that has begun");
    assert_eq!(without_id(&postfix.ask(&of("2")).await), "550 5.1.8 nowhere.test does not exist (id)");
    service.reload(&[("policy.mode", "monitor")]);
    assert_eq!(postfix.ask(&of("3")).await, "DUNNO");
}

#[tokio::test]
async fn the_record_has_door_queue_and_the_reply_as_postfix_got_it() {
    let service = Service::start(&[]).await;
    let settings = crate::store::history::Settings {
        path: service.folder.path().join("history"),
        keep: Duration::from_secs(3600),
        size: 1 << 20,
    };
    let history = crate::store::history::History::open(&settings).unwrap();
    let services = Services { history: Some(history.clone()), ..Services::default() };
    let of = self::settings(&[], &service.server);
    service.current.send_replace(daemon::gate_with_services(service.dns.clone(), &of, services));
    let mut postfix = service.connect();
    let refused = postfix.ask(&[("sender", "a@nowhere.test"), ("queue_id", "4jcGdd1D05z1VcKC")]).await;
    let id = crate::decision::Id::parse(id(&refused)).unwrap();
    let records = history.find(id).await.unwrap();
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!((record.door, record.queue.as_str()), (DoorName::Policy, "4jcGdd1D05z1VcKC"));
    assert_eq!(record.reply(), Some(refused));
    assert_eq!((record.mail_from.as_str(), record.rcpt.as_str()), ("<a@nowhere.test>", "user@here.test"));
    assert_eq!(record.helo, "mail.good.test");
}

#[tokio::test]
async fn a_panic_is_a_temporary_failure_and_the_connection_goes_on() {
    let service = Service::start(&[]).await;
    let mut postfix = service.connect();
    let nowhere = [("sender", "a@nowhere.test"), ("instance", "1.0")];
    let _guard = panic_at("mail_from=<a@nowhere.test>");
    assert_eq!(postfix.ask(&nowhere).await, TROUBLE);
    assert_eq!(service.metrics.panics(), 1);
    assert_eq!(postfix.ask(&[("instance", "1.1")]).await, "DUNNO");
    assert_eq!(without_id(&postfix.ask(&nowhere).await), "550 5.1.8 nowhere.test does not exist (id)");
    assert_eq!(service.metrics.panics(), 1);
}
