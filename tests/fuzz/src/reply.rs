//! Replies of a relay that isn't trusted, and what the client gets of them.
//!
//! Input: an octet for the cuts, then what the relay says in answer to one command.

use rmxd::relay::{Malformed, ReplyParser};
use rmxd::smtp::reply::Reply;

use super::wire::{reply_codes, splits};

/// RFC 5321 4.5.3.1.5 allows 512 octets a line; this is what a connection holds at the very most.
const MOST: usize = 64 * 1024;

pub fn check(input: &[u8]) {
    let Some((seed, octets)) = input.split_first() else { return };
    let [whole, bytewise, cut] = splits(octets, *seed).map(|pieces| read(&pieces));
    // What comes behind a reply is told as surplus only where it came with it, so octet by octet there is none.
    match (&whole, &bytewise) {
        (Err(Malformed::Surplus), Ok(Some(_))) => assert!(cut == whole || cut == bytewise, "{cut:?}"),
        _ => assert!(whole == bytewise && whole == cut, "{whole:?}, {bytewise:?}, {cut:?}"),
    }
    if let Ok(Some(reply)) = &bytewise {
        assert!(!matches!(whole, Ok(None)));
        assert_answer(reply);
    }
    if octets.len() > MOST {
        assert!(!matches!(bytewise, Ok(None)), "{} octets and no end", octets.len());
    }
}

/// Until there is a reply, or none is to be had.
fn read(pieces: &[&[u8]]) -> Result<Option<Reply>, Malformed> {
    let mut parser = ReplyParser::default();
    for piece in pieces {
        match parser.feed(piece) {
            Ok(None) => {}
            Ok(Some((reply, _behind))) => return Ok(Some(reply)),
            Err(malformed) => return Err(malformed),
        }
    }
    Ok(None)
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
    assert!(matches!(&again, Ok(Some(again)) if again.code() == reply.code()), "{again:?}");
}
