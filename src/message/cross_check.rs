//! A second reader: mail-parser, as lenient as the readers of mail programs, must find the same senders.
//!
//! [`address_list`](super::address_list) decides which addresses a field has; this file only confirms them. mail-parser
//! accepts what a gate must not (it joins `<a@b> <c@d>` into one address, skips lines without a colon, keeps source
//! routes), so its result alone never counts; a field for which it differs is ambiguous. It misreads two correct forms,
//! which are marked [`Address::astray`] and not compared: a comment or fold inside an address without angle brackets,
//! and the same address twice (`a@d <a@d>`). An encoded word that it decodes across a delimiter shows as a difference.

use mail_parser::{Header, HeaderName, HeaderValue, MessageParser};

use crate::message::address_list::Address;

/// Most unfinished encoded words at a time: for each of them mail-parser searches the rest of the field for its end.
const MAX_OPEN_WORDS: usize = 64;

/// Whether mail-parser finds the same From: and Reply-To: fields with the same addresses. `None` stands for a field
/// that is malformed already; it is not compared.
pub(super) fn confirms(
    block: &[u8],
    from: Option<&[Vec<Address>]>,
    reply_to: Option<&[Vec<Address>]>,
) -> (bool, bool) {
    // mail-parser loses the last value of a block without the empty line.
    let mut terminated = Vec::with_capacity(block.len() + 2);
    terminated.extend_from_slice(block);
    terminated.extend_from_slice(b"\r\n");
    let mut parser = MessageParser::new().default_header_ignore();
    for (name, ours) in [(HeaderName::From, from), (HeaderName::ReplyTo, reply_to)] {
        parser = if ours.is_some() { parser.header_address(name) } else { parser.ignore_header(name) };
    }
    let message = parser.parse_headers(&terminated);
    let headers = message.as_ref().map(|message| message.headers()).unwrap_or_default();
    let confirm = |name, ours: Option<&[Vec<Address>]>| {
        ours.is_none_or(|fields| confirms_fields(headers, &name, fields))
    };
    (confirm(HeaderName::From, from), confirm(HeaderName::ReplyTo, reply_to))
}

/// Whether a field's value contains an `@`, also after encoded words are decoded.
pub(super) fn finds_an_at(value: &[u8]) -> bool {
    if value.contains(&b'@') {
        return true;
    }
    if memchr::memmem::find(value, b"=?").is_none() {
        return false;
    }
    let field = [b"Subject:", value, b"\r\n\r\n"].concat();
    let parser = MessageParser::new().default_header_text();
    let message = parser.parse_headers(&field);
    message.is_none_or(|message| message.subject().is_none_or(|text| text.contains('@')))
}

/// Whether mail-parser can read a field's value in linear time.
pub(super) fn can_take(value: &[u8]) -> bool {
    let mut open = 0_usize;
    value.windows(2).all(|pair| {
        match pair {
            b"=?" => open += 1,
            b"?=" => open = 0,
            _ => {}
        }
        open <= MAX_OPEN_WORDS
    })
}

fn confirms_fields(headers: &[Header<'_>], name: &HeaderName<'_>, ours: &[Vec<Address>]) -> bool {
    let mut theirs = headers.iter().filter(|header| header.name == *name);
    ours.iter().all(|addresses| theirs.next().is_some_and(|field| confirms_field(&field.value, addresses)))
        && theirs.next().is_none()
}

fn confirms_field(value: &HeaderValue<'_>, ours: &[Address]) -> bool {
    let HeaderValue::Address(theirs) = value else {
        return ours.is_empty();
    };
    if ours.iter().any(|address| address.astray) {
        return true;
    }
    let mut theirs =
        theirs.iter().filter_map(|entry| entry.address.as_deref()).filter(|text| !text.is_empty());
    ours.iter().all(|address| theirs.next().is_some_and(|text| same(address, text)))
        && theirs.next().is_none()
}

/// Whether mail-parser's text is our address. The text may contain a source route and white space. mail-parser doesn't
/// keep a quoted local part reliably, so there only the domain is compared.
fn same(ours: &Address, theirs: &str) -> bool {
    let theirs: String = theirs.chars().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let theirs = match theirs.strip_prefix('@').and_then(|route| route.split_once(':')) {
        Some((_, address)) if address.contains('@') => address,
        _ => &theirs,
    };
    theirs
        .rsplit_once('@')
        .is_some_and(|(local, domain)| domain == ours.domain && (ours.quoted || local == ours.local))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_encoded_words_are_bounded() {
        assert!(can_take("=?a ".repeat(64).as_bytes()));
        assert!(!can_take("=?a ".repeat(65).as_bytes()));
        assert!(can_take("=?a?q?b?= ".repeat(100).as_bytes()));
    }

    #[test]
    fn texts_are_compared_without_white_space_and_route() {
        let rows = [
            ("a", false, "a@good.test", true),
            ("a", false, "a @ good.test", true),
            ("a", false, "@x.test,@y.test:a@good.test", true),
            ("a", false, "b@good.test", false),
            ("a", false, "a@other.test", false),
            ("a", false, "good.test", false),
            ("\"a b\"", true, "ab@good.test", true),
            ("\"a b\"", true, "ab@other.test", false),
            ("@x:b", true, "@x:b@good.test", true),
            ("@x:b", true, "@good.test:b", false),
        ];
        for (local, quoted, theirs, expected) in rows {
            let ours = Address { local: local.into(), domain: "good.test".into(), quoted, astray: false };
            assert_eq!(same(&ours, theirs), expected, "{local} {theirs}");
        }
        let ours = Address { local: "@x".into(), domain: "good.test:b".into(), quoted: false, astray: false };
        assert!(same(&ours, "@x@good.test:b"), "without an address behind the colon there is no route");
    }
}
