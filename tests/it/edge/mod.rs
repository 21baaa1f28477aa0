//! The edge of the real binary: crowds of clients, few descriptors, gateways that speak for others.
//!
//! The next hop is a folder, the name server `rmxd zone`; everything stays on loopback.

mod crowd;
mod daemon;
mod gateways;
