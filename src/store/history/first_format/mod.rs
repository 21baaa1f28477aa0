//! The history of the first format: a folder of files that were only appended to. It is read once and taken over.
//!
//! The folder stood where the database stands now. It is moved to `PATH.taking-over`, its files are copied into the database
//! one after the other, beside the daemon's work, and at the end it is moved to `PATH.old`. A crash costs nothing: the
//! database has the names of the files that it has.

mod block;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::decision::{DecisionRecord, Id};
use crate::store::history::decode;
use crate::store::history::first_format::block::{split, walk};

/// The end of a file's name; the start is the number of its first block, in hexadecimal digits.
const SUFFIX: &str = ".history";
/// The daemon of the first format held a lock on this file.
const LOCK: &str = "lock";
/// Octets in the database for one of the first format, about.
const GROWTH: u64 = 3;

/// A folder that is being taken over.
#[derive(Debug)]
pub(super) struct Old {
    folder: PathBuf,
    /// Where it goes at the end.
    goes_to: PathBuf,
    /// The files to come, the oldest first.
    files: VecDeque<OldFile>,
}

#[derive(Debug, Clone)]
pub(super) struct OldFile {
    path: PathBuf,
    /// The number of its first block.
    pub(super) number: u64,
    octets: u64,
    /// The time of the last write.
    last: SystemTime,
}

impl Old {
    /// Moves a folder of the first format out of the way of the database, or finds one whose taking over was interrupted.
    pub(super) fn begin(path: &Path) -> io::Result<Option<Self>> {
        let folder = beside(path, "taking-over");
        if !folder.is_dir() {
            let is_ours = path.is_dir() && (path.join(LOCK).exists() || !files(path)?.is_empty());
            if !is_ours {
                return Ok(None);
            }
            fs::rename(path, &folder)?;
        }
        let files = files(&folder)?.into();
        Ok(Some(Self { goes_to: beside(path, "old"), folder, files }))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn goes_to(&self) -> &Path {
        &self.goes_to
    }

    /// Leaves out the files that are taken over already, that are too old, and the oldest of more than `size` octets.
    pub(super) fn leave_out(&mut self, taken: &[u64], keep: Duration, size: u64) {
        let oldest = SystemTime::now().checked_sub(keep);
        self.files
            .retain(|file| !taken.contains(&file.number) && oldest.is_none_or(|oldest| file.last >= oldest));
        while self.files.iter().map(|file| file.octets * GROWTH).sum::<u64>() > size {
            self.files.pop_front();
        }
    }

    /// The largest position, and the last id in the newest file.
    pub(super) fn last(&self) -> (u64, Option<Id>) {
        let Some(newest) = self.files.back() else { return (0, None) };
        let found = File::open(&newest.path).and_then(|file| walk(file, newest.octets));
        let (found, _) = found.unwrap_or_default();
        let number = found.iter().map(|block| block.number).fold(newest.number, u64::max);
        (number.saturating_add(newest.octets), found.iter().map(|block| block.last_id).max().map(Id::nth))
    }

    pub(super) fn first(&self) -> Option<&OldFile> {
        self.files.front()
    }

    /// The first file is taken over, or can't be.
    pub(super) fn done_with_first(&mut self) {
        self.files.pop_front();
    }

    /// Moves the folder to its last place.
    pub(super) fn finish(&self) -> io::Result<()> {
        fs::rename(&self.folder, &self.goes_to)
    }
}

impl OldFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Calls `each` for the records, the oldest first, with their positions: about the microseconds since 1970, and after `last`.
    /// Returns the number of damaged octets.
    pub(super) fn read<E: From<io::Error>>(
        &self,
        mut last: u64,
        mut each: impl FnMut(u64, &DecisionRecord) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut file = File::open(&self.path)?;
        let (blocks, mut lost) = walk(&file, self.octets)?;
        for block in blocks {
            let Some(body) = block.read(&mut file)? else {
                lost += block.octets();
                continue;
            };
            for octets in split(&body) {
                match decode::record(octets, Vec::new(), |_| true).flatten() {
                    Some(record) => {
                        last = block.number.max(last.saturating_add(1));
                        each(last, &record)?;
                    }
                    None => lost += octets.len() as u64,
                }
            }
        }
        Ok(lost)
    }
}

/// `PATH.END`.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(".");
    name.push(end);
    name.into()
}

/// All files of the history, the oldest first; other files are ignored.
fn files(folder: &Path) -> io::Result<Vec<OldFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(number_of) else { continue };
        let metadata = entry.metadata()?;
        if metadata.is_file() {
            let (octets, last) = (metadata.len(), metadata.modified()?);
            files.push(OldFile { path: entry.path(), number, octets, last });
        }
    }
    files.sort_unstable_by_key(|file| file.number);
    Ok(files)
}

/// The number in the name of a file of the history; `None` for any other name, or a number out of range.
fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let ours = digits.len() == 16 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(digits, 16).ok().filter(|number| ours && i64::try_from(*number).is_ok())
}
