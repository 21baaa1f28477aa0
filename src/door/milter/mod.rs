//! The milter door's settings.

mod settings;

pub use crate::door::milter::settings::{Results, Settings};
