//! From: and Reply-To: by two readers: whom rmxd judged must be whom mail-parser, as lenient as mail programs are, shows,
//! and the other way round.
//!
//! Input: the value of From:, and behind the first NUL, if there is one, that of Reply-To:.

use std::collections::BTreeSet;

use mail_parser::{Address, HeaderValue, MessageParser};
use rmxd::message::header::{self, Field};
use rmxd::smtp::address::DomainName;

pub fn check(input: &[u8]) {
    let mut values = input.split(|octet| *octet == 0);
    let (Some(from), reply_to) = (values.next(), values.next()) else { return };
    if [Some(from), reply_to].into_iter().flatten().any(|value| !is_value(value)) {
        return;
    }
    let mut block = [b"From:", from, b"\r\n"].concat();
    if let Some(reply_to) = reply_to {
        block.extend([b"Reply-To:", reply_to, b"\r\n"].concat());
    }
    let header = header::read(&block);
    let whole = [&*block, b"\r\n"].concat();
    let message =
        MessageParser::new().header_address("From").header_address("Reply-To").parse_headers(&whole);
    let message = message.expect("a message");
    assert_alike(&header.from, message.header("From"), from);
    assert_alike(&header.reply_to, message.header("Reply-To"), reply_to.unwrap_or_default());
}

/// What framing lets through as a field's value: CRLF only in folds, and no line of blanks alone.
fn is_value(value: &[u8]) -> bool {
    let folds = value.split(|octet| *octet == b'\n').collect::<Vec<_>>();
    folds.iter().enumerate().all(|(at, line)| {
        let last = at + 1 == folds.len();
        let inner = if last { Some(*line) } else { line.strip_suffix(b"\r") };
        let begins = at == 0 || line.starts_with(b" ") || line.starts_with(b"\t");
        inner.is_some_and(|inner| {
            begins
                && !inner.contains(&b'\r')
                && (at == 0 || inner.iter().any(|octet| !octet.is_ascii_whitespace()))
        })
    })
}

fn assert_alike(ours: &Field, theirs: Option<&HeaderValue<'_>>, value: &[u8]) {
    let Field::Authors(authors) = ours else { return };
    if is_astray(value) {
        return;
    }
    if authors.iter().any(is_cut_off) {
        return;
    }
    let judged: BTreeSet<String> = authors.iter().map(judged).collect();
    let shown: BTreeSet<String> = match theirs {
        Some(HeaderValue::Address(addresses)) => shown(addresses),
        other => panic!("{}: mail-parser sees {other:?}", value.escape_ascii()),
    };
    assert_eq!(judged, shown, "{}", value.escape_ascii());
}

/// Correct input in which mail-parser itself goes astray: a comment or a fold within an address without angle brackets.
fn is_astray(value: &[u8]) -> bool {
    value.contains(&b'(') || value.contains(&b'\n')
}

/// An address that is refused as `invalid_domain` and too long to be shown whole: nothing is left to compare.
fn is_cut_off(author: &header::Author) -> bool {
    author.domain.is_none() && author.address.len() > 250
}

/// The domain that was judged. A text that is no domain is refused as `invalid_domain`; what it looks like to a lenient
/// reader is compared all the same.
fn judged(author: &header::Author) -> String {
    author.domain.as_ref().map_or_else(|| domain(&author.address), |domain| domain.as_str().to_owned())
}

fn shown(addresses: &Address<'_>) -> BTreeSet<String> {
    addresses.iter().filter_map(|address| address.address.as_deref()).map(domain).collect()
}

/// The domain of an address as a lenient reader maps it (UTS #46), or the text where it is none.
fn domain(address: &str) -> String {
    let text: String = address.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    let text = text.rsplit('@').next().unwrap_or_default().to_owned();
    DomainName::parse_unicode(&text).map_or(text, |domain| domain.as_str().to_owned())
}
