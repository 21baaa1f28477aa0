//! What was refused, or would have been, summed up by kind and sender domain, within bounds.

mod monitor;
pub mod refusals;

pub use crate::stats::monitor::{DAILY, Monitor, ReportTrigger};
