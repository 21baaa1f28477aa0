//! The lookups of one finding, in parallel, and their evidence in the order of asking.
//!
//! The rules and SPF ask DNS only here, so that `rmxd check` can show every record that counted.
//!
//! Where DNS fails and an expired answer is cached, the evidence has the failure and then the stale answer, and the rules use
//! the stale answer. So the evidence alone shows every failure: a rule that passes may rest on stale answers; one that doesn't
//! is a temporary error as soon as any lookup has failed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::dns::kept::{Kept, Seen};
use crate::dns::{Account, Dns};
use crate::evidence::{Answer, DnsFailure, Evidence, Freshness, Question, QuestionName, RecordType, Records};
use crate::policy::finding::RuleResult;
use crate::policy::reason::Reason;

/// Lookups of one rule under way at once.
const SIDE_BY_SIDE: usize = 16;
/// How long the others wait for the first lookup where it is likely to be enough.
const HEAD_START: Duration = Duration::from_millis(250);

/// When the lookups after the first begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// At once.
    Together,
    /// When the first was not enough, or takes longer than 250 ms.
    FirstAlone,
}

/// The lookups of one finding.
pub(crate) struct Lookups<'a> {
    source: Source<'a>,
    evidence: Vec<Evidence>,
    /// Questions that have no answer, since they were not asked then.
    missing: usize,
}

/// Where the answers come from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Dns(&'a Dns, &'a Account),
    /// Answers of the past. Nothing waits then.
    Kept(&'a Kept<'a>),
}

impl<'a> Lookups<'a> {
    /// On this account.
    pub(crate) fn new(dns: &'a Dns, account: &'a Account) -> Self {
        Self { source: Source::Dns(dns, account), evidence: Vec::new(), missing: 0 }
    }

    /// From the answers of the past alone: see [`Lookups::missing`].
    pub(crate) fn kept(kept: &'a Kept<'a>) -> Self {
        Self { source: Source::Kept(kept), evidence: Vec::new(), missing: 0 }
    }

    /// Questions that were not asked in the past. They are answered by a failure, so that what passes nevertheless passes
    /// whatever the answer would have been; every other result is unknown.
    pub(crate) fn missing(&self) -> usize {
        self.missing
    }

    /// The client, as IPv4 where it came as an IPv4-mapped address.
    pub(crate) fn client(&self) -> IpAddr {
        match self.source {
            Source::Dns(_, account) => account.client(),
            Source::Kept(kept) => kept.client,
        }
    }

    /// In the order of asking.
    pub(crate) fn into_evidence(self) -> Vec<Evidence> {
        self.evidence
    }

    /// Asks one question; the answer is stale where DNS fails. A question asked before is answered from the evidence.
    pub(crate) async fn ask(&mut self, name: impl Into<QuestionName>, rtype: RecordType) -> Arc<Answer> {
        let question = Question { name: name.into(), rtype };
        if let Some(answer) = self.known(&question) {
            return answer;
        }
        let seen = match self.source {
            Source::Dns(dns, account) => look_up(dns, question, account).await,
            Source::Kept(kept) => kept.seen(&question),
        };
        if seen.is_empty() {
            self.missing += 1;
            return Arc::new(Answer::Unavailable(DnsFailure::Down));
        }
        let answer = answer_of(&seen);
        self.evidence.extend(seen);
        answer
    }

    /// Asks many questions until `enough` is true for an answer or the budget is spent. It is called with every answer as it
    /// comes, first with those known from before.
    pub(crate) async fn ask_all(
        &mut self,
        questions: Vec<Question>,
        start: Start,
        mut enough: impl FnMut(&Question, &Answer) -> bool,
    ) {
        let mut unknown = Vec::with_capacity(questions.len());
        for question in questions {
            match self.known(&question) {
                Some(answer) if enough(&question, &answer) => return,
                Some(_) => {}
                None => unknown.push(question),
            }
        }
        let questions = unknown;
        let (dns, account) = match self.source {
            Source::Dns(dns, account) => (dns, account),
            Source::Kept(kept) => return self.all_kept(kept, &questions, enough),
        };
        let mut waiting = questions.iter().enumerate();
        let ask = |(at, question): (usize, &Question)| {
            let question = question.clone();
            async move { (at, look_up(dns, question, account).await) }
        };
        let mut seen = Vec::new();
        let mut pending = FuturesUnordered::new();
        let first = if start == Start::FirstAlone { 1 } else { SIDE_BY_SIDE };
        pending.extend(waiting.by_ref().take(first).map(ask));
        let mut alone_until = (start == Start::FirstAlone).then(|| Instant::now() + HEAD_START);
        loop {
            let next = match alone_until.take() {
                Some(until) => tokio::time::timeout_at(until, pending.next()).await.ok(),
                None => Some(pending.next().await),
            };
            match next {
                Some(None) => break,
                Some(Some((at, evidence))) => {
                    let answer = answer_of(&evidence);
                    seen.push((at, evidence));
                    if questions.get(at).is_some_and(|question| enough(question, &answer)) {
                        break;
                    }
                    if *answer == Answer::Unavailable(DnsFailure::TooMany) {
                        waiting = [].iter().enumerate(); // those under way may be enough
                    }
                }
                None => {}
            }
            let room = SIDE_BY_SIDE.saturating_sub(pending.len());
            pending.extend(waiting.by_ref().take(room).map(ask));
        }
        drop(pending);
        seen.sort_by_key(|(at, _)| *at);
        self.evidence.extend(seen.into_iter().flat_map(|(_, evidence)| evidence));
    }

    /// [`Lookups::ask_all`] of the past: what was asked then was perhaps enough.
    fn all_kept(
        &mut self,
        kept: &Kept<'_>,
        questions: &[Question],
        mut enough: impl FnMut(&Question, &Answer) -> bool,
    ) {
        let (mut missing, mut spent) = (0, false);
        for question in questions {
            let seen = kept.seen(question);
            if seen.is_empty() {
                missing += 1;
                continue;
            }
            let answer = answer_of(&seen);
            self.evidence.extend(seen);
            if enough(question, &answer) {
                return;
            }
            spent |= *answer == Answer::Unavailable(DnsFailure::TooMany);
        }
        // Past a budget the others are not asked at all.
        self.missing += if spent { 0 } else { missing };
    }

    fn known(&self, question: &Question) -> Option<Arc<Answer>> {
        let seen = self.evidence.iter().rfind(|seen| seen.question == *question);
        seen.map(|seen| Arc::clone(&seen.answer))
    }

    /// The first DNS failure so far.
    pub(crate) fn trouble(&self) -> Option<DnsFailure> {
        trouble(&self.evidence)
    }

    /// The first failure for which an expired answer stands in: a refusal can't rest on that.
    pub(crate) fn expired(&self) -> Option<DnsFailure> {
        let held = self.evidence.iter().filter(|seen| seen.freshness == Freshness::Stale);
        held.filter_map(|held| self.failure_of(&held.question)).next()
    }

    fn failure_of(&self, question: &Question) -> Option<DnsFailure> {
        let of_question = self.evidence.iter().filter(|seen| seen.question == *question);
        of_question.filter_map(|seen| failure(&seen.answer)).next()
    }

    /// The result of a rule that has not passed: a failure only where no lookup failed.
    pub(crate) fn failure(&self, reason: Reason) -> RuleResult {
        match self.trouble() {
            Some(trouble) => RuleResult::TempError(trouble),
            None => RuleResult::Fail(reason),
        }
    }
}

/// The first DNS failure among the lookups.
pub(crate) fn trouble(evidence: &[Evidence]) -> Option<DnsFailure> {
    evidence.iter().find_map(|seen| failure(&seen.answer))
}

fn failure(answer: &Answer) -> Option<DnsFailure> {
    match *answer {
        Answer::Unavailable(failure) => Some(failure),
        Answer::Found(_) | Answer::NoData | Answer::NoSuchDomain => None,
    }
}

/// The addresses in an answer; IPv4-mapped ones as IPv4.
pub(crate) fn addresses(answer: &Answer) -> impl Iterator<Item = IpAddr> {
    let (v4, v6) = match answer {
        Answer::Found(Records::A(list)) => (list.as_slice(), [].as_slice()),
        Answer::Found(Records::Aaaa(list)) => ([].as_slice(), list.as_slice()),
        Answer::Found(Records::Mx(_) | Records::Ptr(_) | Records::Txt(_) | Records::Cname(_))
        | Answer::NoData
        | Answer::NoSuchDomain
        | Answer::Unavailable(_) => ([].as_slice(), [].as_slice()),
    };
    let v4 = v4.iter().map(|&address| IpAddr::V4(address));
    v4.chain(v6.iter().map(|&address| IpAddr::V6(address).to_canonical()))
}

/// The record type that holds addresses of this family.
pub(crate) fn family(address: IpAddr) -> RecordType {
    match address {
        IpAddr::V4(_) => RecordType::A,
        IpAddr::V6(_) => RecordType::Aaaa,
    }
}

async fn look_up(dns: &Dns, question: Question, account: &Account) -> Seen {
    let lookup = dns.ask(question, account).await;
    std::iter::once(lookup.evidence).chain(lookup.stale).collect()
}

fn answer_of(seen: &Seen) -> Arc<Answer> {
    seen.last().map_or_else(|| Arc::new(Answer::NoData), |evidence| Arc::clone(&evidence.answer))
}
