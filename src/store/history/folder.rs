//! The files of the history, for the daemon that writes them.
//!
//! Files are only appended to, and the oldest is removed whole for room or age: its space is free at once, and other
//! readers need no lock. Files are never repaired: after a crash the daemon begins a new file, and readers skip a block
//! without its end in the old one.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::decision::Id;
use crate::store::OpenError;
use crate::store::history::block::{Closed, walk};

/// The end of a file's name; the start is the number of the first block, in hexadecimal digits.
const SUFFIX: &str = ".history";
/// The writer holds a lock on this file.
const LOCK: &str = "lock";
/// How often the lock is tried: a writer that ends, or a reader that tests for a writer, holds it for a moment.
const TRIES: u32 = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);
/// A file takes at most this part of the size limit, so that little is removed at a time.
const SHARE: u64 = 32;
/// Octets of a file at most.
const MAX_FILE: u64 = 16 << 20;
/// A file spans at most this part of the time limit, so that its records are removed in time.
const SPAN: u32 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) keep: Duration,
    pub(super) size: u64,
}

/// A file of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// The number of its first block, which is also its time in microseconds since 1970.
    pub(super) number: u64,
    pub(super) octets: u64,
    /// The time of the last write.
    pub(super) last: SystemTime,
}

/// All files of the history, the oldest first; other files are ignored.
pub(super) fn segments(folder: &Path) -> io::Result<VecDeque<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(number_of) else { continue };
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // removed meanwhile
            other => other?,
        };
        if !metadata.is_file() {
            continue;
        }
        segments.push(Segment {
            path: entry.path(),
            number,
            octets: metadata.len(),
            last: metadata.modified()?,
        });
    }
    segments.sort_unstable_by_key(|segment| segment.number);
    Ok(segments.into())
}

/// The number in a name from [`Folder::begin`]; `None` for any other name, or a number out of range.
fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let ours = digits.len() == 16 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(digits, 16).ok().filter(|number| ours && i64::try_from(*number).is_ok())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a folder is opened before a session runs, or on a thread for it"
)]
fn pause() {
    std::thread::sleep(BETWEEN_TRIES);
}

/// Whether a daemon has the folder open.
pub(super) fn is_in_use(folder: &Path) -> bool {
    let lock = File::open(folder.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The folder, open for writing.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    segments: VecDeque<Segment>,
    /// The last segment, open for writing.
    current: Option<File>,
    /// When `current` was begun.
    begun: SystemTime,
    /// The log has a line about a file that can't be removed.
    logged: bool,
    lock: File,
}

impl Folder {
    /// Opens the folder, or makes one that no other user can read.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let path = std::path::absolute(path).unwrap_or_else(|_no_folder| path.to_owned());
        let failed = |error| OpenError::Io { path: path.clone(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        let lock = lock_file(&path).map_err(failed)?;
        let mut tries = 1..TRIES;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if tries.next().is_none() => {
                    return Err(OpenError::InUse { path });
                }
                Err(TryLockError::WouldBlock) => pause(),
            }
        }
        let segments = segments(&path).map_err(failed)?;
        Ok(Self { path, segments, current: None, begun: SystemTime::UNIX_EPOCH, logged: false, lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The octets of all files.
    pub(super) fn octets(&self) -> u64 {
        self.segments.iter().map(|segment| segment.octets).sum()
    }

    /// The largest number of a block, which is above that of the newest file if the clock was set back; and the last id in
    /// that file.
    pub(super) fn last(&self) -> (u64, Option<Id>) {
        let Some(newest) = self.segments.back() else { return (0, None) };
        let found = File::open(&newest.path).and_then(|file| walk(file, newest.octets));
        let (found, _) = found.unwrap_or_default();
        let number = found.iter().map(|block| block.contents.number).fold(newest.number, u64::max);
        (number, found.iter().map(|block| block.contents.ids.1).max().map(Id::nth))
    }

    /// The number of the newest file.
    fn newest(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.number)
    }

    /// Closes the current file if it was moved or removed, since no reader would find it, and makes a missing folder again.
    fn check_current(&mut self) -> io::Result<()> {
        let current = self.current.as_ref().zip(self.segments.back());
        if current.is_some_and(|(file, segment)| is_at(file, &segment.path)) {
            return Ok(());
        }
        if self.current.take().is_some() {
            tracing::warn!(path = %self.path.display(), "the current file of the history was moved or removed; rmxd begins a new one");
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        if !is_at(&self.lock, &self.path.join(LOCK)) {
            let lock = lock_file(&self.path)?;
            lock.try_lock()?;
            self.lock = lock;
        }
        self.segments = segments(&self.path)?;
        Ok(())
    }

    /// Closes the current file, as a restart does.
    #[cfg(test)]
    pub(super) fn close(&mut self) {
        self.current = None;
    }

    /// Makes room, appends these blocks and syncs them to disk. After an error, none of them counts as written.
    pub(super) fn append(
        &mut self,
        blocks: &[Arc<Closed>],
        limits: Limits,
        now: SystemTime,
    ) -> io::Result<()> {
        self.check_current()?;
        let before = Before {
            newest: self.newest(),
            octets: self.current.as_ref().and(self.segments.back()).map(|segment| segment.octets),
        };
        let appended = blocks.iter().try_for_each(|block| self.append_one(block, limits, now));
        let done = appended.and_then(|()| self.current.as_ref().map_or(Ok(()), File::sync_data));
        if done.is_err() {
            self.undo(before);
        }
        done
    }

    fn append_one(&mut self, block: &Closed, limits: Limits, now: SystemTime) -> io::Result<()> {
        let length = block.octets.len() as u64;
        let max = (limits.size / SHARE).min(MAX_FILE);
        let full = self.segments.back().is_none_or(|segment| segment.octets + length > max);
        let old = now.duration_since(self.begun).is_ok_and(|age| age > span(limits.keep));
        if self.current.is_none() || full || old {
            self.begin(block.contents.number, now)?;
        }
        self.make_room(length, limits.size);
        if let Some((file, segment)) = self.current.as_mut().zip(self.segments.back_mut()) {
            file.write_all(&block.octets)?;
            segment.octets += length;
            segment.last = now;
        }
        Ok(())
    }

    fn begin(&mut self, number: u64, now: SystemTime) -> io::Result<()> {
        if let Some(file) = self.current.take() {
            file.sync_data()?;
        }
        let path = self.path.join(format!("{number:016x}{SUFFIX}"));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        File::open(&self.path)?.sync_all()?;
        self.segments.push_back(Segment { path, number, octets: 0, last: now });
        (self.current, self.begun) = (Some(file), now);
        Ok(())
    }

    /// Removes what was written since then, as far as the disk allows; meanwhile readers see only whole blocks.
    fn undo(&mut self, before: Before) {
        self.current = None;
        while let Some(segment) = self.segments.pop_back_if(|segment| segment.number > before.newest) {
            fs::remove_file(&segment.path).ok();
        }
        let segment = self.segments.back_mut().filter(|segment| segment.number == before.newest);
        if let Some((octets, segment)) = before.octets.zip(segment) {
            let file = OpenOptions::new().write(true).open(&segment.path);
            file.and_then(|file| file.set_len(octets)).ok();
            segment.octets = octets;
        }
    }

    /// Removes files above the size limit, and one file above the age limit: a clock that jumps forward must not remove
    /// all files at once, nor a file that was young when the newest was written.
    pub(super) fn prune(&mut self, limits: Limits, now: SystemTime) {
        let newest = self.segments.iter().map(|segment| segment.last).max();
        let old = |segment: &Segment| {
            let before =
                |time: SystemTime| time.duration_since(segment.last).is_ok_and(|age| age > limits.keep);
            before(now) && newest.is_some_and(before)
        };
        let mut at = 0;
        while let Some(found) = self.segments.iter().skip(at).position(old) {
            at += found;
            if self.remove(at) {
                break;
            }
            at += 1;
        }
        self.make_room(0, limits.size);
    }

    /// Removes the oldest files, but never the newest, until `length` octets fit. A file that can't be removed is skipped.
    fn make_room(&mut self, length: u64, size: u64) {
        let mut at = 0;
        while at + 1 < self.segments.len() && self.octets() + length > size {
            if !self.remove(at) {
                at += 1;
            }
        }
    }

    /// Removes a file; returns whether it is gone.
    fn remove(&mut self, at: usize) -> bool {
        let Some(segment) = self.segments.get(at) else { return false };
        match fs::remove_file(&segment.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                if !std::mem::replace(&mut self.logged, true) {
                    let path = segment.path.display();
                    tracing::error!(%path, %error, "an old file of the history can't be removed");
                }
                return false;
            }
            Ok(()) | Err(_) => {}
        }
        self.segments.remove(at);
        if at == self.segments.len() {
            self.current = None;
        }
        true
    }
}

/// The state before an append.
struct Before {
    newest: u64,
    /// The octets of the current file.
    octets: Option<u64>,
}

/// Whether the path leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let [there, open] = [fs::symlink_metadata(path), file.metadata()].map(|found| found.map(place).ok());
    there.is_some() && there == open
}

/// Opens or makes the lock file.
fn lock_file(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(folder.join(LOCK))
}

fn span(keep: Duration) -> Duration {
    (keep / SPAN).max(Duration::from_secs(1))
}
