//! The history on disk, for the daemon that writes it: the database while it is open, what comes in its way, and a history of the
//! first format that is taken over.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::Connection;

use crate::decision::Id;
use crate::store::OpenError;
use crate::store::file::{Lock, place, remove_log};
use crate::store::history::database::Database;
use crate::store::history::file::{self, Trouble};
use crate::store::history::first_format::Old;
use crate::store::history::limits::Limits;
use crate::store::history::row::Scratch;
use crate::store::history::waiting::Waiting;

/// Rows from whose ids the sequence of ids goes on.
const IDS: u32 = 10_000;

#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// `None` while the folder can't be written.
    lock: Option<Lock>,
    open: Option<Database>,
    old: Option<Old>,
    /// The largest position.
    last: i64,
    /// The daemon ends.
    closed: bool,
    scratch: Scratch,
}

impl Disk {
    /// Opens the history, or makes it. A file that can't be used is moved aside.
    pub(super) fn open(path: &Path, limits: Limits) -> Result<Self, OpenError> {
        let path = std::path::absolute(path).unwrap_or_else(|_no_folder| path.to_owned());
        let mut disk = Self {
            path,
            lock: None,
            open: None,
            old: None,
            last: 0,
            closed: false,
            scratch: Scratch::default(),
        };
        match disk.lock() {
            Err(OpenError::Io { error, .. }) if may_not_write(&error) => {
                disk.log_memory_only(&error);
                return Ok(disk);
            }
            other => other?,
        }
        let mut opened = disk.ensure_open(limits).map(drop);
        if let Err(trouble) = &opened
            && trouble.is_of_contents()
        {
            disk.give_up(trouble);
            opened = disk.ensure_open(limits).map(drop);
        }
        match opened {
            Err(trouble) => match &trouble {
                Trouble::Foreign => Err(trouble.at(&disk.path)),
                Trouble::Io(error) if !may_not_write(error) => Err(trouble.at(&disk.path)),
                Trouble::Io(_) | Trouble::Sql(_) | Trouble::Newer(_) => {
                    disk.log_memory_only(&trouble);
                    Ok(disk)
                }
            },
            Ok(()) => Ok(disk),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn octets(&self) -> u64 {
        file::octets(&self.path)
    }

    /// The largest position.
    pub(super) fn last(&self) -> i64 {
        self.last
    }

    /// Makes positions and ids go on behind those in the history.
    fn go_on_behind(&mut self, open: &Database) -> rusqlite::Result<()> {
        if let Some(old) = &self.old {
            let (position, id) = old.last();
            self.last = self.last.max(i64::try_from(position).unwrap_or(i64::MAX / 2));
            id.into_iter().for_each(Id::continue_after);
        }
        let mut statement = open.connection.prepare("SELECT seq, id FROM rows ORDER BY seq DESC LIMIT ?1")?;
        let mut rows = statement.query([IDS])?;
        while let Some(row) = rows.next()? {
            self.last = self.last.max(row.get(0)?);
            let id: Option<String> = row.get(1)?;
            id.as_deref().and_then(Id::parse).into_iter().for_each(Id::continue_after);
        }
        Ok(())
    }

    fn lock(&mut self) -> Result<(), OpenError> {
        if self.lock.is_none() {
            if let Some(folder) = self.path.parent() {
                let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
                made.map_err(|error| OpenError::Io { path: self.path.clone(), error })?;
            }
            self.lock = Some(Lock::take(&self.path)?);
        }
        Ok(())
    }

    fn log_memory_only(&self, error: &dyn std::fmt::Display) {
        let path = self.path.display();
        tracing::warn!(%path, %error, "the history can't be written: decisions are kept in memory only, and dropped when it is full");
    }

    /// Opens the database unless it is open, or anew if the file was moved or removed.
    fn ensure_open(&mut self, limits: Limits) -> Result<&mut Database, Trouble> {
        if let Some(open) = self.open.take_if(|open| open.place != place(&self.path)) {
            tracing::warn!(path = %self.path.display(), "the file of the history was moved or removed; rmxd begins a new one");
            // The log goes into the moved file, as it isn't at its name any more.
            if let Err(error) = open.empty_log() {
                tracing::warn!(%error, "the moved file of the history misses the last decisions");
            }
            drop(open);
            remove_log(&self.path)?;
        }
        if self.open.is_none() {
            self.lock().map_err(|error| match error {
                OpenError::Io { error, .. } => Trouble::Io(error),
                other => Trouble::Io(io::Error::other(other.to_string())),
            })?;
            if self.old.is_none() {
                self.old = Old::begin(&self.path)?;
            }
            let connection = self.open_or_move_aside()?;
            let open = Database::new(connection, &self.path, limits)?;
            if let Some(old) = &mut self.old {
                old.leave_out(&open.taken()?, limits.keep, limits.file());
                let (from, to) = (old.folder().display(), old.goes_to().display());
                tracing::info!(%from, "the history of the first format is taken over, and goes to {to}");
            }
            self.go_on_behind(&open)?;
            self.open = Some(open);
        }
        self.open.as_mut().ok_or_else(|| Trouble::Io(io::ErrorKind::NotFound.into()))
    }

    fn open_or_move_aside(&self) -> Result<Connection, Trouble> {
        let ours = self.lock.as_ref().is_some_and(|lock| lock.was_there);
        match file::open(&self.path, ours) {
            Err(trouble) if trouble.is_of_contents() => {
                self.move_aside(&trouble)?;
                file::open(&self.path, true)
            }
            other => other,
        }
    }

    fn move_aside(&self, trouble: &Trouble) -> io::Result<()> {
        let aside = file::move_aside(&self.path, trouble)?;
        let (path, aside) = (self.path.display(), aside.display());
        tracing::warn!(%path, error = %trouble, "the history can't be used and was moved to {aside}; rmxd begins a new one");
        Ok(())
    }

    /// Makes room and writes decisions. The result has the number of those that are on disk now.
    pub(super) fn append(
        &mut self,
        records: &[Waiting<'_>],
        limits: Limits,
        now: SystemTime,
    ) -> (usize, Result<(), Trouble>) {
        let mut written = 0;
        if self.closed && records.is_empty() {
            return (written, Ok(()));
        }
        let mut result = self.try_append(records, limits, now, &mut written);
        if let Err(trouble) = &result {
            let another_file = trouble.is_of_contents();
            self.give_up(trouble);
            if another_file {
                result = self.try_append(records, limits, now, &mut written);
            }
        }
        (written, result)
    }

    fn try_append(
        &mut self,
        records: &[Waiting<'_>],
        limits: Limits,
        now: SystemTime,
        written: &mut usize,
    ) -> Result<(), Trouble> {
        let path = self.path.clone();
        let open = self.ensure_open(limits)?;
        open.set_limits(limits)?;
        open.append(&path, records, now, written)
    }

    /// After an error of the contents, the file is moved aside and a new one comes; after another one it is opened anew.
    fn give_up(&mut self, trouble: &Trouble) {
        self.open = None;
        if trouble.is_of_contents()
            && let Err(error) = self.move_aside(trouble)
        {
            tracing::error!(path = %self.path.display(), %error, "the damaged history can't be moved aside");
        }
    }

    /// Closes the database until the next decision: what is in its log goes into the file, and the log is removed.
    pub(super) fn close(&mut self) {
        (self.open, self.closed) = (None, true);
    }

    /// Checks all of the file, after a reader has found damage, and moves it aside if that is so.
    pub(super) fn check(&mut self) {
        if self.open.is_none() {
            return;
        }
        // By a connection of its own, as the writer's may have good pages in memory.
        let found = file::open_for_reading(&self.path).and_then(|connection| {
            Ok(connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))?)
        });
        let damage = match found {
            Ok(word) if word == "ok" => return,
            Ok(what) => Trouble::Sql(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
                Some(what.lines().next().unwrap_or_default().to_owned()),
            )),
            Err(trouble) => trouble,
        };
        if damage.is_of_contents() {
            self.give_up(&damage);
        }
    }

    /// Copies one file of the first format, if there is one; returns whether more are to come.
    pub(super) fn take_over_one(&mut self) -> bool {
        let (Some(old), Some(open)) = (&mut self.old, &mut self.open) else { return false };
        let Some(file) = old.first().cloned() else {
            let finished = old.finish().map_err(Trouble::Io).and_then(|()| Ok(open.forget_taken()?));
            let (path, to) = (self.path.display(), old.goes_to().display());
            match finished {
                Ok(()) => {
                    tracing::info!(%path, "the history of the first format is taken over; it lies in {to} and isn't needed any more")
                }
                Err(error) => {
                    tracing::error!(%path, %error, "the history of the first format can't be moved to {to}")
                }
            }
            self.old = None;
            return false;
        };
        let path = file.path().display();
        match open.take_over(&file, &mut self.scratch) {
            Ok(0) => {}
            Ok(lost) => {
                tracing::warn!(%path, lost, "octets of this file of the first format are damaged, and are left out");
            }
            Err(error) => tracing::error!(%path, %error, "this file of the first format can't be taken over"),
        }
        old.done_with_first();
        true
    }
}

fn may_not_write(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull
    )
}
