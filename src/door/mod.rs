//! How mail is presented (contract 7): each door speaks one protocol and drives [`crate::gate::Transaction`].

pub mod smtp;

pub use crate::door::smtp::{Door, Settings, refuse_connection};
