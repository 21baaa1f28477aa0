//! The sessions that the tour of a door plays, and what each has to come to.
//!
//! The senders and their clients are those of the sample zones (`rmxd zone --list`). Both doors play the same sessions, so
//! that they can be compared.

use std::net::Ipv4Addr;

use crate::policy::door::DoorName;
use crate::policy::reason::Reason;
use crate::tools::demo::doors::judged::Wanted;

/// The recipient of most messages.
pub(super) const RECIPIENT: &str = "you@demo.test";

/// The gates, by their policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// The built-in one with greylisting, and a rule for the demo's own domain.
    Enforce,
    /// The same in monitor mode.
    Monitor,
}

impl Policy {
    pub(super) const ALL: [Self; 2] = [Self::Enforce, Self::Monitor];

    /// The name of its configuration file, and the value of `policy.mode`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
        }
    }
}

/// One session of SMTP.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// What is to be seen, at each door.
    pub(super) milter: &'static str,
    pub(super) policy: &'static str,
    pub(super) gate: Policy,
    pub(super) client: Ipv4Addr,
    pub(super) helo: &'static str,
    /// The user who has logged in.
    pub(super) login: Option<&'static str>,
    /// It begins when the delay of the greylist is over.
    pub(super) after_delay: bool,
    pub(super) messages: Vec<Message>,
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) sender: &'static str,
    pub(super) recipients: Vec<(&'static str, Wanted)>,
    /// Beside To: and Subject:.
    pub(super) header: &'static [(&'static str, &'static str)],
    /// At the end of the header or of the message, by the milter.
    pub(super) content: Wanted,
    /// The changes of the header, by the milter.
    pub(super) edits: &'static [&'static str],
}

impl Scene {
    pub(super) fn note(&self, door: DoorName) -> &'static str {
        if door == DoorName::Policy { self.policy } else { self.milter }
    }
}

/// Our results in front.
const INSERTED: &[&str] = &["insert before all fields: Authentication-Results"];

pub(super) fn scenes() -> Vec<Scene> {
    let mut scenes = vec![valid(), spoofed(), header(), recipients()];
    scenes.extend(greylisted());
    scenes.extend([dns_error(), user(), monitor()]);
    scenes
}

fn valid() -> Scene {
    let header = &[
        ("Authentication-Results", "mx.demo.test; spf=pass smtp.mailfrom=bank.test"),
        ("From", "Ann <ann@good.test>"),
    ];
    let edits =
        &["delete number 1 of: Authentication-Results", "insert before all fields: Authentication-Results"];
    Scene {
        milter: "The client is a mail exchanger of the sender's domain. The message brings a result in rmxd's own name, \
                 mx.demo.test, which rmxd did not write: rmxd has it deleted, and its own result inserted.",
        policy: "The client is a mail exchanger of the sender's domain. A policy service sees client, HELO, MAIL and RCPT. \
                 DUNNO leaves the recipient to Postfix's other restrictions.",
        ..session(
            "valid",
            "A sender as it should be",
            [127, 0, 0, 10],
            "mail.good.test",
            vec![Message { header, edits, ..message("ann@good.test", Wanted::Pass) }],
        )
    }
}

fn spoofed() -> Scene {
    let refused = Wanted::Reject("5.1.8", Reason::NoSuchDomain);
    Scene {
        milter: "The domain does not exist. rmxd gives the reply, with the id of the decision, and Postfix passes it on. \
                 Without a recipient the client leaves.",
        policy: "The domain does not exist. rmxd gives code and text, with the id of the decision. Postfix puts the sender and \
                 \"Sender address rejected\" before it.",
        ..session(
            "spoofed",
            "A sender domain that was made up",
            [127, 0, 0, 11],
            "host11.dsl.provider.test",
            vec![message("ann@nowhere.test", refused)],
        )
    }
}

fn header() -> Scene {
    let spoofed = Message {
        header: &[("From", "Bank <it@bank-login.test>")],
        content: Wanted::Reject("5.7.1", Reason::NoSuchDomain),
        ..message("news@bulk.test", Wanted::Pass)
    };
    let proper = Message {
        header: &[("From", "Bulk <news@bulk.test>")],
        edits: INSERTED,
        ..message("news@bulk.test", Wanted::Pass)
    };
    Scene {
        milter: "The envelope passes, but the From: that readers see names a domain that does not exist: the first message is \
                 refused at the end of its header (EOH). ABORT ends its transaction, and the second one of the session passes.",
        policy: "The From: of the first message names a domain that does not exist. A policy service does not see it: this \
                 passes, and only a milter, or rmxd in front of Postfix, refuses it. Each message has an instance of its own.",
        ..session(
            "header",
            "Two messages of one session, the first with a spoofed From:",
            [127, 0, 0, 27],
            "mail.bulk.test",
            vec![spoofed, proper],
        )
    }
}

fn recipients() -> Scene {
    let refused = Wanted::Reject("5.1.8", Reason::NoSuchDomain);
    let several = Message {
        recipients: vec![(RECIPIENT, refused), ("postmaster@demo.test", Wanted::Pass)],
        ..message("ann@nowhere.test", Wanted::Pass)
    };
    Scene {
        milter: "Each recipient has an answer of its own. postmaster is exempt, so that anyone who is refused can write to it: \
                 the message goes on to postmaster alone.",
        policy: "Postfix asks for each recipient, with the same instance: one message, one id. postmaster is exempt, so that \
                 anyone who is refused can write to it.",
        ..session(
            "recipients",
            "The same sender, to two recipients",
            [127, 0, 0, 11],
            "host11.dsl.provider.test",
            vec![Message { edits: INSERTED, ..several }],
        )
    }
}

fn greylisted() -> [Scene; 2] {
    let client = [127, 0, 2, 77];
    let later = Wanted::Defer("4.7.1", Reason::Greylisted);
    let first = Scene {
        milter: "Nothing confirms that good.test sends from this client, and this gate has mail_from.matches = greylist. A 4xx \
                 asks the sender to try again later.",
        policy: "Nothing confirms that good.test sends from this client, and this gate has mail_from.matches = greylist. With \
                 DEFER_IF_PERMIT Postfix answers 450, unless another restriction refuses for good.",
        ..session(
            "greylisted",
            "A client that is not known yet",
            client,
            "host.other.test",
            vec![message("ann@good.test", later)],
        )
    };
    let again = Scene {
        milter: "The same client network, sender domain and recipient come again, as a mail server does, and pass.",
        policy: "The same client network, sender domain and recipient come again, as a mail server does, and pass.",
        after_delay: true,
        ..session(
            "greylisted_again",
            "The same after the delay",
            client,
            "host.other.test",
            vec![Message { edits: INSERTED, ..message("ann@good.test", Wanted::Pass) }],
        )
    };
    [first, again]
}

fn dns_error() -> Scene {
    let later = Wanted::Defer("4.4.3", Reason::DnsError);
    Scene {
        milter: "The name servers of the domain answer SERVFAIL. That is no proof: never a 5xx.",
        policy: "The name servers of the domain answer SERVFAIL. That is no proof: never a 5xx.",
        ..session(
            "dns_error",
            "A sender whose DNS is broken",
            [127, 0, 0, 22],
            "mail.broken.test",
            vec![message("ann@broken.test", later)],
        )
    }
}

fn user() -> Scene {
    Scene {
        milter: "From this client, boss@demo.test would be refused (policy.senders). But the macro auth_authen names a user \
                 who has logged in, who is exempt. Mail of users gets no results.",
        policy: "From this client, boss@demo.test would be refused (policy.senders). But sasl_username names a user who has \
                 logged in, who is exempt.",
        login: Some("boss"),
        ..session(
            "user",
            "A user with a password",
            [127, 0, 0, 12],
            "laptop.demo.test",
            vec![message("boss@demo.test", Wanted::Pass)],
        )
    }
}

fn monitor() -> Scene {
    Scene {
        milter: "With policy.mode = \"monitor\" nothing is refused. The log has the verdict that enforce mode would have carried out.",
        policy: "With policy.mode = \"monitor\" nothing is refused. The log has the verdict that enforce mode would have carried out.",
        gate: Policy::Monitor,
        ..session(
            "monitor",
            "The domain that was made up, in monitor mode",
            [127, 0, 0, 11],
            "host11.dsl.provider.test",
            vec![Message {
                edits: INSERTED,
                ..message("ann@nowhere.test", Wanted::Logged(Reason::NoSuchDomain))
            }],
        )
    }
}

fn session(
    name: &'static str,
    title: &'static str,
    client: [u8; 4],
    helo: &'static str,
    messages: Vec<Message>,
) -> Scene {
    Scene {
        name,
        title,
        milter: "",
        policy: "",
        gate: Policy::Enforce,
        client: Ipv4Addr::from(client),
        helo,
        login: None,
        after_delay: false,
        messages,
    }
}

/// To one recipient, with the sender in From:.
fn message(sender: &'static str, wanted: Wanted) -> Message {
    Message { sender, recipients: vec![(RECIPIENT, wanted)], header: &[], content: Wanted::Pass, edits: &[] }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_session_has_a_name_and_says_what_is_to_be_seen() {
        let scenes = scenes();
        let names: HashSet<_> = scenes.iter().map(|scene| scene.name).collect();
        assert_eq!(names.len(), scenes.len());
        for scene in &scenes {
            assert!(!scene.milter.is_empty() && !scene.policy.is_empty(), "{}", scene.name);
            assert!(scene.client.is_loopback() && !scene.messages.is_empty(), "{}", scene.name);
        }
    }
}
