//! What `explain` and `check` say of a finding beside its result and its DNS answers: the entry of `policy.senders`, SPF, DKIM,
//! and what the owner of the domain asks for.

use crate::policy::authentication::{DmarcCheck, DmarcResult, SignatureCheck, SpfCheck};
use crate::policy::finding::Finding;

/// One line each.
pub(super) fn of(finding: &Finding) -> Vec<String> {
    let mut notes: Vec<String> = finding.entry.iter().map(|entry| format!("rule: {entry}")).collect();
    let Some(results) = &finding.authentication else { return notes };
    notes.extend(results.spf.iter().map(spf));
    notes.extend(results.dkim.iter().map(signature));
    if results.dmarc.as_ref().is_some_and(|check| check.result == Some(DmarcResult::Fail)) {
        let missing = [
            (results.spf.is_none(), "spf: not asked, the sender of the envelope is not aligned"),
            (results.dkim.is_empty(), "dkim: no signature of the organisation"),
        ];
        notes.extend(missing.into_iter().filter(|(missing, _)| *missing).map(|(_, note)| note.to_owned()));
    }
    if let Some(check) = &results.dmarc {
        notes.push(dmarc(check));
        notes.extend(check.indirect.iter().map(|indirect| format!("indirect: {indirect}")));
    }
    notes
}

fn spf(check: &SpfCheck) -> String {
    format!("spf: {} ({} {})", check.result, check.identity, check.domain)
}

fn signature(check: &SignatureCheck) -> String {
    let SignatureCheck { result, domain, selector, aligned } = check;
    let aligned = if *aligned { "aligned" } else { "not aligned" };
    format!("dkim: {} (d {domain}, s {selector}, {aligned})", result.name())
}

/// `dmarc: fail, _dmarc.bank.test asks for reject (t=y: quarantine)`.
fn dmarc(check: &DmarcCheck) -> String {
    let result = check.result.map_or("not evaluated", DmarcResult::name);
    let Some(request) = check.request else {
        let why = match check.result {
            Some(DmarcResult::PermError) => "the record can't be read",
            Some(DmarcResult::TempError) => "the record can't be looked up now",
            Some(DmarcResult::Pass | DmarcResult::Fail | DmarcResult::None) | None => "no record",
        };
        return format!("dmarc: {result}, {why}");
    };
    let asks = match request.name() {
        "none" => "asks for nothing".to_owned(),
        request => format!("asks for {request}"),
    };
    let weakened = if check.testing { format!(" (t=y: {})", check.in_force()) } else { String::new() };
    let organization = match check.organization.as_str() {
        "" => String::new(),
        name => format!(", organisation {name}"),
    };
    format!("dmarc: {result}, _dmarc.{} {asks}{weakened}{organization}", check.record_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::authentication::{
        Authentication, Indirect, Request, SignatureResult, SpfResult, WaySign,
    };
    use crate::policy::finding::RuleResult;
    use crate::policy::identity::Identity;
    use crate::policy::reason::Reason;
    use crate::policy::rule::{Rule, Rung};
    use crate::policy::senders::Entry;

    #[test]
    fn a_finding_says_which_entry_and_which_results_it_rests_on() {
        let finding = Finding::new(
            Identity::From,
            Rule::Matches,
            "a.bank.test",
            "x@a.bank.test",
            RuleResult::Fail(Reason::DmarcQuarantine),
        );
        assert!(of(&finding).is_empty());
        let check = DmarcCheck {
            result: Some(DmarcResult::Fail),
            request: Some(Request::Reject),
            testing: false,
            record_at: "bank.test".into(),
            organization: "bank.test".into(),
            indirect: Some(Indirect {
                sign: WaySign::ListId,
                envelope: "lists.test".into(),
                rung: Rung::Spf,
            }),
        };
        let results = Authentication {
            dkim_whole: false,
            spf: Some(SpfCheck {
                result: SpfResult::Fail,
                identity: Identity::MailFrom,
                domain: "out.bank.test".into(),
            }),
            dkim: vec![SignatureCheck {
                result: SignatureResult::Fail,
                domain: "bank.test".into(),
                selector: "k1".into(),
                aligned: true,
            }],
            dmarc: Some(check.clone()),
        };
        let entry = Some(Entry::new("policy.senders 2: .bank.test"));
        let whole = Finding { entry, authentication: Some(Box::new(results)), ..finding };
        assert_eq!(
            of(&whole),
            [
                "rule: policy.senders 2: .bank.test",
                "spf: fail (mail_from out.bank.test)",
                "dkim: fail (d bank.test, s k1, aligned)",
                "dmarc: fail, _dmarc.bank.test asks for reject, organisation bank.test",
                "indirect: list-id, envelope lists.test by spf",
            ]
        );
        let nothing = Authentication { dmarc: Some(check.clone()), ..Authentication::default() };
        let bare = Finding { entry: None, authentication: Some(Box::new(nothing)), ..whole };
        assert_eq!(
            of(&bare)[..2],
            [
                "spf: not asked, the sender of the envelope is not aligned",
                "dkim: no signature of the organisation",
            ]
        );
        let rows = [
            (
                DmarcCheck { testing: true, ..check.clone() },
                "dmarc: fail, _dmarc.bank.test asks for reject (t=y: quarantine), organisation bank.test",
            ),
            (
                DmarcCheck {
                    result: None,
                    request: Some(Request::None),
                    organization: "".into(),
                    ..check.clone()
                },
                "dmarc: not evaluated, _dmarc.bank.test asks for nothing",
            ),
            (
                DmarcCheck { result: Some(DmarcResult::None), request: None, ..check.clone() },
                "dmarc: none, no record",
            ),
            (
                DmarcCheck { result: Some(DmarcResult::PermError), request: None, ..check.clone() },
                "dmarc: permerror, the record can't be read",
            ),
            (
                DmarcCheck { result: Some(DmarcResult::TempError), request: None, ..check },
                "dmarc: temperror, the record can't be looked up now",
            ),
        ];
        for (check, expected) in rows {
            assert_eq!(dmarc(&check), expected);
        }
    }
}
