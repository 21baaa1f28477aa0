//! Sockets for every door and for the admin server: endpoints, listeners, the accept loop, connection permits, and the
//! PROXY header.

pub mod catch_panic;
pub mod endpoint;
pub mod listener;
pub mod own;
mod passed;
pub mod permit;
pub mod proxy;
pub mod stream;
mod unix;

pub use crate::net::endpoint::{Endpoint, Purpose};
pub use crate::net::listener::{ListenError, Listener};
pub use crate::net::own::{OwnListener, OwnPlace};
pub use crate::net::passed::passed;
pub use crate::net::stream::Stream;
