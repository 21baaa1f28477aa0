//! The message's header: from a header block to the sender domains, and the trace fields that rmxd adds.
//!
//! [`header`] reads From: and Reply-To:, [`forged_results`] takes out results that bear our name,
//! [`authentication_results`] writes ours, [`mailbox_line`] makes a field of a mailbox's `From ` line, [`trace`] writes
//! Received: and Return-Path:. Programs that show the message read its header a little differently, so a header with two
//! readings is malformed here, never read in the friendlier way.

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
mod u_label;
