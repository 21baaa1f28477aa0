//! One file of the store: a B-tree that takes a batch of changes whole or not at all, locked against a second daemon.
//!
//! It is checked from end to end when it is opened. A damaged one is refused and left as it is, since only the operator
//! can tell whether a copy of it is at hand; it is never silently begun anew.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database};

/// Pages held in memory, beside those that the system holds.
const CACHE: usize = 8 << 20;

/// Why a file of the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system says no.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Somebody else has it open.
    #[error("{}: in use by another rmxd", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is not a file of ours, or not a whole one.
    #[error("{}: can't be read ({what}): move it away, and rmxd begins a new one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl OpenError {
    /// Whether trying again later may help without the operator doing anything.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::InUse { .. } => true,
            Self::Damaged { .. } => false,
            Self::Io { error, .. } => !matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::IsADirectory
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::InvalidInput
            ),
        }
    }
}

/// Opens the file, or makes an empty one that nobody else can read, and lets `load` read what is in it.
pub(super) fn open<T>(
    path: &Path,
    load: impl FnOnce(&Database) -> Result<T, redb::Error>,
) -> Result<(Database, T), OpenError> {
    let path = std::path::absolute(path).unwrap_or_else(|_no_folder| path.to_owned());
    let opened = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let backend = FileBackend::new(options.open(&path)?)?;
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
        let database = builder.create_with_backend(backend)?;
        let loaded = load(&database)?;
        Ok((database, loaded))
    };
    // Where the check overlooks damage, redb may panic on what it reads.
    let opened = catch_unwind(AssertUnwindSafe(opened));
    let wrong = |error: redb::Error| match error {
        redb::Error::DatabaseAlreadyOpen => OpenError::InUse { path: path.clone() },
        // redb's words for a file that is none of its own, and for one that ends too early
        redb::Error::Io(error)
            if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            OpenError::Io { path: path.clone(), error }
        }
        other => OpenError::Damaged { path: path.clone(), what: other.to_string() },
    };
    match opened {
        Ok(opened) => opened.map_err(wrong),
        Err(_panic) => {
            Err(OpenError::Damaged { path: path.clone(), what: "its contents make no sense".into() })
        }
    }
}
