//! What no mail goes through: the demo, the load test, the mail server that both can be, and the replay of
//! logs.

pub mod demo;
mod door;
pub mod load;
pub mod mta;
pub mod replay;
