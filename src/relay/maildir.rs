//! A Maildir as next hop: one file for each message, complete and synced before it is acknowledged.
//!
//! The file is written under `tmp`, synced, renamed into `new`, and the folder synced; only then is the reply 250.
//! Lines end with LF, as Maildir readers expect, and `Return-Path:` comes first (RFC 5321 4.4). File work runs off the
//! async threads, in a [`Draft`] that removes its file when it is dropped unpublished: neither an error nor a dropped
//! transaction leaves a file behind. Every recipient is accepted.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::relay::error::{RelayError, Stage};
use crate::relay::line_feeds::LineFeeds;
use crate::smtp::address::ReversePath;
use crate::smtp::transparency::Unstuffer;

/// Octets that are collected before a write.
const BUFFER: usize = 64 * 1024;

/// Makes file names unique even where the clock stands still or goes back.
static DELIVERIES: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone)]
pub(super) struct Maildir {
    folder: Arc<Folder>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Our name as a part of a file name.
    host: String,
}

impl Maildir {
    pub(super) fn new(path: &Path, hostname: &str) -> Self {
        let host = hostname.replace('/', "\\057").replace(':', "\\072");
        Self { folder: Arc::new(Folder { path: path.to_owned(), host }) }
    }

    /// The same folder with another host name.
    pub(super) fn with_settings(&self, hostname: &str) -> Self {
        Self::new(&self.folder.path, hostname)
    }

    /// Creates the folders that are missing, and writes in each.
    pub(super) async fn probe(&self) -> Result<(), RelayError> {
        let folder = Arc::clone(&self.folder);
        Ok(off_thread(move || folder.prepare()).await?)
    }

    /// The disk isn't touched before DATA.
    pub(super) fn begin(&self, reverse_path: &ReversePath) -> MaildirTransaction {
        MaildirTransaction {
            folder: Arc::clone(&self.folder),
            unstuffer: Unstuffer::default(),
            line_feeds: LineFeeds::default(),
            buffer: format!("Return-Path: <{reverse_path}>\n").into_bytes(),
            draft: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct MaildirTransaction {
    folder: Arc<Folder>,
    unstuffer: Unstuffer,
    line_feeds: LineFeeds,
    /// Octets that aren't written yet.
    buffer: Vec<u8>,
    /// The file, from DATA on; `None` after a failure.
    draft: Option<Draft>,
}

impl MaildirTransaction {
    pub(super) async fn data(&mut self) -> Result<(), RelayError> {
        if self.draft.is_some() {
            return Err(RelayError::OutOfStep(Stage::Data));
        }
        let folder = Arc::clone(&self.folder);
        self.draft = Some(off_thread(move || folder.draft()).await?);
        Ok(())
    }

    pub(super) async fn write(&mut self, stuffed: &[u8]) -> Result<(), RelayError> {
        for piece in stuffed.chunks(BUFFER) {
            let Self { unstuffer, line_feeds, buffer, .. } = self;
            unstuffer.push(piece, |plain| line_feeds.push(plain, buffer));
            if self.buffer.len() >= BUFFER {
                let draft = self.draft.take().ok_or(RelayError::OutOfStep(Stage::Message))?;
                let buffer = std::mem::take(&mut self.buffer);
                let (draft, buffer) = off_thread(move || draft.append(buffer)).await?;
                (self.draft, self.buffer) = (Some(draft), buffer);
            }
        }
        Ok(())
    }

    /// When this is `Ok`, the message is in `new` and survives a crash.
    pub(super) async fn finish(self) -> Result<(), RelayError> {
        let draft = self.draft.filter(|_| self.unstuffer.is_at_line_start());
        let draft = draft.ok_or(RelayError::OutOfStep(Stage::End))?;
        let buffer = self.buffer;
        Ok(off_thread(move || draft.append(buffer)?.0.publish()).await?)
    }
}

impl Folder {
    fn prepare(&self) -> io::Result<()> {
        for name in ["tmp", "new", "cur"] {
            let folder = self.path.join(name);
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            // readers of the folder ignore names that start with a dot
            let trial = folder.join(format!(".{}", self.unique_name()));
            drop(new_file(&trial)?);
            std::fs::remove_file(&trial)?;
        }
        File::open(&self.path)?.sync_all()
    }

    fn draft(&self) -> io::Result<Draft> {
        let name = self.unique_name();
        let path = self.path.join("tmp").join(&name);
        let file = new_file(&path)?;
        Ok(Draft { file, path, destination: self.path.join("new").join(name), published: false })
    }

    /// `SECONDS.MmicrosPpidQcount.HOST`, as Maildir writers do it.
    fn unique_name(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let count = DELIVERIES.fetch_add(1, Ordering::Relaxed);
        let (seconds, micros, process) = (now.as_secs(), now.subsec_micros(), std::process::id());
        format!("{seconds}.M{micros}P{process}Q{count}.{}", self.host)
    }
}

/// Creates a file with mode 0600; an existing file is never written to.
fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// A message under `tmp`. A drop removes the file unless it is published.
#[derive(Debug)]
struct Draft {
    file: File,
    path: PathBuf,
    destination: PathBuf,
    published: bool,
}

impl Draft {
    /// Returns the empty buffer for the next piece.
    fn append(mut self, mut buffer: Vec<u8>) -> io::Result<(Self, Vec<u8>)> {
        self.file.write_all(&buffer)?;
        buffer.clear();
        Ok((self, buffer))
    }

    fn publish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, &self.destination)?;
        // if the folder's sync fails, the client tries again: then the drop must remove this name
        self.path.clone_from(&self.destination);
        let folder = self.destination.parent().unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(target: "rmxd::relay", path = %self.path.display(), %error, "an unfinished message could not be removed");
        }
    }
}

/// Runs file work on a blocking thread. If the caller is dropped meanwhile, the result is dropped too.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
