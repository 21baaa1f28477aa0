//! SMTP syntax (RFC 5321), pure: no socket, no clock, no resolver.
//!
//! Strict where a lenient reading could be used to smuggle (framing, line ends, `@`), lenient where deviations are
//! common and harmless (a space after `MAIL FROM:`, underscores in domains).

pub mod address;
pub mod chunk;
pub mod command;
pub mod decimal;
mod domain;
pub mod escape;
pub mod framing;
pub mod not_smtp;
mod path;
pub mod pattern;
pub mod reply;
pub mod transparency;
pub mod xclient;
