//! A message in a file, as mail programs store it.

use crate::message::mailbox_line;

/// The header block and the body of a file, whose lines may end in LF. A `From ` line of an mbox becomes a field.
#[must_use]
pub fn parts(content: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let lines = content.split_inclusive(|byte| *byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\n").unwrap_or(line));
    let mut lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let ended = |line: &[u8]| [line, b"\r\n"].concat();
    let block: Vec<u8> = lines.by_ref().take_while(|line| !line.is_empty()).flat_map(ended).collect();
    (mailbox_line::as_field(&block).into_owned(), lines.flat_map(ended).collect())
}
