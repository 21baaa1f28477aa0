//! What no mail goes through: the demo, the load test, and the replay of logs.

pub mod demo;
pub mod load;
pub mod mta;
pub mod replay;
