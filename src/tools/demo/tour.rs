//! The messages of the tour and the expected result of each.
//!
//! The senders and their clients are those of the sample zones (`rmxd zone --list`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::policy::decide::Verdict;
use crate::policy::reason::Reason;

/// Recipient of all messages whose row has no other.
const RECIPIENT: &str = "you@demo.test";

/// The policies of the gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// The built-in one, with private addresses allowed, as clients on loopback need.
    Default,
    /// The built-in one.
    Public,
    /// The literal reverse MX lookup, as in `config/strict.toml`.
    Strict,
}

impl Policy {
    pub(super) const ALL: [Self; 3] = [Self::Default, Self::Public, Self::Strict];

    /// The name of its configuration file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Public => "public",
            Self::Strict => "strict",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// Delivered, with these reasons in Authentication-Results.
    Accept(&'static [Reason]),
    /// 4xx.
    Defer(Reason),
    /// 5xx.
    Reject(Reason),
}

impl Expected {
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Accept(_) => Verdict::Accept,
            Self::Defer(_) => Verdict::Defer,
            Self::Reject(_) => Verdict::Reject,
        }
    }

    pub(super) fn reasons(&self) -> &[Reason] {
        match self {
            Self::Accept(tags) => tags,
            Self::Defer(reason) | Self::Reject(reason) => std::slice::from_ref(reason),
        }
    }
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) policy: Policy,
    pub(super) client: IpAddr,
    pub(super) what: &'static str,
    /// The name in EHLO, if it isn't the PTR name of the client.
    pub(super) helo: Option<&'static str>,
    /// Empty for the null sender.
    pub(super) mail_from: &'static str,
    pub(super) recipient: &'static str,
    /// Replaces the From: with the address of MAIL FROM.
    pub(super) header: &'static [&'static str],
    pub(super) after_repair: bool,
    pub(super) expected: Expected,
}

#[derive(Debug)]
pub(super) struct Chapter {
    pub(super) title: &'static str,
    /// A line below the title; may be empty.
    pub(super) note: &'static str,
    pub(super) rows: Vec<Row>,
}

pub(super) fn chapters() -> Vec<Chapter> {
    let chapter = |title, note, rows| Chapter { title, note, rows };
    vec![
        chapter(
            "Can the sender's domain receive mail? (default policy: mail_from exists = reject)",
            "",
            envelope(),
        ),
        chapter(
            "The senders that readers see (default policy: from exists = reject, reply_to exists = greylist)",
            "",
            header(),
        ),
        chapter(
            "Whose name is it? (default policy: from matches = dmarc; policy.senders for the demo's own domain)",
            "",
            owners(),
        ),
        chapter("Messages that are only tagged or exempt (default policy)", "", lenient()),
        chapter("DNS errors: a temporary failure is a 4xx, never a 5xx (default policy)", "", dns_errors()),
        chapter(
            "MX hosts with addresses that mail can't be sent to (default policy)",
            "The other gates have dns.private_addresses = accept, because the clients here are on loopback.",
            private(),
        ),
        chapter("A strict gate (helo exists = reject, ptr exists = reject)", "", strict()),
        chapter(
            "A company with two Internet lines (strict gate: mail_from matches = reject)",
            "Its MX host has the address of line 1 only. Before the last message it adds the MX record that rmxd audit proposes.",
            company(),
        ),
    ]
}

fn envelope() -> Vec<Row> {
    use Expected::{Accept, Reject};
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    vec![
        sends("valid", v4(0, 10), "a sender as it should be", "ann@good.test", Accept(&[])),
        sends(
            "several_mx",
            v4(0, 20),
            "three MX hosts, one has the address",
            "ann@many-mx.test",
            Accept(&[]),
        ),
        sends("ipv6", v6, "IPv6 only", "ann@v6-mx.test", Accept(&[])),
        sends("idn", v4(0, 36), "an internationalised domain", "jo@xn--mnchen-3ya.test", Accept(&[])),
        sends("bounce", v4(0, 10), "a bounce (null sender)", "", Accept(&[]))
            .with(&["From: <mailer-daemon@good.test>"]),
        sends(
            "no_such_domain",
            v4(0, 11),
            "a domain that was made up",
            "ann@nowhere.test",
            Reject(Reason::NoSuchDomain),
        ),
        sends("no_mx", v4(0, 12), "a domain without MX", "ann@nomx.test", Reject(Reason::NoMx)),
        // The tag is for its PTR name, which has no MX record either.
        sends("address_only", v4(0, 13), "no MX, but an address", "ann@a-only.test", Accept(&[Reason::NoMx])),
        sends("null_mx", v4(0, 14), "a null MX record", "ann@null-mx.test", Reject(Reason::NullMx)),
        sends(
            "mx_without_address",
            v4(0, 16),
            "an MX host without an address",
            "ann@no-address.test",
            Reject(Reason::MxUnresolvable),
        ),
    ]
}

fn header() -> Vec<Row> {
    use Expected::{Defer, Reject};
    let bulk =
        |name, what, expected, header| sends(name, v4(0, 27), what, "news@bulk.test", expected).with(header);
    vec![
        bulk(
            "spoofed_from",
            "a spoofed From:",
            Reject(Reason::NoSuchDomain),
            &["From: Bank <it@bank-login.test>"],
        ),
        bulk(
            "spoofed_reply_to",
            "a spoofed Reply-To:",
            Defer(Reason::Greylisted),
            &["From: Bulk <news@bulk.test>", "Reply-To: <win@collect.test>"],
        ),
        bulk(
            "two_from",
            "two From: fields",
            Reject(Reason::MalformedHeader),
            &["From: <news@bulk.test>", "From: <boss@bank.test>"],
        ),
        bulk(
            "group_in_from",
            "a group with an invented one in From:",
            Reject(Reason::NoSuchDomain),
            &["From: Us: <a@bulk.test>, <b@nowhere.test>;"],
        ),
    ]
}

fn owners() -> Vec<Row> {
    use Expected::{Accept, Reject};
    vec![
        sends(
            "dmarc_reject",
            v4(0, 12),
            "a bot in the name of a bank",
            "service@treasury.test",
            Reject(Reason::DmarcReject),
        ),
        sends("dmarc_pass", v4(3, 2), "the bank, through its provider", "service@treasury.test", Accept(&[])),
        sends(
            "own_domain",
            v4(0, 12),
            "your own domain, from outside",
            "boss@demo.test",
            Reject(Reason::NotAnExchanger),
        ),
    ]
}

fn lenient() -> Vec<Row> {
    use Expected::Accept;
    vec![
        sends(
            "no_ptr",
            v4(0, 29),
            "a client without a PTR record",
            "ann@no-ptr.test",
            Accept(&[Reason::NoPtr]),
        ),
        sends(
            "not_an_exchanger",
            v4(2, 77),
            "a host that no rung confirms",
            "ann@good.test",
            // MAIL FROM and From: have the same domain
            Accept(&[Reason::NotAnExchanger, Reason::NotAnExchanger]),
        ),
        Row {
            recipient: "postmaster@demo.test",
            ..sends(
                "exempt_recipient",
                v4(0, 11),
                "an invented sender, to postmaster",
                "ann@nowhere.test",
                Accept(&[]),
            )
        },
    ]
}

fn dns_errors() -> Vec<Row> {
    let defer = Expected::Defer(Reason::DnsError);
    vec![
        sends(
            "dns_servfail",
            v4(0, 22),
            "its name server answers SERVFAIL",
            "ann@broken.test",
            defer.clone(),
        ),
        sends("dns_silent", v4(0, 23), "its name server is silent", "ann@silent.test", defer),
        sends("dns_slow", v4(0, 25), "its name server needs 0.5 s", "ann@slow.test", Expected::Accept(&[])),
    ]
}

fn private() -> Vec<Row> {
    let reject = || Expected::Reject(Reason::MxUnroutable);
    let at = |row: Row| Row { policy: Policy::Public, ..row };
    vec![
        at(sends("mx_private", v4(0, 15), "its MX host is 10.1.2.3", "ann@private-mx.test", reject())),
        at(sends("mx_unspecified", v4(0, 40), "its MX host is 0.0.0.0", "ann@zero-mx.test", reject())),
    ]
}

fn strict() -> Vec<Row> {
    use Expected::Reject;
    let at = |row: Row| Row { policy: Policy::Strict, ..row };
    vec![
        Row {
            helo: Some("nowhere.test"),
            ..at(sends(
                "helo",
                v4(0, 10),
                "an invented HELO name",
                "ann@good.test",
                Reject(Reason::NoSuchDomain),
            ))
        },
        Row {
            helo: Some("mail.no-ptr.test"),
            ..at(sends(
                "ptr_missing",
                v4(0, 29),
                "a client without a PTR record",
                "ann@no-ptr.test",
                Reject(Reason::NoPtr),
            ))
        },
        at(sends(
            "ptr_not_confirmed",
            v4(0, 30),
            "a PTR name of another address",
            "ann@lying-ptr.test",
            Reject(Reason::PtrNotConfirmed),
        )),
    ]
}

fn company() -> Vec<Row> {
    use Expected::{Accept, Reject};
    let over = |name, line, what, expected| Row {
        policy: Policy::Strict,
        ..sends(name, v4(1, line), what, "ann@twolines.test", expected)
    };
    vec![
        over("primary_line", 1, "over line 1, the primary one", Accept(&[])),
        over("backup_line", 2, "over line 2, the backup", Reject(Reason::NotAnExchanger)),
        Row {
            after_repair: true,
            ..over("backup_line_repaired", 2, "over line 2, after the repair", Accept(&[]))
        },
    ]
}

/// A message with the PTR name of the client in EHLO, and the sender of the envelope in From:.
fn sends(
    name: &'static str,
    client: IpAddr,
    what: &'static str,
    mail_from: &'static str,
    expected: Expected,
) -> Row {
    Row {
        name,
        policy: Policy::Default,
        client,
        what,
        helo: None,
        mail_from,
        recipient: RECIPIENT,
        header: &[],
        after_repair: false,
        expected,
    }
}

fn v4(third: u8, fourth: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, third, fourth))
}

impl Row {
    fn with(self, header: &'static [&'static str]) -> Self {
        Self { header, ..self }
    }

    /// The sender, and the other lines in which the message differs from `sends`.
    pub(super) fn sender(&self) -> Vec<String> {
        let helo = self.helo.map(|name| format!("EHLO {name}"));
        let recipient = (self.recipient != RECIPIENT).then(|| format!("RCPT TO:<{}>", self.recipient));
        let header = self.header.iter().map(|line| (*line).to_owned());
        helo.into_iter()
            .chain([format!("MAIL FROM:<{}>", self.mail_from)])
            .chain(recipient)
            .chain(header)
            .collect()
    }

    /// The header block and a body, with CRLF; the result is found by `token`, its Message-ID.
    pub(super) fn message(&self, token: &str) -> String {
        let mut lines: Vec<String> = self.header.iter().map(|line| (*line).to_owned()).collect();
        if lines.is_empty() {
            lines.push(format!("From: <{}>", self.mail_from));
        }
        lines.push(format!("To: <{}>", self.recipient));
        lines.push(format!("Subject: {}", self.what));
        lines.push(format!("Message-ID: <{token}>"));
        lines.push(String::new());
        lines.push(format!("A message of rmxd's demo, sent by {}.", self.client));
        lines.join("\r\n") + "\r\n"
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_no_line_of_a_message_begins_with_a_dot() {
        let rows: Vec<Row> = chapters().into_iter().flat_map(|chapter| chapter.rows).collect();
        let names: HashSet<_> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows.len());
        for row in &rows {
            let message = row.message("t@demo.test");
            assert!(message.split("\r\n").all(|line| !line.starts_with('.')), "{message}");
            assert_eq!(message.matches('\n').count(), message.matches("\r\n").count(), "{message}");
        }
    }
}
