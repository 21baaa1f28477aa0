//! The dialogue's own replies (RFC 5321 4.2, RFC 3463); the replies for refused mail are in `policy::reason`.

use crate::session::Offer;
use crate::smtp::address::DomainName;
use crate::smtp::command::CommandError;
use crate::smtp::reply::{Enhanced, Reply};
use crate::smtp::xclient::{self, XclientError};

pub(super) fn ok() -> Reply {
    Reply::new(250, Enhanced(2, 0, 0), "ok")
}

pub(super) fn bye(hostname: &DomainName) -> Reply {
    Reply::new(221, Enhanced(2, 0, 0), format!("{hostname} closing connection"))
}

/// RFC 5321 3.5.3: users aren't disclosed.
pub(super) fn no_verify() -> Reply {
    Reply::new(252, Enhanced(2, 0, 0), "can't verify, but will take mail for delivery")
}

pub(super) fn help() -> Reply {
    Reply::new(214, Enhanced(2, 0, 0), "HELO EHLO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP")
}

pub(super) fn extended_hello(hostname: &DomainName, offer: Offer) -> Reply {
    let mut text = format!("{hostname}\nPIPELINING\nSIZE {}\nCHUNKING\n", offer.size);
    for (offered, keyword) in [
        (offer.eight_bit_mime, "8BITMIME\n"),
        (offer.smtputf8, "SMTPUTF8\n"),
        (offer.dsn, "DSN\n"),
        (offer.starttls, "STARTTLS\n"),
    ] {
        if offered {
            text.push_str(keyword);
        }
    }
    if offer.xclient {
        text.push_str("XCLIENT ");
        text.push_str(xclient::ATTRIBUTES);
        text.push('\n');
    }
    text.push_str("ENHANCEDSTATUSCODES");
    Reply::plain(250, text)
}

pub(super) fn bad_command(error: &CommandError) -> Reply {
    let (code, enhanced) = match error {
        CommandError::Unknown => (500, Enhanced(5, 5, 1)),
        CommandError::NotImplemented => (502, Enhanced(5, 5, 1)),
        CommandError::Syntax(_) | CommandError::ChunkSize => (501, Enhanced(5, 5, 2)),
        CommandError::ReversePath(_) => (501, Enhanced(5, 1, 7)),
        CommandError::ForwardPath(_) => (501, Enhanced(5, 1, 3)),
        CommandError::NotAscii => (553, Enhanced(5, 6, 7)),
        CommandError::UnknownParameter(_) => (555, Enhanced(5, 5, 4)),
        CommandError::BadParameter(_) => (501, Enhanced(5, 5, 4)),
    };
    Reply::new(code, enhanced, error.to_string())
}

pub(super) fn bad_xclient(error: &XclientError) -> Reply {
    Reply::new(501, Enhanced(5, 5, 4), error.to_string())
}

pub(super) fn not_smtp() -> Reply {
    Reply::new(554, Enhanced(5, 5, 1), "this is a mail server, not a web server; closing connection")
}

/// RFC 5321 4.3.1: a client waits for the banner.
pub(super) fn spoke_early() -> Reply {
    Reply::new(554, Enhanced(5, 5, 1), "you spoke before the banner; closing connection")
}

pub(super) fn parameter_not_offered(name: &str) -> Reply {
    Reply::new(555, Enhanced(5, 5, 4), format!("parameter {name} not offered"))
}

pub(super) fn out_of_order(text: &'static str) -> Reply {
    Reply::new(503, Enhanced(5, 5, 1), text)
}

pub(super) fn ready_for_tls() -> Reply {
    Reply::new(220, Enhanced(2, 0, 0), "ready to start TLS")
}

/// CVE-2011-0411: an attacker on the path could inject commands into the plain text.
pub(super) fn plain_text_behind_starttls() -> Reply {
    Reply::new(554, Enhanced(5, 5, 1), "nothing may follow STARTTLS before the handshake; closing connection")
}

/// RFC 3207 4.
pub(super) fn tls_unavailable() -> Reply {
    Reply::new(454, Enhanced(4, 7, 0), "TLS is not available now")
}

pub(super) fn no_recipients() -> Reply {
    Reply::new(554, Enhanced(5, 5, 1), "no valid recipients")
}

pub(super) fn line_too_long() -> Reply {
    Reply::new(500, Enhanced(5, 5, 2), "line too long")
}

/// RFC 6531 3.5.
pub(super) fn not_ascii() -> Reply {
    bad_command(&CommandError::NotAscii)
}

/// RFC 1870 6.1.
pub(super) fn too_big(limit: u64) -> Reply {
    Reply::new(552, Enhanced(5, 3, 4), format!("the message is larger than {limit} octets"))
}

/// RFC 5321 4.5.3.1.10: 452, and those that were accepted stay so.
pub(super) fn too_many_recipients() -> Reply {
    Reply::new(452, Enhanced(4, 5, 3), "too many recipients, send the rest in another transaction")
}

pub(super) fn too_many_errors(hostname: &DomainName) -> Reply {
    Reply::new(421, Enhanced(4, 7, 0), format!("{hostname} too many errors, closing connection"))
}

pub(super) fn too_many_commands(hostname: &DomainName) -> Reply {
    Reply::new(
        421,
        Enhanced(4, 7, 0),
        format!("{hostname} too many commands without mail, closing connection"),
    )
}

pub(super) fn timed_out(hostname: &DomainName) -> Reply {
    Reply::new(421, Enhanced(4, 4, 2), format!("{hostname} waited too long, closing connection"))
}

pub(super) fn shutting_down(hostname: &DomainName) -> Reply {
    Reply::new(421, Enhanced(4, 3, 2), format!("{hostname} is shutting down, closing connection"))
}
