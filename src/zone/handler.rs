//! From a request to a response: the protocol (RFC 1035 4, EDNS of RFC 6891) without the data.
//!
//! The server answers standard queries with one question in class IN. Any other request gets the response code for its
//! error; zone transfers are refused.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::{DNSClass, Record};
use hickory_server::proto::serialize::binary::BinEncoder;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{MessageResponse, MessageResponseBuilder};

use crate::zone::answer::Reply;
use crate::zone::{RecordType, Zone, text};

/// How many of the latest questions are kept.
const QUESTIONS_KEPT: usize = 4096;

/// Largest response over UDP, in octets, even for a client that accepts more.
const MAX_UDP: u16 = 4096;

/// A question that reached the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// In lower case, without the final dot.
    pub name: String,
    pub record_type: RecordType,
    /// Over TCP, not UDP.
    pub tcp: bool,
}

/// `MX good.test`.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.record_type, self.name)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Questions {
    /// The number of all questions.
    pub total: u64,
    /// The latest questions, oldest first.
    pub latest: VecDeque<Question>,
}

/// The state that the running server and its owner share.
#[derive(Debug)]
pub(super) struct Shared {
    zone: RwLock<Arc<Zone>>,
    questions: Mutex<Questions>,
}

impl Shared {
    pub(super) fn new(zone: Zone) -> Self {
        Self { zone: RwLock::new(Arc::new(zone)), questions: Mutex::default() }
    }

    pub(super) fn zone(&self) -> Arc<Zone> {
        Arc::clone(&self.zone.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace(&self, zone: Zone) {
        *self.zone.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(zone);
    }

    pub(super) fn questions(&self) -> Questions {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn record(&self, question: Question) {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        questions.total += 1;
        if questions.latest.len() == QUESTIONS_KEPT {
            questions.latest.pop_front();
        }
        questions.latest.push_back(question);
    }

    /// Returns the response after the delay of the name; `None` if the name is silent.
    async fn respond(&self, request: &Request) -> Option<Reply> {
        let refusal = |code| Some(Reply { code, records: Vec::new(), authority: Vec::new() });
        if request.metadata.op_code != OpCode::Query {
            return refusal(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return refusal(ResponseCode::BADVERS);
        }
        let [query] = request.queries.queries() else { return refusal(ResponseCode::FormErr) };
        let record_type = query.query_type();
        let name = query.original().name();
        self.record(Question { name: text(name), record_type, tcp: request.protocol() == Protocol::Tcp });
        let transfer = matches!(record_type, RecordType::AXFR | RecordType::IXFR);
        if transfer || query.query_class() != DNSClass::IN {
            return refusal(ResponseCode::Refused);
        }
        let answer = self.zone().answer(name, record_type);
        if !answer.after.is_zero() {
            tokio::time::sleep(answer.after).await;
        }
        answer.reply
    }
}

/// The adapter for hickory-server.
pub(super) struct Handler(pub(super) Arc<Shared>);

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut client: R,
    ) -> ResponseInfo {
        let Some(reply) = self.0.respond(request).await else {
            return unsent(request);
        };
        let response = Response::new(request, reply);
        let sent = if response.fits() {
            client.send_response(response.message()).await
        } else {
            client.send_response(response.truncated().message()).await
        };
        sent.unwrap_or_else(|error| {
            tracing::debug!(%error, client = %request.src(), "the response could not be sent");
            unsent(request)
        })
    }
}

/// hickory-server needs a value even where no response was sent.
fn unsent(request: &Request) -> ResponseInfo {
    let metadata = Metadata::response_from_request(&request.metadata);
    ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
}

struct Response<'a> {
    request: &'a Request,
    metadata: Metadata,
    /// RFC 6891 6.1.1: only if the request had an OPT record.
    edns: Option<Edns>,
    reply: Reply,
}

impl<'a> Response<'a> {
    fn new(request: &'a Request, reply: Reply) -> Self {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = matches!(reply.code, ResponseCode::NoError | ResponseCode::NXDomain);
        // A stub client expects recursion; this server has the final answer for every name.
        metadata.recursion_available = true;
        let edns = request.edns.as_ref().map(|requested| {
            let mut edns = Edns::new();
            edns.set_max_payload(request.max_payload().min(MAX_UDP));
            edns.set_dnssec_ok(requested.flags().dnssec_ok);
            edns
        });
        Self { request, metadata, edns, reply }
    }

    fn message(
        &self,
    ) -> MessageResponse<
        '_,
        '_,
        impl Iterator<Item = &Record> + Send,
        impl Iterator<Item = &Record> + Send,
        impl Iterator<Item = &Record> + Send,
        impl Iterator<Item = &Record> + Send,
    > {
        MessageResponseBuilder::new(&self.request.queries, self.edns.as_ref()).build(
            self.metadata,
            &self.reply.records,
            &self.reply.authority,
            [],
            [],
        )
    }

    /// Whether the response fits whole. hickory-server truncates a response by itself, but drops the OPT record then.
    fn fits(&self) -> bool {
        let max = match self.request.protocol() {
            Protocol::Udp => self.edns.as_ref().map_or(512, Edns::max_payload),
            _ => u16::MAX,
        };
        let mut octets = Vec::with_capacity(512);
        let mut encoder = BinEncoder::new(&mut octets);
        encoder.set_max_size(max);
        self.message().destructive_emit(&mut encoder).is_ok_and(|info| !info.truncation)
    }

    /// The truncated response, without records: a client has to ignore them (RFC 2181 9) and ask again over TCP.
    fn truncated(mut self) -> Self {
        self.metadata.truncation = true;
        self.reply.records.clear();
        self.reply.authority.clear();
        self
    }
}
