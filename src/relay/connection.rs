//! A connection to the relay that may carry several transactions, and whom the relay takes for its client on it.
//!
//! After XCLIENT Postfix asks again, of the address just given, whether XCLIENT is allowed; a PROXY header comes once.
//! So such a connection is for one client, as it introduced itself, and for one session of it. XFORWARD is said for each
//! transaction; that connection, and one on which nothing is said, are anyone's. Nothing is reused after anything
//! unusual, nor for long: the relay may have been configured anew since.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::relay::capabilities::{Attributes, Capabilities};
use crate::relay::conversation::Conversation;
use crate::relay::{ClientInfo, Settings};

/// How long one is used, from its banner.
const LIFE: Duration = Duration::from_secs(300);

/// A connection that was greeted and introduced.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) conversation: Conversation,
    /// What the relay offers on it.
    pub(super) offered: Capabilities,
    pub(super) introduced: Introduced,
    /// Whether the relay refused a command or message: it counts that, and makes whoever comes next wait for it.
    pub(super) stained: bool,
    /// What it was made by.
    pub(super) made_by: Arc<Settings>,
    opened: Instant,
    uses: u32,
}

/// Whom the relay takes for its client.
#[derive(Debug)]
pub(super) enum Introduced {
    /// Us, and nobody else is named.
    Nobody,
    /// Us; whom it logs is said before each MAIL.
    ByTransaction(Attributes),
    /// This one.
    As(Box<ClientInfo>),
}

/// What is done with a connection when a transaction has ended in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing more: it is closed.
    End,
    /// It waits for the next transaction of the same client's session.
    SameVisit,
    /// It waits for anyone's.
    Anyone,
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
        Self { conversation, offered, introduced, stained: false, made_by, opened, uses: 0 }
    }

    /// Whether it is this client that the relay takes for its own, or could be any.
    pub(super) fn suits(&self, client: &ClientInfo) -> bool {
        match &self.introduced {
            Introduced::Nobody | Introduced::ByTransaction(_) => true,
            Introduced::As(other) => **other == *client,
        }
    }

    /// Takes note of a transaction that ended, and says what becomes of the connection. An open transaction is undone
    /// by RSET.
    pub(super) fn next(&mut self, undo: bool) -> Next {
        self.uses += 1;
        let shared = !matches!(self.introduced, Introduced::As(_));
        let spent = self.uses >= self.made_by.messages_per_connection
            || self.opened.elapsed() >= LIFE
            || (shared && self.stained);
        if spent || !self.conversation.is_free() || (undo && !self.conversation.reset()) {
            Next::End
        } else if shared {
            Next::Anyone
        } else {
            Next::SameVisit
        }
    }

    /// Leaves politely where the relay waits for a command, else just closes.
    pub(super) fn quit(self) {
        self.conversation.quit();
    }
}
