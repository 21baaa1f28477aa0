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
    let Some(request) = check.request else { return format!("dmarc: {result}, no record that can be read") };
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
