use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::DNSClass;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::*;

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Long enough for an answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// After this long without an answer, the server is silent.
const SILENCE: Duration = Duration::from_millis(300);

fn name(text: &str) -> Name {
    let mut name = Name::from_labels(text.trim_end_matches('.').split('.').map(str::as_bytes)).unwrap();
    name.set_fqdn(true);
    name
}

fn question(record_type: &str, of: &str) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(of), record_type.parse().unwrap()));
    message
}

fn with_edns(mut message: Message, max_payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(max_payload);
    message.edns = Some(edns);
    message
}

async fn udp(server: &Server, request: &[u8], wait: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind(ANY_PORT).await.unwrap();
    socket.send_to(request, server.address()).await.unwrap();
    let mut answer = vec![0; 65_535];
    let length = timeout(wait, socket.recv(&mut answer)).await.ok()?.unwrap();
    answer.truncate(length);
    Some(answer)
}

async fn tcp(server: &Server, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_u16(u16::try_from(request.len()).unwrap()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

async fn ask_udp(server: &Server, request: &Message) -> Message {
    let answer = udp(server, &request.to_vec().unwrap(), PATIENCE).await.expect("an answer");
    Message::from_vec(&answer).unwrap()
}

async fn ask_tcp(server: &Server, request: &Message) -> Message {
    Message::from_vec(&tcp(server, &request.to_vec().unwrap()).await).unwrap()
}

async fn serve(zone: &str) -> Server {
    Server::start(ANY_PORT, Zone::parse(zone, None).unwrap()).await.unwrap()
}

/// The records as text, without their order.
fn data(message: &Message) -> BTreeSet<String> {
    message.answers.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect()
}

fn set<const N: usize>(of: [&str; N]) -> BTreeSet<String> {
    of.into_iter().map(str::to_owned).collect()
}

const ZONE: &str = "
$ORIGIN example.test.
$TTL 300
@        900 SOA   ns.example.test. hostmaster.example.test. 7 1h 10m 1d 60
@            MX    10 mail
             MX    20 backup
mail         A     127.0.0.10
             AAAA  ::1
www          CNAME web
web          CNAME mail
gone         CNAME nothing
away         CNAME host.elsewhere.test.
around       CNAME again
again        CNAME around
deep.inside  TXT   \"below an empty name\"
*.wild       MX    5 mail
*.wild       TXT   \"any\"
host.wild    A     127.0.0.11
*.alias      CNAME mail
;! servfail broken
;! servfail partly AAAA
;! refused  refused
;! silent   silent
;! delay    250ms slow
;! servfail example.test. TXT
partly       A     127.0.0.12
slow         A     127.0.0.13
to-broken    CNAME host.broken
";

#[tokio::test]
async fn every_kind_of_answer_is_the_same_over_udp_and_tcp() {
    use ResponseCode::{NXDomain, NoError, Refused, ServFail};
    let server = serve(ZONE).await;
    let rows: [(&str, &str, ResponseCode, &[&str]); 24] = [
        ("MX", "example.test", NoError, &["MX 10 mail.example.test.", "MX 20 backup.example.test."]),
        ("A", "mail.example.test", NoError, &["A 127.0.0.10"]),
        ("AAAA", "mail.example.test", NoError, &["AAAA ::1"]),
        ("ANY", "mail.example.test", NoError, &["A 127.0.0.10", "AAAA ::1"]),
        ("CNAME", "www.example.test", NoError, &["CNAME web.example.test."]),
        // An alias is followed to its end, even to a name that doesn't exist (RFC 6604).
        (
            "A",
            "www.example.test",
            NoError,
            &["CNAME web.example.test.", "CNAME mail.example.test.", "A 127.0.0.10"],
        ),
        ("TXT", "www.example.test", ServFail, &[]),
        ("MX", "www.example.test", NoError, &["CNAME web.example.test.", "CNAME mail.example.test."]),
        ("A", "gone.example.test", NXDomain, &["CNAME nothing.example.test."]),
        ("A", "away.example.test", NXDomain, &["CNAME host.elsewhere.test."]),
        ("A", "around.example.test", ServFail, &[]),
        // No such name, no such type, an empty non-terminal.
        ("MX", "nothing.example.test", NXDomain, &[]),
        ("MX", "mail.example.test", NoError, &[]),
        ("MX", "inside.example.test", NoError, &[]),
        ("MX", "com", NXDomain, &[]),
        // RFC 4592: a wildcard covers names that don't exist, at any depth, but none below a name that exists.
        ("MX", "a.wild.example.test", NoError, &["MX 5 mail.example.test."]),
        ("MX", "a.b.c.wild.example.test", NoError, &["MX 5 mail.example.test."]),
        ("MX", "host.wild.example.test", NoError, &[]),
        ("MX", "x.host.wild.example.test", NXDomain, &[]),
        ("A", "any.alias.example.test", NoError, &["CNAME mail.example.test.", "A 127.0.0.10"]),
        ("MX", "wild.example.test", NoError, &[]),
        ("A", "broken.example.test", ServFail, &[]),
        ("A", "to-broken.example.test", ServFail, &[]),
        ("MX", "below.refused.example.test", Refused, &[]),
    ];
    for (record_type, of, code, expected) in rows {
        let request = question(record_type, of);
        for answer in [ask_udp(&server, &request).await, ask_tcp(&server, &request).await] {
            let what = format!("{record_type} {of}");
            assert_eq!(answer.metadata.response_code, code, "{what}");
            assert_eq!(data(&answer), expected.iter().map(|s| (*s).to_owned()).collect(), "{what}");
            assert_eq!(answer.metadata.id, 4711);
            assert!(answer.metadata.recursion_available && !answer.metadata.truncation, "{what}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn negative_answers_carry_the_soa_with_the_smaller_time_to_live() {
    let server = serve(ZONE).await;
    let rows = [
        ("nothing.example.test", "example.test.", 60),
        ("mail.example.test", "example.test.", 60),
        ("gone.example.test", "example.test.", 60),
        ("elsewhere.test", ".", 60),
    ];
    for (of, apex, ttl) in rows {
        let answer = ask_udp(&server, &question("MX", of)).await;
        let [soa] = answer.authorities.as_slice() else { panic!("{of}: {:?}", answer.authorities) };
        assert_eq!(
            (soa.record_type(), soa.name.to_ascii(), soa.ttl),
            (RecordType::SOA, apex.into(), ttl),
            "{of}"
        );
    }
}

#[tokio::test]
async fn the_spelling_of_the_question_is_kept() {
    let server = serve(ZONE).await;
    for of in ["eXAMple.TeST", "A.wiLD.Example.test"] {
        let answer = ask_udp(&server, &question("MX", of)).await;
        assert!(answer.queries[0].name.eq_case(&name(of)));
        assert!(!answer.answers.is_empty());
        assert!(answer.answers.iter().all(|record| record.name.eq_case(&name(of))), "{answer:?}");
    }
    assert_eq!(server.questions().latest[0].to_string(), "MX example.test");
}

#[tokio::test]
async fn a_name_misbehaves_with_all_names_below_it() {
    let server = serve(ZONE).await;
    for of in ["silent.example.test", "mail.silent.example.test"] {
        assert_eq!(udp(&server, &question("A", of).to_vec().unwrap(), SILENCE).await, None, "{of}");
    }
    let start = Instant::now();
    let answer = ask_tcp(&server, &question("A", "slow.example.test")).await;
    assert_eq!(data(&answer), set(["A 127.0.0.13"]));
    assert!(start.elapsed() >= Duration::from_millis(250));

    let partly = |of| question(of, "partly.example.test");
    assert_eq!(data(&ask_udp(&server, &partly("A")).await), set(["A 127.0.0.12"]));
    let failed = ask_udp(&server, &partly("AAAA")).await;
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn an_answer_larger_than_the_client_accepts_is_truncated() {
    let server = Server::start(ANY_PORT, Zone::sample()).await.unwrap();
    let plain = question("MX", "big-mx.test");
    for (request, edns) in [(plain.clone(), false), (with_edns(plain.clone(), 1232), true)] {
        let octets = udp(&server, &request.to_vec().unwrap(), PATIENCE).await.unwrap();
        let short = Message::from_vec(&octets).unwrap();
        assert!(short.metadata.truncation && short.answers.is_empty(), "edns {edns}");
        assert_eq!(short.edns.is_some(), edns);
        let whole = ask_tcp(&server, &request).await;
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 30);
        assert_eq!(whole.edns.is_some(), edns);
    }
    let roomy = ask_udp(&server, &with_edns(plain, 4096)).await;
    assert!(!roomy.metadata.truncation);
    assert_eq!(roomy.answers.len(), 30);
}

#[tokio::test]
async fn any_other_request_gets_the_response_code_for_its_error() {
    let server = serve(ZONE).await;
    let mut two = question("MX", "example.test");
    two.add_query(Query::query(name("example.test"), RecordType::A));
    let mut notify = question("SOA", "example.test");
    notify.metadata.op_code = OpCode::Notify;
    let mut chaos = question("TXT", "version.bind");
    chaos.queries[0].query_class = DNSClass::CH;
    let mut future = with_edns(question("MX", "example.test"), 1232);
    future.edns.as_mut().unwrap().set_version(1);
    let rows = [
        (two, ResponseCode::FormErr),
        (notify, ResponseCode::NotImp),
        (chaos, ResponseCode::Refused),
        (question("AXFR", "example.test"), ResponseCode::Refused),
        (future, ResponseCode::BADVERS),
    ];
    for (request, code) in rows {
        let answer = ask_udp(&server, &request).await;
        // By number: BADVERS and BADSIG are the same one.
        assert_eq!(u16::from(answer.metadata.response_code), u16::from(code), "{request:?}");
        assert!(answer.answers.is_empty());
    }
    // Octets that are no DNS message get no answer, and the server goes on.
    assert_eq!(udp(&server, b"junk", SILENCE).await, None);
    let header_only = [0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let answer = udp(&server, &header_only, PATIENCE).await.unwrap();
    assert_eq!(answer[3] & 0x0f, u8::try_from(u16::from(ResponseCode::FormErr)).unwrap());
    assert_eq!(data(&ask_udp(&server, &question("A", "mail.example.test")).await), set(["A 127.0.0.10"]));
}

#[tokio::test]
async fn zones_can_be_replaced_at_run_time_and_questions_are_counted() {
    let server = Server::start(ANY_PORT, Zone::sample()).await.unwrap();
    let request = question("MX", "twolines.test");
    let (first, second) = ("MX 10 mail.twolines.test.", "MX 20 line2.twolines.test.");
    assert_eq!(data(&ask_udp(&server, &request).await), set([first]));
    server.replace(Zone::repaired_sample());
    assert_eq!(data(&ask_tcp(&server, &request).await), set([first, second]));

    let mut zone = Zone::clone(&server.zone());
    zone.replace(&name("twolines.test"), RecordType::MX, 5, Vec::new());
    server.replace(zone);
    let answer = ask_udp(&server, &request).await;
    assert_eq!((answer.metadata.response_code, data(&answer)), (ResponseCode::NoError, set([])));

    let questions = server.questions();
    assert_eq!(questions.total, 3);
    let latest: Vec<_> = questions.latest.iter().map(|asked| (asked.to_string(), asked.tcp)).collect();
    let expected = [false, true, false].map(|tcp| ("MX twolines.test".to_owned(), tcp));
    assert_eq!(latest, expected);
}

#[tokio::test]
async fn a_stopped_server_frees_its_port() {
    let server = serve(ZONE).await;
    let address = server.address();
    let error = Server::start(address, Zone::new()).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    server.stop().await;
    let again = Server::start(address, Zone::new()).await.unwrap();
    assert_eq!(again.address(), address);
}

#[tokio::test]
async fn odd_octets_in_names_and_data_arrive_unchanged() {
    let mut zone = Zone::new();
    let host = Name::from_labels([b"a b\0\xff".as_slice(), b"dot.inside", b"test"]).unwrap();
    zone.insert(&name("odd.test"), 60, RData::MX(rdata::MX::new(10, host.clone())));
    zone.insert(&name("odd.test"), 60, RData::TXT(rdata::TXT::from_bytes(vec![b"\0\r\n\x1b[31m\xff"])));
    zone.insert(&host, 60, RData::A(rdata::A::new(127, 0, 0, 1)));
    let server = Server::start(ANY_PORT, zone).await.unwrap();

    let mx = ask_udp(&server, &question("MX", "odd.test")).await;
    assert_eq!(mx.answers[0].data, RData::MX(rdata::MX::new(10, host.clone())));
    let txt = ask_udp(&server, &question("TXT", "odd.test")).await;
    let RData::TXT(txt) = &txt.answers[0].data else { panic!("{txt:?}") };
    assert_eq!(&*txt.txt_data[0], b"\0\r\n\x1b[31m\xff");
    let mut request = question("A", "x.test");
    request.queries[0].name = host;
    assert_eq!(data(&ask_udp(&server, &request).await), set(["A 127.0.0.1"]));
}

#[tokio::test]
async fn reverse_zones_answer_for_both_families() {
    let server = Server::start(ANY_PORT, Zone::sample()).await.unwrap();
    let rows = [("127.0.0.10", "PTR mail.good.test."), ("::1", "PTR mail.v6-mx.test.")];
    for (address, expected) in rows {
        let mut request = question("PTR", "x.test");
        request.queries[0].name = Name::from(address.parse::<IpAddr>().unwrap());
        assert_eq!(data(&ask_udp(&server, &request).await), set([expected]), "{address}");
    }
}
