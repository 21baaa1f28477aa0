//! rmxd, the gate in front of a mail server: reverse MX lookup for inbound SMTP.
//!
//! The modules in reading order, lowest first; each imports only from those above it (`tests/it/layers.rs`).

pub mod smtp;

pub mod policy;

pub mod message;

pub mod session;

pub mod dns;

pub mod reverse_mx;

pub mod gate;

pub mod relay;

pub mod door;

pub mod server;

pub mod zone;

pub mod cli;
