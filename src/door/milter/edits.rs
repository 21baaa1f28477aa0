//! The edits of the header at the end of a message: forged results out, ours in front.

use crate::message::forged_results::OwnResults;
use crate::milter::{Answer, Terms};

const NAME: &str = "Authentication-Results";

/// Appends the edits. `forged` and `ours` are in the order of the header. Each deletion moves the fields behind it up, so
/// that the last one goes first; our fields would move all of them, so that they come at the end, the last one first.
pub(super) fn write(forged: &[OwnResults], ours: &[Vec<u8>], terms: &Terms, answers: &mut Vec<u8>) {
    for OwnResults { name, index } in forged.iter().rev() {
        Answer::DeleteHeader { index: *index, name }.write_to(terms, answers);
    }
    let values = ours.iter().filter_map(|field| value(field));
    if terms.can_insert_headers() {
        values.rev().for_each(|value| {
            Answer::InsertHeader { position: 0, name: NAME, value }.write_to(terms, answers);
        });
    } else if terms.can_add_headers() {
        values.for_each(|value| Answer::AddHeader { name: NAME, value }.write_to(terms, answers));
    }
}

/// What stands behind the name and the space, without the last CRLF.
fn value(field: &[u8]) -> Option<&[u8]> {
    let value = field.strip_prefix(NAME.as_bytes())?.strip_prefix(b":")?;
    let value = value.strip_prefix(b" ").unwrap_or(value);
    Some(value.strip_suffix(b"\r\n").unwrap_or(value))
}
