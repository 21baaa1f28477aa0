//! rmxd, the gate in front of a mail server: reverse MX lookup for inbound SMTP.
//!
//! The modules in reading order, lowest first: a module imports only from those above it in this list
//! (`tests/it/layers.rs` reads the list and keeps it so).

pub mod smtp;

pub mod policy;

pub mod message;

pub mod session;

pub mod dns;

pub mod reverse_mx;

pub mod gate;

pub mod tls;

pub mod relay;

pub mod door;

pub mod server;

pub mod zone;

pub mod log;

pub mod config;

pub mod cli;
