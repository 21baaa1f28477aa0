//! A Maildir as next hop: one file for each message, complete and synced before it is acknowledged.
//!
//! The file is written under `tmp`, synced, renamed into `new`, and the folder synced; only then is the answer 250.
//! Lines end with LF, as Maildir readers expect, and `Return-Path:` comes first (RFC 5321 4.4). All file work is done
//! off the async threads by a [`Draft`], which removes its file when it is dropped unpublished: an error, a dropped
//! transaction and one dropped in the middle of a write all leave nothing behind. Recipients aren't looked at.

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

/// What is collected in memory before it is written.
const BUFFER: usize = 64 * 1024;

/// Makes the names of this process unique (the clock may stand still or go back).
static DELIVERIES: AtomicU64 = AtomicU64::new(0);

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Maildir {
    place: Arc<Folder>,
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
        Self { place: Arc::new(Folder { path: path.to_owned(), host }) }
    }

    /// The same folder for another name of ours.
    pub(super) fn with_settings(&self, hostname: &str) -> Self {
        Self::new(&self.place.path, hostname)
    }

    /// Creates the folders that are missing, and writes in each.
    pub(super) async fn probe(&self) -> Result<(), RelayError> {
        let place = Arc::clone(&self.place);
        Ok(off_thread(move || place.prepare()).await?)
    }

    /// Nothing touches the disk before DATA.
    pub(super) fn begin(&self, reverse_path: &ReversePath) -> MaildirTransaction {
        MaildirTransaction {
            place: Arc::clone(&self.place),
            unstuffer: Unstuffer::default(),
            line_feeds: LineFeeds::default(),
            buffer: format!("Return-Path: <{reverse_path}>\n").into_bytes(),
            draft: None,
        }
    }
}

/// One delivery.
#[derive(Debug)]
pub(super) struct MaildirTransaction {
    place: Arc<Folder>,
    unstuffer: Unstuffer,
    line_feeds: LineFeeds,
    /// Not yet written.
    buffer: Vec<u8>,
    /// The file, from DATA on; gone for good once anything failed or was broken off.
    draft: Option<Draft>,
}

impl MaildirTransaction {
    pub(super) async fn data(&mut self) -> Result<(), RelayError> {
        if self.draft.is_some() {
            return Err(RelayError::OutOfStep(Stage::Data));
        }
        let place = Arc::clone(&self.place);
        self.draft = Some(off_thread(move || place.draft()).await?);
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

    /// The message is in `new` and will survive a crash when this is `Ok`.
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
            // a name with a dot in front is no mail to a reader of the folder
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

/// Creates a file that only we can read; one that is there already is never written to.
fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// A message in the making. Unless it is published, its file goes with it.
#[derive(Debug)]
struct Draft {
    file: File,
    path: PathBuf,
    destination: PathBuf,
    published: bool,
}

impl Draft {
    /// Writes, and gives the buffer back for the next piece.
    fn append(mut self, mut buffer: Vec<u8>) -> io::Result<(Self, Vec<u8>)> {
        self.file.write_all(&buffer)?;
        buffer.clear();
        Ok((self, buffer))
    }

    fn publish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, &self.destination)?;
        // should the folder's sync fail, the client will come again: it is this name that must go then
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
            tracing::warn!(target: "rmxd::relay", path = %self.path.display(), %error, "unfinished mail not removed");
        }
    }
}

/// Runs file work where it may block. The caller may be dropped meanwhile: what the work returns is dropped as well.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
