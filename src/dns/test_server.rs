//! A scripted DNS server on loopback, for tests only: what it says is a few lines of text, what it was asked is a log.
//!
//! It answers as a recursive server would (aliases followed, NODATA and NXDOMAIN with a SOA record, an empty
//! non-terminal is NODATA) unless a line says otherwise. It is not the zone server of `rmxd zone`.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, PTR, SOA, TXT};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::proto::serialize::binary::BinDecoder;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{MessageResponseBuilder, Queries};
use tokio::net::{TcpListener, UdpSocket};

use crate::dns::{CacheSettings, Clock, Dns, Settings};

const LOOPBACK: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
/// TTL of a record whose line gives none.
const TTL: u32 = 300;
/// TTL of NXDOMAIN and NODATA.
pub(crate) const NEGATIVE_TTL: Duration = Duration::from_secs(60);

/// The server; ends when dropped.
pub(crate) struct TestServer {
    address: SocketAddr,
    state: Arc<State>,
    _server: Server<Handler>,
}

#[derive(Default)]
struct State {
    zone: Mutex<Zone>,
    log: Mutex<Vec<String>>,
    silent: AtomicBool,
}

struct Handler(Arc<State>);

impl TestServer {
    /// Starts with a zone of lines `NAME [TTL] TYPE DATA` (MX, NS, A, AAAA, PTR, CNAME, TXT: words) or `NAME BEHAVIOUR`:
    /// SERVFAIL, REFUSED, DROP, DELAY milliseconds, REFERRAL (NS records only), NOSOA (absence without SOA),
    /// BARE (an alias without what it leads to), ONCE-LOST (the first packet of each type is dropped), FOLDS (over UDP
    /// the question comes back in lower case), NXDOMAIN TYPE and SERVFAIL TYPE (for that type alone), SECURE (DNSSEC proves what is said of
    /// the name and all below it: AD for those that ask for it).
    /// Labels may hold `\DDD`; what is said of `*.NAME` holds for each name one label below that has no line itself.
    pub(crate) async fn start(zone: &str) -> Self {
        Self::launch(LOOPBACK, zone, true).await
    }

    /// The same at this address, where the port is drawn.
    pub(crate) async fn start_at(address: SocketAddr, zone: &str) -> Self {
        Self::launch(address, zone, true).await
    }

    /// The same without TCP.
    pub(crate) async fn udp_only(zone: &str) -> Self {
        Self::launch(LOOPBACK, zone, false).await
    }

    async fn launch(at: SocketAddr, zone: &str, with_tcp: bool) -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind(at).await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let state = Arc::new(State::default());
        let mut server = Server::new(Handler(Arc::clone(&state)));
        server.register_socket(udp);
        if with_tcp {
            server.register_listener(tcp, Duration::from_secs(5), 64);
        }
        let started = Self { address, state, _server: server };
        started.set(zone);
        started
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the zone.
    pub(crate) fn set(&self, zone: &str) {
        *self.state.zone.lock().unwrap() = Zone::read(zone);
    }

    /// Whether it says nothing to anybody, as one that is down.
    pub(crate) fn silence(&self, silent: bool) {
        self.state.silent.store(silent, Ordering::SeqCst);
    }

    /// What was asked since the last call: `udp MX good.test`.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.state.log.lock().unwrap())
    }

    /// Questions to this server alone, by a clock that stands.
    pub(crate) fn dns(&self) -> (Dns, Clock) {
        let clock = Clock::standing();
        (Dns::with_clock(settings(&[self.address]), clock.clone()).unwrap(), clock)
    }
}

/// Settings as in the default configuration, but less patient.
pub(crate) fn settings(servers: &[SocketAddr]) -> Settings {
    Settings {
        servers: servers.to_vec(),
        timeout: Duration::from_secs(2),
        cache: CacheSettings {
            memory: 64 << 20,
            min_ttl: Duration::from_secs(5),
            max_ttl: Duration::from_secs(86_400),
            max_negative_ttl: Duration::from_secs(3_600),
            stale: Duration::from_secs(86_400),
        },
    }
}

#[derive(Default)]
struct Zone(HashMap<Name, Vec<Line>>);

#[derive(Clone)]
enum Line {
    Record(u32, RData),
    Code(ResponseCode),
    CodeFor(RecordType, ResponseCode),
    Secure,
    Drop,
    Delay(Duration),
    Referral,
    NoSoa,
    Bare,
    OnceLost,
    Folds,
}

impl Zone {
    fn read(text: &str) -> Self {
        let mut zone: HashMap<Name, Vec<Line>> = HashMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.split_whitespace().peekable();
            let owner = name(words.next().unwrap()).to_lowercase();
            let ttl =
                words.next_if(|word| word.parse::<u32>().is_ok()).map_or(TTL, |word| word.parse().unwrap());
            let word = words.next().unwrap();
            let data: Vec<_> = words.collect();
            let line = match (word, data.as_slice()) {
                ("MX", [preference, host]) => {
                    Line::Record(ttl, RData::MX(MX::new(preference.parse().unwrap(), name(host))))
                }
                ("A", [address]) => Line::Record(ttl, RData::A(A(address.parse().unwrap()))),
                ("AAAA", [address]) => Line::Record(ttl, RData::AAAA(AAAA(address.parse().unwrap()))),
                ("NS", [host]) => Line::Record(ttl, RData::NS(NS(name(host)))),
                ("PTR", [host]) => Line::Record(ttl, RData::PTR(PTR(name(host)))),
                ("CNAME", [host]) => Line::Record(ttl, RData::CNAME(CNAME(name(host)))),
                ("TXT", words) => {
                    let text = words.join(" ").into_bytes();
                    Line::Record(ttl, RData::TXT(TXT::from_bytes(text.chunks(255).collect())))
                }
                ("NXDOMAIN", [rtype]) => Line::CodeFor(rtype.parse().unwrap(), ResponseCode::NXDomain),
                ("SERVFAIL", [rtype]) => Line::CodeFor(rtype.parse().unwrap(), ResponseCode::ServFail),
                ("SECURE", []) => Line::Secure,
                ("SERVFAIL", []) => Line::Code(ResponseCode::ServFail),
                ("REFUSED", []) => Line::Code(ResponseCode::Refused),
                ("DROP", []) => Line::Drop,
                ("DELAY", [time]) => Line::Delay(Duration::from_millis(time.parse().unwrap())),
                ("REFERRAL", []) => Line::Referral,
                ("NOSOA", []) => Line::NoSoa,
                ("BARE", []) => Line::Bare,
                ("ONCE-LOST", []) => Line::OnceLost,
                ("FOLDS", []) => Line::Folds,
                _ => panic!("test zone: {line}"),
            };
            zone.entry(owner).or_default().push(line);
        }
        Self(zone)
    }

    fn lines(&self, name: &Name) -> &[Line] {
        let found = self.0.get(name).or_else(|| self.0.get(&name.clone().into_wildcard()));
        found.map_or(&[], Vec::as_slice)
    }

    fn has(&self, name: &Name, wanted: fn(&Line) -> bool) -> bool {
        self.lines(name).iter().any(wanted)
    }

    /// Whether DNSSEC proves what is said of the name and of all that it leads to.
    fn is_secure(&self, asked: &Name, answers: &[Record]) -> bool {
        let secure = |name: &Name| {
            let above = |zone: &Name| zone.zone_of(name);
            let lines = self.0.iter().filter(|(zone, _)| above(zone)).flat_map(|(_, lines)| lines);
            lines.into_iter().any(|line| matches!(line, Line::Secure))
        };
        let targets = answers.iter().filter_map(|record| match &record.data {
            RData::CNAME(target) => Some(&target.0),
            _ => None,
        });
        secure(asked) && targets.into_iter().all(secure)
    }

    /// Answer and authority records, and the code.
    fn answer(&self, asked: &Name, rtype: RecordType) -> (Vec<Record>, Vec<Record>, ResponseCode) {
        let (mut answers, mut last) = (Vec::new(), asked.clone());
        loop {
            if let Some(code) = self.lines(&last).iter().find_map(|line| match line {
                Line::Code(code) => Some(*code),
                Line::CodeFor(of, code) if *of == rtype && *code != ResponseCode::NXDomain => Some(*code),
                _ => None,
            }) {
                return (Vec::new(), Vec::new(), code);
            }
            let records = self.lines(&last).iter().filter_map(|line| match line {
                Line::Record(ttl, data) => Some(Record::from_rdata(last.clone(), *ttl, data.clone())),
                _ => None,
            });
            let (found, rest): (Vec<_>, Vec<_>) = records.partition(|record| record.record_type() == rtype);
            if !found.is_empty() {
                answers.extend(found);
                return (answers, Vec::new(), ResponseCode::NoError);
            }
            let Some(alias) = rest.into_iter().find(|record| record.record_type() == RecordType::CNAME)
            else {
                break;
            };
            let RData::CNAME(target) = alias.data.clone() else { unreachable!() };
            let seen = answers.iter().any(|record: &Record| record.name == last);
            if seen || self.has(&last, |line| matches!(line, Line::Bare)) {
                if !seen {
                    answers.push(alias);
                }
                return (answers, Vec::new(), ResponseCode::NoError);
            }
            answers.push(alias);
            last = target.0;
        }
        if self.has(&last, |line| matches!(line, Line::Referral)) {
            let data = RData::NS(NS(name("ns.test")));
            return (answers, vec![Record::from_rdata(last, TTL, data)], ResponseCode::NoError);
        }
        let denied = |line: &Line| matches!(line, Line::CodeFor(of, ResponseCode::NXDomain) if *of == rtype);
        let exists = !self.lines(&last).iter().any(denied) && self.0.keys().any(|name| last.zone_of(name));
        let code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
        let minimum = NEGATIVE_TTL.as_secs().try_into().unwrap();
        let soa = RData::SOA(SOA::new(name("ns.test"), name("root.test"), 1, 1, 1, 1, minimum));
        let no_soa = self.0.iter().any(|(above, lines)| {
            above.zone_of(&last) && lines.iter().any(|line| matches!(line, Line::NoSoa))
        });
        let soa = (!no_soa).then(|| Record::from_rdata(name("test"), TTL, soa));
        (answers, soa.into_iter().collect(), code)
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let info = request.request_info().unwrap();
        let (asked, rtype) = (Name::from(info.query.name()), info.query.query_type());
        let transport = if info.protocol == Protocol::Tcp { "tcp" } else { "udp" };
        let entry = format!("{transport} {rtype} {}", asked.to_ascii().trim_end_matches('.'));
        let first = {
            let mut log = self.0.log.lock().unwrap();
            let first = !log.contains(&entry);
            log.push(entry);
            first
        };
        let (delay, lost, folds, (answers, authorities, code), secure) = {
            let zone = self.0.zone.lock().unwrap();
            let delay = zone.lines(&asked).iter().find_map(|line| match line {
                Line::Delay(time) => Some(*time),
                _ => None,
            });
            let lost = self.0.silent.load(Ordering::SeqCst)
                || zone.has(&asked, |line| matches!(line, Line::Drop))
                || first && zone.has(&asked, |line| matches!(line, Line::OnceLost));
            let folds =
                info.protocol == Protocol::Udp && zone.has(&asked, |line| matches!(line, Line::Folds));
            let answer = zone.answer(&asked, rtype);
            let secure = zone.is_secure(&asked, &answer.0);
            (delay, lost, folds, answer, secure)
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.recursion_available = true;
        metadata.authentic_data = secure && request.metadata.authentic_data;
        metadata.response_code = code;
        tokio::time::sleep(delay.unwrap_or_default()).await;
        if lost {
            return ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() });
        }
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        let folded = request.queries.as_bytes().to_ascii_lowercase(); // lengths of labels are below 64, types below 29
        let folded = Queries::read(&mut BinDecoder::new(&folded), 1).unwrap();
        let queries = if folds { &folded } else { &request.queries };
        let builder = MessageResponseBuilder::new(queries, Some(&edns));
        let message = builder.build(metadata, &answers, &authorities, [], []);
        response.send_response(message).await.unwrap()
    }
}

/// `a\032b.test` and the like.
fn name(text: &str) -> Name {
    if text == "." {
        return Name::root();
    }
    let labels = text.split('.').map(|label| {
        let mut parts = label.split('\\');
        let mut octets = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            let (code, rest) = part.split_at(3);
            octets.push(code.parse().unwrap());
            octets.extend_from_slice(rest.as_bytes());
        }
        octets
    });
    let labels: Vec<_> = labels.collect();
    Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap()
}
