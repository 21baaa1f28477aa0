//! The reasons for refusals, and the replies that `table` makes of them (contract 3.8).

mod table;

use std::fmt;

use crate::policy::identity::Identity;
use crate::policy::reason::table::Code;
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
