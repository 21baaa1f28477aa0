//! What servers do wrong, octet by octet, and what is made of it.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::raw_server::{
    MX_DATA, Manner, Query, RawServer, Reaction, denied, found, has_edns, head, question_end, record,
    soa_data, truncated,
};
use super::test_server::settings;
use super::*;
use crate::evidence::RecordType;
use crate::smtp::address::DomainName;

const CLIENT: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const SECOND: Duration = Duration::from_secs(1);

fn dns(server: &RawServer, timeout: Duration) -> Dns {
    Dns::with_clock(Settings { timeout, ..settings(&[server.address()]) }, Clock::standing()).unwrap()
}

async fn mx(dns: &Dns, name: &str) -> Evidence {
    let question = Question { name: DomainName::parse(name).unwrap().into(), rtype: RecordType::Mx };
    dns.ask(question, &Account::new(CLIENT, Budget::of(u32::MAX), Urgency::Refuses)).await.evidence
}

async fn said(dns: &Dns, name: &str) -> String {
    mx(dns, name).await.answer.to_string()
}

/// A question's answer with some octets of it changed.
fn changed(octets: &[u8], change: impl Fn(&mut Vec<u8>)) -> Option<Vec<u8>> {
    let mut answer = octets.to_vec();
    change(&mut answer);
    Some(answer)
}

/// Name, reaction, what is made of it over UDP, and over TCP where only the question counts.
const ANSWERS: [(&str, Reaction, &str, &str); 24] = [
    ("found", |query| Some(found(query.octets)), "10 m.test", "10 m.test"),
    ("denied", |query| Some(denied(query.octets)), "NXDOMAIN", "NXDOMAIN"),
    (
        "no data",
        |query| Some(head(query.octets, 0, 0, 0)),
        "no record of this type",
        "no record of this type",
    ),
    (
        "NXDOMAIN, the header alone",
        |query| changed(&denied(query.octets), without_question),
        "broken answer",
        "broken answer",
    ),
    (
        "NOERROR, the header alone",
        |query| changed(&head(query.octets, 0, 0, 0), without_question),
        "broken answer",
        "broken answer",
    ),
    (
        "SERVFAIL, the header alone",
        |query| changed(&head(query.octets, 2, 0, 0), without_question),
        "SERVFAIL",
        "SERVFAIL",
    ),
    (
        "REFUSED, the header alone, with counts as if there were more",
        |query| changed(&head(query.octets, 5, 0, 0), |answer| answer.truncate(12)),
        "REFUSED",
        "REFUSED",
    ),
    (
        "NXDOMAIN, no question but a SOA record",
        |query| {
            let soa = [&[0, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22][..], &soa_data(60)].concat();
            let mut answer = head(query.octets, 3, 0, 1)[..12].to_vec();
            answer[5] = 0;
            Some([answer, soa].concat())
        },
        "broken answer",
        "broken answer",
    ),
    (
        "records, no question",
        |query| {
            let mut answer = head(query.octets, 0, 1, 0)[..12].to_vec();
            answer[5] = 0;
            Some([answer, [&[0, 0, 15, 0, 1, 0, 0, 1, 44, 0, 10][..], MX_DATA].concat()].concat())
        },
        "broken answer",
        "broken answer",
    ),
    (
        "another name",
        |query| changed(&denied(query.octets), |answer| answer[13] = b'x'),
        "time-out",
        "broken answer",
    ),
    (
        "another type",
        |query| changed(&denied(query.octets), |answer| answer[question_end(query.octets) - 3] = 28),
        "time-out",
        "broken answer",
    ),
    (
        "another class",
        |query| changed(&denied(query.octets), |answer| answer[question_end(query.octets) - 1] = 3),
        "time-out",
        "broken answer",
    ),
    (
        "a question",
        |query| changed(&denied(query.octets), |answer| answer[2] &= 0x7F),
        "time-out",
        "broken answer",
    ),
    ("the question itself", |query| Some(query.octets.to_vec()), "time-out", "broken answer"),
    (
        "NOTIFY",
        |query| changed(&denied(query.octets), |answer| answer[2] |= 4 << 3),
        "time-out",
        "broken answer",
    ),
    (
        "UPDATE",
        |query| changed(&found(query.octets), |answer| answer[2] |= 5 << 3),
        "time-out",
        "broken answer",
    ),
    (
        "two questions",
        |query| changed(&denied(query.octets), |answer| answer[5] = 2),
        "time-out",
        "broken answer",
    ),
    ("another id", |query| changed(&denied(query.octets), |answer| answer[1] ^= 1), "time-out", "time-out"),
    (
        "records of another name",
        |query| {
            let other = [&b"\x05other\x04test\0\0\x0F\0\x01\0\0\x01\x2C\0\x0A"[..], MX_DATA].concat();
            Some([head(query.octets, 0, 1, 0), other].concat())
        },
        "broken answer",
        "broken answer",
    ),
    (
        "records of class CH",
        |query| Some([head(query.octets, 0, 1, 0), record(12, 15, 3, 300, MX_DATA)].concat()),
        "broken answer",
        "broken answer",
    ),
    (
        "a referral",
        |query| Some([head(query.octets, 0, 0, 1), record(12, 2, 1, 300, &MX_DATA[2..])].concat()),
        "broken answer",
        "broken answer",
    ),
    (
        "less records than it says",
        |query| changed(&denied(query.octets), |answer| answer[9] = 2),
        "broken answer",
        "broken answer",
    ),
    ("YXDOMAIN", |query| Some(head(query.octets, 6, 0, 0)), "broken answer", "broken answer"),
    (
        "BADVERS",
        |query| {
            let mut answer = head(query.octets, 0, 0, 0);
            answer[11] = 1;
            Some([&answer[..], &[0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]].concat())
        },
        "broken answer",
        "broken answer",
    ),
];

fn without_question(answer: &mut Vec<u8>) {
    answer.truncate(12);
    answer[4..12].fill(0);
}

#[tokio::test]
async fn only_a_response_with_the_very_question_says_that_something_is_there_or_not() {
    let rows = ANSWERS.iter().map(|(what, reaction, expected, _)| async move {
        let server = RawServer::start(*reaction, Manner::Serve).await;
        let dns = dns(&server, SECOND / 2);
        assert_eq!(said(&dns, "name-to-be-asked-for.test").await, *expected, "{what}");
    });
    join_all(rows).await;
}

#[tokio::test]
async fn it_is_the_same_over_tcp_where_another_question_is_an_error_at_once() {
    for (what, reaction, _, expected) in ANSWERS {
        let server = RawServer::over_tcp(reaction).await;
        let dns = dns(&server, SECOND / 2);
        assert_eq!(said(&dns, "name-to-be-asked-for.test").await, expected, "{what}");
    }
}

#[tokio::test]
async fn a_time_to_live_with_the_top_bit_is_zero() {
    const TOP: u32 = 1 << 31;
    fn ttl(query: &Query<'_>) -> u32 {
        match query.octets[13].to_ascii_lowercase() {
            b'a' => 100,
            b'b' => TOP - 1,
            b'c' => TOP,
            b'd' => TOP + 100,
            _ => u32::MAX,
        }
    }
    let positive: Reaction =
        |query| Some([head(query.octets, 0, 1, 0), record(12, 15, 1, ttl(query), MX_DATA)].concat());
    let by_soa: Reaction = |query| {
        Some([head(query.octets, 3, 0, 1), record(12, 6, 1, ttl(query), &soa_data(TOP - 1))].concat())
    };
    let by_minimum: Reaction = |query| {
        Some([head(query.octets, 3, 0, 1), record(12, 6, 1, TOP - 1, &soa_data(ttl(query)))].concat())
    };
    // the least and the most of the settings
    let rows = [
        ("a.test", 100, 100),
        ("b.test", 86_400, 3_600),
        ("c.test", 5, 5),
        ("d.test", 5, 5),
        ("e.test", 5, 5),
    ];
    for (reaction, negative) in [(positive, false), (by_soa, true), (by_minimum, true)] {
        let server = RawServer::start(reaction, Manner::Serve).await;
        let dns = dns(&server, SECOND);
        for (name, found, absent) in rows {
            let expected = Duration::from_secs(if negative { absent } else { found });
            assert_eq!(mx(&dns, name).await.ttl_left, expected, "{name}");
        }
    }
}

/// How servers say that they don't know EDNS.
const WITHOUT_EDNS: [(&str, Reaction); 4] = [
    ("FORMERR with the question", |query| react_to_edns(query, |octets| head(octets, 1, 0, 0))),
    ("FORMERR, the header alone", |query| {
        react_to_edns(query, |octets| {
            let mut answer = head(octets, 1, 0, 0);
            without_question(&mut answer);
            answer
        })
    }),
    ("FORMERR with the counts of the question", |query| {
        react_to_edns(query, |octets| {
            let mut answer = head(octets, 1, 0, 0);
            answer[11] = 1;
            answer
        })
    }),
    ("NOTIMP", |query| react_to_edns(query, |octets| head(octets, 4, 0, 0))),
];

fn react_to_edns(query: &Query<'_>, refusal: fn(&[u8]) -> Vec<u8>) -> Option<Vec<u8>> {
    Some(if has_edns(query.octets) { refusal(query.octets) } else { found(query.octets) })
}

fn with_edns(server: &RawServer) -> Vec<bool> {
    server.seen().iter().map(|octets| has_edns(octets)).collect()
}

#[tokio::test]
async fn a_server_without_edns_is_asked_without_and_that_is_remembered_for_a_while() {
    for (what, reaction) in WITHOUT_EDNS {
        let server = RawServer::start(reaction, Manner::Serve).await;
        let dns = dns(&server, SECOND);
        assert_eq!(said(&dns, "one.test").await, "10 m.test", "{what}");
        assert_eq!(with_edns(&server), [true, false], "{what}");
        assert_eq!(said(&dns, "two.test").await, "10 m.test", "{what}");
        assert_eq!(with_edns(&server), [false], "{what}");
        tokio::time::pause();
        tokio::time::advance(SECOND * 60 * 15).await;
        tokio::time::resume();
        assert_eq!(said(&dns, "three.test").await, "10 m.test", "{what}");
        assert_eq!(with_edns(&server), [true, false], "{what}");
    }
}

#[tokio::test]
async fn one_question_that_a_server_can_not_read_does_not_cost_it_edns() {
    let reaction: Reaction = |query| {
        let odd = query.octets[13].eq_ignore_ascii_case(&b'o');
        Some(if odd { head(query.octets, 1, 0, 0) } else { found(query.octets) })
    };
    let server = RawServer::start(reaction, Manner::Serve).await;
    let dns = dns(&server, SECOND);
    assert_eq!(said(&dns, "odd.test").await, "broken answer");
    // `failover` asks a server twice only where it was silent
    assert_eq!(with_edns(&server), [true, false]);
    assert_eq!(said(&dns, "good.test").await, "10 m.test");
    assert_eq!(with_edns(&server), [true]);
}

#[tokio::test]
async fn a_server_without_edns_gives_long_answers_over_tcp() {
    let reaction: Reaction = |query| match (query.tcp, has_edns(query.octets)) {
        (_, true) => Some(head(query.octets, 1, 0, 0)),
        (false, false) => Some(truncated(query.octets)),
        (true, false) => Some(found(query.octets)),
    };
    let server = RawServer::start(reaction, Manner::Serve).await;
    let dns = dns(&server, SECOND);
    assert_eq!(said(&dns, "one.test").await, "10 m.test");
    assert_eq!(with_edns(&server), [true, false, false]);
}

/// UDP says that TCP is the way; names that begin with `s` are never answered there.
const LONG: Reaction = |query| match query.tcp {
    false => Some(truncated(query.octets)),
    true if query.octets[13].eq_ignore_ascii_case(&b's') => None,
    true => Some(found(query.octets)),
};

async fn all_said(dns: &Dns, names: impl Iterator<Item = String>) -> Vec<String> {
    join_all(names.map(|name| async move { said(dns, &name).await })).await
}

#[tokio::test]
async fn long_answers_come_over_connections_that_are_used_again_and_side_by_side() {
    let server = RawServer::start(LONG, Manner::Serve).await;
    let dns = dns(&server, SECOND * 2);
    for nth in 0..20 {
        assert_eq!(said(&dns, &format!("n{nth}.test")).await, "10 m.test");
    }
    assert_eq!(server.connections(), 1);
    let many = all_said(&dns, (0..100).map(|nth| format!("many{nth}.test"))).await;
    assert_eq!(many, vec!["10 m.test"; 100]);
    assert!((2..=8).contains(&server.connections()), "{}", server.connections());
}

#[tokio::test]
async fn a_server_that_answers_one_question_after_the_other_is_asked_on_several_connections() {
    let server = RawServer::start(LONG, Manner::Serial(SECOND / 5)).await;
    let dns = dns(&server, SECOND * 4);
    let began = Instant::now();
    let many = all_said(&dns, (0..8).map(|nth| format!("n{nth}.test"))).await;
    assert_eq!(many, vec!["10 m.test"; 8]);
    assert!(began.elapsed() < SECOND, "one after the other takes 1.6 s: {:?}", began.elapsed());
    assert_eq!(server.connections(), 8);
}

#[tokio::test]
async fn a_connection_that_falls_silent_costs_no_answer_and_is_used_no_more() {
    let server = RawServer::start(LONG, Manner::FallSilentAfter(3)).await;
    let dns = dns(&server, SECOND);
    for nth in 0..10 {
        assert_eq!(said(&dns, &format!("n{nth}.test")).await, "10 m.test", "{nth}");
    }
    assert_eq!(server.connections(), 4);
    // the questions that waited with it ask again as well
    let many = all_said(&dns, (0..30).map(|nth| format!("many{nth}.test"))).await;
    assert_eq!(many.iter().filter(|said| *said == "10 m.test").count(), 30);
}

#[tokio::test]
async fn a_server_that_accepts_and_is_silent_is_a_time_out_each_time_on_a_new_connection() {
    let server = RawServer::start(LONG, Manner::Silent).await;
    let dns = dns(&server, SECOND / 2);
    let began = Instant::now();
    assert_eq!(said(&dns, "one.test").await, "time-out");
    assert!(began.elapsed() < SECOND);
    let before = server.connections();
    assert_eq!(said(&dns, "two.test").await, "time-out");
    assert!(server.connections() > before);
    assert_eq!(all_said(&dns, (0..20).map(|nth| format!("n{nth}.test"))).await, vec!["time-out"; 20]);
}

#[tokio::test]
async fn a_server_that_closes_each_connection_after_an_answer_answers_all() {
    let server = RawServer::start(LONG, Manner::CloseAfter(1)).await;
    let dns = dns(&server, SECOND * 4);
    for nth in 0..5 {
        assert_eq!(said(&dns, &format!("n{nth}.test")).await, "10 m.test");
    }
    let many = all_said(&dns, (0..40).map(|nth| format!("many{nth}.test"))).await;
    assert_eq!(many, vec!["10 m.test"; 40]);
}

#[tokio::test]
async fn a_server_that_closes_idle_connections_answers_the_next_question_on_a_new_one() {
    let server = RawServer::start(LONG, Manner::CloseIdle(SECOND / 20)).await;
    let dns = dns(&server, SECOND * 2);
    for nth in 0..4 {
        assert_eq!(said(&dns, &format!("n{nth}.test")).await, "10 m.test");
        server.closes(nth + 1).await;
    }
    assert_eq!(server.connections(), 4);
}

#[tokio::test]
async fn a_server_that_closes_without_an_answer_is_trouble_at_once() {
    let server = RawServer::start(LONG, Manner::Close).await;
    let dns = dns(&server, SECOND * 4);
    let began = Instant::now();
    assert_eq!(said(&dns, "one.test").await, "broken answer");
    assert!(began.elapsed() < SECOND * 2);
}

#[tokio::test]
async fn a_question_that_takes_long_does_not_cost_others_their_connection() {
    let server = RawServer::start(LONG, Manner::Serve).await;
    let dns = dns(&server, SECOND * 2);
    let others = async {
        for nth in 0..40 {
            assert_eq!(said(&dns, &format!("n{nth}.test")).await, "10 m.test");
            tokio::time::sleep(SECOND / 20).await;
        }
    };
    let (slow, ()) = tokio::join!(said(&dns, "silent.test"), others);
    assert_eq!(slow, "time-out");
    assert!(server.connections() <= 4, "{}", server.connections());
}

#[test]
fn only_a_server_on_this_machine_is_believed_what_dnssec_proves() {
    let rows = [
        ("127.0.0.1", true),
        ("127.0.0.53", true),
        ("::1", true),
        ("::ffff:127.0.0.1", true),
        ("192.0.2.53", false),
        ("10.0.0.1", false),
        ("fe80::1", false),
    ];
    for (address, expected) in rows {
        let server = SocketAddr::new(address.parse().unwrap(), 53);
        assert_eq!(super::resolver::Upstream::new(server).is_trusted(), expected, "{address}");
    }
}

#[tokio::test]
async fn the_answer_of_a_server_that_sets_ad_is_proven_only_where_it_was_asked_for() {
    let reaction: Reaction = |query| changed(&denied(query.octets), |answer| answer[3] |= 0x20);
    let server = RawServer::start(reaction, Manner::Serve).await;
    let dns = dns(&server, SECOND);
    assert_eq!(said(&dns, "gone.test").await, "NXDOMAIN");
    let asked = server.seen();
    assert!(asked.iter().all(|octets| octets[3] & 0x20 != 0), "{asked:?}");
    assert_eq!(said(&dns, "below.gone.test").await, "NXDOMAIN");
    assert!(server.seen().is_empty());
}
