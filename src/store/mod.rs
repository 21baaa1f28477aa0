//! What outlives a connection, and a restart. The greylist is a B-tree in a file that `file` opens, the only place that
//! knows what can be wrong with one; the history is a folder of files that only grow, then go.
//!
//! No session ever waits for a disk: it is answered from memory, and a thread writes behind. What a crash loses is the
//! last second, and a file is never left half written.

mod file;
pub mod greylist;
pub mod history;

pub use crate::store::file::OpenError;
