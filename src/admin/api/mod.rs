//! `/api/v1`: JSON for scripts and for the dashboard.

pub(super) mod audit;
pub(super) mod cache;
pub(super) mod check;
pub(super) mod decisions;
mod fleet;
mod history;
pub(super) mod openapi;
pub(super) mod past;
pub(super) mod permits;
pub(super) mod series;
pub(super) mod status;
pub(super) mod would;
