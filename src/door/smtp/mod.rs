//! The SMTP door: one connection, from the banner to the close.
//!
//! The door owns the socket and drives the pure [`crate::session`]: each effect is carried out here (the gate is
//! asked, the relay opened with the permit of the gate, the message streamed) and its result is the next event.

mod connection;
mod incoming;
mod message;
mod relayed;
mod settings;
mod wire;

pub use crate::door::smtp::settings::{Settings, SmtpDoor};
