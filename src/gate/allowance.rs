//! How many questions to DNS one client may cause (contract 4), and which part of them is whose.
//!
//! The parts are cut so that no identity that a sender chooses freely can spend what the check of another needs: past a budget
//! a finding is a temperror, which `policy.on_dns_error = "accept"` lets pass.
//!
//! | whose | at most |
//! | --- | --- |
//! | a connection that sends nothing | 6: PTR, three names, and two for aliases |
//! | the client's PTR names and HELO | 20 |
//! | these and MAIL FROM, so at least 30 are left to MAIL FROM | 50 |
//! | these and the header | 120 |
//! | each identity, all of its domains | 45 |
//!
//! From: can always have its 45, Reply-To: what is left beside that. Within one identity the rules that can refuse are asked
//! first, each domain from an equal share.

use crate::dns::Budget;

const SILENT: u32 = 6;
const CONNECTION: u32 = 20;
const ENVELOPE: u32 = 50;
const MESSAGE: u32 = 120;
const IDENTITY: u32 = 45;

/// What one message may cause, with what its client caused before it.
#[derive(Debug, Clone)]
pub(super) struct Allowance {
    message: Budget,
    envelope: Budget,
    connection: Budget,
}

impl Allowance {
    pub(super) fn new() -> Self {
        let message = Budget::of(MESSAGE);
        let envelope = message.part(ENVELOPE);
        let connection = envelope.part(CONNECTION);
        Self { message, envelope, connection }
    }

    /// For the names of a client that has sent nothing yet.
    pub(super) fn names(&self) -> Budget {
        self.connection.part(SILENT)
    }

    /// For the identities `ptr` and `helo`.
    pub(super) fn connection(&self) -> Budget {
        self.connection.clone()
    }

    pub(super) fn mail_from(&self) -> Budget {
        self.envelope.part(IDENTITY)
    }

    /// For From: and for Reply-To:.
    pub(super) fn visible(&self) -> [Budget; 2] {
        let beside = self.message.left().saturating_sub(self.envelope.left()).saturating_sub(IDENTITY);
        [IDENTITY, beside.min(IDENTITY)].map(|questions| self.message.part(questions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_sender_chooses_takes_what_another_identity_needs() {
        let fresh = Allowance::new();
        let (helo, mail_from) = (fresh.connection(), fresh.mail_from());
        assert_eq!((fresh.names().left(), helo.left(), mail_from.left()), (6, 20, 45));
        assert_eq!(fresh.visible().map(|budget| budget.left()), [45, 25]);
        spend(&helo);
        assert_eq!((fresh.names().left(), mail_from.left()), (0, 30));
        spend(&mail_from);
        let [from, reply_to] = fresh.visible();
        assert_eq!((from.left(), reply_to.left()), (45, 25));
        spend(&reply_to);
        assert_eq!(from.left(), 45);
        spend(&from);
        assert_eq!(fresh.message.left(), 0);
    }

    fn spend(budget: &Budget) {
        while budget.spend() {}
    }
}
