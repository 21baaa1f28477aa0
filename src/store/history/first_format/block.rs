//! Blocks of records with a checksum. A file of the first format is a sequence of them.
//!
//! After a damaged block, the reader finds the next one by the mark at its start, so that damage destroys only the blocks that
//! it hits.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// The start of each block; the last octet is the version of the format.
const MARK: [u8; 4] = *b"rhb\x01";
/// Octets of the head, before the records.
const HEAD: usize = 64;
/// Octets of read-ahead while heads are read: several small blocks at once, and little in vain of a large one.
const READ_AHEAD: usize = 16 * 1024;
/// Octets that are read at a time in search of a mark.
const WINDOW: usize = 64 * 1024;
/// More than any block has; a larger length in a head is damage.
const MAX_LENGTH: u32 = 16 << 20;

/// The position of a block in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// Blocks have increasing numbers, with gaps: at least the microseconds since 1970 when they were made.
    pub(super) number: u64,
    /// The largest number of its ids.
    pub(super) last_id: u64,
    /// The offset and the length of its records.
    body: (u64, u32),
    checksum: u32,
}

impl Block {
    /// The octets of the block, with its head.
    pub(super) fn octets(&self) -> u64 {
        HEAD as u64 + u64::from(self.body.1)
    }

    /// Reads its records, for [`split`]; `None` if they are damaged.
    pub(super) fn read(&self, file: &mut (impl Read + Seek)) -> io::Result<Option<Vec<u8>>> {
        let (at, length) = self.body;
        file.seek(SeekFrom::Start(at))?;
        let mut body = Vec::new();
        file.take(u64::from(length)).read_to_end(&mut body)?;
        let whole = u32::try_from(body.len()).is_ok_and(|read| read == length);
        Ok((whole && checksum(&body) == self.checksum).then_some(body))
    }
}

/// Splits the octets of a block into records, each without its length.
pub(super) fn split(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (record, behind) = behind.split_at_checked(length)?;
        rest = behind;
        Some(record)
    })
}

/// Returns the blocks of a file in the order of writing, and the number of damaged octets. A block without its end isn't
/// damage: it is being written, or was when the machine lost its power.
pub(super) fn walk(file: impl Read + Seek, length: u64) -> io::Result<(Vec<Block>, u64)> {
    let mut file = BufReader::with_capacity(READ_AHEAD, file);
    let (mut found, mut lost, mut at) = (Vec::new(), 0, file.seek(SeekFrom::Start(0))?);
    while at + HEAD as u64 <= length {
        let mut head = [0; HEAD];
        if let Err(error) = file.read_exact(&mut head) {
            return if error.kind() == io::ErrorKind::UnexpectedEof { Ok((found, lost)) } else { Err(error) };
        }
        let next = match read_head(&head) {
            Some((number, last_id, size, checksum)) => {
                let body = (at + HEAD as u64, size);
                let next = body.0 + u64::from(size);
                if next > length {
                    break;
                }
                // Unlike `seek`, this keeps the buffer.
                file.seek_relative(i64::from(size))?;
                found.push(Block { number, last_id, body, checksum });
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

/// The number, the last id, the length and the checksum of a block.
fn read_head(head: &[u8; HEAD]) -> Option<(u64, u64, u32, u32)> {
    let (rest, sum) = head.split_last_chunk::<4>()?;
    let mut rest = rest.strip_prefix(&MARK)?;
    if checksum(head.get(..HEAD - 4)?) != u32::from_le_bytes(*sum) {
        return None;
    }
    let (length, checksum, _count) = (read_u32(&mut rest)?, read_u32(&mut rest)?, read_u32(&mut rest)?);
    let number = read_u64(&mut rest)?;
    let (_times, _first_id) = ((read_u64(&mut rest)?, read_u64(&mut rest)?), read_u64(&mut rest)?);
    let last_id = read_u64(&mut rest)?;
    (length <= MAX_LENGTH).then_some((number, last_id, length, checksum))
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
        file.take(WINDOW as u64).read_to_end(&mut window)?;
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
