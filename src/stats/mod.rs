//! Statistics of refusals by kind and sender domain, with bounded memory, and the report of monitor mode.

pub mod hindsight;
mod monitor;
pub mod refusals;

pub use crate::stats::monitor::{DAILY, Monitor, ReportTrigger};
