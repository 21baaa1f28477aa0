//! Replies of a relay that isn't trusted, and what the client gets of them.
//!
//! Input: an octet for the cuts, then what the relay says, one reply after another.

use rmxd::relay::{Malformed, ReplyParser};
use rmxd::smtp::reply::Reply;

use super::wire::{reply_codes, splits};

/// Octets of one reply, at the very most.
const MOST: usize = 32 * 1024;

pub fn check(input: &[u8]) {
    let Some((seed, octets)) = input.split_first() else { return };
    let [whole, bytewise, cut] = splits(octets, *seed).map(|pieces| read(&pieces));
    assert_eq!(whole, bytewise, "octet by octet");
    assert_eq!(whole, cut, "cut");
    whole.replies.iter().for_each(assert_answer);
}

/// One reply after another, and how it ended.
#[derive(Debug, PartialEq, Eq, Default)]
struct Heard {
    replies: Vec<Reply>,
    malformed: Option<Malformed>,
}

fn read(pieces: &[&[u8]]) -> Heard {
    let (mut parser, mut heard, mut unfinished) = (ReplyParser::default(), Heard::default(), 0);
    for piece in pieces {
        let mut octets = *piece;
        while !octets.is_empty() {
            match parser.feed(octets) {
                Ok(None) => {
                    unfinished += octets.len();
                    assert!(unfinished <= MOST, "{unfinished} octets and no end");
                    break;
                }
                Ok(Some((reply, rest))) => {
                    assert!(octets.ends_with(rest) && rest.len() < octets.len());
                    heard.replies.push(reply);
                    (octets, unfinished) = (rest, 0);
                }
                Err(malformed) => return Heard { malformed: Some(malformed), ..heard },
            }
        }
    }
    heard
}

/// Becomes one reply of ours, with the relay's code.
fn assert_answer(reply: &Reply) {
    assert!((200..600).contains(&reply.code()));
    assert!(reply.enhanced().is_none_or(|enhanced| u16::from(enhanced.0) == reply.code() / 100));
    assert!(reply.text().bytes().all(|octet| matches!(octet, b' '..=b'~' | b'\n')), "{:?}", reply.text());
    let mut wire = Vec::new();
    reply.write_to(&mut wire);
    assert_eq!(reply_codes(&wire), [reply.code()]);
    let again = read(&[&wire]);
    assert!(again.malformed.is_none() && again.replies.len() == 1, "{again:?}");
    assert_eq!(again.replies.first().map(Reply::code), Some(reply.code()));
}
