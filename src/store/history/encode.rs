//! Encodes a record. A text that occurs twice is written once, since a domain is part of its address, of the questions
//! about it and of their answers.
//!
//! Only the beginning of a long answer is kept, as the sender chose its length. A record has a maximum size, so that a few
//! messages can't push all others out of the history: a larger record keeps less of each answer, and least of the answers
//! that did not decide.

mod failure;
pub(super) mod results;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use smallvec::SmallVec;

use crate::decision::{DecisionRecord, End};
use crate::evidence::{Answer, Evidence, Records, Target};
use crate::policy::finding::{Finding, RuleResult};
use crate::policy::senders::Entry;
use crate::store::history::codes::Coded;
use crate::store::history::limits::{MAX_ITEMS, MAX_TEXT};
use crate::store::history::number::put_number;

/// Maximum octets of a record.
pub(super) const MAX_RECORD: usize = 16 * 1024;
/// How much is kept of the findings that did not decide, and of the one that did: the first pair for which the record isn't
/// too large.
const KEPT: [(Kept, Kept); 5] = [
    (ALL, ALL),
    (Kept { items: 8, text: 128, evidence: 64 }, ALL),
    (Kept { items: 3, text: 64, evidence: 16 }, Kept { items: 20, text: 256, evidence: 24 }),
    (Kept { items: 1, text: 32, evidence: 4 }, Kept { items: 5, text: 128, evidence: 12 }),
    (Kept { items: 1, text: 16, evidence: 0 }, Kept { items: 2, text: 64, evidence: 4 }),
];
const ALL: Kept = Kept { items: MAX_ITEMS, text: MAX_TEXT, evidence: 1000 };
/// Octets of each text of the client that a record keeps if it would be too large otherwise.
const MAX_CLIENT_TEXT: usize = 512;
/// Strings and answers that can be referred to again.
const WINDOW: usize = 48;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    /// Records of one answer, and names of the client.
    items: usize,
    /// Octets of one text of an answer.
    text: usize,
    /// Answers of one finding.
    evidence: usize,
}

/// Tags of the variants that carry data; part of the file format.
pub(super) mod tag {
    pub(in super::super) const NOTHING: u8 = 0;
    pub(in super::super) const SOMETHING: u8 = 1;
    /// A cause without a finding.
    pub(in super::super) const WITHOUT_RULE: u8 = 2;

    pub(in super::super) const CONFIRMED: u8 = 1;
    pub(in super::super) const NO_PTR: u8 = 2;
    pub(in super::super) const NOT_CONFIRMED: u8 = 3;
    pub(in super::super) const NAMES_FAILED: u8 = 4;

    pub(in super::super) const PASS: u8 = 0;
    pub(in super::super) const FAIL: u8 = 1;
    pub(in super::super) const TEMPERROR: u8 = 2;
    pub(in super::super) const NONE: u8 = 3;

    pub(in super::super) const MX: u8 = 0;
    pub(in super::super) const A: u8 = 1;
    pub(in super::super) const AAAA: u8 = 2;
    pub(in super::super) const PTR: u8 = 3;
    pub(in super::super) const TXT: u8 = 4;
    pub(in super::super) const CNAME: u8 = 5;
    pub(in super::super) const NO_DATA: u8 = 6;
    pub(in super::super) const NO_SUCH_DOMAIN: u8 = 7;
    pub(in super::super) const UNAVAILABLE: u8 = 8;
    /// With the server.
    pub(in super::super) const FAILED_AT: u8 = 9;

    pub(in super::super) const ROOT: u8 = 0;
    pub(in super::super) const HOST: u8 = 1;
    pub(in super::super) const INVALID: u8 = 2;

    pub(in super::super) const V4: u8 = 4;
    pub(in super::super) const V6: u8 = 6;
}

/// Replaces the contents of `out` by the record. Of the texts in `known`, which a decoder needs too, only the index is
/// written.
pub(super) fn record<'r>(out: &mut Vec<u8>, record: &'r DecisionRecord, known: &[&'r str]) {
    for (kept, of_deciding) in KEPT {
        out.clear();
        let strings = known.iter().copied().take(WINDOW).collect();
        let answers = SmallVec::new();
        Encoder { out, kept, decides: false, strings, answers }.record(record, kept, of_deciding);
        if out.len() <= MAX_RECORD {
            break;
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

struct Encoder<'o, 'r> {
    out: &'o mut Vec<u8>,
    strings: SmallVec<[&'r str; WINDOW]>,
    /// The written answers; true if as much was kept as of the deciding finding.
    answers: SmallVec<[(&'r Evidence, bool); WINDOW]>,
    kept: Kept,
    /// The current finding is the deciding one.
    decides: bool,
}

impl<'r> Encoder<'_, 'r> {
    /// The fields for filters come first, so that a reader may skip the rest.
    fn record(&mut self, record: &'r DecisionRecord, kept: Kept, of_deciding: Kept) {
        self.out.extend_from_slice(&milliseconds(record.at).to_le_bytes());
        match record.id {
            None => self.byte(tag::NOTHING),
            Some(id) => {
                self.byte(tag::SOMETHING);
                self.out.extend_from_slice(id.as_str().as_bytes());
            }
        }
        self.address(record.client);
        self.coded(record.verdict);
        self.coded(record.mode);
        self.coded(record.extent);
        match &record.cause {
            None => self.byte(tag::NOTHING),
            Some(cause) => {
                self.byte(if cause.finding.is_some() { tag::SOMETHING } else { tag::WITHOUT_RULE });
                self.coded(cause.reason);
                self.coded(cause.action);
                self.number(cause.wait.map_or(0, |wait| millis(wait).saturating_add(1)));
                self.count(cause.finding.unwrap_or_default());
            }
        }
        for action in record.actions.all() {
            self.coded(action);
        }
        self.names(record.names.as_ref());
        let DecisionRecord { help_url, helo, mail_from, rcpt, from, reply_to, .. } = record;
        self.text(help_url);
        for text in [helo, mail_from, rcpt, from, reply_to] {
            self.client_text(text);
        }
        self.number(u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX));
        self.count(record.findings.len());
        let deciding = record.deciding();
        for finding in record.findings.iter() {
            self.decides = deciding.is_some_and(|deciding| std::ptr::eq(deciding, finding));
            self.kept = if self.decides { of_deciding } else { kept };
            self.finding(finding);
        }
        self.end(record, kept);
    }

    /// Fields that older versions don't have; their readers ignore them.
    fn end(&mut self, record: &'r DecisionRecord, kept: Kept) {
        self.kept = kept;
        self.count(record.rcpts);
        let subject = record.cause.as_ref().filter(|cause| cause.finding.is_none());
        self.client_text(subject.map(|cause| cause.subject.as_str()).unwrap_or_default());
        match &record.end {
            None => self.byte(tag::NOTHING),
            Some(End { outcome, trouble, relay_reply, answer }) => {
                self.tagged(tag::SOMETHING, *outcome);
                self.optional(*trouble);
                self.client_text(relay_reply);
                self.client_text(answer);
            }
        }
        for finding in record.findings.iter() {
            self.coded(finding.action);
            self.text(finding.entry.as_ref().map(Entry::as_str).unwrap_or_default());
            if let Some(results) = &finding.authentication {
                self.byte(tag::SOMETHING);
                self.authentication(results);
            } else {
                self.byte(tag::NOTHING);
            }
        }
        self.coded(record.door);
        self.client_text(&record.queue);
        self.list(&record.recipients, |encoder, recipient| encoder.client_text(recipient));
        self.client_text(&record.tls);
        self.permit(record.permit);
        self.number(results::marks(record, kept != ALL));
    }

    fn optional(&mut self, value: Option<impl Coded>) {
        match value {
            None => self.byte(tag::NOTHING),
            Some(value) => self.tagged(tag::SOMETHING, value),
        }
    }

    fn finding(&mut self, finding: &'r Finding) {
        self.coded(finding.identity);
        self.coded(finding.rule);
        match finding.outcome {
            RuleResult::Pass(rung) => self.tagged(tag::PASS, rung),
            RuleResult::Fail(reason) => self.tagged(tag::FAIL, reason),
            RuleResult::TempError(trouble) => self.tagged(tag::TEMPERROR, trouble),
            RuleResult::None(absence) => self.tagged(tag::NONE, absence),
        }
        self.text(&finding.domain);
        self.client_text(&finding.subject);
        let max = self.kept.evidence;
        self.count(finding.evidence.len().min(max));
        for evidence in finding.evidence.iter().take(max) {
            self.evidence(evidence);
        }
    }

    fn evidence(&mut self, evidence: &'r Evidence) {
        self.coded(evidence.freshness);
        self.number(millis(evidence.ttl_left));
        self.number(millis(evidence.age));
        self.number(u64::try_from(evidence.took.as_micros()).unwrap_or(u64::MAX));
        let decides = self.decides;
        let same = |(known, whole): &(&Evidence, bool)| {
            (*whole || !decides)
                && Arc::ptr_eq(&known.answer, &evidence.answer)
                && known.question == evidence.question
        };
        if let Some(known) = self.answers.iter().position(same) {
            return self.count(known + 1);
        }
        self.number(0);
        if self.answers.len() < WINDOW {
            self.answers.push((evidence, decides));
        }
        self.coded(evidence.question.rtype);
        self.text(evidence.question.name.as_str());
        self.answer_and_server(evidence);
    }

    fn answer(&mut self, answer: &'r Answer) {
        match answer {
            Answer::Found(Records::Mx(hosts)) => {
                self.byte(tag::MX);
                self.list(hosts, |encoder, (preference, target)| {
                    encoder.number(u64::from(*preference));
                    encoder.target(target);
                });
            }
            Answer::Found(Records::A(addresses)) => {
                self.byte(tag::A);
                self.list(addresses, |encoder, address| encoder.out.extend_from_slice(&address.octets()));
            }
            Answer::Found(Records::Aaaa(addresses)) => {
                self.byte(tag::AAAA);
                self.list(addresses, |encoder, address| encoder.out.extend_from_slice(&address.octets()));
            }
            Answer::Found(Records::Ptr(names)) => {
                self.byte(tag::PTR);
                self.list(names, Self::target);
            }
            Answer::Found(Records::Txt(texts)) => {
                self.byte(tag::TXT);
                // A TXT record without a version is only counted, so that its text isn't needed.
                self.list(texts, |encoder, text| {
                    let versioned = text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"v="));
                    let kept = text.get(..encoder.kept.text).unwrap_or(text);
                    encoder.octets(if versioned { kept } else { &[] });
                });
            }
            Answer::Found(Records::Cname(target)) => {
                self.byte(tag::CNAME);
                self.target(target);
            }
            Answer::NoData => self.byte(tag::NO_DATA),
            Answer::NoSuchDomain => self.byte(tag::NO_SUCH_DOMAIN),
            Answer::Unavailable(trouble) => self.tagged(tag::UNAVAILABLE, *trouble),
        }
    }

    fn target(&mut self, target: &'r Target) {
        match target {
            Target::Root => self.byte(tag::ROOT),
            Target::Host(name) => {
                self.byte(tag::HOST);
                self.text(name.as_str());
            }
            Target::Invalid(text) => {
                self.byte(tag::INVALID);
                self.cut(text, self.kept.text);
            }
        }
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.byte(tag::V4);
                self.out.extend_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                self.byte(tag::V6);
                self.out.extend_from_slice(&address.octets());
            }
        }
    }

    fn list<T>(&mut self, items: &'r [T], mut each: impl FnMut(&mut Self, &'r T)) {
        let items = items.get(..self.kept.items).unwrap_or(items);
        self.count(items.len());
        for item in items {
            each(self, item);
        }
    }

    /// A text of the client, whole if there is room.
    fn client_text(&mut self, text: &'r str) {
        if self.kept == ALL { self.text(text) } else { self.cut(text, MAX_CLIENT_TEXT) }
    }

    fn cut(&mut self, text: &'r str, max: usize) {
        self.text(text.get(..text.floor_char_boundary(max)).unwrap_or(text));
    }

    /// A string: twice its length, then its octets; for a repeated string twice its index plus one.
    fn text(&mut self, text: &'r str) {
        if text.is_empty() {
            return self.number(0);
        }
        match self.strings.iter().position(|known| *known == text) {
            Some(known) => self.count(known * 2 + 1),
            None => {
                if self.strings.len() < WINDOW {
                    self.strings.push(text);
                }
                self.count(text.len() * 2);
                self.out.extend_from_slice(text.as_bytes());
            }
        }
    }

    fn octets(&mut self, octets: &[u8]) {
        self.count(octets.len());
        self.out.extend_from_slice(octets);
    }

    fn tagged(&mut self, tag: u8, value: impl Coded) {
        self.byte(tag);
        self.coded(value);
    }

    fn coded(&mut self, value: impl Coded) {
        self.byte(value.code());
    }

    fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    fn count(&mut self, count: usize) {
        self.number(u64::try_from(count).unwrap_or(u64::MAX));
    }

    fn number(&mut self, number: u64) {
        put_number(self.out, number);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
