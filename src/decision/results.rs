//! What SPF, DKIM and DMARC came to, as JSON.

use compact_str::CompactString;
use serde_json::{Value, json};

use crate::policy::authentication::{DmarcCheck, DmarcResult, Request, SignatureCheck, SpfCheck};
use crate::smtp::escape::Escaped;

pub(super) fn spf_json(check: &SpfCheck) -> Value {
    json!({
        "result": check.result.name(),
        "identity": check.identity.name(),
        "domain": Escaped::new(check.domain.as_str()).to_string(),
    })
}

pub(super) fn signature_json(check: &SignatureCheck) -> Value {
    json!({
        "result": check.result.name(),
        "domain": check.domain.as_str(),
        "selector": check.selector.as_str(),
        "aligned": check.aligned,
    })
}

pub(super) fn dmarc_json(check: &DmarcCheck) -> Value {
    let named = |text: &CompactString| (!text.is_empty()).then(|| text.to_string());
    json!({
        "result": check.result.map(DmarcResult::name),
        "request": check.request.map(Request::name),
        "testing": check.testing,
        "record_at": named(&check.record_at),
        "organization": named(&check.organization),
        "indirect": check.indirect.as_ref().map(ToString::to_string),
    })
}
