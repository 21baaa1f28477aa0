//! The folder for the files of `rmxd demo` and `rmxd load --self`: other users can't read it, and it is removed at the end.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Dropping it removes the folder, unless the user asked to keep it.
pub(crate) struct Folder {
    command: &'static str,
    path: PathBuf,
    keep: bool,
}

impl Folder {
    pub(crate) fn new(command: &'static str, keep: Option<&Path>) -> Result<Self, String> {
        let path = keep.map_or_else(
            || std::env::temp_dir().join(format!("rmxd-{command}-{}", std::process::id())),
            Path::to_path_buf,
        );
        // An existing folder is used only if the user named it.
        let made = DirBuilder::new().recursive(keep.is_some()).mode(0o700).create(&path);
        let path = made
            .and_then(|()| path.canonicalize())
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { command, path, keep: keep.is_some() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("rmxd {}: {} can't be removed: {error}", self.command, self.path.display());
        }
    }
}
