//! The files of the history, for the one daemon that writes them.
//!
//! Files are only appended to, and the oldest goes whole where there is no more room or time: its space is free at once,
//! and whoever reads beside the daemon needs no lock. Nothing is ever mended: after a crash a new file is begun, and a
//! block without an end in the old one is passed over by its readers.

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

/// What the files end in; before it stands the number of the first block, in hexadecimal digits.
const SUFFIX: &str = ".history";
/// Whoever writes holds a lock on this one.
const LOCK: &str = "lock";
/// How long a folder that is in use is tried again: a writer that ends needs a moment, and so does a reader that looks
/// whether there is one.
const TRIES: u32 = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);
/// A file takes this part of the room at most, so that as little goes at a time; and no more than is read well.
const SHARE: u64 = 32;
const LARGEST: u64 = 16 << 20;
/// A file takes this part of the time at most, so that what it holds goes in time.
const SPAN: u32 = 16;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) keep: Duration,
    pub(super) size: u64,
}

/// A file as a reader finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// Of its first block, which is also its time in microseconds since 1970.
    pub(super) number: u64,
    pub(super) octets: u64,
    /// When it was last written to.
    pub(super) last: SystemTime,
}

/// All files, the oldest first. What is none of ours is left alone.
pub(super) fn segments(folder: &Path) -> io::Result<VecDeque<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(number_of) else { continue };
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // it went meanwhile
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

/// The number in a name that [`Folder::begin`] gives; other names are not ours, and nor is a time that never comes.
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
    /// The last of them, where it is the one that is written to.
    current: Option<File>,
    begun: SystemTime,
    /// A file that can't be removed was told.
    told: bool,
    lock: File,
}

impl Folder {
    /// Opens it, and makes it if it isn't there; nobody else can read what is in it.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let path = std::path::absolute(path).unwrap_or_else(|_no_folder| path.to_owned());
        let failed = |error| OpenError::Io { path: path.clone(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        let lock = lock_of(&path).map_err(failed)?;
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
        Ok(Self { path, segments, current: None, begun: SystemTime::UNIX_EPOCH, told: false, lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All of it.
    pub(super) fn octets(&self) -> u64 {
        self.segments.iter().map(|segment| segment.octets).sum()
    }

    /// The largest number of a block, as there are larger ones than the newest file's own where the clock is behind; and
    /// the last id in that file.
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

    /// What somebody moved or removed is not written to any more, as nobody would ever read it; and a folder that is gone
    /// is made again.
    fn look(&mut self) -> io::Result<()> {
        let current = self.current.as_ref().zip(self.segments.back());
        if current.is_some_and(|(file, segment)| is_at(file, &segment.path)) {
            return Ok(());
        }
        if self.current.take().is_some() {
            tracing::warn!(path = %self.path.display(), "the file of the history that was written to is gone; a new one is begun");
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        if !is_at(&self.lock, &self.path.join(LOCK)) {
            let lock = lock_of(&self.path)?;
            lock.try_lock()?;
            self.lock = lock;
        }
        self.segments = segments(&self.path)?;
        Ok(())
    }

    /// As after a restart.
    #[cfg(test)]
    pub(super) fn close(&mut self) {
        self.current = None;
    }

    /// Appends these blocks, so that they outlive a crash of the machine, and makes room for them first. After an error
    /// none of them counts as written.
    pub(super) fn append(
        &mut self,
        blocks: &[Arc<Closed>],
        limits: Limits,
        now: SystemTime,
    ) -> io::Result<()> {
        self.look()?;
        let before = Before {
            newest: self.newest(),
            octets: self.current.as_ref().and(self.segments.back()).map(|segment| segment.octets),
        };
        let appended = blocks.iter().try_for_each(|block| self.append_one(block, limits, now));
        let done = appended.and_then(|()| self.current.as_ref().map_or(Ok(()), File::sync_data));
        if done.is_err() {
            self.take_back(before);
        }
        done
    }

    fn append_one(&mut self, block: &Closed, limits: Limits, now: SystemTime) -> io::Result<()> {
        let length = block.octets.len() as u64;
        let most = (limits.size / SHARE).min(LARGEST);
        let full = self.segments.back().is_none_or(|segment| segment.octets + length > most);
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

    /// What was written since then is taken away again as far as the disk lets us; a reader that sees a part of it finds
    /// whole blocks or none.
    fn take_back(&mut self, before: Before) {
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

    /// Removes what is too much, and of what is too old one file: a clock that jumps forward must not take everything at
    /// once, nor anything that was young when the newest was written.
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
            if self.forget(at) {
                break;
            }
            at += 1;
        }
        self.make_room(0, limits.size);
    }

    /// The oldest go until there is room for so much; never the newest. What can't be removed stays, and the next goes.
    fn make_room(&mut self, length: u64, size: u64) {
        let mut at = 0;
        while at + 1 < self.segments.len() && self.octets() + length > size {
            if !self.forget(at) {
                at += 1;
            }
        }
    }

    /// Removes a file; whether it is gone.
    fn forget(&mut self, at: usize) -> bool {
        let Some(segment) = self.segments.get(at) else { return false };
        match fs::remove_file(&segment.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                if !std::mem::replace(&mut self.told, true) {
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

/// What there was before something was appended.
struct Before {
    newest: u64,
    /// Of the file that was open.
    octets: Option<u64>,
}

/// Whether this path leads to that file.
fn is_at(file: &File, path: &Path) -> bool {
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let [there, open] = [fs::symlink_metadata(path), file.metadata()].map(|found| found.map(place).ok());
    there.is_some() && there == open
}

/// The file that is locked, made if it isn't there.
fn lock_of(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(folder.join(LOCK))
}

fn span(keep: Duration) -> Duration {
    (keep / SPAN).max(Duration::from_secs(1))
}
