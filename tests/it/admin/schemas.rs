//! What the API answers is what its OpenAPI document says: decisions with all that a finding can have, and audits.

use rmxd::zone::Zone;
use serde_json::Value;

use super::Site;
use crate::support::schema::conforms;

const OWNERS: &str = "_dmarc.good.test. 60 IN TXT \"v=DMARC1; p=reject; t=y\"\n\
                      _dmarc.nomx.test. 60 IN TXT \"v=DMARC1; p=none; p=reject\"\n";
const SENDERS: &str =
    "[[policy.senders]]\ndomains = [\"bank.test\"]\nmatches = \"reject\"\nmatches_by = [\"mx\", \"spf\"]\n";

/// The schema of a 200 of this path.
fn schema<'a>(document: &'a Value, path: &str) -> &'a Value {
    &document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_and_audits_are_as_the_document_says() {
    let site = Site::start(SENDERS).await;
    let mut zone = Zone::sample();
    zone.merge(Zone::parse(OWNERS, None).unwrap());
    site.zone.replace(zone);
    let document = site.json("/api/v1/openapi.json").await;
    let status = site.json("/api/v1/status").await;
    conforms(&document, schema(&document, "/api/v1/status"), &status).unwrap_or_else(|what| panic!("{what}"));
    let mut shown = Vec::new();
    for query in [
        "client=127.0.0.10&mail_from=a@good.test&from=a@good.test",
        "client=127.9.0.2&mail_from=a@good.test&from=a@good.test",
        "client=127.9.0.2&mail_from=a@bank.test&from=a@bank.test&reply_to=a@bank.test",
        "client=127.9.0.2&mail_from=a@nomx.test&from=a@nomx.test",
        "client=127.0.0.22&mail_from=a@broken.test&from=a@broken.test",
    ] {
        let answer = site.json(&format!("/api/v1/check?{query}")).await;
        conforms(&document, schema(&document, "/api/v1/check"), &answer)
            .unwrap_or_else(|what| panic!("{query}: {what}"));
        for finding in answer["findings"].as_array().unwrap() {
            shown.extend(finding["entry"].as_str().map(str::to_owned));
            shown.extend(finding["spf"]["result"].as_str().map(|result| format!("spf {result}")));
            let dmarc = &finding["dmarc"];
            if dmarc.is_object() {
                shown.push(format!("dmarc {} {} {}", dmarc["result"], dmarc["request"], dmarc["testing"]));
            }
        }
    }
    for expected in [
        "policy.senders 1: bank.test",
        "dmarc \"fail\" \"reject\" true",
        "dmarc \"permerror\" null false",
        "dmarc \"temperror\" null false",
    ] {
        assert!(shown.iter().any(|one| one == expected), "no {expected} in {shown:?}");
    }
    assert!(shown.iter().any(|one| one.starts_with("spf ")), "{shown:?}");
    for query in [
        "domain=good.test&egress=127.0.0.10&egress=127.0.0.99",
        "domain=nomx.test&egress=127.0.0.12",
        "domain=bank.test&egress=127.0.0.12",
        "domain=broken.test&egress=127.0.0.22",
    ] {
        let answer = site.json(&format!("/api/v1/audit?{query}")).await;
        conforms(&document, schema(&document, "/api/v1/audit"), &answer)
            .unwrap_or_else(|what| panic!("{query}: {what}"));
    }
    // The test can fail.
    let answer = site.json("/api/v1/check?client=127.0.0.10&mail_from=a@good.test").await;
    for (place, wrong) in [
        ("/findings/0/rule", Value::from("is")),
        ("/findings/0/evidence", Value::Null),
        ("/findings/0/spf", Value::from(1)),
        ("/findings/0", serde_json::json!({ "identity": "ptr" })),
        ("/verdict", Value::Null),
    ] {
        let mut spoiled = answer.clone();
        *spoiled.pointer_mut(place).unwrap() = wrong;
        assert!(conforms(&document, schema(&document, "/api/v1/check"), &spoiled).is_err(), "{place}");
    }
}
