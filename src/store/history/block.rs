//! Blocks of records with a checksum. A file of the history is a sequence of them.
//!
//! The head of a block has the range of its times and ids, so that a search reads few blocks. After a damaged block, the
//! reader finds the next one by the mark at its start, so that damage destroys only the blocks that it hits.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use crate::decision::DecisionRecord;
use crate::store::history::encode;

/// The start of each block; the last octet is the version of the format.
const MARK: [u8; 4] = *b"rhb\x01";
/// Octets of the head, before the records.
pub(super) const HEAD: usize = 64;
/// A block is closed at this many octets, so that a search for one record reads little.
const FULL: usize = 64 * 1024;
/// Octets of read-ahead while heads are read: several small blocks at once, and little in vain of a large one.
const READ_AHEAD: usize = 16 * 1024;
/// More than any block has; a larger length in a head is damage.
const MAX_LENGTH: u32 = 16 << 20;

/// The range of records in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contents {
    /// Blocks have increasing numbers, with gaps.
    pub(super) number: u64,
    /// The number of records.
    pub(super) count: u32,
    /// The earliest and the latest time, in milliseconds since 1970.
    pub(super) times: (u64, u64),
    /// The smallest and the largest number of the ids.
    pub(super) ids: (u64, u64),
}

impl Contents {
    pub(super) fn empty(number: u64) -> Self {
        Self { number, count: 0, times: (u64::MAX, 0), ids: (u64::MAX, 0) }
    }

    /// The range of both together.
    pub(super) fn merge(self, other: &Self) -> Self {
        let both = |one: (u64, u64), two: (u64, u64)| (one.0.min(two.0), one.1.max(two.1));
        Self {
            number: self.number.min(other.number),
            count: self.count.saturating_add(other.count),
            times: both(self.times, other.times),
            ids: both(self.ids, other.ids),
        }
    }
}

/// A block that still takes records.
#[derive(Debug)]
pub(super) struct Block {
    contents: Contents,
    octets: Vec<u8>,
}

impl Block {
    pub(super) fn new(number: u64) -> Self {
        Self { contents: Contents::empty(number), octets: vec![0; HEAD] }
    }

    pub(super) fn push(&mut self, record: &DecisionRecord) {
        let Contents { count, times, ids, .. } = &mut self.contents;
        let at = encode::milliseconds(record.at);
        *count += 1;
        *times = (times.0.min(at), times.1.max(at));
        if let Some(id) = record.id.map(|id| id.number()) {
            *ids = (ids.0.min(id), ids.1.max(id));
        }
        encode::record(&mut self.octets, record);
    }

    pub(super) fn is_full(&self) -> bool {
        self.octets.len() >= FULL
    }

    /// Completes the head.
    pub(super) fn close(mut self) -> Closed {
        let Contents { number, count, times, ids } = self.contents;
        let body = self.octets.get(HEAD..).unwrap_or_default();
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut head = Vec::with_capacity(HEAD);
        head.extend_from_slice(&MARK);
        for word in [length, checksum(body), count] {
            head.extend_from_slice(&word.to_le_bytes());
        }
        for word in [number, times.0, times.1, ids.0, ids.1] {
            head.extend_from_slice(&word.to_le_bytes());
        }
        head.resize(HEAD - 4, 0);
        head.extend_from_slice(&checksum(&head).to_le_bytes());
        if let Some(place) = self.octets.get_mut(..HEAD) {
            place.copy_from_slice(&head);
        }
        Closed { contents: self.contents, octets: self.octets }
    }
}

/// A complete block, as in a file.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) contents: Contents,
    pub(super) octets: Vec<u8>,
}

impl Closed {
    /// The records, for [`super::decode::split`].
    pub(super) fn body(&self) -> &[u8] {
        self.octets.get(HEAD..).unwrap_or_default()
    }
}

/// The position of a block in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) contents: Contents,
    /// The offset and the length of its records.
    body: (u64, u32),
    checksum: u32,
}

impl Located {
    /// The octets of the block, with its head.
    pub(super) fn octets(&self) -> u64 {
        HEAD as u64 + u64::from(self.body.1)
    }

    /// Reads its records; `None` if they are damaged.
    pub(super) fn read(&self, file: &mut (impl Read + Seek)) -> io::Result<Option<Vec<u8>>> {
        let (at, length) = self.body;
        file.seek(SeekFrom::Start(at))?;
        let mut body = Vec::new();
        file.take(u64::from(length)).read_to_end(&mut body)?;
        let whole = u32::try_from(body.len()).is_ok_and(|read| read == length);
        Ok((whole && checksum(&body) == self.checksum).then_some(body))
    }
}

/// Returns the blocks of a file in the order of writing, and the number of damaged octets. A block without its end isn't
/// damage: it is being written, or was when the machine lost its power.
pub(super) fn walk(file: impl Read + Seek, length: u64) -> io::Result<(Vec<Located>, u64)> {
    let mut file = BufReader::with_capacity(READ_AHEAD, file);
    let (mut found, mut lost, mut at) = (Vec::new(), 0, file.seek(SeekFrom::Start(0))?);
    while at + HEAD as u64 <= length {
        let mut head = [0; HEAD];
        if let Err(error) = file.read_exact(&mut head) {
            return if error.kind() == io::ErrorKind::UnexpectedEof { Ok((found, lost)) } else { Err(error) };
        }
        let next = match read_head(&head) {
            Some((contents, size, checksum)) => {
                let body = (at + HEAD as u64, size);
                let next = body.0 + u64::from(size);
                if next > length {
                    break;
                }
                // Unlike `seek`, this keeps the buffer.
                file.seek_relative(i64::from(size))?;
                found.push(Located { contents, body, checksum });
                next
            }
            None => {
                let next = next_mark(&mut file, at + 1, length)?;
                lost += next - at;
                file.seek(SeekFrom::Start(next))?
            }
        };
        at = next;
    }
    Ok((found, lost))
}

fn read_head(head: &[u8; HEAD]) -> Option<(Contents, u32, u32)> {
    let (rest, sum) = head.split_last_chunk::<4>()?;
    let mut rest = rest.strip_prefix(&MARK)?;
    if checksum(head.get(..HEAD - 4)?) != u32::from_le_bytes(*sum) {
        return None;
    }
    let (length, checksum, count) = (read_u32(&mut rest)?, read_u32(&mut rest)?, read_u32(&mut rest)?);
    let number = read_u64(&mut rest)?;
    let (times, ids) =
        ((read_u64(&mut rest)?, read_u64(&mut rest)?), (read_u64(&mut rest)?, read_u64(&mut rest)?));
    (length <= MAX_LENGTH).then_some((Contents { number, count, times, ids }, length, checksum))
}

fn read_u32(rest: &mut &[u8]) -> Option<u32> {
    let (word, behind) = rest.split_first_chunk::<4>()?;
    *rest = behind;
    Some(u32::from_le_bytes(*word))
}

fn read_u64(rest: &mut &[u8]) -> Option<u64> {
    let (word, behind) = rest.split_first_chunk::<8>()?;
    *rest = behind;
    Some(u64::from_le_bytes(*word))
}

/// The offset of the next mark, or the end of the file.
fn next_mark(file: &mut (impl Read + Seek), from: u64, length: u64) -> io::Result<u64> {
    let mut at = from;
    let mut window = Vec::new();
    while at < length {
        file.seek(SeekFrom::Start(at))?;
        window.clear();
        file.take(FULL as u64).read_to_end(&mut window)?;
        if let Some(place) = memchr::memmem::find(&window, &MARK) {
            return Ok(at + place as u64);
        }
        // A mark may cross the end of the window.
        match window.len().checked_sub(MARK.len() - 1) {
            Some(step @ 1..) => at += step as u64,
            _ => break,
        }
    }
    Ok(length)
}

fn checksum(octets: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(octets);
    crc.sum()
}
