//! Answers of the past, as a decision keeps them: the rules judge again by them, and ask nothing.
//!
//! The evidence of the finding itself comes first, with its failures: the lookup failed then. Other findings of the decision may
//! have asked the same; of them only answers count, since a failure there needn't have been one here.

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::evidence::{Answer, Evidence, Freshness, Question, Records};
use crate::policy::finding::Finding;

/// The evidence of one lookup: one piece, or a failure and then the stale answer. Empty for one that is missing.
pub(super) type Seen = SmallVec<[Evidence; 1]>;

/// How much of one answer a history keeps: a longer list or text may have been cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeptWhole {
    /// Records of one answer.
    pub(crate) items: usize,
    /// Octets of one text.
    pub(crate) text: usize,
}

/// The evidence of one decision, for one finding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept<'a> {
    pub(crate) client: IpAddr,
    /// The evidence of the finding that is judged again.
    pub(crate) own: &'a [Evidence],
    /// All findings of the decision.
    pub(crate) findings: &'a [Finding],
    pub(crate) whole: KeptWhole,
}

impl Kept<'_> {
    /// Empty if the question was not asked, or its answer isn't kept whole.
    pub(super) fn seen(&self, question: &Question) -> Seen {
        let mut seen = Seen::new();
        let mut own = self.own.iter().skip_while(|evidence| evidence.question != *question);
        if let Some(first) = own.next() {
            let stale = own.next().filter(|next| {
                failed(first) && next.question == *question && next.freshness == Freshness::Stale
            });
            seen.extend([Some(first), stale].into_iter().flatten().cloned());
        } else {
            let others = self.findings.iter().flat_map(|finding| &finding.evidence);
            let answered = |evidence: &&Evidence| {
                evidence.question == *question && !failed(evidence) && evidence.freshness != Freshness::Stale
            };
            seen.extend(others.into_iter().find(answered).cloned());
        }
        if seen.iter().all(|evidence| self.is_whole(&evidence.answer)) { seen } else { Seen::new() }
    }

    fn is_whole(&self, answer: &Answer) -> bool {
        let (records, longest) = match answer {
            Answer::Found(Records::Mx(list)) => (list.len(), 0),
            Answer::Found(Records::A(list)) => (list.len(), 0),
            Answer::Found(Records::Aaaa(list)) => (list.len(), 0),
            Answer::Found(Records::Ptr(list)) => (list.len(), 0),
            Answer::Found(Records::Txt(list)) => {
                (list.len(), list.iter().map(|text| text.len()).max().unwrap_or_default())
            }
            Answer::Found(Records::Cname(_))
            | Answer::NoData
            | Answer::NoSuchDomain
            | Answer::Unavailable(_) => (0, 0),
        };
        records < self.whole.items && longest < self.whole.text
    }
}

fn failed(evidence: &Evidence) -> bool {
    matches!(*evidence.answer, Answer::Unavailable(_))
}
