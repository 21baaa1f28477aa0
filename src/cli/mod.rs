//! One file per command.

pub mod zone;
