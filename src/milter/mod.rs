//! The words of the milter protocol (Sendmail's `mfdef.h`, versions 2 to 6), pure: packets, events, answers.
//!
//! Sendmail and Postfix send [`Event`]s, one [`Packet`] each. An event that expects an answer
//! ([`Event::expects_answer`]) gets one final [`Answer`]; at the end of a message edits of the header may precede it.
//! [`Terms`] are what both sides negotiated. The answers ACCEPT, DISCARD, QUARANTINE and SHUTDOWN don't exist here:
//! each takes the rest of a session, or a message, out of rmxd's sight.

mod answer;
mod client;
mod event;
pub(crate) mod flags;
pub(crate) mod letter;
mod negotiation;
pub(crate) mod packet;

pub use crate::milter::answer::Answer;
pub use crate::milter::client::Client;
pub use crate::milter::event::{Event, Header, Macros, Malformed, Path};
pub use crate::milter::negotiation::{Terms, TooOld, Wants};
pub use crate::milter::packet::{BadLength, MAX_LENGTH, Packet};
