//! The `From ` line that mailbox files (mbox, RFC 4155) have in front of a message, and that some programs send.
//!
//! The line is no header field. After our trace fields it would end the header for the next hop, so it goes on as
//! `X-Mailbox-Line:`; Postfix does the same with such a line at the beginning. A line that is a field with white space
//! in front of the colon (`From : a@b`) stays as it is.

use std::borrow::Cow;

use crate::message::fields::{Item, items};

const FIELD: &[u8] = b"X-Mailbox-Line: ";
/// A message that was stored several times has several such lines.
const MOST: usize = 8;

/// The block with its first mailbox lines turned into fields; the block itself if it has none.
#[must_use]
pub fn as_field(block: &[u8]) -> Cow<'_, [u8]> {
    let lines = items(block).map_while(mailbox_line).take(MOST);
    let (mut fields, mut length) = (Vec::new(), 0);
    for line in lines {
        fields.extend_from_slice(FIELD);
        fields.extend_from_slice(line);
        length += line.len();
    }
    if length == 0 {
        return Cow::Borrowed(block);
    }
    fields.extend_from_slice(block.get(length..).unwrap_or_default());
    Cow::Owned(fields)
}

fn mailbox_line<'a>(item: Item<'a>) -> Option<&'a [u8]> {
    let Item::Stray(raw) = item else { return None };
    let quotes = raw.iter().take_while(|&&byte| byte == b'>').count();
    raw.get(quotes..)?.starts_with(b"From ").then_some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_of_a_mailbox_become_fields() {
        let rows = [
            (
                "From u@good.test Mon Jan  1 12:00:00 2024\r\nTo: a\r\n",
                "X-Mailbox-Line: From u@good.test Mon Jan  1 12:00:00 2024\r\nTo: a\r\n",
            ),
            (">>From u\r\n folded: x\r\nTo: a\r\n", "X-Mailbox-Line: >>From u\r\n folded: x\r\nTo: a\r\n"),
            (
                "From \r\n>From u\r\nTo: a\r\n",
                "X-Mailbox-Line: From \r\nX-Mailbox-Line: >From u\r\nTo: a\r\n",
            ),
            ("From : a@b.test\r\nTo: a\r\n", "From : a@b.test\r\nTo: a\r\n"),
            (">From: a@b.test\r\n", ">From: a@b.test\r\n"),
            ("To: a\r\nFrom u\r\n", "To: a\r\nFrom u\r\n"),
            ("from u\r\n", "from u\r\n"),
            ("From\r\n", "From\r\n"),
            ("", ""),
        ];
        for (block, expected) in rows {
            let block_after = as_field(block.as_bytes());
            assert_eq!(
                block_after.escape_ascii().to_string(),
                expected.as_bytes().escape_ascii().to_string()
            );
            assert_eq!(matches!(block_after, Cow::Owned(_)), block != expected);
        }
        let many = "From \r\n".repeat(20);
        assert_eq!(as_field(many.as_bytes()).len(), many.len() + MOST * FIELD.len());
    }
}
