//! What must hold for every input, as functions that panic where it doesn't.
//!
//! One module for each fuzz target; a target gives each of its inputs to `check`. `tests/it/corpus.rs` includes this
//! file as a module and gives the committed corpus to the same functions, on stable Rust and without cargo-fuzz. The
//! first octets of an input choose settings and how the rest is cut into reads, so that a corpus file is the whole case.

pub mod address;
pub mod command;
pub mod delegation;
pub mod dkim;
pub mod dmarc;
pub mod door;
pub mod framing;
pub mod from;
pub mod header;
pub mod milter;
pub mod proxy;
pub mod reply;
pub mod session;
pub mod spf;
mod wire;

/// The targets by name, for whoever plays a corpus.
pub const TARGETS: [(&str, fn(&[u8])); 14] = [
    ("address", address::check),
    ("command", command::check),
    ("delegation", delegation::check),
    ("dkim", dkim::check),
    ("dmarc", dmarc::check),
    ("door", door::check),
    ("framing", framing::check),
    ("from", from::check),
    ("header", header::check),
    ("milter", milter::check),
    ("proxy", proxy::check),
    ("reply", reply::check),
    ("session", session::check),
    ("spf", spf::check),
];
