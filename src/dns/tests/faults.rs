//! What servers do wrong, octet by octet, and what is made of it.

use super::raw_server::{
    Behaviour, MX_DATA, Query, RawServer, Reaction, denied, found, has_edns, head, question_end, record,
    soa_data, truncated,
};
use super::*;

pub(super) fn dns(server: &RawServer, timeout: Duration) -> Dns {
    Dns::with_clock(Settings { timeout, ..settings(&[server.address()]) }, Clock::standing()).unwrap()
}

async fn evidence(dns: &Dns, name: &str) -> Evidence {
    let question = Question { name: DomainName::parse(name).unwrap().into(), rtype: RecordType::Mx };
    dns.ask(question, &Account::new(CLIENT, Budget::of(u32::MAX), Urgency::Refuses)).await.evidence
}

pub(super) async fn said(dns: &Dns, name: &str) -> String {
    evidence(dns, name).await.answer.to_string()
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
        "timeout",
        "broken answer",
    ),
    (
        "another type",
        |query| changed(&denied(query.octets), |answer| answer[question_end(query.octets) - 3] = 28),
        "timeout",
        "broken answer",
    ),
    (
        "another class",
        |query| changed(&denied(query.octets), |answer| answer[question_end(query.octets) - 1] = 3),
        "timeout",
        "broken answer",
    ),
    (
        "a question",
        |query| changed(&denied(query.octets), |answer| answer[2] &= 0x7F),
        "timeout",
        "broken answer",
    ),
    ("the question itself", |query| Some(query.octets.to_vec()), "timeout", "broken answer"),
    (
        "NOTIFY",
        |query| changed(&denied(query.octets), |answer| answer[2] |= 4 << 3),
        "timeout",
        "broken answer",
    ),
    (
        "UPDATE",
        |query| changed(&found(query.octets), |answer| answer[2] |= 5 << 3),
        "timeout",
        "broken answer",
    ),
    (
        "two questions",
        |query| changed(&denied(query.octets), |answer| answer[5] = 2),
        "timeout",
        "broken answer",
    ),
    ("another id", |query| changed(&denied(query.octets), |answer| answer[1] ^= 1), "timeout", "timeout"),
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
    ("YXDOMAIN", |query| Some(head(query.octets, 6, 0, 0)), "an error code", "an error code"),
    (
        "BADVERS",
        |query| {
            let mut answer = head(query.octets, 0, 0, 0);
            answer[11] = 1;
            Some([&answer[..], &[0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]].concat())
        },
        "an error code",
        "an error code",
    ),
];

fn without_question(answer: &mut Vec<u8>) {
    answer.truncate(12);
    answer[4..12].fill(0);
}

#[tokio::test]
async fn only_a_response_with_the_very_question_proves_presence_or_absence() {
    let rows = ANSWERS.iter().map(|(what, reaction, expected, _)| async move {
        let server = RawServer::start(*reaction, Behaviour::Serve).await;
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
        let server = RawServer::start(reaction, Behaviour::Serve).await;
        let dns = dns(&server, SECOND);
        for (name, found, absent) in rows {
            let expected = Duration::from_secs(if negative { absent } else { found });
            assert_eq!(evidence(&dns, name).await.ttl_left, expected, "{name}");
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
        let server = RawServer::start(reaction, Behaviour::Serve).await;
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
    let server = RawServer::start(reaction, Behaviour::Serve).await;
    let dns = dns(&server, SECOND);
    assert_eq!(said(&dns, "odd.test").await, "FORMERR");
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
    let server = RawServer::start(reaction, Behaviour::Serve).await;
    let dns = dns(&server, SECOND);
    assert_eq!(said(&dns, "one.test").await, "10 m.test");
    assert_eq!(with_edns(&server), [true, false, false]);
}

#[test]
fn only_a_server_on_this_machine_may_prove_by_dnssec() {
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
        assert_eq!(upstream::Upstream::new(server).is_trusted(), expected, "{address}");
    }
}

#[tokio::test]
async fn the_answer_of_a_server_that_sets_ad_is_proven_only_where_it_was_asked_for() {
    let reaction: Reaction = |query| changed(&denied(query.octets), |answer| answer[3] |= 0x20);
    let server = RawServer::start(reaction, Behaviour::Serve).await;
    let dns = dns(&server, SECOND);
    assert_eq!(said(&dns, "gone.test").await, "NXDOMAIN");
    let asked = server.seen();
    assert!(asked.iter().all(|octets| octets[3] & 0x20 != 0), "{asked:?}");
    assert_eq!(said(&dns, "below.gone.test").await, "NXDOMAIN");
    assert!(server.seen().is_empty());
}
