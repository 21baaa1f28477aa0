//! One file of the store: a B-tree with atomic batches of changes, locked against a second daemon.
//!
//! The whole file is checked when it is opened. A damaged file is refused and left unchanged, since only the operator
//! knows whether there is a copy of it; it is never silently replaced by an empty one.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database};

/// Octets of pages in memory, beside the system's page cache.
const CACHE: usize = 8 << 20;

/// Why a file of the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A system call failed.
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    /// Another process has it open.
    #[error("{}: in use by another rmxd", path.display())]
    InUse { path: PathBuf },
    /// It isn't a file of rmxd; it is left as it is.
    #[error("{}: is not a file of rmxd: move it away, or name another", path.display())]
    Foreign { path: PathBuf },
    /// The database refused.
    #[error("{}: {what}", path.display())]
    Database { path: PathBuf, what: String },
    /// It isn't a file of rmxd, or it is damaged.
    #[error("{}: can't be read ({what}): move it away, and rmxd begins a new one", path.display())]
    Damaged { path: PathBuf, what: String },
}

impl OpenError {
    /// Whether a later try may succeed without an action of the operator.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::InUse { .. } | Self::Database { .. } => true,
            Self::Damaged { .. } | Self::Foreign { .. } => false,
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

/// Opens the file, or makes an empty one that no other user can read, and calls `load` to read its contents.
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
    // redb may panic on damage that its check overlooks.
    let opened = catch_unwind(AssertUnwindSafe(opened));
    let open_error = |error: redb::Error| match error {
        redb::Error::DatabaseAlreadyOpen => OpenError::InUse { path: path.clone() },
        // redb returns these kinds for a file that isn't a redb file, and for one that ends too early.
        redb::Error::Io(error)
            if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            OpenError::Io { path: path.clone(), error }
        }
        other => OpenError::Damaged { path: path.clone(), what: other.to_string() },
    };
    match opened {
        Ok(opened) => opened.map_err(open_error),
        Err(_panic) => {
            Err(OpenError::Damaged { path: path.clone(), what: "its contents make no sense".into() })
        }
    }
}
