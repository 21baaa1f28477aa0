//! Data that outlives a connection and a restart, in SQLite databases: the history in one, greylist and permits in
//! another.
//!
//! No session ever waits for a disk: sessions use memory, and a thread writes the changes. A crash loses the last second
//! and never leaves a file half written.

mod file;
pub mod greylist;
pub mod history;
pub mod permits;
pub mod shared;
mod state;

pub use crate::store::file::OpenError;
pub use crate::store::state::StateFile;
