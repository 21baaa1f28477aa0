//! The rules, pure (no I/O, no clock): the findings of each identity, and the verdict that follows from them.
//!
//! A [`finding`] is the result of one rule for one identity, with the DNS answers as evidence. [`decide`] is the only place
//! that turns findings into a verdict, and [`reason`] the only table from a reason to its reply, log name and help text.

pub mod authentication;
pub mod client;
pub mod decide;
pub mod door;
pub mod finding;
pub mod identity;
pub mod operator;
pub mod outcome;
pub mod reason;
pub mod rule;
pub mod senders;
