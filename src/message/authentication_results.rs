//! Our own Authentication-Results: (RFC 8601). Of many results or long names several fields are made (RFC 8601 2.2), since
//! readers have limits: OpenDMARC believes nothing of a field that has more than 1024 octets once it is taken apart.
//!
//! Beside `iprev`, `spf`, `dkim` and `dmarc` where they were evaluated, each finding is one entry `x-reverse-mx=RESULT (RUNG or REASON) PROPERTY=DOMAIN`. Programs drop comments, so an
//! entry of the rule `matches` also has `policy.rule=matches`; an entry without it is of the rule `exists`. A `none`
//! for lack of a domain has the value `""`. A DKIM signature has `none (dkim_pending)`: the field is sent before the
//! body has arrived, and it isn't written twice. Domains come from the client. A domain that is no token (RFC 2045 5.1)
//! is written as a quoted string, with `?` for each character that a simple reader could take for the end of the value,
//! for a comment or for another result.

use std::net::IpAddr;

use crate::message::fold::Folded;
use crate::policy::authentication::{SignatureCheck, SpfCheck};
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::Rule;
use crate::smtp::address::DomainName;

const FIELD: &str = "Authentication-Results";
/// Values are cut to this length; names have at most 253 octets.
const MAX_VALUE: usize = 255;
/// Results of one field. OpenDMARC has room for 16.
const MOST_RESULTS: usize = 15;
/// Octets of one field's value by [`weight`]. A result that is larger alone has a field of its own.
const MOST_WEIGHT: usize = 1000;

/// Results of the method `iprev` (RFC 8601 2.7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IprevResult {
    /// A PTR name resolves to the client's address.
    Pass,
    /// No PTR name does, or there is none.
    Fail,
    /// A lookup failed; a later one may succeed.
    TempError,
    /// A lookup failed, and later ones will fail too.
    PermError,
}

impl IprevResult {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// The result of `iprev` for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Iprev {
    pub result: IprevResult,
    pub client: IpAddr,
}

/// The fields, each with its CRLF, mostly one; `; none` if nothing was evaluated (RFC 8601 2.2).
#[must_use]
pub fn authentication_results(
    authserv_id: &DomainName,
    iprev: Option<Iprev>,
    findings: &[Finding],
) -> Vec<Vec<u8>> {
    let mut results: Vec<Words> = findings.iter().map(reverse_mx).collect();
    methods(&mut results, findings);
    if let Some(Iprev { result, client }) = iprev {
        results.push(vec![
            format!("iprev={}", result.name()),
            format!("policy.iprev={}", value(&client.to_canonical().to_string())),
        ]);
    }
    if results.is_empty() {
        let mut field = Folded::new(FIELD, authserv_id.as_str());
        field.glue(";");
        field.word("none");
        return vec![field.finish()];
    }
    let (mut fields, mut rest) = (Vec::new(), results.as_slice());
    while !rest.is_empty() {
        let (these, behind) = rest.split_at_checked(fitting(authserv_id, rest)).unwrap_or((rest, &[]));
        fields.push(field(authserv_id, these));
        rest = behind;
    }
    fields
}

/// One result; its first word begins a line.
type Words = Vec<String>;

fn field(authserv_id: &DomainName, results: &[Words]) -> Vec<u8> {
    let mut field = Folded::new(FIELD, authserv_id.as_str());
    for result in results {
        field.glue(";");
        let mut words = result.iter();
        if let Some(first) = words.next() {
            field.line(first);
        }
        words.for_each(|word| field.word(word));
    }
    field.finish()
}

/// How many of the results go into one field.
fn fitting(authserv_id: &DomainName, results: &[Words]) -> usize {
    let mut sum = weight(authserv_id.as_str());
    let fits = |result: &&Words| {
        sum += weight(";") + result.iter().map(|word| weight(word)).sum::<usize>();
        sum <= MOST_WEIGHT
    };
    results.iter().take(MOST_RESULTS).take_while(fits).count().max(1)
}

/// Octets of a word for a reader that ends each word, and each sign between two words, with a NUL.
fn weight(word: &str) -> usize {
    word.len() + 1 + 2 * word.bytes().filter(|byte| b";=.".contains(byte)).count()
}

fn reverse_mx(finding: &Finding) -> Words {
    let mut words = vec![
        format!("x-reverse-mx={}", finding.outcome.word()),
        format!("({})", because(finding.outcome)),
        format!("{}={}", finding.identity.property(), value(&finding.domain)),
    ];
    if finding.rule == Rule::Matches {
        words.push(format!("policy.rule={}", finding.rule));
    }
    words
}

/// SPF, DKIM and DMARC, as far as they were evaluated (RFC 8601 2.7.1, 2.7.2; RFC 9989 9), each result once.
fn methods(written: &mut Vec<Words>, findings: &[Finding]) {
    let results =
        || findings.iter().filter_map(|finding| Some((finding, finding.authentication.as_deref()?)));
    let mut shown: Vec<&SpfCheck> = Vec::new();
    for check in results().filter_map(|(_, results)| results.spf.as_ref()) {
        // RFC 8601 has a property for these two only.
        let described = matches!(check.identity, Identity::MailFrom | Identity::Helo);
        let known = |other: &&SpfCheck| (other.identity, &other.domain) == (check.identity, &check.domain);
        if described && !shown.iter().any(known) {
            written.push(vec![
                format!("spf={}", check.result),
                format!("{}={}", check.identity.property(), value(&check.domain)),
            ]);
            shown.push(check);
        }
    }
    let mut shown: Vec<&SignatureCheck> = Vec::new();
    for check in results().flat_map(|(_, results)| &results.dkim) {
        let known = |other: &&SignatureCheck| {
            (&other.domain, &other.selector, other.result) == (&check.domain, &check.selector, check.result)
        };
        if !shown.iter().any(known) {
            written.push(vec![
                format!("dkim={}", check.result.name()),
                format!("header.d={}", value(&check.domain)),
                format!("header.s={}", value(&check.selector)),
            ]);
            shown.push(check);
        }
    }
    for (finding, results) in results() {
        let Some((check, result)) = results.dmarc.as_ref().and_then(|check| Some((check, check.result?)))
        else {
            continue;
        };
        let mut words = vec![format!("dmarc={}", result.name())];
        if let Some(request) = check.request {
            let testing = if check.testing { ", test mode" } else { "" };
            let indirect = if check.indirect.is_some() { ", indirect" } else { "" };
            words.push(format!("({request}{testing}{indirect})"));
        }
        words.push(format!("header.from={}", value(&finding.domain)));
        written.push(words);
    }
}

fn because(outcome: RuleResult) -> &'static str {
    match outcome {
        RuleResult::Pass(rung) => rung.name(),
        RuleResult::Fail(reason) => reason.name(),
        RuleResult::TempError(_) => Reason::DnsError.name(),
        RuleResult::None(Absence::NotGiven) => "not_given",
        RuleResult::None(Absence::Exempt) => "exempt",
        RuleResult::None(Absence::AwaitsBody) => "dkim_pending",
    }
}

/// `value` of RFC 2045 5.1: a token if possible, otherwise a quoted string.
fn value(text: &str) -> String {
    if !text.is_empty() && text.len() <= MAX_VALUE && text.bytes().all(is_token_octet) {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for byte in text.bytes().take(MAX_VALUE) {
        match byte {
            b'"' | b'\\' | b';' | b'=' | b'(' | b')' => quoted.push('?'),
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

fn is_token_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::evidence::DnsFailure;
    use crate::message::forged_results::without_own_results;
    use crate::policy::identity::Identity;
    use crate::policy::rule::Rung;

    fn finding(identity: Identity, rule: Rule, domain: &str, outcome: RuleResult) -> Finding {
        Finding::new(identity, rule, domain, domain, outcome)
    }

    fn written(iprev: Option<Iprev>, findings: &[Finding]) -> String {
        let id = DomainName::parse("gate.relay.test").unwrap();
        String::from_utf8(authentication_results(&id, iprev, findings).concat()).unwrap()
    }

    #[test]
    fn many_results_and_long_names_make_several_fields() {
        let several = |count: usize, domain: &str| {
            let one = finding(Identity::Ptr, Rule::Exists, domain, RuleResult::Fail(Reason::NoMx));
            let iprev = Some(Iprev { result: IprevResult::Pass, client: "127.0.0.10".parse().unwrap() });
            let id = DomainName::parse("gate.relay.test").unwrap();
            authentication_results(&id, iprev, &vec![one; count - 1])
        };
        let long = ["d".repeat(60).as_str(); 4].join(".");
        let dots = ["d"; 100].join(".");
        // results, their domain, fields
        for (count, domain, fields) in [
            (1, "a.test", 1),
            (8, "a.test", 1),
            (15, "", 1),
            (16, "", 2),
            (30, "", 2),
            (31, "", 3),
            (9, &long, 3),
            (9, &dots, 4),
        ] {
            let made = several(count, domain);
            assert_eq!(made.len(), fields, "{count} {domain}");
            let mut written = 0;
            for field in made {
                let text = String::from_utf8(field).unwrap();
                let value = text.strip_prefix("Authentication-Results: gate.relay.test;").unwrap();
                assert!(value.ends_with("\r\n") && !value.contains("\r\nA"), "{text}");
                let apart = value.split_whitespace().map(weight).sum::<usize>();
                assert!(apart <= MOST_WEIGHT, "{apart} {text}");
                written += value.split(';').count();
            }
            assert_eq!(written, count, "{domain}");
        }
    }

    #[test]
    fn each_finding_is_one_entry() {
        use Identity::{From, Helo, MailFrom, Ptr, ReplyTo};
        use Rule::{Exists, Matches};
        let rows = [
            (
                MailFrom,
                Exists,
                "several.test",
                RuleResult::Pass(Rung::Mx),
                "pass (mx) smtp.mailfrom=several.test",
            ),
            (
                MailFrom,
                Matches,
                "several.test",
                RuleResult::Pass(Rung::Mx),
                "pass (mx) smtp.mailfrom=several.test policy.rule=matches",
            ),
            (From, Exists, "nomx.test", RuleResult::Fail(Reason::NoMx), "fail (no_mx) header.from=nomx.test"),
            (
                Helo,
                Matches,
                "h.test",
                RuleResult::Fail(Reason::NotAnExchanger),
                "fail (not_an_exchanger) smtp.helo=h.test policy.rule=matches",
            ),
            (
                Ptr,
                Exists,
                "p.test",
                RuleResult::TempError(DnsFailure::Timeout),
                "temperror (dns_error) policy.ptr=p.test",
            ),
            (
                ReplyTo,
                Exists,
                "",
                RuleResult::None(Absence::NotGiven),
                "none (not_given) header.reply-to=\"\"",
            ),
            (From, Exists, "x.test", RuleResult::None(Absence::Exempt), "none (exempt) header.from=x.test"),
            (
                From,
                Exists,
                "[127.0.0.1]",
                RuleResult::Fail(Reason::InvalidDomain),
                "fail (invalid_domain) header.from=\"[127.0.0.1]\"",
            ),
            (
                Helo,
                Exists,
                "a\"b\\\r\n; x=(y)\u{e9}",
                RuleResult::Fail(Reason::InvalidDomain),
                "fail (invalid_domain) smtp.helo=\"a?b???? x??y???\"",
            ),
        ];
        for (identity, rule, domain, outcome, expected) in rows {
            assert_eq!(
                written(None, &[finding(identity, rule, domain, outcome)]),
                format!("Authentication-Results: gate.relay.test;\r\n\tx-reverse-mx={expected}\r\n")
            );
        }
    }

    #[test]
    fn entries_are_separated_by_semicolons_and_folded() {
        let iprev = |result, client: &str| Some(Iprev { result, client: client.parse().unwrap() });
        assert_eq!(written(None, &[]), "Authentication-Results: gate.relay.test; none\r\n");
        assert_eq!(
            written(iprev(IprevResult::Fail, "2001:db8::1"), &[]),
            "Authentication-Results: gate.relay.test;\r\n\tiprev=fail policy.iprev=\"2001:db8::1\"\r\n"
        );
        let domain = ["d".repeat(50).as_str(); 4].join(".");
        let found = [
            finding(Identity::MailFrom, Rule::Exists, &domain, RuleResult::Pass(Rung::Mx)),
            finding(Identity::From, Rule::Exists, "a.test", RuleResult::Pass(Rung::Address)),
        ];
        assert_eq!(
            written(iprev(IprevResult::Pass, "::ffff:127.0.0.10"), &found),
            format!(
                "Authentication-Results: gate.relay.test;\r\n\
                 \tx-reverse-mx=pass (mx)\r\n\
                 \tsmtp.mailfrom={domain};\r\n\
                 \tx-reverse-mx=pass (address) header.from=a.test;\r\n\
                 \tiprev=pass policy.iprev=127.0.0.10\r\n"
            )
        );
    }

    #[test]
    fn spf_dkim_and_dmarc_are_written_where_they_were_evaluated() {
        use crate::policy::authentication::{
            Authentication, DmarcCheck, DmarcResult, Indirect, Request, SignatureResult, SpfResult, WaySign,
        };
        let spf = |result, identity, domain: &str| Some(SpfCheck { result, identity, domain: domain.into() });
        let signature = |result, domain: &str, aligned| SignatureCheck {
            result,
            domain: domain.into(),
            selector: "key;1".into(),
            aligned,
        };
        let dmarc = |result, request, testing, indirect| DmarcCheck {
            result,
            request,
            testing,
            record_at: "d.test".into(),
            organization: "d.test".into(),
            indirect,
        };
        let with = |identity, results: Authentication| Finding {
            authentication: Some(Box::new(results)),
            ..finding(identity, Rule::Matches, "d.test", RuleResult::Pass(Rung::Mx))
        };
        let none = Authentication::default;
        let written = |findings: &[Finding]| {
            let text = written(None, findings).replace("\r\n\t", " ").replace("\r\n", "");
            let own = |result: &&str| !result.trim_start().starts_with("x-reverse-mx");
            text.split(';').skip(1).filter(own).map(|result| result.trim().to_owned()).collect::<Vec<_>>()
        };
        let list = Indirect { sign: WaySign::ListId, envelope: "lists.test".into(), rung: Rung::Spf };
        let rows = [
            (vec![with(Identity::MailFrom, none())], vec![]),
            // once, however many findings needed it; RFC 8601 has a property for MAIL FROM and HELO only
            (
                vec![
                    with(
                        Identity::MailFrom,
                        Authentication { spf: spf(SpfResult::Pass, Identity::MailFrom, "d.test"), ..none() },
                    ),
                    with(
                        Identity::From,
                        Authentication { spf: spf(SpfResult::Pass, Identity::MailFrom, "d.test"), ..none() },
                    ),
                    with(
                        Identity::From,
                        Authentication { spf: spf(SpfResult::Fail, Identity::From, "d.test"), ..none() },
                    ),
                    with(
                        Identity::Helo,
                        Authentication { spf: spf(SpfResult::SoftFail, Identity::Helo, "h.test"), ..none() },
                    ),
                ],
                vec!["spf=pass smtp.mailfrom=d.test", "spf=softfail smtp.helo=h.test"],
            ),
            (
                vec![with(
                    Identity::From,
                    Authentication {
                        dkim_whole: false,
                        dkim: vec![
                            signature(SignatureResult::Pass, "d.test", true),
                            signature(SignatureResult::Pass, "d.test", true),
                            signature(SignatureResult::Fail, "e.test", false),
                        ],
                        dmarc: Some(dmarc(Some(DmarcResult::Pass), Some(Request::Reject), false, None)),
                        spf: None,
                    },
                )],
                vec![
                    "dkim=pass header.d=d.test header.s=\"key?1\"",
                    "dkim=fail header.d=e.test header.s=\"key?1\"",
                    "dmarc=pass (reject) header.from=d.test",
                ],
            ),
            (
                vec![
                    with(
                        Identity::From,
                        Authentication {
                            dkim_whole: false,
                            dmarc: Some(dmarc(
                                Some(DmarcResult::Fail),
                                Some(Request::Reject),
                                true,
                                Some(list),
                            )),
                            ..none()
                        },
                    ),
                    with(
                        Identity::From,
                        Authentication {
                            dkim_whole: false,
                            dmarc: Some(dmarc(Some(DmarcResult::None), None, false, None)),
                            ..none()
                        },
                    ),
                    with(
                        Identity::From,
                        Authentication {
                            dkim_whole: false,
                            dmarc: Some(dmarc(None, Some(Request::None), false, None)),
                            ..none()
                        },
                    ),
                ],
                vec![
                    "dmarc=fail (reject, test mode, indirect) header.from=d.test",
                    "dmarc=none header.from=d.test",
                ],
            ),
        ];
        for (findings, expected) in rows {
            assert_eq!(written(&findings), expected);
        }
    }

    #[test]
    fn our_own_field_is_removed_from_a_message_that_comes_back() {
        let own =
            written(None, &[finding(Identity::From, Rule::Exists, "a.test", RuleResult::Pass(Rung::Mx))]);
        let block = format!("{own}stray line\r\nX: y\r\n{own}");
        assert_eq!(&*without_own_results(block.as_bytes(), "gate.relay.test"), b"stray line\r\nX: y\r\n");
    }

    proptest! {
        #[test]
        fn no_domain_breaks_out_of_its_value(domain in any::<String>()) {
            let found = finding(Identity::From, Rule::Exists, &domain, RuleResult::Fail(Reason::InvalidDomain));
            let field = written(None, &[found]);
            let (_, value) = field.split_once("header.from=").unwrap();
            let value = value.strip_suffix("\r\n").unwrap();
            prop_assert!(value.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            if let Some(inner) = value.strip_prefix('"') {
                let inner = inner.strip_suffix('"').unwrap();
                prop_assert!(!inner.contains(['"', '\\', ';', '=', '(', ')']));
            } else {
                prop_assert!(!value.is_empty() && value.bytes().all(is_token_octet));
            }
        }
    }
}
