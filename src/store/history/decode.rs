//! Decodes a record. The octets come from a file that may be damaged: decoding returns a record or `None` for any input
//! and never panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use compact_str::CompactString;

use crate::decision::{Actions, DecisionRecord, End, Id, LetIn};
use crate::evidence::{Answer, Evidence, Question, QuestionName, Records, Target};
use crate::policy::authentication::{Authentication, DmarcCheck, Indirect, SignatureCheck, SpfCheck};
use crate::policy::decide::Cause;
use crate::policy::door::DoorName;
use crate::policy::finding::{Finding, RuleResult};
use crate::policy::reason::Reason;
use crate::policy::rule::Action;
use crate::policy::senders::Entry;
use crate::reverse_mx::FcrdnsResult;
use crate::smtp::address::DomainName;
use crate::store::history::codes::Coded;
use crate::store::history::encode::results::set_marks;
use crate::store::history::encode::tag;
use crate::store::history::number::take_number;

/// Decodes a record: `None` if it is invalid, `Some(None)` if `wanted` returns false. `wanted` gets the record without names,
/// texts and findings, so that the rest of an unwanted record isn't decoded. `known` is that of [`super::encode::record`].
pub(super) fn record<'o>(
    octets: &'o [u8],
    known: Vec<&'o str>,
    wanted: impl FnOnce(&DecisionRecord) -> bool,
) -> Option<Option<DecisionRecord>> {
    let mut decoder = Decoder { rest: octets, strings: known, answers: Vec::new() };
    let mut record = decoder.head()?;
    if !wanted(&record) {
        return Some(None);
    }
    decoder.body(&mut record)?;
    Some(Some(record))
}

/// The first second behind the year 9999, which RFC 3339 can't write.
const END_OF_TIMES: u64 = 253_402_300_800;

/// The inverse of [`super::encode::milliseconds`]; `None` past the year 9999, as only damage writes it.
pub(super) fn time(milliseconds: u64) -> Option<SystemTime> {
    let since = Duration::from_millis(milliseconds);
    UNIX_EPOCH.checked_add(since).filter(|_| since.as_secs() < END_OF_TIMES)
}

/// Sets the subject of the cause. Older versions made up a finding for refusals without a rule; it is removed.
fn set_cause_subject(cause: &mut Cause, findings: &mut Vec<Finding>) {
    let Some(finding) = cause.finding_of(findings) else { return };
    cause.subject = finding.subject.clone();
    let of_continuation = finding.domain.is_empty() && finding.subject.ends_with("with a continuation line");
    let made_up =
        cause.reason == Reason::RelayingDenied || cause.reason == Reason::MalformedHeader && of_continuation;
    if let Some(at) = cause.finding.filter(|_| made_up) {
        findings.remove(at);
        cause.finding = None;
    }
}

struct Decoder<'o> {
    rest: &'o [u8],
    strings: Vec<&'o str>,
    answers: Vec<(Question, Arc<Answer>, Option<Arc<SocketAddr>>)>,
}

impl<'o> Decoder<'o> {
    fn head(&mut self) -> Option<DecisionRecord> {
        let at = time(u64::from_le_bytes(self.array()?))?;
        let id = match self.byte()? {
            tag::NOTHING => None,
            _ => Some(Id::parse(std::str::from_utf8(&self.array::<8>()?).ok()?)?),
        };
        let client = match self.byte()? {
            tag::V4 => IpAddr::from(self.array::<4>()?),
            _ => IpAddr::from(self.array::<16>()?),
        };
        let (verdict, mode, extent) = (self.coded()?, self.coded()?, self.coded()?);
        let cause = match self.byte()? {
            tag::NOTHING => None,
            form => {
                let (reason, action) = (self.coded()?, self.coded()?);
                let wait = self.number()?.checked_sub(1).map(Duration::from_millis);
                let finding = Some(self.count()?).filter(|_| form != tag::WITHOUT_RULE);
                Some(Cause { reason, action, wait, finding, subject: CompactString::default() })
            }
        };
        let mut actions = [Action::Off; 10];
        for action in &mut actions {
            *action = self.coded()?;
        }
        Some(DecisionRecord {
            id,
            at,
            client,
            door: DoorName::Smtp,
            queue: CompactString::default(),
            tls: CompactString::default(),
            names: None,
            extent,
            mode,
            actions: Actions::from_all(actions),
            verdict,
            cause,
            end: None,
            help_url: Arc::from(""),
            helo: CompactString::default(),
            mail_from: CompactString::default(),
            rcpt: CompactString::default(),
            rcpts: 0,
            recipients: Vec::new(),
            from: CompactString::default(),
            reply_to: CompactString::default(),
            duration: Duration::ZERO,
            findings: Arc::default(),
            permit: None,
            whole: true,
        })
    }

    fn body(&mut self, record: &mut DecisionRecord) -> Option<()> {
        record.names = self.names()?;
        record.help_url = Arc::from(self.text()?);
        let DecisionRecord { helo, mail_from, rcpt, from, reply_to, .. } = record;
        for text in [helo, mail_from, rcpt, from, reply_to] {
            *text = CompactString::new(self.text()?);
        }
        record.duration = Duration::from_micros(self.number()?);
        let mut findings = self.list(Self::finding)?;
        let written = findings.len();
        if let Some(cause) = &mut record.cause {
            set_cause_subject(cause, &mut findings);
        }
        // Records of older versions end here, or behind the outcome.
        if !self.rest.is_empty() {
            self.end(record)?;
        }
        let has_more = !self.rest.is_empty();
        for finding in &mut findings {
            finding.action = record.actions.action(finding.identity, finding.rule);
            if has_more {
                self.more_of(finding)?;
            }
        }
        let is_complete = findings.len() == written;
        record.findings = Arc::new(findings);
        if is_complete && !self.rest.is_empty() {
            (record.door, record.queue) = (self.coded()?, self.compact()?);
            // Records of the first format end here.
            if !self.rest.is_empty() {
                (record.recipients, record.tls) = (self.list(Self::compact)?, self.compact()?);
            }
            // Records from before there were permits end here.
            if !self.rest.is_empty() && self.byte()? == tag::SOMETHING {
                let (number, until) = (self.number()?, self.number()?.checked_sub(1));
                let until = match until {
                    None => None,
                    Some(until) => Some(time(until)?),
                };
                record.permit = Some(LetIn { number, until });
            }
            if !self.rest.is_empty() {
                set_marks(record, self.number()?);
            }
        }
        Some(())
    }

    fn end(&mut self, record: &mut DecisionRecord) -> Option<()> {
        record.rcpts = self.count()?;
        let subject = self.text()?;
        let without_rule = record.cause.as_mut().filter(|cause| cause.finding.is_none());
        if let Some(cause) = without_rule.filter(|_| !subject.is_empty()) {
            cause.subject = CompactString::new(subject);
        }
        if self.byte()? == tag::NOTHING {
            return Some(());
        }
        let (outcome, trouble) = (self.coded()?, self.optional()?);
        let (relay_reply, answer) = (CompactString::new(self.text()?), CompactString::new(self.text()?));
        record.end = Some(End { outcome, trouble, relay_reply, answer });
        Some(())
    }

    /// The fields of a finding that stand behind the outcome.
    fn more_of(&mut self, finding: &mut Finding) -> Option<()> {
        finding.action = self.coded()?;
        finding.entry = Some(self.text()?).filter(|name| !name.is_empty()).map(Entry::new);
        if self.byte()? == tag::SOMETHING {
            finding.authentication = Some(Box::new(self.authentication()?));
        }
        Some(())
    }

    fn authentication(&mut self) -> Option<Authentication> {
        let spf = match self.byte()? {
            tag::NOTHING => None,
            _ => {
                let (result, identity) = (self.coded()?, self.coded()?);
                Some(SpfCheck { result, identity, domain: self.compact()? })
            }
        };
        let dkim = self.list(|decoder| {
            let (result, domain, selector) = (decoder.coded()?, decoder.compact()?, decoder.compact()?);
            Some(SignatureCheck { result, domain, selector, aligned: decoder.byte()? != 0 })
        })?;
        let dmarc = match self.byte()? {
            tag::NOTHING => None,
            _ => Some(DmarcCheck {
                result: self.optional()?,
                request: self.optional()?,
                testing: self.byte()? != 0,
                record_at: self.compact()?,
                organization: self.compact()?,
                indirect: match self.byte()? {
                    tag::NOTHING => None,
                    _ => {
                        Some(Indirect { sign: self.coded()?, envelope: self.compact()?, rung: self.coded()? })
                    }
                },
            }),
        };
        Some(Authentication { spf, dkim, dkim_whole: false, dmarc })
    }

    fn compact(&mut self) -> Option<CompactString> {
        self.text().map(CompactString::new)
    }

    fn optional<T: Coded>(&mut self) -> Option<Option<T>> {
        match self.byte()? {
            tag::NOTHING => Some(None),
            _ => self.coded().map(Some),
        }
    }

    fn names(&mut self) -> Option<Option<FcrdnsResult>> {
        Some(Some(match self.byte()? {
            tag::NOTHING => return Some(None),
            tag::CONFIRMED => FcrdnsResult::Confirmed(self.list(Self::name)?),
            tag::NO_PTR => FcrdnsResult::NoPtr,
            tag::NOT_CONFIRMED => {
                FcrdnsResult::NotConfirmed(self.list(|decoder| decoder.text().map(CompactString::new))?)
            }
            tag::NAMES_FAILED => FcrdnsResult::TempError(self.coded()?),
            _ => return None,
        }))
    }

    fn finding(&mut self) -> Option<Finding> {
        let (identity, rule) = (self.coded()?, self.coded()?);
        let outcome = match self.byte()? {
            tag::PASS => RuleResult::Pass(self.coded()?),
            tag::FAIL => RuleResult::Fail(self.coded()?),
            tag::TEMPERROR => RuleResult::TempError(self.coded()?),
            tag::NONE => RuleResult::None(self.coded()?),
            _ => return None,
        };
        let (domain, subject) = (CompactString::new(self.text()?), CompactString::new(self.text()?));
        let evidence = self.list(Self::evidence)?;
        let (action, entry, authentication) = (Action::Off, None, None);
        Some(Finding { identity, rule, domain, subject, outcome, action, entry, authentication, evidence })
    }

    fn evidence(&mut self) -> Option<Evidence> {
        let freshness = self.coded()?;
        let (ttl_left, age) = (Duration::from_millis(self.number()?), Duration::from_millis(self.number()?));
        let took = Duration::from_micros(self.number()?);
        let (question, answer, server) = match self.count()?.checked_sub(1) {
            Some(known) => self.answers.get(known)?.clone(),
            None => {
                let rtype = self.coded()?;
                let name = QuestionName::parse(self.text()?.as_bytes())?;
                let (answer, server) = self.answer_and_server()?;
                let known = (Question { name, rtype }, Arc::new(answer), server.map(Arc::new));
                self.answers.push(known.clone());
                known
            }
        };
        Some(Evidence { question, answer, freshness, ttl_left, age, took, server })
    }

    fn answer_and_server(&mut self) -> Option<(Answer, Option<SocketAddr>)> {
        match self.byte()? {
            tag::FAILED_AT => {
                let failure = Answer::Unavailable(self.coded()?);
                Some((failure, Some(self.server()?)))
            }
            other => Some((self.answer(other)?, None)),
        }
    }

    fn server(&mut self) -> Option<SocketAddr> {
        let (ip, scope) = match self.byte()? {
            tag::V4 => (IpAddr::from(self.array::<4>()?), 0),
            tag::V6 => (IpAddr::from(self.array::<16>()?), u32::try_from(self.number()?).ok()?),
            _ => return None,
        };
        let port = u16::try_from(self.number()?).ok()?;
        Some(match ip {
            IpAddr::V4(ip) => (ip, port).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
        })
    }

    fn answer(&mut self, tag: u8) -> Option<Answer> {
        Some(Answer::Found(match tag {
            tag::MX => Records::Mx(self.list(|decoder| {
                let preference = u16::try_from(decoder.number()?).ok()?;
                Some((preference, decoder.target()?))
            })?),
            tag::A => Records::A(self.list(|decoder| decoder.array::<4>().map(Ipv4Addr::from))?),
            tag::AAAA => Records::Aaaa(self.list(|decoder| decoder.array::<16>().map(Ipv6Addr::from))?),
            tag::PTR => Records::Ptr(self.list(Self::target)?),
            tag::TXT => Records::Txt(self.list(|decoder| decoder.octets().map(Box::from))?),
            tag::CNAME => Records::Cname(self.target()?),
            tag::NO_DATA => return Some(Answer::NoData),
            tag::NO_SUCH_DOMAIN => return Some(Answer::NoSuchDomain),
            tag::UNAVAILABLE => return Some(Answer::Unavailable(self.coded()?)),
            _ => return None,
        }))
    }

    fn target(&mut self) -> Option<Target> {
        Some(match self.byte()? {
            tag::ROOT => Target::Root,
            tag::HOST => Target::Host(self.name()?),
            tag::INVALID => Target::Invalid(CompactString::new(self.text()?)),
            _ => return None,
        })
    }

    fn name(&mut self) -> Option<DomainName> {
        DomainName::parse(self.text()?).ok()
    }

    fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        for _ in 0..self.count()? {
            items.push(each(self)?);
        }
        Some(items)
    }

    fn text(&mut self) -> Option<&'o str> {
        let number = self.count()?;
        if number % 2 == 1 {
            return self.strings.get(number / 2).copied();
        }
        let text = std::str::from_utf8(self.take(number / 2)?).ok()?;
        if !text.is_empty() {
            self.strings.push(text);
        }
        Some(text)
    }

    fn octets(&mut self) -> Option<&'o [u8]> {
        let length = self.count()?;
        self.take(length)
    }

    fn coded<T: Coded>(&mut self) -> Option<T> {
        T::from_code(self.byte()?)
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    fn number(&mut self) -> Option<u64> {
        take_number(&mut self.rest)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*array)
    }

    fn take(&mut self, length: usize) -> Option<&'o [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}
