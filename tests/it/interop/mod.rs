//! rmxd between real programs: swaks and smtp-source in front of it, a Postfix of our own behind it.
//!
//! Everything stays on loopback and in temporary folders; a Postfix that the machine runs already is not
//! touched. A peer that isn't installed is named and its tests are skipped; with `RMXD_REQUIRE_PEERS=1`,
//! which `tests/run` sets, that is a failure.

mod beside_postfix;
mod exim;
mod faults;
mod filters;
mod gate;
pub(crate) mod mail;
mod opendkim_and_opendmarc;
pub(crate) mod postfix;

mod forged_results;
mod gate_before_postfix;
mod milter;
mod policy_service;
mod postfix_alone;
mod readers;
mod relay_connections;
mod relay_faults;
mod same_as_opendmarc;
mod same_as_postfix;
mod smuggling;
mod starttls;
mod thousand_messages;
