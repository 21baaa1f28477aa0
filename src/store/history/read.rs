//! Looks for decisions, the newest first: in what is not written yet, then in the files.
//!
//! A file may grow or go meanwhile; what is read is whole blocks. What is damaged is passed over, and said.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::record::{Id, Record};
use crate::store::history::block::{Closed, Contents, walk};
use crate::store::history::decode;
use crate::store::history::encode::milliseconds;
use crate::store::history::filter::{Cursor, Filter};
use crate::store::history::folder::{Segment, segments};

/// Octets of records that are looked at for one page: a filter that fits nothing must not take for ever.
const WORK: usize = 64 << 20;
/// Decisions of one id that are found.
const MOST_OF_ONE: usize = 100;
/// How far apart decisions of one transaction can be: longer than a session lasts.
const APART: Duration = Duration::from_secs(2 * 60 * 60);

/// What was found.
#[derive(Debug, Default)]
pub struct Page {
    /// The newest first.
    pub records: Vec<Record>,
    /// Where more may be found; a page may be short and yet not the last.
    pub next: Option<Cursor>,
    /// What could not be read.
    pub damage: Vec<Damage>,
}

/// A file of which a part makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {octets} octets are damaged and were passed over; what they held is lost, moving the file away loses the rest of it too", path.display())]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// How much of it.
    pub octets: u64,
}

/// Why nothing could be looked for.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system says no.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Something that should not happen did.
    #[error("the search died: {0}")]
    Died(#[from] tokio::task::JoinError),
}

/// What there is to look through.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) folder: &'a Path,
    /// Blocks that are not written yet, the oldest first.
    pub(super) tail: &'a [Arc<Closed>],
    /// What is older counts as gone.
    pub(super) oldest: Option<SystemTime>,
}

impl Source<'_> {
    /// The next `limit` records that fit, those before a place.
    pub(super) fn search(
        &self,
        filter: &Filter,
        before: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let since = filter.since.into_iter().chain(self.oldest).max();
        let filter = Filter { since, ..filter.clone() };
        let mut search = Search { filter: &filter, before, limit, left: WORK, page: Page::default() };
        let wanted = |contents: &Contents| {
            before.is_none_or(|before| contents.number <= before.block) && filter.fits_block(contents)
        };
        let fits = |segment: &Segment| {
            before.is_none_or(|before| segment.number <= before.block)
                && filter.since.is_none_or(|since| segment.last >= since)
        };
        let mut damage = Vec::new();
        self.blocks(fits, wanted, &mut damage, |contents, body| search.block(contents, body))?;
        Ok(Page { damage, ..search.page })
    }

    /// The decisions of one id, the oldest first.
    pub(super) fn find(&self, id: Id) -> Result<Page, ReadError> {
        let number = id.number();
        let mut page = Page::default();
        let mut damage = Vec::new();
        let wanted = |contents: &Contents| (contents.ids.0..=contents.ids.1).contains(&number);
        let oldest = self.oldest;
        self.blocks(
            |_| true,
            wanted,
            &mut damage,
            |contents, body| {
                let last = page.records.last().map(|record: &Record| milliseconds(record.at));
                let apart = u64::try_from(APART.as_millis()).unwrap_or(u64::MAX);
                if last.is_some_and(|last| contents.times.1.saturating_add(apart) < last) {
                    return ControlFlow::Break(());
                }
                let records: Vec<_> = decode::split(body).collect();
                let mine = |record: &Record| {
                    record.id == Some(id) && oldest.is_none_or(|oldest| record.at >= oldest)
                };
                let found = records.iter().rev().filter_map(|octets| decode::record(octets, mine));
                page.records.extend(found.take(MOST_OF_ONE - page.records.len()));
                if page.records.len() == MOST_OF_ONE {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        )?;
        page.records.reverse();
        Ok(Page { damage, ..page })
    }

    /// Goes through the blocks that are wanted, the newest first.
    fn blocks(
        &self,
        fits: impl Fn(&Segment) -> bool,
        wanted: impl Fn(&Contents) -> bool,
        damage: &mut Vec<Damage>,
        mut visit: impl FnMut(&Contents, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        for block in self.tail.iter().rev().filter(|block| wanted(&block.contents)) {
            if visit(&block.contents, block.body()).is_break() {
                return Ok(());
            }
        }
        // What was in the tail may be in a file by now.
        let end = self.tail.first().map_or(u64::MAX, |block| block.contents.number);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| ReadError::Io { path, error }
        };
        let segments = segments(self.folder).map_err(failed(self.folder))?;
        for segment in segments.iter().rev().filter(|segment| segment.number < end && fits(segment)) {
            let mut file = match File::open(&segment.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // it went meanwhile
                other => other.map_err(failed(&segment.path))?,
            };
            let mut reader = io::BufReader::new(&file);
            let (found, mut lost) = walk(&mut reader, segment.octets).map_err(failed(&segment.path))?;
            let mut flow = ControlFlow::Continue(());
            for block in found.iter().rev().filter(|it| it.contents.number < end && wanted(&it.contents)) {
                match block.read(&mut file).map_err(failed(&segment.path))? {
                    Some(body) => flow = visit(&block.contents, &body),
                    None => lost += block.octets(),
                }
                if flow.is_break() {
                    break;
                }
            }
            if lost > 0 {
                damage.push(Damage { path: segment.path.clone(), octets: lost });
            }
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }
}

struct Search<'a> {
    filter: &'a Filter,
    before: Option<Cursor>,
    limit: usize,
    left: usize,
    page: Page,
}

impl Search<'_> {
    fn block(&mut self, contents: &Contents, body: &[u8]) -> ControlFlow<()> {
        let records: Vec<_> = decode::split(body).collect();
        let end = match self.before {
            Some(Cursor { block, record }) if block == contents.number => record,
            Some(_) | None => records.len(),
        };
        for (at, octets) in records.iter().enumerate().take(end).rev() {
            let record = decode::record(octets, |head| self.filter.fits_head(head));
            let Some(record) = record.filter(|record| self.filter.fits_findings(record)) else { continue };
            if self.page.records.len() == self.limit {
                self.page.next = Some(Cursor { block: contents.number, record: at + 1 });
                return ControlFlow::Break(());
            }
            self.page.records.push(record);
        }
        match self.left.checked_sub(body.len()) {
            Some(left) => {
                self.left = left;
                ControlFlow::Continue(())
            }
            None => {
                self.page.next = Some(Cursor { block: contents.number, record: 0 });
                ControlFlow::Break(())
            }
        }
    }
}
