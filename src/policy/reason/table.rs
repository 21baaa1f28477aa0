//! The only table from a reason to reply code, log name and help text (contract 3.8).

use crate::policy::identity::Identity;
use crate::policy::reason::Reason;

/// The three digits of a reply.
#[derive(Debug, Clone, Copy)]
pub(super) enum Code {
    /// 550 for reject, 450 for defer.
    ByAction,
    Always(u16),
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) code: Code,
    /// Subject and detail of the enhanced code; the class is that of the code.
    pub(super) status: (u16, u16),
    /// Follows the domain: "spoof.test HAS NO MX RECORD"; empty if the subject is a sentence already.
    pub(super) text: &'static str,
    pub(super) help: &'static str,
}

impl Reason {
    /// The row of this reason, for one identity.
    pub(super) fn row(self, identity: Identity) -> Row {
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
                "The message has so many Received: fields that it must be in a loop (RFC 5321 6.3). Look for a forwarding back to an earlier server, such as a relay.next_hop that leads back to rmxd.",
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
}

/// The enhanced status for a domain that can't take mail: X.1.8 (bad sender's system address) for MAIL FROM only.
fn bad_domain(identity: Identity) -> (u16, u16) {
    match identity {
        Identity::MailFrom => (1, 8),
        Identity::Ptr => (7, 25),
        Identity::Helo | Identity::From | Identity::ReplyTo => (7, 1),
    }
}
