//! How much the history may take, and what follows for its parts.

use std::time::Duration;

/// Records of one answer that are ever kept.
pub(super) const MAX_ITEMS: usize = 100;
/// Octets of one text of an answer: one more than is ever shown, so that a cut text shows as cut.
pub(super) const MAX_TEXT: usize = 513;

/// Rows of a segment at most: so many are searched without an index.
const MAX_SEGMENT: u64 = 32_768;
const MIN_SEGMENT: u64 = 8192;
/// Octets of the size limit for each row of a segment, so that its keys fit beside the log.
const OCTETS_PER_ROW: u64 = 2048;
/// A history of less has no closed segments: so few rows are read quickly, and keys would take a third of the room.
const MIN_SIZE_WITH_SEGMENTS: u64 = 16 << 20;
/// Octets of one transaction at most.
const MAX_BATCH: u64 = 4 << 20;
/// Octets of the write-ahead log, before its pages go into the file.
const MAX_LOG: u64 = 16 << 20;
/// What is left for the write-ahead log and what lies beside it: this part of the size limit, and these octets.
const RESERVE: u64 = 8;
const RESERVED_OCTETS: u64 = 256 << 10;
/// Rows that are removed at a time for room, and how many octets of the size limit go with each.
const MIN_STEP: u64 = 64;
const MAX_STEP: u64 = 4096;
const OCTETS_PER_STEP: u64 = 16_384;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) keep: Duration,
    pub(super) size: u64,
}

impl Limits {
    /// Rows of a segment.
    pub(super) fn segment(&self) -> u64 {
        let rows = (self.size / OCTETS_PER_ROW).clamp(MIN_SEGMENT, MAX_SEGMENT);
        if self.size < MIN_SIZE_WITH_SEGMENTS { u64::MAX } else { rows }
    }

    /// The oldest rows that are removed at a time for room.
    pub(super) fn step(&self) -> u64 {
        (self.size / OCTETS_PER_STEP).clamp(MIN_STEP, MAX_STEP)
    }

    /// Octets of a transaction.
    pub(super) fn batch(&self) -> u64 {
        (self.size / 16).min(MAX_BATCH)
    }

    /// Octets of the write-ahead log.
    pub(super) fn log(&self) -> u64 {
        (self.size / 16).min(MAX_LOG)
    }

    /// Octets of the file, without the log.
    pub(super) fn file(&self) -> u64 {
        self.size.saturating_sub(self.size / RESERVE + RESERVED_OCTETS)
    }
}
