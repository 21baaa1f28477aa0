//! A record as octets: what is said twice in a record is written once, since a domain stands in its address, in the
//! questions about it and in their answers.
//!
//! Of an answer that goes on and on only the beginning is kept: its sender chose its length.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use smallvec::SmallVec;

use crate::policy::evidence::{Answer, Evidence, Records, Target};
use crate::policy::finding::{Finding, Outcome};
use crate::record::Record;
use crate::reverse_mx::NamesOutcome;
use crate::store::history::words::Word;

/// Records of one answer, names of one client, and octets of one text that are kept.
const MOST: usize = 100;
const MOST_TEXT: usize = 513; // one more than is ever shown, so that it shows as cut
/// Strings and answers that are looked at for one that was written before.
const WINDOW: usize = 48;

/// Tags of what may take several forms. Part of the format.
pub(super) mod tag {
    pub(in super::super) const NOTHING: u8 = 0;
    pub(in super::super) const SOMETHING: u8 = 1;

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
pub(super) fn record(out: &mut Vec<u8>, record: &Record) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut encoder = Encoder { out, strings: SmallVec::new(), answers: SmallVec::new() };
    encoder.record(record);
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
    answers: SmallVec<[&'r Evidence; WINDOW]>,
}

impl<'r> Encoder<'_, 'r> {
    /// First what is asked for most, so that a reader may skip the rest.
    fn record(&mut self, record: &'r Record) {
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
        match record.because {
            None => self.byte(tag::NOTHING),
            Some((because, at)) => {
                self.byte(tag::SOMETHING);
                self.word(because.reason);
                self.word(because.action);
                self.number(because.wait.map_or(0, |wait| millis(wait).saturating_add(1)));
                self.count(at);
            }
        }
        for action in record.actions.all() {
            self.word(action);
        }
        self.names(record.names.as_ref());
        let Record { help_url, helo, mail_from, rcpt, from, reply_to, .. } = record;
        self.text(help_url);
        for text in [helo, mail_from, rcpt, from, reply_to] {
            self.text(text);
        }
        self.number(u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX));
        self.count(record.findings.len());
        for finding in record.findings.iter() {
            self.finding(finding);
        }
    }

    fn names(&mut self, names: Option<&'r NamesOutcome>) {
        match names {
            None => self.byte(tag::NOTHING),
            Some(NamesOutcome::Confirmed(names)) => {
                self.byte(tag::CONFIRMED);
                self.list(names, |encoder, name| encoder.text(name.as_str()));
            }
            Some(NamesOutcome::NoPtr) => self.byte(tag::NO_PTR),
            Some(NamesOutcome::NotConfirmed(names)) => {
                self.byte(tag::NOT_CONFIRMED);
                self.list(names, |encoder, name| encoder.text(name));
            }
            Some(NamesOutcome::TempError(trouble)) => {
                self.byte(tag::NAMES_IN_TROUBLE);
                self.word(*trouble);
            }
        }
    }

    fn finding(&mut self, finding: &'r Finding) {
        self.word(finding.identity);
        self.word(finding.rule);
        match finding.outcome {
            Outcome::Pass(rung) => self.bytes(tag::PASS, rung),
            Outcome::Fail(reason) => self.bytes(tag::FAIL, reason),
            Outcome::TempError(trouble) => self.bytes(tag::TEMPERROR, trouble),
            Outcome::None(absence) => self.bytes(tag::NONE, absence),
        }
        self.text(&finding.domain);
        self.text(&finding.subject);
        self.count(finding.evidence.len());
        for evidence in &finding.evidence {
            self.evidence(evidence);
        }
    }

    fn evidence(&mut self, evidence: &'r Evidence) {
        self.word(evidence.freshness);
        self.number(millis(evidence.ttl_left));
        self.number(millis(evidence.age));
        self.number(u64::try_from(evidence.took.as_micros()).unwrap_or(u64::MAX));
        let same = |known: &&Evidence| {
            Arc::ptr_eq(&known.answer, &evidence.answer) && known.question == evidence.question
        };
        if let Some(known) = self.answers.iter().position(same) {
            return self.count(known + 1);
        }
        self.number(0);
        if self.answers.len() < WINDOW {
            self.answers.push(evidence);
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
                    let kept = text.get(..MOST_TEXT).unwrap_or(text);
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
                self.text(text);
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
        let items = items.get(..MOST).unwrap_or(items);
        self.count(items.len());
        for item in items {
            each(self, item);
        }
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
