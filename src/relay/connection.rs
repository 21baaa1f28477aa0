//! A connection to the relay that may carry several transactions, and the client that the relay sees on it.
//!
//! After XCLIENT Postfix checks the address just given before it allows another XCLIENT, and a PROXY header comes once.
//! So such a connection serves one session of one client. XFORWARD is sent for each transaction; connections with
//! XFORWARD or without either command serve any client. A connection isn't reused after a failure, nor for long: the
//! relay's configuration may have changed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::relay::capabilities::{Attributes, Capabilities};
use crate::relay::conversation::Conversation;
use crate::relay::{ClientInfo, Settings};

/// Longest use of a connection, from its banner.
const LIFE: Duration = Duration::from_secs(300);

/// A connection that was greeted and introduced.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) conversation: Conversation,
    pub(super) offered: Capabilities,
    pub(super) introduced: Introduced,
    /// Whether the relay refused a command or message: it counts errors, and would make the next client wait for them.
    pub(super) had_refusal: bool,
    pub(super) made_by: Arc<Settings>,
    opened: Instant,
    uses: u32,
}

/// The client that the relay sees.
#[derive(Debug)]
pub(super) enum Introduced {
    /// rmxd itself.
    Gateway,
    /// rmxd itself; XFORWARD names the client for its log before each MAIL.
    ByTransaction(Attributes),
    /// Our client, by XCLIENT or a PROXY header.
    As(Box<ClientInfo>),
}

/// The use of a connection after a transaction that ended in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It is closed.
    End,
    /// It waits for the next transaction of the same lease.
    SameLease,
    /// It waits for any transaction.
    AnyLease,
}

impl Connection {
    pub(super) fn new(
        mut conversation: Conversation,
        offered: Capabilities,
        introduced: Introduced,
        made_by: Arc<Settings>,
    ) -> Self {
        conversation.set_pipelining(offered.pipelining);
        let opened = Instant::now();
        Self { conversation, offered, introduced, had_refusal: false, made_by, opened, uses: 0 }
    }

    /// Whether the relay sees this client, or any.
    pub(super) fn suits(&self, client: &ClientInfo) -> bool {
        match &self.introduced {
            Introduced::Gateway | Introduced::ByTransaction(_) => true,
            Introduced::As(other) => **other == *client,
        }
    }

    /// Counts a transaction that ended and decides on the next use of the connection. `undo` sends RSET for a
    /// transaction that is still open.
    pub(super) fn next(&mut self, undo: bool) -> Next {
        self.uses += 1;
        let shared = !matches!(self.introduced, Introduced::As(_));
        let spent = self.uses >= self.made_by.messages_per_connection
            || self.opened.elapsed() >= LIFE
            || (shared && self.had_refusal);
        if spent || !self.conversation.is_free() || (undo && !self.conversation.reset()) {
            Next::End
        } else if shared {
            Next::AnyLease
        } else {
            Next::SameLease
        }
    }

    pub(super) fn quit(self) {
        self.conversation.quit();
    }
}
