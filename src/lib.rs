//! rmxd, the gate in front of a mail server: reverse MX lookup for inbound SMTP.

pub mod cli;
pub mod dns;
pub mod door;
pub mod gate;
pub mod policy;
pub mod relay;
pub mod reverse_mx;
pub mod server;
pub mod session;
pub mod smtp;
pub mod zone;
