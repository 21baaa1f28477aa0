//! A record as octets: what is said twice in a record is written once, since a domain stands in its address, in the
//! questions about it and in their answers.
//!
//! Of an answer that goes on and on only the beginning is kept: its sender chose its length. And a record has a largest size,
//! so that nobody can flush the history with a few mails: where it takes more, less is kept of each answer, and least of
//! those that did not decide.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use smallvec::SmallVec;

use crate::decision::{DecisionRecord, End};
use crate::evidence::{Answer, Evidence, Records, Target};
use crate::policy::finding::{Finding, RuleResult};
use crate::reverse_mx::FcrdnsResult;
use crate::store::history::codes::Word;

/// Octets of a record.
pub(super) const LARGEST: usize = 16 * 1024;
/// How much is kept of what did not decide, and of what did: the first pair by which the record is not too large.
const KEPT: [(Kept, Kept); 5] = [
    (ALL, ALL),
    (Kept { items: 8, text: 128, evidence: 64 }, ALL),
    (Kept { items: 3, text: 64, evidence: 16 }, Kept { items: 20, text: 256, evidence: 24 }),
    (Kept { items: 1, text: 32, evidence: 4 }, Kept { items: 5, text: 128, evidence: 12 }),
    (Kept { items: 1, text: 16, evidence: 0 }, Kept { items: 2, text: 64, evidence: 4 }),
];
const ALL: Kept = Kept { items: 100, text: 513, evidence: 1000 }; // one octet more than is ever shown, so that it shows as cut
/// Octets of what the client says that are kept where the record would be too large.
const MOST_SAID: usize = 512;
/// Strings and answers that are looked at for one that was written before.
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

/// Tags of what may take several forms. Part of the format.
pub(super) mod tag {
    pub(in super::super) const NOTHING: u8 = 0;
    pub(in super::super) const SOMETHING: u8 = 1;
    /// A cause without a finding.
    pub(in super::super) const WITHOUT_RULE: u8 = 2;

    pub(in super::super) const CONFIRMED: u8 = 1;
    pub(in super::super) const NO_PTR: u8 = 2;
    pub(in super::super) const NOT_CONFIRMED: u8 = 3;
    pub(in super::super) const NAMES_IN_TROUBLE: u8 = 4;

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

    pub(in super::super) const ROOT: u8 = 0;
    pub(in super::super) const HOST: u8 = 1;
    pub(in super::super) const INVALID: u8 = 2;

    pub(in super::super) const V4: u8 = 4;
    pub(in super::super) const V6: u8 = 6;
}

/// Appends the record, with its length before it.
pub(super) fn record(out: &mut Vec<u8>, record: &DecisionRecord) {
    let start = out.len();
    for (kept, of_deciding) in KEPT {
        out.truncate(start);
        out.extend_from_slice(&[0; 4]);
        let (strings, answers) = (SmallVec::new(), SmallVec::new());
        Encoder { out, kept, decides: false, strings, answers }.record(record, kept, of_deciding);
        if out.len() - start <= LARGEST {
            break;
        }
    }
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_le_bytes());
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
    /// Those that stand in what is written, and whether as much was kept of them as of what decided.
    answers: SmallVec<[(&'r Evidence, bool); WINDOW]>,
    kept: Kept,
    /// The finding that is written is the one that decided.
    decides: bool,
}

impl<'r> Encoder<'_, 'r> {
    /// First what is asked for most, so that a reader may skip the rest.
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
        self.word(record.verdict);
        self.word(record.mode);
        self.word(record.extent);
        match &record.cause {
            None => self.byte(tag::NOTHING),
            Some(cause) => {
                self.byte(if cause.finding.is_some() { tag::SOMETHING } else { tag::WITHOUT_RULE });
                self.word(cause.reason);
                self.word(cause.action);
                self.number(cause.wait.map_or(0, |wait| millis(wait).saturating_add(1)));
                self.count(cause.finding.unwrap_or_default());
            }
        }
        for action in record.actions.all() {
            self.word(action);
        }
        self.names(record.names.as_ref());
        let DecisionRecord { help_url, helo, mail_from, rcpt, from, reply_to, .. } = record;
        self.text(help_url);
        for text in [helo, mail_from, rcpt, from, reply_to] {
            self.said(text);
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

    /// What older versions didn't keep; a reader of theirs leaves it alone.
    fn end(&mut self, record: &'r DecisionRecord, kept: Kept) {
        self.kept = kept;
        self.count(record.rcpts);
        let subject = record.cause.as_ref().filter(|cause| cause.finding.is_none());
        self.said(subject.map(|cause| cause.subject.as_str()).unwrap_or_default());
        let Some(End { outcome, trouble, relay_reply, answer }) = &record.end else {
            return self.byte(tag::NOTHING);
        };
        self.bytes(tag::SOMETHING, *outcome);
        match trouble {
            None => self.byte(tag::NOTHING),
            Some(reason) => self.bytes(tag::SOMETHING, *reason),
        }
        self.said(relay_reply);
        self.said(answer);
    }

    fn names(&mut self, names: Option<&'r FcrdnsResult>) {
        match names {
            None => self.byte(tag::NOTHING),
            Some(FcrdnsResult::Confirmed(names)) => {
                self.byte(tag::CONFIRMED);
                self.list(names, |encoder, name| encoder.text(name.as_str()));
            }
            Some(FcrdnsResult::NoPtr) => self.byte(tag::NO_PTR),
            Some(FcrdnsResult::NotConfirmed(names)) => {
                self.byte(tag::NOT_CONFIRMED);
                self.list(names, |encoder, name| encoder.cut(name, encoder.kept.text));
            }
            Some(FcrdnsResult::TempError(trouble)) => {
                self.byte(tag::NAMES_IN_TROUBLE);
                self.word(*trouble);
            }
        }
    }

    fn finding(&mut self, finding: &'r Finding) {
        self.word(finding.identity);
        self.word(finding.rule);
        match finding.outcome {
            RuleResult::Pass(rung) => self.bytes(tag::PASS, rung),
            RuleResult::Fail(reason) => self.bytes(tag::FAIL, reason),
            RuleResult::TempError(trouble) => self.bytes(tag::TEMPERROR, trouble),
            RuleResult::None(absence) => self.bytes(tag::NONE, absence),
        }
        self.text(&finding.domain);
        self.said(&finding.subject);
        let most = self.kept.evidence;
        self.count(finding.evidence.len().min(most));
        for evidence in finding.evidence.iter().take(most) {
            self.evidence(evidence);
        }
    }

    fn evidence(&mut self, evidence: &'r Evidence) {
        self.word(evidence.freshness);
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
        self.word(evidence.question.rtype);
        self.text(evidence.question.name.as_str());
        self.answer(&evidence.answer);
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
                // What is no record with a version is only ever counted.
                self.list(texts, |encoder, text| {
                    let told = text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"v="));
                    let kept = text.get(..encoder.kept.text).unwrap_or(text);
                    encoder.octets(if told { kept } else { &[] });
                });
            }
            Answer::Found(Records::Cname(target)) => {
                self.byte(tag::CNAME);
                self.target(target);
            }
            Answer::NoData => self.byte(tag::NO_DATA),
            Answer::NoSuchDomain => self.byte(tag::NO_SUCH_DOMAIN),
            Answer::Unavailable(trouble) => self.bytes(tag::UNAVAILABLE, *trouble),
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

    /// What the client says, whole where there is room.
    fn said(&mut self, text: &'r str) {
        if self.kept == ALL { self.text(text) } else { self.cut(text, MOST_SAID) }
    }

    fn cut(&mut self, text: &'r str, most: usize) {
        self.text(text.get(..text.floor_char_boundary(most)).unwrap_or(text));
    }

    /// A string: twice its length and its octets, or once more than twice the place of one that came before.
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

    fn bytes(&mut self, tag: u8, word: impl Word) {
        self.byte(tag);
        self.word(word);
    }

    fn word(&mut self, word: impl Word) {
        self.byte(word.code());
    }

    fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    fn count(&mut self, count: usize) {
        self.number(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// Seven bits an octet, the lowest first; the eighth says that more come.
    fn number(&mut self, mut number: u64) {
        loop {
            let low = u8::try_from(number & 0x7f).unwrap_or(0);
            number >>= 7;
            if number == 0 {
                return self.byte(low);
            }
            self.byte(low | 0x80);
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
