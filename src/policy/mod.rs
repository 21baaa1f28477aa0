//! The rules, pure: what was found about each identity, and the verdict that follows (no I/O, no clock).
//!
//! [`evidence`] is what DNS said, [`finding`] what one rule made of it for one identity, [`decide`] the one place
//! that turns findings into a verdict, and [`reason`] the one table from a reason to reply, log name and help.

pub mod client;
pub mod decide;
pub mod finding;
pub mod identity;
pub mod outcome;
pub mod reason;
pub mod rule;
