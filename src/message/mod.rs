//! The message's header: from a header block to the sender domains, and the trace fields that rmxd adds.
//!
//! [`header`] reads From: and Reply-To:, [`forged_results`] removes results in our name, [`authentication_results`]
//! writes our own, [`mailbox_line`] turns a mailbox's `From ` line into a field, [`trace`] writes Received: and
//! Return-Path:. Programs that show a message differ in how they read its header, so a header with two readings is
//! malformed here; the friendlier reading is never taken.

mod address_list;
pub mod authentication_results;
mod broken_lines;
mod cross_check;
pub(crate) mod fields;
pub mod file;
mod fold;
pub mod forged_results;
pub mod header;
mod lexer;
pub mod mailbox_line;
pub mod malformed;
pub mod trace;
pub(crate) mod u_label;
pub mod way;
