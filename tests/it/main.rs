//! The integration tests, one binary.
//!
//! `cfg(test)` always holds here; it tells clippy that helpers of tests may panic as tests do.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod allow;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod check;
#[cfg(test)]
mod config;
#[cfg(test)]
mod container;
#[cfg(test)]
mod corpora;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod dashboard;
#[cfg(test)]
mod day;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod dialogues;
#[cfg(test)]
mod dkim;
#[cfg(test)]
mod dns_load;
#[cfg(test)]
mod dns_watch;
#[cfg(test)]
mod dns_words;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod edge;
#[cfg(test)]
mod exempt;
#[cfg(test)]
mod fail2ban;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod greylist;
#[cfg(test)]
mod history;
#[cfg(test)]
mod interop;
#[cfg(test)]
mod journal;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod load;
#[cfg(test)]
mod manual;
#[cfg(test)]
mod monitor;
#[cfg(test)]
mod profiles;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod serve;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod spf;
#[cfg(test)]
mod starttls;
#[cfg(test)]
mod status;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod support;
#[cfg(test)]
mod systemd;
#[cfg(test)]
mod tail;
#[cfg(test)]
mod verdicts;
#[cfg(test)]
mod would;
