//! What the audit says of DMARC: the record that applies, what it comes to over each line, and what is wrong with it.

use serde_json::{Value, json};

use super::{audit, mended, records, serving};

/// Every domain has the MX host at 127.2.0.1, which SPF lets send; 127.9.0.2 has neither.
const OWNERS: &str = r#"$TTL 60
test. IN SOA ns.test. hostmaster.test. 1 1h 10m 1d 60
127.in-addr.arpa. IN SOA ns.test. hostmaster.test. 1 1h 10m 1d 60
mail.hosts.test. IN MX 10 mail.hosts.test.
mail.hosts.test. IN A 127.2.0.1
1.0.2.127.in-addr.arpa. IN PTR mail.hosts.test.
2.0.9.127.in-addr.arpa. IN PTR line2.provider.test.
line2.provider.test. IN A 127.9.0.2

_dmarc.rejects.test. IN TXT "v=DMARC1; " "p=reject; rua=mailto:dmarc@rejects.test"
_dmarc.strict.test. IN TXT "v=DMARC1; p=reject; adkim=s; aspf=s"
_dmarc.quarantines.test. IN TXT "v=DMARC1; p=quarantine"
_dmarc.asksnothing.test. IN TXT "v=DMARC1; p=none; rua=mailto:dmarc@asksnothing.test"
_dmarc.tries.test. IN TXT "v=DMARC1; p=reject; t=y"
_dmarc.hesitates.test. IN TXT "v=DMARC1; p=quarantine; t=y"
_dmarc.company.test. IN TXT "v=DMARC1; p=reject; sp=quarantine"
_dmarc.group.test. IN TXT "v=DMARC1; p=reject"
_dmarc.own.group.test. IN TXT "v=DMARC1; p=none"
_dmarc.twice.test. IN TXT "v=DMARC1; p=reject"
_dmarc.twice.test. IN TXT "v=DMARC1; p=none"
_dmarc.doubled.test. IN TXT "v=DMARC1; p=none; p=reject"
_dmarc.typo.test. IN TXT "v=DMARC1; p=rejct"
_dmarc.lowercase.test. IN TXT "v=dmarc1; p=reject"
_dmarc.broken.company.test. IN TXT "v=DMARC1; p=none; p=reject"
;! servfail _dmarc.down.test. TXT
"#;

/// Domains of the table, each with its MX record and SPF.
const DOMAINS: [&str; 17] = [
    "rejects.test",
    "strict.test",
    "quarantines.test",
    "asksnothing.test",
    "tries.test",
    "hesitates.test",
    "company.test",
    "news.company.test",
    "broken.company.test",
    "news.group.test",
    "own.group.test",
    "twice.test",
    "doubled.test",
    "typo.test",
    "lowercase.test",
    "missing.test",
    "down.test",
];

fn zone() -> String {
    let hosts = DOMAINS.iter().map(|domain| {
        format!("{domain}. IN MX 10 mail.hosts.test.\n{domain}. IN TXT \"v=spf1 ip4:127.2.0.1 ~all\"\n")
    });
    OWNERS.to_owned() + &hosts.collect::<String>()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Domain; the cells of both lines, the words of the report, what must not be there.
#[test]
fn each_record_is_named_with_what_it_comes_to_over_a_line_with_and_without_spf() {
    type Row = (&'static str, [&'static str; 2], &'static [&'static str], &'static [&'static str]);
    let rows: [Row; 17] = [
        (
            "rejects.test",
            ["✓ pass", "! reject unless signed"],
            &[
                "DMARC: _dmarc.rejects.test asks receivers to reject mail that fails (p=reject).",
                "✓ 127.2.0.1: passes by SPF.",
                "! 127.9.0.2: SPF gives softfail, so only a DKIM signature (d=rejects.test or a domain below) makes DMARC pass. \
                 Unless it is signed, DMARC asks receivers to reject it; the default policy refuses it: from dmarc_reject.",
                "✗ reject: from dmarc_reject unless signed",
                "! DMARC asks receivers to reject mail of rejects.test over 127.9.0.2 that is not signed: let SPF pass there, \
                 or sign all mail with DKIM (d=rejects.test or a domain below).",
                "SPF doesn't let 127.9.0.2 send: the new record has a term for each.",
                "rejects.test. 3600 IN TXT \"v=spf1 ip4:127.2.0.1 ip4:127.9.0.2 ~all\"",
            ],
            &["TXT \"v=DMARC1", "the default policy refuses: "],
        ),
        (
            "strict.test",
            ["✓ pass", "! reject unless signed"],
            &["only a DKIM signature (d=strict.test, as adkim=s allows no other) makes DMARC pass."],
            &["a domain below"],
        ),
        (
            "quarantines.test",
            ["✓ pass", "! quarantine unless signed"],
            &[
                "_dmarc.quarantines.test asks receivers to quarantine mail that fails (p=quarantine).",
                "Unless it is signed, DMARC asks receivers to quarantine it. ",
            ],
            &["dmarc_reject", "TXT \"v=DMARC1"],
        ),
        (
            "asksnothing.test",
            ["✓ pass", "- none asked"],
            &[
                "_dmarc.asksnothing.test asks receivers for nothing (p=none): mail that fails is only reported. The next steps \
                 are p=quarantine, then p=reject.",
                "- 127.9.0.2: SPF gives softfail, so only a DKIM signature",
            ],
            &["Unless it is signed", "TXT \"v=DMARC1", "! DMARC"],
        ),
        (
            "tries.test",
            ["✓ pass", "! quarantine unless signed"],
            &[
                "_dmarc.tries.test asks receivers to quarantine mail that fails: p=reject, but with t=y that counts one step \
                 weaker.",
            ],
            &["dmarc_reject"],
        ),
        (
            "hesitates.test",
            ["✓ pass", "- none asked"],
            &["asks receivers for nothing: p=quarantine, but with t=y that counts one step weaker."],
            &["Unless it is signed"],
        ),
        (
            "company.test",
            ["✓ pass", "! reject unless signed"],
            &["_dmarc.company.test asks receivers to reject mail that fails (p=reject)."],
            &["no record of its own"],
        ),
        (
            "news.company.test",
            ["✓ pass", "! quarantine unless signed"],
            &[
                "_dmarc.company.test asks receivers to quarantine mail that fails (sp=quarantine). news.company.test has no \
                 record of its own that counts; one at _dmarc.news.company.test would go before this one.",
                "(d=news.company.test or another domain of the organisation company.test)",
            ],
            &["TXT \"v=DMARC1", "from dmarc_reject"],
        ),
        (
            "broken.company.test",
            ["✓ pass", "! quarantine unless signed"],
            &[
                "_dmarc.company.test asks receivers to quarantine",
                "! The DMARC record at _dmarc.broken.company.test can't be read",
            ],
            &["TXT \"v=DMARC1"],
        ),
        (
            "news.group.test",
            ["✓ pass", "! reject unless signed"],
            &[
                "_dmarc.group.test asks receivers to reject mail that fails (p=reject). news.group.test has no record",
            ],
            &["TXT \"v=DMARC1"],
        ),
        (
            "own.group.test",
            ["✓ pass", "- none asked"],
            &["_dmarc.own.group.test asks receivers for nothing (p=none)", "the organisation group.test)"],
            &["no record of its own"],
        ),
        (
            "twice.test",
            ["- no record", "- no record"],
            &[
                "no record applies to twice.test",
                "! _dmarc.twice.test has 2 DMARC records, which count as none (RFC 9989 4.10): \"v=DMARC1; p=",
                "Join them into one.",
                "- 127.2.0.1: SPF passes, so DMARC can't fail.",
            ],
            &["twice.test has no DMARC record", "TXT \"v=DMARC1"],
        ),
        (
            "doubled.test",
            ["- permerror", "- permerror"],
            &[
                "the record at _dmarc.doubled.test can't be read, so nothing asks receivers to refuse mail",
                "! The DMARC record at _dmarc.doubled.test can't be read, since a tag stands twice or it is too long; it \
                 counts as none: \"v=DMARC1; p=none; p=reject\". Correct it, then audit again.",
            ],
            &["TXT \"v=DMARC1"],
        ),
        (
            "typo.test",
            ["✓ pass", "- none asked"],
            &[
                "! The DMARC record at _dmarc.typo.test has p=rejct, which is not none, quarantine or reject, so it",
            ],
            &["TXT \"v=DMARC1"],
        ),
        (
            "lowercase.test",
            ["- no record", "- no record"],
            &[
                "! The text at _dmarc.lowercase.test is no DMARC record, since that begins with v=DMARC1 in this spelling",
            ],
            &["lowercase.test has no DMARC record", "TXT \"v=DMARC1"],
        ),
        (
            "missing.test",
            ["- no record", "- no record"],
            &[
                "no record applies to missing.test, so nothing asks receivers to refuse mail that others send in its name.",
                "with a record only a DKIM signature (d=missing.test) would make DMARC pass.",
                "p=none comes first, since it refuses no mail of yours",
                "_dmarc.missing.test. 3600 IN TXT \"v=DMARC1; p=none\"",
            ],
            &["_dmarc.missing.test instead"],
        ),
        (
            "down.test",
            ["? temperror", "? temperror"],
            &[
                "whether a record applies to down.test is unknown, as a lookup failed (SERVFAIL).",
                "? The result for 127.9.0.2 is unknown: ",
                "the DMARC record can't be looked up now (SERVFAIL).",
                "! The DMARC record of down.test can't be looked up now (SERVFAIL). Audit again later.",
            ],
            &["no DMARC record", "TXT \"v=DMARC1", "for 127.2.0.1 is unknown"],
        ),
    ];
    let served = serving(&zone());
    for (domain, cells, parts, absent) in rows {
        let run = audit(&served, &format!("{domain} --egress 127.2.0.1 --egress 127.9.0.2"));
        assert_eq!((run.code, run.err.as_str()), (Some(1), ""), "{domain}:\n{}", run.out);
        let header = run.out.lines().find(|line| line.starts_with("ADDRESS")).unwrap();
        let (before, _) = header.split_once("DMARC").unwrap();
        for (address, cell) in ["127.2.0.1", "127.9.0.2"].into_iter().zip(cells) {
            let line = run.out.lines().find(|line| line.starts_with(&format!("{address} "))).unwrap();
            let rest: String = line.chars().skip(before.chars().count()).collect();
            assert!(rest.starts_with(&format!("{cell}  ")), "{domain} {address}: no {cell:?} in {rest:?}");
        }
        let text = words(&run.out.replace("\n; ", " "));
        for part in parts {
            assert!(text.contains(part.trim_end()), "{domain}: no {part:?} in\n{}", run.out);
        }
        for part in absent {
            assert!(!text.contains(part), "{domain}: {part:?} in\n{}", run.out);
        }
    }
}

#[test]
fn a_line_that_only_dmarc_judges_is_no_loss_and_the_condition_is_named() {
    let both = zone().replace("PTR line2.provider.test.", "PTR mail.hosts.test.")
        + "mail.hosts.test. IN A 127.9.0.2\n";
    let served = serving(&both);
    let arguments = "rejects.test --egress 127.2.0.1 --egress 127.9.0.2";
    let run = audit(&served, arguments);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{}", run.out);
    for part in [
        "✓ accepted over both addresses, if it is signed where DMARC needs that.\n",
        "Unless it is signed,",
        "IN TXT \"v=spf1 ip4:127.2.0.1 ip4:127.9.0.2 ~all\"",
    ] {
        assert!(run.out.contains(part), "no {part:?} in\n{}", run.out);
    }
    // The term in the SPF record is all that it takes.
    let mended = mended(&both, &run.out);
    let clean = audit(&serving(&mended), arguments);
    assert_eq!(clean.code, Some(0), "{}", clean.out);
    assert!(clean.out.contains("✓ accepted over both addresses.\n"), "{}", clean.out);
    assert!(records(&clean.out).trim().is_empty() && !clean.out.contains('!'), "{}", clean.out);
}

#[test]
fn a_first_record_is_read_back_as_one_that_asks_for_nothing() {
    let before = serving(&zone());
    let arguments = "missing.test --egress 127.2.0.1";
    let found = audit(&before, arguments);
    let after = serving(&mended(&zone(), &found.out));
    let clean = audit(&after, arguments);
    assert_eq!(clean.code, Some(0), "{}", clean.out);
    assert!(clean.out.contains("_dmarc.missing.test asks receivers for nothing (p=none)"), "{}", clean.out);
    assert!(!clean.out.contains("==="), "{}", clean.out);
}

#[test]
fn the_json_has_the_record_the_request_and_the_condition_of_each_line() {
    let served = serving(&zone());
    let json = |domain: &str| -> Value {
        let run = audit(&served, &format!("{domain} --egress 127.2.0.1 --egress 127.9.0.2 --json"));
        serde_json::from_str(&run.out).unwrap()
    };
    let found = json("news.company.test");
    let mut dmarc = found["dmarc"].clone();
    assert!(dmarc["text"].take().as_str().unwrap().starts_with("_dmarc.company.test asks receivers"));
    assert_eq!(
        dmarc,
        json!({
            "result": "record", "record_at": "company.test", "tag": "sp", "request": "quarantine", "testing": false,
            "in_force": "quarantine", "organization": "company.test", "text": null,
        })
    );
    let [first, second] = found["addresses"].as_array().unwrap().as_slice() else { panic!("{found:#}") };
    assert_eq!((&first["dmarc"], &first["unless_signed"]), (&json!("pass"), &json!([])));
    assert_eq!(
        (&second["dmarc"], &second["unless_signed"]),
        (&json!("unless_signed"), &json!(["DMARC asks receivers to quarantine it"]))
    );
    let rows = [
        ("tries.test", json!(["record", "reject", true, "quarantine"]), ["pass", "unless_signed"]),
        ("twice.test", json!(["none", null, false, null]), ["none", "none"]),
        ("doubled.test", json!(["permerror", null, false, null]), ["permerror", "permerror"]),
        ("down.test", json!(["temperror", null, false, null]), ["temperror", "temperror"]),
    ];
    for (domain, expected, lines) in rows {
        let found = json(domain);
        let dmarc = &found["dmarc"];
        let shown = json!([dmarc["result"], dmarc["request"], dmarc["testing"], dmarc["in_force"]]);
        assert_eq!(shown, expected, "{domain}");
        for (address, line) in found["addresses"].as_array().unwrap().iter().zip(lines) {
            assert_eq!(address["dmarc"], line, "{domain}");
        }
    }
}
