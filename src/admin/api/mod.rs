//! `/api/v1`: JSON for scripts and for the dashboard.

pub(super) mod cache;
pub(super) mod openapi;
