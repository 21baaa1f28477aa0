//! Looks for decisions, the newest first: in what is not written yet, then in the files.
//!
//! A file may grow or go meanwhile; what is read is whole blocks. What is damaged, or can't be read, is passed
//! over and said.

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

/// Octets of records, and of heads of blocks, that are looked at for one page: a filter that fits nothing must not take for ever.
const WORK: usize = 64 << 20;
/// Decisions of one id that are found.
const MOST_OF_ONE: usize = 100;
/// Files that something is remembered of; a folder has fewer.
const MOST_KNOWN: usize = 4096;
/// How far apart decisions of one transaction can be: longer than a session lasts.
const APART: Duration = Duration::from_secs(2 * 60 * 60);

/// What was found.
#[derive(Debug, Default)]
pub struct Page {
    /// The newest first.
    pub records: Vec<DecisionRecord>,
    /// Where more may be found; a page may be short and yet not the last.
    pub next: Option<Cursor>,
    /// What could not be read.
    pub damage: Vec<Damage>,
}

/// A file of which a part makes no sense, or that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", path.display(), self.what())]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// How much of it.
    pub octets: u64,
    /// What the system says, where it doesn't give the file.
    pub error: Option<String>,
}

impl Damage {
    fn what(&self) -> String {
        let octets = self.octets;
        match &self.error {
            None => format!(
                "{octets} octets are damaged and were passed over; what they held is lost, moving the file away loses the rest of it too"
            ),
            Some(error) => format!("can't be read and was passed over with its {octets} octets: {error}"),
        }
    }

    /// Adds what another page says. Pages may share a file, which is told once.
    pub fn gather(all: &mut Vec<Self>, more: Vec<Self>) {
        for part in more {
            match all.iter_mut().find(|known| known.path == part.path) {
                Some(known) if known.octets >= part.octets => {}
                Some(known) => *known = part,
                None => all.push(part),
            }
        }
    }
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

/// What is known of the files that are not written to any more, so that those that hold nothing wanted need not be opened.
#[derive(Debug, Default)]
pub(super) struct Index(Mutex<HashMap<u64, (Segment, Contents)>>);

impl Index {
    /// What is in this file, as far as it was looked at since it was written to.
    pub(super) fn of(&self, segment: &Segment) -> Option<Contents> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.get(&segment.number).filter(|(known, _)| known == segment).map(|(_, contents)| *contents)
    }

    fn learn(&self, segment: &Segment, contents: Contents) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() >= MOST_KNOWN {
            files.clear();
        }
        files.insert(segment.number, (segment.clone(), contents));
    }
}

/// What there is to look through.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) folder: &'a Path,
    pub(super) index: &'a Index,
    /// Blocks that are not written yet, the oldest first.
    pub(super) tail: &'a [Arc<Closed>],
    /// What is older counts as gone.
    pub(super) oldest: Option<SystemTime>,
}

/// Who looks at blocks, the newest first.
trait Visitor {
    /// Whether a block that has this, or a file of such blocks, can hold what is looked for.
    fn wants(&self, contents: &Contents) -> bool;
    /// The records of a block; how many octets of it make no sense is added.
    fn block(&mut self, contents: &Contents, body: &[u8], lost: &mut u64) -> ControlFlow<()>;
    /// So many octets of a file were read to see where its blocks are.
    fn file(&mut self, _segment: &Segment, _read: usize) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
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

    /// Goes through the blocks that are wanted, the newest first; what could not be read.
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
        // What was in the tail may be in a file by now.
        let end = self.tail.first().map_or(u64::MAX, |block| block.contents.number);
        let failed = |error| ReadError::Io { path: self.folder.to_owned(), error };
        let segments = segments(self.folder).map_err(failed)?;
        let newest = segments.back().map(|segment| segment.number);
        for segment in segments.iter().rev().filter(|segment| segment.number < end) {
            let unknown =
                Contents { times: (0, u64::MAX), ids: (0, u64::MAX), ..Contents::none(segment.number) };
            if since.is_some_and(|since| segment.last < since)
                || !visitor.wants(&self.index.of(segment).unwrap_or(unknown))
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
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ControlFlow::Continue(())), // it went meanwhile
            other => other?,
        };
        let (found, damaged) = walk(&file, segment.octets)?;
        *lost += damaged;
        if closed && damaged == 0 {
            let contents = found.iter().fold(Contents::none(segment.number), |all, it| all.and(&it.contents));
            self.index.learn(segment, contents);
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

/// The records of a block; what is not one counts as lost.
fn records<'o>(contents: &Contents, body: &'o [u8], lost: &mut u64) -> Vec<&'o [u8]> {
    let records: Vec<_> = decode::split(body).collect();
    if u32::try_from(records.len()) != Ok(contents.count) {
        let whole: usize = records.iter().map(|record| record.len() + 4).sum();
        *lost += body.len().saturating_sub(whole).max(1) as u64;
    }
    records
}

/// A record, where it is wanted; one that makes no sense counts as lost.
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
        let apart = u64::try_from(APART.as_millis()).unwrap_or(u64::MAX);
        if last.is_some_and(|last| contents.times.1.saturating_add(apart) < last) {
            return ControlFlow::Break(());
        }
        let (id, oldest) = (self.id, self.oldest);
        let mine = |record: &DecisionRecord| {
            record.id == Some(id) && oldest.is_none_or(|oldest| record.at >= oldest)
        };
        let records = records(contents, body, lost);
        let found = records.iter().rev().filter_map(|octets| record(octets, lost, mine));
        self.records.extend(found.take(MOST_OF_ONE - self.records.len()));
        if self.records.len() == MOST_OF_ONE { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
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
        self.worked(contents.number, body.len())
    }

    fn file(&mut self, segment: &Segment, read: usize) -> ControlFlow<()> {
        self.worked(segment.number, read)
    }
}

impl Search<'_> {
    /// Where that was too much, the next page begins before this place.
    fn worked(&mut self, number: u64, octets: usize) -> ControlFlow<()> {
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
