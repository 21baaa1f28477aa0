//! The trace fields Received: and Return-Path: (RFC 5321 4.4), each as octets that end in CRLF.
//!
//! Values from the client (the HELO argument, the recipient) are written only in a form that can't be taken for another
//! part of the field: without parentheses, semicolons and line ends. A HELO argument that is neither a name nor an
//! address literal is written with `?` for each unsafe character. It isn't left out, since investigators look for it.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use mail_parser::DateTime;

use crate::message::fold::Folded;
use crate::smtp::address::{Domain, DomainName, ForwardPath, ReversePath};

/// Most octets that rmxd adds to a message: one Received:, and Authentication-Results: with two rules for each of
/// helo, ptr, mail_from and the five domains that From: and Reply-To: may have.
pub const MOST_ADDED: u64 = 20 * 1024;

/// Text from outside is cut to this length; names have at most 253 octets.
const MAX_WORD: usize = 255;

/// The words of the `with` clause (RFC 3848, RFC 6531 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HELO.
    Smtp,
    /// EHLO.
    Esmtp,
    /// EHLO, over TLS.
    Esmtps,
    /// EHLO, and the transaction uses SMTPUTF8.
    Utf8Smtp,
    /// EHLO over TLS, and the transaction uses SMTPUTF8.
    Utf8Smtps,
}

impl Protocol {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "SMTP",
            Self::Esmtp => "ESMTP",
            Self::Esmtps => "ESMTPS",
            Self::Utf8Smtp => "UTF8SMTP",
            Self::Utf8Smtps => "UTF8SMTPS",
        }
    }
}

/// The content of a Received: field.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The argument of HELO or EHLO, as received.
    pub helo: &'a str,
    /// The client's PTR name, if it is forward-confirmed.
    pub ptr: Option<&'a DomainName>,
    pub client: IpAddr,
    /// Our own name.
    pub by: &'a DomainName,
    pub protocol: Protocol,
    /// TLS version and cipher, in words that need no escaping.
    pub tls: Option<&'a str>,
    /// The id of the transaction.
    pub id: &'a str,
    /// The recipient, if there is exactly one: with more, the field would disclose a blind copy (RFC 5321 7.2).
    pub recipient: Option<&'a ForwardPath>,
    pub at: SystemTime,
}

impl Received<'_> {
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut field = Folded::new("Received", "from");
        field.word(&helo_word(self.helo));
        field.word(&format!("({}", self.ptr.map_or("unknown", DomainName::as_str)));
        field.word(&format!("{})", address_literal(self.client)));
        if let Some(tls) = self.tls {
            field.line(&format!("(using {tls})"));
        }
        field.line("by");
        for word in [self.by.as_str(), "with", self.protocol.name(), "id", &safe_word(self.id)] {
            field.word(word);
        }
        match self.recipient.and_then(safe_recipient) {
            None => field.glue(";"),
            Some(recipient) => {
                field.line("for");
                field.word(&format!("<{recipient}>;"));
            }
        }
        field.line(&date(self.at));
        field.finish()
    }
}

/// `Return-Path: <...>`, as the system that makes the final delivery writes it.
#[must_use]
pub fn return_path(path: &ReversePath) -> Vec<u8> {
    let text = path.to_string().replace(char::is_control, "?");
    format!("Return-Path: <{text}>\r\n").into_bytes()
}

/// A date in UTC (RFC 5322 3.3); a clock before 1970 counts as 1970.
fn date(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DateTime::from_timestamp(i64::try_from(seconds).unwrap_or(0)).to_rfc822()
}

/// `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 4.1.3).
fn address_literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    }
}

/// A name or an address literal stays as it is; other text is made safe.
fn helo_word(helo: &str) -> String {
    match Domain::parse(helo) {
        Ok(Domain::Name(name)) => name.as_str().to_owned(),
        Ok(Domain::Literal(literal))
            if literal.bytes().all(|byte| is_safe(byte) || b"[:]".contains(&byte)) =>
        {
            literal.into()
        }
        Ok(Domain::Literal(_)) | Err(_) => safe_word(helo),
    }
}

/// One word of letters, digits, dots, hyphens and underscores, with `?` for any other character.
fn safe_word(text: &str) -> String {
    if text.is_empty() {
        return "unknown".to_owned();
    }
    text.bytes().take(MAX_WORD).map(|byte| if is_safe(byte) { char::from(byte) } else { '?' }).collect()
}

fn is_safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_".contains(&byte)
}

/// A recipient that can't be misread inside the field. `None` for local parts that are quoted, internationalised or
/// very long, and for those with an equals sign, which looks like a result.
fn safe_recipient(path: &ForwardPath) -> Option<String> {
    let text = path.to_string();
    let graphic = |byte: u8| byte.is_ascii_graphic() && !b"\"\\(),;<>=".contains(&byte);
    let safe = text.len() <= MAX_WORD && text.bytes().all(graphic);
    safe.then_some(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use compact_str::CompactString;
    use proptest::prelude::*;

    use super::*;
    use crate::message::authentication_results::{Iprev, IprevResult, authentication_results};
    use crate::policy::authentication::{
        Authentication, DmarcCheck, DmarcResult, Indirect, Request, SpfCheck, SpfResult, WaySign,
    };
    use crate::policy::finding::{Finding, RuleResult};
    use crate::policy::identity::Identity::{From, Helo, MailFrom, Ptr, ReplyTo};
    use crate::policy::reason::Reason;
    use crate::policy::rule::Rule::{Exists, Matches};
    use crate::policy::rule::Rung;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn received(helo: &str, ptr: Option<&str>, client: &str, recipient: Option<&str>) -> String {
        let ptr = ptr.map(name);
        let recipient = recipient.map(|text| ForwardPath::parse(text).unwrap());
        let field = Received {
            helo,
            ptr: ptr.as_ref(),
            client: client.parse().unwrap(),
            by: &name("gate.relay.test"),
            protocol: Protocol::Esmtp,
            tls: None,
            id: "4KXN7Q2M",
            recipient: recipient.as_ref(),
            at: UNIX_EPOCH + Duration::from_secs(1_795_413_600),
        };
        String::from_utf8(field.to_bytes()).unwrap()
    }

    #[test]
    fn the_fields_are_never_longer_than_the_room_reserved_for_them() {
        let long_name = ["n".repeat(63), "n".repeat(63), "n".repeat(63), "n".repeat(61)].join(".");
        let long_recipient = format!("{}@{long_name}", "r".repeat(64));
        let recipient = ForwardPath::parse(&long_recipient).ok();
        let client = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        let received = Received {
            helo: &"h".repeat(2000),
            ptr: Some(&name(&long_name)),
            client,
            by: &name(&long_name),
            protocol: Protocol::Utf8Smtps,
            tls: Some("TLSv1.2 with cipher TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
            id: "4KXN7Q2M",
            recipient: recipient.as_ref(),
            at: UNIX_EPOCH,
        };
        let identities = [Helo, Ptr, MailFrom].into_iter().chain([From; 5]).chain([ReplyTo; 5]);
        let findings: Vec<Finding> = identities
            .flat_map(|identity| [(identity, Exists), (identity, Matches)])
            .map(|(identity, rule)| {
                let longest = "\"".repeat(2000);
                let results = Authentication {
                    dkim_whole: false,
                    spf: Some(SpfCheck {
                        result: SpfResult::TempError,
                        identity,
                        domain: long_name.as_str().into(),
                    }),
                    dkim: Vec::new(), // the body is still to come
                    dmarc: (identity == From).then(|| DmarcCheck {
                        result: Some(DmarcResult::PermError),
                        request: Some(Request::Quarantine),
                        testing: true,
                        record_at: CompactString::default(),
                        organization: CompactString::default(),
                        indirect: Some(Indirect {
                            sign: WaySign::ListId,
                            envelope: CompactString::default(),
                            rung: Rung::Mx,
                        }),
                    }),
                };
                let authentication = (rule == Matches).then(|| Box::new(results));
                let reason = RuleResult::Fail(Reason::MxUnresolvable);
                Finding { authentication, ..Finding::new(identity, rule, &longest, "", reason) }
            })
            .collect();
        let iprev = Some(Iprev { result: IprevResult::TempError, client });
        let results = authentication_results(&name(&long_name), iprev, &findings).concat();
        let added = (received.to_bytes().len() + results.len()) as u64;
        assert!((MOST_ADDED / 2..=MOST_ADDED).contains(&added), "{added}");
    }

    #[test]
    fn received_names_the_client_and_us() {
        assert_eq!(
            received("Mail.good.test", Some("mail.good.test"), "127.0.0.10", Some("user@relay.test")),
            "Received: from mail.good.test (mail.good.test [127.0.0.10])\r\n\
             \tby gate.relay.test with ESMTP id 4KXN7Q2M\r\n\
             \tfor <user@relay.test>;\r\n\
             \tMon, 23 Nov 2026 06:00:00 +0000\r\n"
        );
        assert_eq!(
            received("[IPv6:::1]", None, "::1", None),
            "Received: from [IPv6:::1] (unknown [IPv6:::1])\r\n\
             \tby gate.relay.test with ESMTP id 4KXN7Q2M;\r\n\
             \tMon, 23 Nov 2026 06:00:00 +0000\r\n"
        );
    }

    #[test]
    fn received_names_the_tls_version_and_cipher() {
        let field = Received {
            helo: "h.test",
            ptr: None,
            client: "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap(),
            by: &name("gate.relay.test"),
            protocol: Protocol::Esmtps,
            tls: Some("TLSv1.2 with cipher TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
            id: "4KXN7Q2M",
            recipient: None,
            at: UNIX_EPOCH,
        };
        let text = String::from_utf8(field.to_bytes()).unwrap();
        assert_eq!(
            text,
            "Received: from h.test (unknown [IPv6:2001:db8:1111:2222:3333:4444:5555:6666])\r\n\
             \t(using TLSv1.2 with cipher TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256)\r\n\
             \tby gate.relay.test with ESMTPS id 4KXN7Q2M;\r\n\
             \tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
    }

    #[test]
    fn a_helo_argument_stays_one_harmless_word() {
        let (long, cut) = ("x".repeat(600), "x".repeat(255));
        let rows = [
            ("[127.0.0.10]", "[127.0.0.10]"),
            ("b\u{fc}cher.test", "xn--bcher-kva.test"),
            ("under_score.test", "under_score.test"),
            ("", "unknown"),
            ("a b", "a?b"),
            ("x (mail.good.test [1.2.3.4])", "x??mail.good.test??1.2.3.4??"),
            ("a\r\nBcc: x", "a??Bcc??x"),
            ("a; Mon, 1 Jan", "a??Mon??1?Jan"),
            ("[x:(a;b)]", "?x??a?b??"),
            ("\u{fc}\u{0}", "???"),
            (&long, &cut),
        ];
        for (helo, expected) in rows {
            let field = received(helo, None, "127.0.0.10", None);
            let unfolded = field.replace("\r\n\t", " ");
            assert!(
                unfolded.starts_with(&format!("Received: from {expected} (unknown [127.0.0.10]) by ")),
                "{field}"
            );
        }
        assert!(received("h", None, "::ffff:127.0.0.10", None).contains("(unknown [127.0.0.10])"));
    }

    #[test]
    fn only_a_plain_recipient_is_named() {
        let rows = [
            ("user+tag@relay.test", Some("<user+tag@relay.test>;")),
            ("Postmaster", Some("<Postmaster>;")),
            ("\"a;b\"@relay.test", None),
            ("dkim=pass@relay.test", None),
            (&format!("{}@relay.test", "r".repeat(600)), None),
            ("\u{fc}@relay.test", None),
        ];
        for (recipient, expected) in rows {
            let field = received("h", None, "127.0.0.10", Some(recipient));
            assert_eq!(field.contains("\tfor "), expected.is_some(), "{field}");
            assert!(expected.is_none_or(|clause| field.contains(clause)), "{field}");
        }
    }

    #[test]
    fn dates_are_in_utc() {
        let rows = [
            (0, "Thu, 1 Jan 1970 00:00:00 +0000"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (1_704_110_400, "Mon, 1 Jan 2024 12:00:00 +0000"),
            (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 +0000"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
        assert_eq!(date(UNIX_EPOCH - Duration::from_secs(1)), rows[0].1);
    }

    #[test]
    fn return_path_contains_the_reverse_path() {
        let rows = [
            (ReversePath::Null, "Return-Path: <>\r\n"),
            (ReversePath::parse("u@good.test").unwrap(), "Return-Path: <u@good.test>\r\n"),
            (ReversePath::parse("\"a b\"@good.test").unwrap(), "Return-Path: <\"a b\"@good.test>\r\n"),
        ];
        for (path, expected) in rows {
            assert_eq!(String::from_utf8(return_path(&path)).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn no_helo_breaks_the_field(helo in any::<String>()) {
            let field = received(&helo, None, "127.0.0.10", None);
            prop_assert!(field.bytes().all(|byte| byte.is_ascii_graphic() || b" \t\r\n".contains(&byte)));
            prop_assert_eq!(["(", ")", ";"].map(|text| field.matches(text).count()), [1, 1, 1]);
            prop_assert!(field.lines().skip(1).all(|line| line.starts_with('\t') && line.len() < 300));
        }
    }
}
