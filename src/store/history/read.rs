//! Searches decisions, the newest first: in the records that aren't written yet, then in the files.
//!
//! A file may grow or be removed meanwhile; only whole blocks are read. Damaged or unreadable parts are skipped and
//! reported.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::decision::{DecisionRecord, Id};
use crate::store::history::block::{Closed, Contents, HEAD, walk};
use crate::store::history::decode;
use crate::store::history::encode::milliseconds;
use crate::store::history::filter::{Cursor, Filter};
use crate::store::history::folder::{Segment, segments};

/// Octets of records and heads that are read for one page, so that a filter without matches doesn't take for ever.
const MAX_READ: usize = 64 << 20;
/// The most decisions of one id.
const MAX_OF_ONE_ID: usize = 100;
/// Files in the index; a folder has fewer.
const MAX_INDEXED: usize = 4096;
/// The most time between two decisions of one transaction: longer than a session lasts.
const MAX_APART: Duration = Duration::from_secs(2 * 60 * 60);

/// The result of a search.
#[derive(Debug, Default)]
pub struct Page {
    /// The newest first.
    pub records: Vec<DecisionRecord>,
    /// Where the next page begins. A page with fewer records than the limit isn't always the last.
    pub next: Option<Cursor>,
    pub damage: Vec<Damage>,
}

/// A file that is damaged or could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", path.display(), self.what())]
pub struct Damage {
    pub path: PathBuf,
    /// The number of octets that are lost.
    pub octets: u64,
    /// The system's error, if the file could not be read.
    pub error: Option<String>,
}

impl Damage {
    fn what(&self) -> String {
        let octets = self.octets;
        match &self.error {
            None => format!(
                "{octets} octets are damaged and were skipped; their records are lost, and moving the file away loses the other records in it too"
            ),
            Some(error) => format!("can't be read; its {octets} octets were skipped: {error}"),
        }
    }

    /// Adds the damage of another page; a file of both pages is listed once.
    pub fn merge(all: &mut Vec<Self>, more: Vec<Self>) {
        for part in more {
            match all.iter_mut().find(|known| known.path == part.path) {
                Some(known) if known.octets >= part.octets => {}
                Some(known) => *known = part,
                None => all.push(part),
            }
        }
    }
}

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A system call failed.
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    /// The search's thread panicked.
    #[error("the search failed: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// The contents of closed files, so that a file without a match isn't opened.
#[derive(Debug, Default)]
pub(super) struct Index(Mutex<HashMap<u64, (Segment, Contents)>>);

impl Index {
    /// The contents of a file that was read since its last write.
    pub(super) fn get(&self, segment: &Segment) -> Option<Contents> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.get(&segment.number).filter(|(known, _)| known == segment).map(|(_, contents)| *contents)
    }

    fn insert(&self, segment: &Segment, contents: Contents) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() >= MAX_INDEXED {
            files.clear();
        }
        files.insert(segment.number, (segment.clone(), contents));
    }
}

/// The data for a search.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) folder: &'a Path,
    pub(super) index: &'a Index,
    /// Blocks that aren't written yet, the oldest first.
    pub(super) tail: &'a [Arc<Closed>],
    /// Older records count as removed.
    pub(super) oldest: Option<SystemTime>,
}

/// Visits blocks, the newest first.
trait Visitor {
    /// Whether a block or file with these contents can have a match.
    fn wants(&self, contents: &Contents) -> bool;
    /// Visits the records of a block, and adds the number of invalid octets to `lost`.
    fn block(&mut self, contents: &Contents, body: &[u8], lost: &mut u64) -> ControlFlow<()>;
    /// Called with the number of octets that were read to locate the blocks of a file.
    fn file(&mut self, _segment: &Segment, _read: usize) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl Source<'_> {
    /// The next `limit` matching records before a position.
    pub(super) fn search(
        &self,
        filter: &Filter,
        before: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let since = filter.since.into_iter().chain(self.oldest).max();
        let filter = Filter { since, ..filter.clone() };
        let mut search = Search { filter: &filter, before, limit, left: MAX_READ, page: Page::default() };
        let damage = self.blocks(since, &mut search)?;
        Ok(Page { damage, ..search.page })
    }

    /// The decisions of one id, the oldest first.
    pub(super) fn find(&self, id: Id) -> Result<Page, ReadError> {
        let mut find = Find { id, oldest: self.oldest, records: Vec::new() };
        let damage = self.blocks(self.oldest, &mut find)?;
        find.records.reverse();
        Ok(Page { records: find.records, next: None, damage })
    }

    /// Visits the wanted blocks, the newest first, and returns the damage.
    fn blocks(
        &self,
        since: Option<SystemTime>,
        visitor: &mut impl Visitor,
    ) -> Result<Vec<Damage>, ReadError> {
        let mut damage = Vec::new();
        for block in self.tail.iter().rev() {
            if visitor.wants(&block.contents)
                && visitor.block(&block.contents, block.body(), &mut 0).is_break()
            {
                return Ok(damage);
            }
        }
        // Blocks of the tail may be in a file by now.
        let end = self.tail.first().map_or(u64::MAX, |block| block.contents.number);
        let failed = |error| ReadError::Io { path: self.folder.to_owned(), error };
        let segments = segments(self.folder).map_err(failed)?;
        let newest = segments.back().map(|segment| segment.number);
        for segment in segments.iter().rev().filter(|segment| segment.number < end) {
            let unknown =
                Contents { times: (0, u64::MAX), ids: (0, u64::MAX), ..Contents::empty(segment.number) };
            if since.is_some_and(|since| segment.last < since)
                || !visitor.wants(&self.index.get(segment).unwrap_or(unknown))
            {
                continue;
            }
            let (mut lost, closed) = (0, Some(segment.number) != newest);
            let read = self.segment(segment, closed, end, visitor, &mut lost);
            let error = read.as_ref().err().map(io::Error::to_string);
            if error.is_some() {
                lost = segment.octets;
            }
            if lost > 0 {
                damage.push(Damage { path: segment.path.clone(), octets: lost, error });
            }
            if read.is_ok_and(|flow| flow.is_break()) {
                break;
            }
        }
        Ok(damage)
    }

    fn segment(
        &self,
        segment: &Segment,
        closed: bool,
        end: u64,
        visitor: &mut impl Visitor,
        lost: &mut u64,
    ) -> io::Result<ControlFlow<()>> {
        let mut file = match File::open(&segment.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ControlFlow::Continue(())), // removed meanwhile
            other => other?,
        };
        let (found, damaged) = walk(&file, segment.octets)?;
        *lost += damaged;
        if closed && damaged == 0 {
            let contents =
                found.iter().fold(Contents::empty(segment.number), |all, it| all.merge(&it.contents));
            self.index.insert(segment, contents);
        }
        for block in found.iter().rev().filter(|it| it.contents.number < end) {
            if !visitor.wants(&block.contents) {
                continue;
            }
            match block.read(&mut file)? {
                Some(body) => {
                    if visitor.block(&block.contents, &body, lost).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                None => *lost += block.octets(),
            }
        }
        Ok(visitor.file(segment, found.len() * HEAD))
    }
}

/// The records of a block; all other octets count as lost.
fn records<'o>(contents: &Contents, body: &'o [u8], lost: &mut u64) -> Vec<&'o [u8]> {
    let records: Vec<_> = decode::split(body).collect();
    if u32::try_from(records.len()) != Ok(contents.count) {
        let whole: usize = records.iter().map(|record| record.len() + 4).sum();
        *lost += body.len().saturating_sub(whole).max(1) as u64;
    }
    records
}

/// Decodes a record if it is wanted; an invalid one counts as lost.
fn record(
    octets: &[u8],
    lost: &mut u64,
    wanted: impl FnOnce(&DecisionRecord) -> bool,
) -> Option<DecisionRecord> {
    decode::record(octets, wanted).unwrap_or_else(|| {
        *lost += octets.len() as u64;
        None
    })
}

struct Find {
    id: Id,
    oldest: Option<SystemTime>,
    /// The newest first.
    records: Vec<DecisionRecord>,
}

impl Visitor for Find {
    fn wants(&self, contents: &Contents) -> bool {
        (contents.ids.0..=contents.ids.1).contains(&self.id.number())
    }

    fn block(&mut self, contents: &Contents, body: &[u8], lost: &mut u64) -> ControlFlow<()> {
        let last = self.records.last().map(|record| milliseconds(record.at));
        let apart = u64::try_from(MAX_APART.as_millis()).unwrap_or(u64::MAX);
        if last.is_some_and(|last| contents.times.1.saturating_add(apart) < last) {
            return ControlFlow::Break(());
        }
        let (id, oldest) = (self.id, self.oldest);
        let mine = |record: &DecisionRecord| {
            record.id == Some(id) && oldest.is_none_or(|oldest| record.at >= oldest)
        };
        let records = records(contents, body, lost);
        let found = records.iter().rev().filter_map(|octets| record(octets, lost, mine));
        self.records.extend(found.take(MAX_OF_ONE_ID - self.records.len()));
        if self.records.len() == MAX_OF_ONE_ID { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

struct Search<'a> {
    filter: &'a Filter,
    before: Option<Cursor>,
    limit: usize,
    left: usize,
    page: Page,
}

impl Visitor for Search<'_> {
    fn wants(&self, contents: &Contents) -> bool {
        let begin = Cursor { block: contents.number, record: 0 };
        self.before.is_none_or(|before| begin < before) && self.filter.fits_block(contents)
    }

    fn block(&mut self, contents: &Contents, body: &[u8], lost: &mut u64) -> ControlFlow<()> {
        let records = records(contents, body, lost);
        let end = match self.before {
            Some(Cursor { block, record }) if block == contents.number => record,
            Some(_) | None => records.len(),
        };
        for (at, octets) in records.iter().enumerate().take(end).rev() {
            let record = record(octets, lost, |head| self.filter.fits_head(head));
            let Some(record) = record.filter(|record| self.filter.fits_findings(record)) else { continue };
            if self.page.records.len() == self.limit {
                self.page.next = Some(Cursor { block: contents.number, record: at + 1 });
                return ControlFlow::Break(());
            }
            self.page.records.push(record);
        }
        self.count_read(contents.number, body.len())
    }

    fn file(&mut self, segment: &Segment, read: usize) -> ControlFlow<()> {
        self.count_read(segment.number, read)
    }
}

impl Search<'_> {
    /// Ends the page after too many octets; the next page begins before this block.
    fn count_read(&mut self, number: u64, octets: usize) -> ControlFlow<()> {
        match self.left.checked_sub(octets) {
            Some(left) => {
                self.left = left;
                ControlFlow::Continue(())
            }
            None => {
                self.page.next = Some(Cursor { block: number, record: 0 });
                ControlFlow::Break(())
            }
        }
    }
}
