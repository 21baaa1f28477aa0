//! What outlives a connection, and a restart. Each kind of memory has a file of its own in the folder of the daemon's
//! state; `file` opens such a file, and is the only place that knows what can be wrong with one.
//!
//! No session ever waits for a disk: it is answered from memory, and a thread writes behind. What a crash loses is the
//! last second, and a file is never left half written.

mod file;
pub mod greylist;

pub use crate::store::file::OpenError;
