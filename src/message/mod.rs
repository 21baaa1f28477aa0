//! The message's header: from a header block to the sender domains, and the trace fields that rmxd adds.
//!
//! [`header`] reads From: and Reply-To:, [`authentication_results`] takes forged results out and writes ours,
//! [`trace`] writes Received: and Return-Path:. Whoever shows the message reads its header a little differently, so a
//! header with two readings is malformed here, never read in the friendlier way.

mod address_list;
pub mod authentication_results;
pub(crate) mod fields;
mod fold;
pub mod header;
mod lexer;
pub mod malformed;
mod second_reader;
pub mod trace;
