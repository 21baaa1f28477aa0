//! Statistics of refusals by kind and sender domain, with bounded memory, and the report of monitor mode.

mod monitor;
pub mod refusals;

pub use crate::stats::monitor::{DAILY, Monitor, ReportTrigger};
