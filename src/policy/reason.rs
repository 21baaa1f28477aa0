//! The reasons for refusals: the only table from a reason to reply code, log name and help text (contract 3.8).

use std::fmt;

use crate::policy::identity::Identity;
use crate::policy::rule::Action;
use crate::smtp::reply::{Enhanced, Reply};

/// Why a rule failed, or why a message is refused without a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// NXDOMAIN.
    NoSuchDomain,
    /// The name exists without an MX record.
    NoMx,
    /// No MX host has an address.
    MxUnresolvable,
    /// MX hosts have addresses, none that mail can be sent to.
    MxUnroutable,
    /// The domain has a null MX: it takes no mail (RFC 7505).
    NullMx,
    /// The client is none of the domain's mail exchangers.
    NotAnExchanger,
    /// The owner of the From: domain asks to reject such mail (DMARC).
    DmarcReject,
    /// The owner of the From: domain asks to quarantine such mail, or to reject it while it came over a list or a forwarder.
    DmarcQuarantine,
    /// The client's address has no PTR record.
    NoPtr,
    /// No PTR name has the client's address.
    PtrNotConfirmed,
    /// A name that can't have an MX record.
    InvalidDomain,
    /// From: missing, empty or repeated, and the like.
    MalformedHeader,
    /// A DNS failure.
    DnsError,
    /// A rule with the action `greylist` failed, and the client has to retry.
    Greylisted,
    /// The recipient is outside `relay.domains`, or routed through them.
    RelayingDenied,
    /// The next hop can't be reached, or refuses the connection.
    RelayUnreachable,
    /// The next hop closed the connection, timed out, or sent an invalid reply.
    RelayLost,
    /// Bare CR, bare LF or NUL.
    BareNewline,
    /// The argument of MAIL or RCPT isn't an address.
    BadAddress,
    /// A parameter of MAIL, RCPT or DATA that can't be carried out.
    BadParameter,
    /// The message or its header is larger than allowed.
    TooBig,
    /// `limits.recipients`.
    TooManyRecipients,
    /// So many Received: fields that the message is in a loop.
    MailLoop,
    /// The next hop refused the client, the sender, a recipient or the message, with its own reply.
    RelayRefused,
    /// The client sends too slowly while others wait for the next hop.
    TooSlow,
}

/// The three digits of a reply.
#[derive(Debug, Clone, Copy)]
enum Code {
    /// 550 for reject, 450 for defer.
    ByAction,
    Always(u16),
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
struct Row {
    name: &'static str,
    code: Code,
    /// Subject and detail of the enhanced code; the class is that of the code.
    status: (u16, u16),
    /// Follows the domain: "spoof.test HAS NO MX RECORD"; empty if the subject is a sentence already.
    text: &'static str,
    help: &'static str,
}

impl Reason {
    /// Every reason, in the order of the table.
    pub const ALL: [Self; 25] = [
        Self::NoSuchDomain,
        Self::NoMx,
        Self::MxUnresolvable,
        Self::MxUnroutable,
        Self::NullMx,
        Self::NotAnExchanger,
        Self::DmarcReject,
        Self::DmarcQuarantine,
        Self::NoPtr,
        Self::PtrNotConfirmed,
        Self::InvalidDomain,
        Self::MalformedHeader,
        Self::DnsError,
        Self::Greylisted,
        Self::RelayingDenied,
        Self::RelayUnreachable,
        Self::RelayLost,
        Self::BareNewline,
        Self::BadAddress,
        Self::BadParameter,
        Self::TooBig,
        Self::TooManyRecipients,
        Self::MailLoop,
        Self::RelayRefused,
        Self::TooSlow,
    ];

    fn row(self, identity: Identity) -> Row {
        let (name, code, status, text, help) = match self {
            Self::NoSuchDomain => (
                "no_such_domain",
                Code::ByAction,
                bad_domain(identity),
                "does not exist",
                "The domain does not exist in DNS (NXDOMAIN). Check the spelling of the sender's address.",
            ),
            Self::NoMx => (
                "no_mx",
                Code::ByAction,
                bad_domain(identity),
                "has no MX record",
                "The domain exists but takes no mail. Publish an MX record for it.",
            ),
            Self::MxUnresolvable => (
                "mx_unresolvable",
                Code::ByAction,
                bad_domain(identity),
                "has no MX host with an address",
                "No host that the MX records name has an A or AAAA record. Correct the host names or add the addresses.",
            ),
            Self::MxUnroutable => (
                "mx_unroutable",
                Code::ByAction,
                bad_domain(identity),
                "has MX hosts with unroutable addresses only",
                "The MX hosts have private, loopback or otherwise unreachable addresses. Publish public ones.",
            ),
            Self::NullMx => (
                "null_mx",
                Code::ByAction,
                (7, 27),
                "has a null MX and takes no mail",
                "The domain declares that it takes no mail (RFC 7505), so it can't be a sender domain.",
            ),
            Self::NotAnExchanger => (
                "not_an_exchanger",
                Code::ByAction,
                (7, 1),
                "does not name your address among its mail exchangers",
                "The client is none of the domain's MX hosts, and none of the other rungs that count here (network, ptr, spf) \
                 holds. Send through an MX host, or add the line's address to one.",
            ),
            Self::DmarcReject => (
                "dmarc_reject",
                Code::ByAction,
                (7, 1),
                "asks to reject mail that neither its SPF nor its DKIM vouches for",
                "The DMARC record of the From: domain has p=reject (RFC 9989), and the client is none of the domain's mail \
                 exchangers. Add the client to the SPF record of a MAIL FROM domain of the same organisation, or sign as the \
                 From: domain (DKIM). A mailing list can write its own address into From:.",
            ),
            Self::DmarcQuarantine => (
                "dmarc_quarantine",
                Code::ByAction,
                (7, 1),
                "asks for suspicion of mail that neither its SPF nor its DKIM vouches for",
                "The DMARC record of the From: domain has p=quarantine (RFC 9989), or p=reject while the message came over a \
                 list or a forwarder, and the client is none of the domain's mail exchangers. Add the client to the SPF record \
                 of a MAIL FROM domain of the same organisation, or sign as the From: domain (DKIM).",
            ),
            Self::NoPtr => (
                "no_ptr",
                Code::ByAction,
                (7, 25),
                "has no PTR record",
                "The client's address has no host name. Its provider can add a PTR record.",
            ),
            Self::PtrNotConfirmed => (
                "ptr_not_confirmed",
                Code::ByAction,
                (7, 25),
                "has no PTR name that leads back to it",
                "None of the PTR names resolves to the client's address. Make PTR and A/AAAA agree.",
            ),
            Self::InvalidDomain => (
                "invalid_domain",
                Code::ByAction,
                if identity == Identity::MailFrom { (1, 8) } else { (7, 1) },
                "is not a domain that can have an MX record",
                "The sender's domain is an address literal, a single label, a name below arpa or not a name at all.",
            ),
            Self::MalformedHeader => (
                "malformed_header",
                Code::ByAction,
                (6, 0),
                "",
                "The message needs exactly one From: field and at most one Reply-To:, each with valid addresses (RFC 5322 3.6).",
            ),
            Self::DnsError => (
                "dns_error",
                Code::Always(451),
                (4, 3),
                "can't be looked up now",
                "The domain could not be looked up in DNS, so the result is unknown. Mail servers retry by themselves.",
            ),
            Self::Greylisted => (
                "greylisted",
                Code::Always(450),
                (7, 1),
                "is greylisted",
                "This client's network is new for this sender and recipient. Mail servers retry by themselves, and then the message is accepted.",
            ),
            Self::RelayingDenied => (
                "relaying_denied",
                Code::Always(550),
                (7, 1),
                "relaying denied",
                "The recipient's domain is not in relay.domains, or the local part holds a route of its own.",
            ),
            Self::RelayUnreachable => (
                "relay_unreachable",
                Code::Always(451),
                (4, 1),
                "the mail server behind can't be reached, try again later",
                "The next hop refused the connection, its greeting or XCLIENT, or all connections to it are in use. The log has a \
                 line with the cause.",
            ),
            Self::RelayLost => (
                "relay_lost",
                Code::Always(451),
                (4, 2),
                "the connection to the mail server behind was lost, try again later",
                "The next hop closed the connection, timed out, or sent a reply that is not SMTP.",
            ),
            Self::BareNewline => (
                "bare_newline",
                Code::Always(521),
                (5, 2),
                "is not allowed, lines end in CRLF; closing connection",
                "The client sent a bare CR, a bare LF or a NUL. The sending software is broken, or tries to smuggle mail.",
            ),
            Self::BadAddress => (
                "bad_address",
                Code::Always(501),
                if identity == Identity::MailFrom { (1, 7) } else { (1, 3) },
                "",
                "The argument of MAIL or RCPT is not an address (RFC 5321 4.1.2). Nothing was looked up; correct it at the sender.",
            ),
            Self::BadParameter => (
                "bad_parameter",
                Code::Always(555),
                (5, 4),
                "",
                "A parameter behind the address is unknown, has no valid value, or was not offered in the reply to EHLO.",
            ),
            Self::TooBig => (
                "too_big",
                Code::Always(552),
                (3, 4),
                "",
                "The message or its header is larger than limits.message, limits.header_block or the relay's own limit.",
            ),
            Self::TooManyRecipients => (
                "too_many_recipients",
                Code::Always(452),
                (5, 3),
                "",
                "The transaction has reached limits.recipients. Mail servers send to the other recipients in another transaction.",
            ),
            Self::MailLoop => (
                "mail_loop",
                Code::Always(554),
                (4, 6),
                "",
                "The message has so many Received: fields that it must be in a loop (RFC 5321 6.3). Look for a forwarding back to an earlier server.",
            ),
            Self::RelayRefused => (
                "relay_refused",
                Code::ByAction,
                (0, 0),
                "",
                "The mail server behind rmxd refused it; the reply has the text of that server. Look for the cause in its log.",
            ),
            Self::TooSlow => (
                "too_slow",
                Code::Always(421),
                (4, 2),
                "data came too slowly while others wait, closing connection",
                "The client sent less than limits.data_rate, or for longer than limits.message_time, while others waited for a \
                 connection to the next hop. Nothing was delivered. Mail servers retry by themselves.",
            ),
        };
        Row { name, code, status, text, help }
    }

    /// The name in logs, metrics and Authentication-Results.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row(Identity::MailFrom).name
    }

    /// What the reason means, and what the sender's side can do.
    #[must_use]
    pub fn help(self) -> &'static str {
        self.row(Identity::MailFrom).help
    }

    /// Whether only a rule refuses for this reason. Mail with one of the other reasons is refused by any policy; so is a header
    /// that begins with a continuation line.
    #[must_use]
    pub fn is_of_a_rule(self) -> bool {
        match self {
            Self::NoSuchDomain
            | Self::NoMx
            | Self::MxUnresolvable
            | Self::MxUnroutable
            | Self::NullMx
            | Self::NotAnExchanger
            | Self::DmarcReject
            | Self::DmarcQuarantine
            | Self::NoPtr
            | Self::PtrNotConfirmed
            | Self::InvalidDomain
            | Self::DnsError
            | Self::Greylisted => true,
            Self::MalformedHeader
            | Self::RelayingDenied
            | Self::RelayUnreachable
            | Self::RelayLost
            | Self::BareNewline
            | Self::BadAddress
            | Self::BadParameter
            | Self::TooBig
            | Self::TooManyRecipients
            | Self::MailLoop
            | Self::RelayRefused
            | Self::TooSlow => false,
        }
    }

    /// Whether a refusal without a rule is a 4xx.
    #[must_use]
    pub fn is_temporary(self) -> bool {
        matches!(self.row(Identity::MailFrom).code, Code::Always(400..=499))
    }

    /// The text after the domain, such as "has no MX record"; empty if the subject is a sentence.
    #[must_use]
    pub fn text(self) -> &'static str {
        self.row(Identity::MailFrom).text
    }

    /// The reply for a refusal. `subject` is the client's text (an address, the name of a field), `domain` the domain that was
    /// looked up, and `suffix` the end of the text with the id and the help URL.
    #[must_use]
    pub fn reply(
        self,
        identity: Identity,
        action: Action,
        subject: &str,
        domain: &str,
        suffix: &str,
    ) -> Reply {
        let row = self.row(identity);
        let code = match row.code {
            Code::Always(code) => code,
            Code::ByAction if action == Action::Reject => 550,
            Code::ByAction => 450,
        };
        let text = if row.text.is_empty() {
            subject.to_owned()
        } else if subject == domain || domain.is_empty() {
            format!("{subject} {}", row.text)
        } else {
            format!("<{subject}>: {domain} {}", row.text)
        };
        reply(code, row.status, text).ending_with(suffix)
    }

    /// The reply for a reason without a rule: `subject`, the text, then `suffix`.
    #[must_use]
    pub fn plain_reply(self, subject: &str, suffix: &str) -> Reply {
        let row = self.row(Identity::MailFrom);
        let code = match row.code {
            Code::Always(code) => code,
            Code::ByAction => 550,
        };
        let space = if subject.is_empty() || row.text.is_empty() { "" } else { " " };
        reply(code, row.status, format!("{subject}{space}{}", row.text)).ending_with(suffix)
    }
}

fn reply(code: u16, (subject, detail): (u16, u16), text: String) -> Reply {
    let class = if code < 500 { 4 } else { 5 };
    Reply::new(code, Enhanced(class, subject, detail), text)
}

/// The enhanced status for a domain that can't take mail: X.1.8 (bad sender's system address) for MAIL FROM only.
fn bad_domain(identity: Identity) -> (u16, u16) {
    match identity {
        Identity::MailFrom => (1, 8),
        Identity::Ptr => (7, 25),
        Identity::Helo | Identity::From | Identity::ReplyTo => (7, 1),
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_those_of_the_contract() {
        use Identity::{From, Helo, MailFrom, Ptr};
        let rows = [
            (
                Reason::NoMx,
                MailFrom,
                Action::Reject,
                "550 5.1.8 <a@spoof.test>: spoof.test has no MX record (id X)",
            ),
            (
                Reason::NoMx,
                MailFrom,
                Action::Defer,
                "450 4.1.8 <a@spoof.test>: spoof.test has no MX record (id X)",
            ),
            (
                Reason::NoSuchDomain,
                From,
                Action::Reject,
                "550 5.7.1 <a@spoof.test>: spoof.test does not exist (id X)",
            ),
            (
                Reason::NullMx,
                Helo,
                Action::Reject,
                "550 5.7.27 <a@spoof.test>: spoof.test has a null MX and takes no mail (id X)",
            ),
            (
                Reason::NoMx,
                Ptr,
                Action::Reject,
                "550 5.7.25 <a@spoof.test>: spoof.test has no MX record (id X)",
            ),
            (
                Reason::InvalidDomain,
                Ptr,
                Action::Reject,
                "550 5.7.1 <a@spoof.test>: spoof.test is not a domain that can have an MX record (id X)",
            ),
            (
                Reason::DnsError,
                MailFrom,
                Action::Reject,
                "451 4.4.3 <a@spoof.test>: spoof.test can't be looked up now (id X)",
            ),
            (
                Reason::Greylisted,
                From,
                Action::Greylist,
                "450 4.7.1 <a@spoof.test>: spoof.test is greylisted (id X)",
            ),
        ];
        for (reason, identity, action, expected) in rows {
            assert_eq!(
                reason.reply(identity, action, "a@spoof.test", "spoof.test", " (id X)").to_string(),
                expected
            );
        }
    }

    #[test]
    fn the_subject_of_an_address_and_of_a_reason_without_a_rule() {
        let reply = |identity, subject, domain| {
            Reason::BadAddress.reply(identity, Action::Reject, subject, domain, "").to_string()
        };
        assert_eq!(reply(Identity::MailFrom, "the address", ""), "501 5.1.7 the address");
        assert_eq!(reply(Identity::From, "the address", ""), "501 5.1.3 the address");
        let reply = |subject, domain| {
            Reason::NoMx.reply(Identity::Helo, Action::Reject, subject, domain, "").to_string()
        };
        assert_eq!(reply("spoof.test", "spoof.test"), "550 5.7.1 spoof.test has no MX record");
        assert_eq!(reply("spoof.test", ""), "550 5.7.1 spoof.test has no MX record");
        assert_eq!(Reason::BadAddress.plain_reply("the address", "").to_string(), "501 5.1.7 the address");
        let text = Reason::NoMx.plain_reply("", "").to_string();
        assert_eq!(text, "550 5.1.8 has no MX record");
        assert_eq!(
            Reason::NoMx.plain_reply("spoof.test", "").to_string(),
            "550 5.1.8 spoof.test has no MX record"
        );
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
