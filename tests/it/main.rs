//! The integration tests, one binary.
//!
//! `cfg(test)` always holds here; it tells clippy that helpers of tests may panic as tests do.

#[cfg(test)]
mod config;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod interop;
#[cfg(test)]
mod layers;
