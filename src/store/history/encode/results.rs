//! Encodes what SPF, DKIM and DMARC came to for a finding, and the client's names and the permit of a decision.

use std::sync::Arc;

use crate::decision::{DecisionRecord, LetIn};
use crate::policy::authentication::{Authentication, DmarcCheck, Indirect, SignatureCheck, SpfCheck};
use crate::policy::finding::Finding;
use crate::reverse_mx::FcrdnsResult;
use crate::store::history::encode::{Encoder, milliseconds, tag};

/// Signatures of one finding; as many as are verified.
const MAX_SIGNATURES: usize = 10;

impl<'r> Encoder<'_, 'r> {
    pub(super) fn names(&mut self, names: Option<&'r FcrdnsResult>) {
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
                self.byte(tag::NAMES_FAILED);
                self.coded(*trouble);
            }
        }
    }

    pub(super) fn permit(&mut self, permit: Option<LetIn>) {
        let Some(LetIn { number, until }) = permit else { return self.byte(tag::NOTHING) };
        self.byte(tag::SOMETHING);
        self.number(number);
        self.number(until.map_or(0, |until| milliseconds(until).saturating_add(1)));
    }

    pub(super) fn authentication(&mut self, results: &'r Authentication) {
        match &results.spf {
            None => self.byte(tag::NOTHING),
            Some(SpfCheck { result, identity, domain }) => {
                self.tagged(tag::SOMETHING, *result);
                self.coded(*identity);
                self.text(domain);
            }
        }
        let kept = results.dkim.get(..MAX_SIGNATURES).unwrap_or(&results.dkim);
        self.count(kept.len());
        for SignatureCheck { result, domain, selector, aligned } in kept {
            self.coded(*result);
            self.text(domain);
            self.text(selector);
            self.byte(u8::from(*aligned));
        }
        let Some(check) = &results.dmarc else { return self.byte(tag::NOTHING) };
        let DmarcCheck { result, request, testing, record_at, organization, indirect } = check;
        self.byte(tag::SOMETHING);
        self.optional(*result);
        self.optional(*request);
        self.byte(u8::from(*testing));
        self.text(record_at);
        self.text(organization);
        match indirect {
            None => self.byte(tag::NOTHING),
            Some(Indirect { sign, envelope, rung }) => {
                self.tagged(tag::SOMETHING, *sign);
                self.text(envelope);
                self.coded(*rung);
            }
        }
    }
}

/// Bit 0: less was kept. The bits above, for each finding in turn: [`Authentication::dkim_whole`].
pub(super) fn marks(record: &DecisionRecord, shortened: bool) -> u64 {
    let whole = |finding: &Finding| finding.authentication.as_ref().is_some_and(|results| results.dkim_whole);
    let marked = (1..).zip(record.findings.iter()).filter(|(_, finding)| whole(finding));
    marked.fold(u64::from(shortened), |marks, (at, _)| marks | 1_u64.checked_shl(at).unwrap_or(0))
}

/// The inverse of [`marks`].
pub(in crate::store::history) fn set_marks(record: &mut DecisionRecord, marks: u64) {
    record.whole = marks & 1 == 0;
    let Some(findings) = Arc::get_mut(&mut record.findings) else { return };
    for (at, finding) in (1..64).zip(findings) {
        if let Some(results) = &mut finding.authentication {
            results.dkim_whole = marks >> at & 1 == 1;
        }
    }
}
