//! Reads the domains that claim to have written a message, from From: and Reply-To: of its header (RFC 5322 3.6.2).
//!
//! A header has exactly one From: and any number of Reply-To:, since lists and forwarders repeat that field. The
//! domains of all Reply-To: count together, and a Reply-To: without an address counts as absent. Every reader must find
//! the same addresses: the strict reader of `address_list` decides, mail-parser confirms. A field with no reading, or
//! with two, is [`Malformed`]; the friendlier of two readings is never taken. Sender: and the Resent- fields are not
//! read: no mail program shows them as the author.

use compact_str::CompactString;

use crate::message::address_list::{self, Address};
use crate::message::broken_lines::broken_lines;
use crate::message::fields::{Item, has_long_name, items};
use crate::message::malformed::Malformed;
use crate::message::{cross_check, u_label};
use crate::smtp::address::DomainName;

/// Most distinct domains of From:, and of all Reply-To: together.
const MAX_DOMAINS: usize = 5;
/// Addresses are cut to this length for replies and logs (a path has at most 256 octets, RFC 5321 4.5.3.1.3).
const MAX_SHOWN: usize = 256;
/// Longest From: and Reply-To:, folds included: mail servers cut longer fields, each at its own length.
const MAX_FIELD: usize = 16 * 1024;

/// The authors that a header block names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// From:; never [`Field::Absent`].
    pub from: Field,
    /// Reply-To:.
    pub reply_to: Field,
    /// Number of Received: fields, to see loops (RFC 5321 6.3).
    pub received: usize,
}

/// One address field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// There is no such field, or it has no address, which only Reply-To: may have.
    Absent,
    /// No reading, or more than one.
    Malformed(Malformed),
    /// One author for each distinct domain, in the order of the field; at least one, at most five.
    Authors(Vec<Author>),
}

/// The first address of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// `local-part@domain` without comments and control characters, cut off where it is longer than a path may be.
    pub address: CompactString,
    /// The domain; `None` for an address literal and for text that is no domain name.
    pub domain: Option<DomainName>,
}

/// The addresses of [`Author`]s, which stand in `text` with ", " between them; a quoted local part may hold the same two
/// characters. `None` where the text has no reading, as with an address that was cut.
#[must_use]
pub(crate) fn addresses_of(text: &str) -> Option<Vec<CompactString>> {
    let addresses = address_list::read(text.as_bytes()).ok()?;
    let all: Vec<_> =
        addresses.iter().map(|Address { local, domain, .. }| [local, "@", domain].concat()).collect();
    (all.join(", ") == text).then(|| all.into_iter().map(CompactString::from).collect())
}

/// Reads a header block: unfolded or not, every line with its CRLF, without the empty line that ends it.
#[must_use]
pub fn read(block: &[u8]) -> Header {
    let (mut from, mut reply_to) = (Vec::new(), Vec::new());
    let (mut received, mut stray) = (0, None);
    for item in items(block) {
        match item {
            Item::Stray(raw) => {
                let why = if has_long_name(raw) { Malformed::LongName } else { Malformed::NotAField };
                stray.get_or_insert(why);
            }
            Item::Field { name, .. } if name.eq_ignore_ascii_case(b"from") => from.push(item),
            Item::Field { name, .. } if name.eq_ignore_ascii_case(b"reply-to") => reply_to.push(item),
            Item::Field { name, .. } if name.eq_ignore_ascii_case(b"received") => received += 1,
            Item::Field { .. } => {}
        }
    }
    if let Some(why) = stray {
        let field = Field::Malformed(why);
        return Header { from: field.clone(), reply_to: field, received };
    }
    let (from, reply_to) = (author_field(&from), reply_to_fields(&reply_to));
    let (from_confirmed, reply_to_confirmed) = match (&from, &reply_to) {
        (Err(_), Err(_)) => (true, true),
        _ => cross_check::confirms(block, from.as_deref().ok(), reply_to.as_deref().ok()),
    };
    Header { from: field(from, from_confirmed), reply_to: field(reply_to, reply_to_confirmed), received }
}

/// From:, which must occur exactly once.
fn author_field(fields: &[Item<'_>]) -> Result<Vec<Vec<Address>>, Malformed> {
    match fields {
        [] => Err(Malformed::Missing),
        [field] => Ok(vec![addresses(field)?]),
        _ => Err(Malformed::Repeated),
    }
}

/// The addresses of each Reply-To:; none for a field without an address.
fn reply_to_fields(fields: &[Item<'_>]) -> Result<Vec<Vec<Address>>, Malformed> {
    let nobody = |why| if why == Malformed::Empty { Ok(Vec::new()) } else { Err(why) };
    fields.iter().map(|field| addresses(field).or_else(nobody)).collect()
}

fn addresses(field: &Item<'_>) -> Result<Vec<Address>, Malformed> {
    let Item::Field { name, value, raw } = field else { return Err(Malformed::NotAField) };
    if raw.len() > MAX_FIELD {
        return Err(Malformed::TooLong);
    }
    if !cross_check::can_take(value) {
        return Err(Malformed::Syntax);
    }
    let addresses = match address_list::read(value) {
        // Some readers take text, a comment or an encoded word for an address if there is no other.
        Err(why) if why.names_no_domain() && cross_check::finds_an_at(value) => {
            return Err(Malformed::Ambiguous);
        }
        read => read?,
    };
    // the next hop writes the name and the colon without white space between them
    match broken_lines(name.len() + 1, value).map(|broken| address_list::read(&broken)) {
        None => Ok(addresses),
        Some(Ok(broken)) if same_addresses(&broken, &addresses) => Ok(addresses),
        Some(_) => Err(Malformed::TooLong),
    }
}

fn same_addresses(one: &[Address], other: &[Address]) -> bool {
    let spelled = |address: &Address| [address.local.as_str(), "@", &address.domain].concat();
    one.iter().map(spelled).eq(other.iter().map(spelled))
}

/// No address at all is [`Field::Absent`]; From: without an address has an error by now.
fn field(addresses: Result<Vec<Vec<Address>>, Malformed>, confirmed: bool) -> Field {
    let authors = match addresses {
        Ok(_) if !confirmed => Err(Malformed::Ambiguous),
        Ok(fields) if fields.iter().all(Vec::is_empty) => return Field::Absent,
        Ok(fields) => authors(&fields.concat()),
        Err(malformed) => Err(malformed),
    };
    authors.map_or_else(Field::Malformed, Field::Authors)
}

/// The first address of each domain.
fn authors(addresses: &[Address]) -> Result<Vec<Author>, Malformed> {
    let mut authors: Vec<Author> = Vec::new();
    for address in addresses {
        let author = author(address);
        let known = authors.iter().any(|other| match &author.domain {
            Some(domain) => other.domain.as_ref() == Some(domain),
            None => other.domain.is_none() && other.address == author.address,
        });
        if known {
            continue;
        }
        if authors.len() == MAX_DOMAINS {
            return Err(Malformed::TooMany);
        }
        authors.push(author);
    }
    Ok(authors)
}

fn author(address: &Address) -> Author {
    let text = &address.domain;
    let domain = u_label::domain(text);
    let whole = [address.local.as_str(), "@", text].concat();
    let shown = whole.split_at(whole.floor_char_boundary(MAX_SHOWN)).0;
    Author { address: CompactString::new(shown), domain }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// `a@x.test b@[literal]-` for authors (a minus where there is no domain name), the variant's name for malformed.
    fn shown(field: &Field) -> String {
        match field {
            Field::Absent => "absent".to_owned(),
            Field::Malformed(malformed) => format!("{malformed:?}"),
            Field::Authors(authors) => authors
                .iter()
                .map(|author| match &author.domain {
                    Some(domain) if author.address.to_ascii_lowercase().ends_with(&format!("@{domain}")) => {
                        author.address.to_string()
                    }
                    Some(domain) => format!("{}={domain}", author.address),
                    None => format!("{}-", author.address),
                })
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    fn from(value: impl AsRef<[u8]>) -> String {
        let block = [b"From: ", value.as_ref(), b"\r\nTo: <user@relay.test>\r\n"].concat();
        shown(&read(&block).from)
    }

    #[test]
    fn address_lists_that_have_one_reading_are_read() {
        let rows = [
            ("a@good.test", "a@good.test"),
            ("<a@good.test>", "a@good.test"),
            ("Ann <a@good.test>", "a@good.test"),
            ("Ann<a@good.test>", "a@good.test"),
            ("  <\ta@good.test >\t", "a@good.test"),
            ("a@GOOD.Test", "a@GOOD.Test"),
            ("\"Ann\" <a@good.test>", "a@good.test"),
            ("\"a@good.test\" <x@nomx.test>", "x@nomx.test"),
            ("\"<a@good.test>\" <x@nomx.test>", "x@nomx.test"),
            ("\"Foo, Inc.\" <a@good.test>", "a@good.test"),
            ("\"a \\\"quoted\\\" \\\\ name\" <a@good.test>", "a@good.test"),
            ("\"a;b:c(d<e@f.test\" <a@good.test>", "a@good.test"),
            ("\"\" <a@good.test>", "a@good.test"),
            ("\"Ann\r\n Lee\" <a@good.test>", "a@good.test"),
            ("\"Ann\tLee\" (a\tb) <a@good.test>", "a@good.test"),
            ("a (c) @good.test", "a@good.test"),
            ("a\r\n @good.test", "a@good.test"),
            ("\"Ann\"Lee\"\" <a@good.test>", "a@good.test"),
            ("John Q. Public <j@good.test>", "j@good.test"),
            ("...Ann. <a@good.test>", "a@good.test"),
            ("O'Neil & Sons! <a@good.test>", "a@good.test"),
            ("[JIRA] (ABC-1) <a@good.test>", "a@good.test"),
            ("CORP\\ann <a@good.test>", "a@good.test"),
            ("J\u{fc}rgen \u{1f600} <a@good.test>", "a@good.test"),
            ("\u{200b}Ann \u{202e}eeL\u{202c}\u{ad} <a@good.test>", "a@good.test"),
            ("\"\u{feff}Ann\u{2028}\" (\u{200f}) <a@good.test>", "a@good.test"),
            ("\u{645}\u{6cc}\u{200c}\u{62e}@good.test", "\u{645}\u{6cc}\u{200c}\u{62e}@good.test"),
            ("\u{2764}\u{fe0f}\u{200d}\u{1f525}@good.test", "\u{2764}\u{fe0f}\u{200d}\u{1f525}@good.test"),
            ("\r\n Ann\r\n\t<x@nomx.test>", "x@nomx.test"),
            ("a@good.test (Ann)", "a@good.test"),
            ("(Ann) a@good.test", "a@good.test"),
            ("(a (nested \\) one) (x@nomx.test)) <a@good.test> (end)", "a@good.test"),
            ("Ann (\"unbalanced) <a@good.test>", "a@good.test"),
            ("a..b.@good.test", "a..b.@good.test"),
            ("bounce+x=y.test/z#1@good.test", "bounce+x=y.test/z#1@good.test"),
            ("\"a b\"@good.test", "\"a b\"@good.test"),
            ("\"x@nomx.test\"@good.test", "\"x@nomx.test\"@good.test"),
            ("Ann <\"a\\\"b c\"@good.test>", "\"a\\\"b c\"@good.test"),
            ("\"a\".b.\"c\"@good.test", "\"a\".b.\"c\"@good.test"),
            ("=?utf-8?Q?a=40bank=2Etest?= <x@nomx.test>", "x@nomx.test"),
            ("=?utf-8?B?QW5u?=\r\n =?utf-8?B?TGVl?= <a@good.test>", "a@good.test"),
            ("=?utf-8?Q?Foo,_Inc.?= <a@good.test>", "a@good.test"),
            ("=?utf-8?Q?Foo_:)_[1];?= <a@good.test>", "a@good.test"),
            ("\"=?utf-8?Q?Foo?=\" <a@good.test>", "a@good.test"),
            ("=?utf-8?Q?broken <a@good.test>", "a@good.test"),
            ("=?utf-8?Q?Ann\" <a@good.test>, \"?= <x@nomx.test>", "x@nomx.test"),
            ("a@good.test, b@several.test", "a@good.test b@several.test"),
            ("<a@good.test>,<b@good.test>,c@GOOD.test", "a@good.test"),
            (", ,a@good.test,, b@several.test,", "a@good.test b@several.test"),
            (
                "a@a.test,a@b.test,a@c.test,a@d.test,a@e.test,b@a.test",
                "a@a.test a@b.test a@c.test a@d.test a@e.test",
            ),
            ("Team: a@good.test, Bob <b@several.test>;", "a@good.test b@several.test"),
            ("Team: a@good.test;, None:;, B: b@several.test; (end)", "a@good.test b@several.test"),
            ("c@c.test, \"T, U\":a@good.test,;", "c@c.test a@good.test"),
            ("Re: Ann <a@good.test>", "a@good.test"),
            ("a@good.test;", "a@good.test"),
            ("a@[127.0.0.10]", "a@[127.0.0.10]-"),
            ("Ann <a@[IPv6:::1]>", "a@[IPv6:::1]-"),
            ("a@b_d.test, a@-x.test, a@-x.test", "a@b_d.test a@-x.test-"),
            ("a@localhost", "a@localhost"),
            ("a@b\u{fc}cher.test", "a@b\u{fc}cher.test=xn--bcher-kva.test"),
            ("j\u{fc}rgen@xn--bcher-kva.test", "j\u{fc}rgen@xn--bcher-kva.test"),
            ("a@good.test <a@GOOD.test>", "a@good.test"),
            ("b@good.test <a@good.test>", "b@good.test"),
        ];
        for (value, expected) in rows {
            assert_eq!(from(value), expected, "{value:?}");
        }
        assert_eq!(from(b"J\xfcrgen <a@good.test>"), "a@good.test", "Latin-1 in a display name");
    }

    #[test]
    fn a_field_with_no_reading_or_two_is_malformed() {
        let rows = [
            ("", "Empty"),
            (" \t", "Empty"),
            ("(nobody)", "Empty"),
            (",,,", "Empty"),
            ("<>", "Empty"),
            ("Mailer <>", "Empty"),
            ("Nobody:;", "Empty"),
            ("Nobody:(here);", "Empty"),
            ("root", "NoDomain"),
            ("root (Cron Daemon)", "NoDomain"),
            ("Mail Delivery <MAILER-DAEMON>", "NoDomain"),
            ("Foo, Inc. <a@good.test>", "Ambiguous"),
            ("\"a@good.test\"", "Ambiguous"),
            ("=?utf-8?Q?a=40good=2Etest?=", "Ambiguous"),
            ("Ann <a@\r\n good.test>", "BrokenDomain"),
            ("a@\r\n good.test", "BrokenDomain"),
            ("a@ good.test", "BrokenDomain"),
            ("a@(c)good.test", "BrokenDomain"),
            ("a@good(c).test", "BrokenDomain"),
            ("<a@good.(c)test(c)>", "BrokenDomain"),
            ("a@good .test", "BrokenDomain"),
            ("<a@good. test>", "BrokenDomain"),
            ("a@bank.test\r\n .good.test", "BrokenDomain"),
            ("a@[127.0.0. 1]", "BrokenDomain"),
            ("<>, a@good.test", "Syntax"),
            ("a@good.test, Ann <>", "Syntax"),
            ("(a@good.test)", "Ambiguous"),
            ("=?utf-8?Q?a=40good.test?=", "Ambiguous"),
            ("=?utf-8?B?YUBnb29kLnRlc3Q=?= <MAILER-DAEMON>", "Ambiguous"),
            ("=?utf-8?Q?Mail_Delivery?= <MAILER-DAEMON>", "NoDomain"),
            ("<@relay.test:u@good.test>", "Ambiguous"),
            ("<@relay.test,@b.test:u@good.test>", "Ambiguous"),
            ("a@", "Syntax"),
            ("@good.test", "Syntax"),
            ("<@good.test>", "Ambiguous"),
            ("a@good.test.", "Syntax"),
            ("a@.good.test", "Syntax"),
            ("a@good..test", "Syntax"),
            ("a@good.test@nomx.test", "Syntax"),
            ("<a@good.test@nomx.test>", "Syntax"),
            ("<a@good.test> <x@nomx.test>", "Syntax"),
            ("a@good.test x@nomx.test", "Syntax"),
            ("a@good.test <x@nomx.test>", "Ambiguous"),
            ("Ann a@good.test", "Syntax"),
            ("Ann a@good.test <x@nomx.test>", "Syntax"),
            ("@good.test <x@nomx.test>", "Syntax"),
            ("<ceo@bank.test> <a@evil.test>", "Syntax"),
            ("<a@good.test> Ann", "Syntax"),
            ("<a@good.test>@nomx.test", "Syntax"),
            ("<a@good.test>>", "Syntax"),
            ("<<a@good.test>>", "Syntax"),
            ("<a@good.test", "Syntax"),
            ("a@good.test>", "Syntax"),
            ("Ann <a@good.test, b@good.test>", "Syntax"),
            ("<a b@good.test>", "Syntax"),
            ("<a\"b\"@good.test>", "Syntax"),
            ("\"Ann <a@good.test>", "Syntax"),
            ("\"Ann\\\" <a@good.test>", "Syntax"),
            ("(Ann <a@good.test>", "Syntax"),
            ("Ann) <a@good.test>", "Syntax"),
            ("Ann (a (b) <a@good.test>", "Syntax"),
            ("( =?utf-8?Q?)?= <x@nomx.test> ) <a@good.test>", "Syntax"),
            ("@relay.test:a@good.test", "Syntax"),
            ("<@relay.test a@good.test>", "Ambiguous"),
            ("<@:a@good.test>", "Ambiguous"),
            ("A: B: a@good.test;", "Syntax"),
            (": a@good.test;", "Syntax"),
            ("A: a@good.test; B: x@nomx.test;", "Syntax"),
            ("a@good.test; x@nomx.test", "Syntax"),
            ("A: a@good.test;;", "Syntax"),
            ("a@good.test;,", "Syntax"),
            ("Foo\\, Bar <a@good.test>", "Syntax"),
            ("a@[127.0.0.10", "Syntax"),
            ("a@[127[0.0.10]", "Syntax"),
            ("a@[127\\.0.0.10]", "Syntax"),
            ("a@[127\u{fc}]", "Syntax"),
            ("a@[127\x01]", "Control"),
            ("\"Ann\\\r\n Lee\" <a@good.test>", "Control"),
            ("a@[127[0.0.10]]", "Syntax"),
            ("a@[127.0.0.10]x", "Syntax"),
            ("[a, b] <a@good.test>", "Ambiguous"),
            ("[<a@good.test>] <x@nomx.test>", "Syntax"),
            ("=?utf-8?Q?a@good.test?= <x@nomx.test>", "Ambiguous"),
            ("=?utf-8?Q?ann?=@good.test", "Syntax"),
            ("<=?utf-8?Q?ann?=@good.test>", "Syntax"),
            ("\"=?utf-8?Q?Ann\" <a@good.test>, b@nomx.test (?=)", "Ambiguous"),
            ("a\x01@good.test", "Control"),
            ("\"Ann\x7f\" <a@good.test>", "Control"),
            ("(\x1b[2J) a@good.test", "Control"),
            ("a\u{85}b@good.test", "Control"),
            ("a@good\u{9b}.test", "Control"),
            ("a\u{202e}b@good.test", "Invisible"),
            ("\u{200b}a@good.test", "Invisible"),
            ("Ann <a\u{200d}b@good.test>", "Invisible"),
            ("<\"a \u{2067}b\"@good.test>", "Invisible"),
            ("a\u{ad}@good.test", "Invisible"),
            ("\u{fc}\u{2060}@good.test", "Invisible"),
            ("a\u{2028}b@good.test", "Invisible"),
            ("a\u{e0041}@good.test", "Invisible"),
            ("b@good.test, a\u{feff}@good.test", "Invisible"),
            ("a@a.test,a@b.test,a@c.test,a@d.test,a@e.test,a@f.test", "TooMany"),
            ("a@[1],a@[2],a@[3],a@[4],a@[5],a@f.test", "TooMany"),
        ];
        for (value, expected) in rows {
            assert_eq!(from(value), expected, "{value:?}");
        }
        assert_eq!(from(b"a@good\xff.test"), "Syntax", "no UTF-8 in a domain");
        assert_eq!(from("a@good.test\0"), "NotAField", "NUL");
        assert_eq!(from("a@good.test\r b"), "NotAField", "bare CR");
        assert_eq!(from("a@good.test\n b"), "NotAField", "bare LF");
    }

    #[test]
    fn from_occurs_once_and_the_domains_of_all_reply_to_count() {
        let rows = [
            ("", "Missing", "absent"),
            ("To: a@good.test\r\n", "Missing", "absent"),
            ("Reply-To: a@good.test\r\n", "Missing", "a@good.test"),
            ("From: a@good.test\r\n", "a@good.test", "absent"),
            ("fROM:a@good.test\r\nREPLY-TO:b@good.test\r\n", "a@good.test", "b@good.test"),
            ("From : <x@nomx.test>\r\n", "x@nomx.test", "absent"),
            ("From\t : <x@nomx.test>\r\nReply-To : r@r.test\r\n", "x@nomx.test", "r@r.test"),
            ("From: a@good.test\r\nFrom: b@several.test\r\n", "Repeated", "absent"),
            ("From: a@good.test\r\nSubject: x\r\nfrom : a@good.test\r\n", "Repeated", "absent"),
            (
                "From: a@good.test\r\nReply-To: a@a.test\r\nReply-To: b@b.test\r\n",
                "a@good.test",
                "a@a.test b@b.test",
            ),
            (
                "From: a@good.test\r\nReply-To: r@r.test\r\nX: y\r\nreply-to: R <r@r.test>, b@b.test\r\n",
                "a@good.test",
                "r@r.test b@b.test",
            ),
            (
                "From: a@good.test\r\nReply-To: r@r.test\r\nReply-To: <a@a.test> <b@b.test>\r\n",
                "a@good.test",
                "Syntax",
            ),
            (
                "From: a@good.test\r\nReply-To: a@a.test,a@b.test,a@c.test\r\nReply-To: a@d.test,a@e.test,a@a.test\r\n",
                "a@good.test",
                "a@a.test a@b.test a@c.test a@d.test a@e.test",
            ),
            (
                "From: a@good.test\r\nReply-To: a@a.test,a@b.test,a@c.test\r\nReply-To: a@d.test,a@e.test,a@f.test\r\n",
                "a@good.test",
                "TooMany",
            ),
            ("From: a@good.test\r\nReply-To:\r\n", "a@good.test", "absent"),
            ("From: a@good.test\r\nReply-To: \r\n\t\r\n", "a@good.test", "absent"),
            ("From: a@good.test\r\nReply-To:\r\nReply-To: b@b.test\r\n", "a@good.test", "b@b.test"),
            ("From: a@good.test\r\nReply-To: nobody:;\r\n", "a@good.test", "absent"),
            ("From: a@good.test\r\nReply-To: <>\r\nReply-To: (none)\r\n", "a@good.test", "absent"),
            ("From: a@good.test\r\nReply-To: Ann <>\r\n", "a@good.test", "absent"),
            ("From: a@good.test\r\nReply-To: (b@b.test)\r\n", "a@good.test", "Ambiguous"),
            (
                "From: a@good.test\r\nReply-To: =?utf-8?Q?=3Cb=40b.test=3E?= <>\r\n",
                "a@good.test",
                "Ambiguous",
            ),
            ("From: a@good.test\r\nReply-To: <a@a.test> <b@b.test>\r\n", "a@good.test", "Syntax"),
            ("From: <a@a.test> <b@b.test>\r\nReply-To: b@b.test\r\n", "Syntax", "b@b.test"),
            ("From: a@good.test\r\nno colon here\r\nFrom: <x@nomx.test>\r\n", "NotAField", "NotAField"),
            ("From: a@good.test\r\nbad name: x\r\n", "NotAField", "NotAField"),
            (" From: a@good.test\r\nFrom: b@b.test\r\n", "NotAField", "NotAField"),
            ("F rom: a@good.test\r\n", "NotAField", "NotAField"),
            ("From a@good.test Mon Jan 1\r\nFrom: a@good.test\r\n", "NotAField", "NotAField"),
            ("From: a@good.test\r\n\r\nFrom: x@nomx.test\r\n", "NotAField", "NotAField"),
            ("From: a@good.test", "NotAField", "NotAField"),
            ("From: a@good.test\r\n \r\nX: y\r\n", "a@good.test", "absent"),
            ("X-From: a@a.test\r\nFrom-X: b@b.test\r\nSender: c@c.test\r\n", "Missing", "absent"),
        ];
        for (block, from, reply_to) in rows {
            let header = read(block.as_bytes());
            assert_eq!(
                (shown(&header.from), shown(&header.reply_to)),
                (from.into(), reply_to.into()),
                "{block:?}"
            );
        }
    }

    #[test]
    fn a_field_that_mail_servers_cut_is_malformed() {
        let field = |length: usize| format!("a@good.test {}", "(x)".repeat((length - 22) / 3));
        assert_eq!(from(field(16 * 1024 - 3)), "a@good.test");
        assert_eq!(from(field(16 * 1024 + 3)), "TooLong");
        let name = |length: usize| format!("{} <a@good.test>", "x".repeat(length));
        // "From: ", the name, " <a@": the line is broken after 998 octets
        assert_eq!(from(name(998 - 6 - 2)), "a@good.test");
        assert_eq!(from(name(998 - 6 - 3)), "a@good.test");
        assert_eq!(from(name(998 - 6 - 4)), "TooLong");
        assert_eq!(from(name(998 - 6 - 8)), "TooLong");
        assert_eq!(from(name(998 - 6 - 16)), "a@good.test");
        assert_eq!(from(format!("Ann\r\n {}", name(998 - 6 - 8))), "a@good.test");
        assert_eq!(
            from(format!("\"{}\"@good.test", "x".repeat(1000))),
            "TooLong",
            "a blank in the local part"
        );
        let many = |addresses: usize| vec!["a@b.test"; addresses].join(",\r\n ");
        assert_eq!(from(many(1000)), "a@b.test");
        assert_eq!(from(many(1100)), "TooMany");
        let long = format!("{}: x\r\nFrom: a@good.test\r\n", "n".repeat(257));
        assert_eq!(shown(&read(long.as_bytes()).from), "LongName");
    }

    #[test]
    fn received_fields_are_counted() {
        let block = "Received: a\r\n b\r\nreceived : c\r\nX-Received: d\r\nFrom: a@good.test\r\n";
        assert_eq!(read(block.as_bytes()).received, 2);
        assert_eq!(read(b"Received: a\r\nstray\r\n").received, 1);
    }

    #[test]
    fn long_addresses_are_cut_only_where_they_are_shown() {
        let header = read(format!("From: {}@good.test\r\n", "\u{e9}".repeat(300)).as_bytes());
        let Field::Authors(authors) = header.from else { panic!("{header:?}") };
        assert_eq!((authors.len(), authors[0].address.len()), (1, 256));
        assert_eq!(authors[0].domain.as_ref().unwrap().as_str(), "good.test");
    }

    /// A value four times as long may take four times the time. That is the processor time of this thread, which
    /// other load doesn't change.
    #[test]
    fn hostile_blocks_take_linear_time() {
        let noise = Duration::from_millis(25);
        // the longest field that is read, and blocks in which fields are only skipped
        for size in [15 * 1024, 128 * 1024] {
            for (long, short) in hostile(size).iter().zip(&hostile(size / 4)) {
                for (before, behind) in [("", "\r\nReply-To: r@good.test"), ("a@good.test\r\nReply-To: ", "")]
                {
                    let block = |value: &str| format!("From: {before}{value}{behind}\r\n");
                    let (long_block, short_block) = (block(long), block(short));
                    let whole = spent(|| drop(read(long_block.as_bytes())));
                    let parts = spent(|| (0..4).for_each(|_| drop(read(short_block.as_bytes()))));
                    let begin = long.get(..20).unwrap_or_default();
                    assert!(
                        whole <= 2 * parts + noise,
                        "{size} of {begin:?}: {whole:?}, in four parts {parts:?}"
                    );
                }
            }
        }
        let lines = "a:\r\n".repeat(32 * 1024);
        assert_eq!(shown(&read(lines.as_bytes()).from), "Missing");
    }

    /// The least processor time of this thread in three runs.
    fn spent(mut run: impl FnMut()) -> Duration {
        let now = || {
            let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
            Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
        };
        let once = |_| {
            let began = now();
            run();
            now().saturating_sub(began)
        };
        (0..3).map(once).min().unwrap()
    }

    fn hostile(size: usize) -> Vec<String> {
        let fill = |text: &str| text.repeat(size / text.len());
        vec![
            fill("("),
            format!("{}{} a@good.test", "(".repeat(size / 2), ")".repeat(size / 2)),
            fill(","),
            fill("a@good.test,"),
            fill("\"a\" "),
            fill("\"\\\""),
            fill("A:;,"),
            fill("A:"),
            fill("<"),
            fill("@a,"),
            format!("<{}:a@good.test>", fill("@a.test,")),
            fill("."),
            fill("=?aa?q? "),
            fill("=?aa?b? "),
            fill("=?aa?q?x "),
            format!("({}) a@good.test", fill("=?aa?q? ")),
            format!("({}) a@good.test", fill("=?aa?q??= ")),
            format!("\"{}\" <a@good.test>", fill("=?aa?b?AA ")),
            format!("{} <a@good.test>", fill("=?=?=?=?")),
            format!("{} <a@good.test>", fill("?==?")),
            format!("a@{}.test", fill("\u{fc}")),
            format!("a@{}.test", fill("\u{fc}.")),
            format!("{}@good.test", fill("a.")),
            format!("Ann\r\n{} <a@good.test>", fill(" \r\n")),
        ]
    }

    fn atom() -> impl Strategy<Value = String> {
        "[a-z0-9!#$%&'*+/^_`{|}~-]{1,8}"
    }

    fn gap() -> impl Strategy<Value = String> {
        prop_oneof![
            5 => Just(String::new()),
            3 => Just(" ".to_owned()),
            1 => Just("\r\n\t".to_owned()),
            1 => "\\([a-z@<>,\";: ]{0,6}(\\([a-z]{0,2}\\))?(\\\\[()])?\\)",
        ]
    }

    fn quoted_string() -> impl Strategy<Value = String> {
        "\"([ !#-\\[\\]-~]|\\\\[ -~]){0,12}\""
            .prop_filter("encoded words in quotes are another matter", |text| !text.contains("=?"))
    }

    fn display_name() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            atom(),
            quoted_string(),
            Just("=?utf-8?Q?a=40b=2Ec?=".to_owned()),
            Just("Q.".to_owned()),
            "[\u{e0}-\u{ff}]{1,4}"
        ];
        proptest::collection::vec(word, 0..4).prop_map(|words| words.join(" "))
    }

    fn domain() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec("[a-zA-Z0-9]([a-z0-9-]{0,6}[a-z0-9])?".prop_map(String::from), 1..4)
    }

    /// A valid mailbox with its domain.
    fn mailbox() -> impl Strategy<Value = (String, String)> {
        let local = prop_oneof![
            4 => proptest::collection::vec(atom(), 1..3).prop_map(|atoms| atoms.join(".")),
            1 => "\"[a-z@ ,;:()]{1,6}\"",
        ];
        (display_name(), local, domain(), any::<bool>(), proptest::collection::vec(gap(), 2)).prop_map(
            |(name, local, labels, angle, gaps)| {
                let [e, f] = gaps.try_into().unwrap();
                let address = format!("{local}@{}", labels.join("."));
                // mail-parser takes delimiters in a quoted local part between angle brackets for real delimiters
                let bare = !angle || local.starts_with('"');
                let text = if bare { format!("{e}{address}{f}") } else { format!("{name}{e}<{address}>{f}") };
                (text, labels.join(".").to_ascii_lowercase())
            },
        )
    }

    proptest! {
        #[test]
        fn valid_lists_give_exactly_their_domains(
            mailboxes in proptest::collection::vec(mailbox(), 1..6),
            group in any::<bool>(),
            before in gap(),
        ) {
            let list = mailboxes.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(",");
            let value = if group { format!("{before}Team:{list};") } else { format!("{before}{list}") };
            let mut expected: Vec<&str> = Vec::new();
            for (_, domain) in &mailboxes {
                if !expected.contains(&domain.as_str()) {
                    expected.push(domain);
                }
            }
            let header = read(format!("From:{value}\r\n").as_bytes());
            let Field::Authors(authors) = &header.from else {
                return Err(TestCaseError::fail(format!("{value:?}: {header:?}")));
            };
            let domains: Vec<_> = authors.iter().map(|author| author.domain.as_ref().unwrap().as_str()).collect();
            prop_assert_eq!(domains, expected, "{:?}", value);
        }

        #[test]
        fn reading_never_panics(block in proptest::collection::vec(any::<u8>(), 0..300)) {
            let header = read(&block);
            prop_assert_ne!(header.from, Field::Absent);
        }

        #[test]
        fn no_mix_of_delimiters_gives_a_domain_that_is_not_written(
            value in "([a-z]@x[.]test|[a-z]@y[.]test|a|[ .,:;<>()\"@=?\\\\\\[\\]]|=\\?aa\\?q\\?|\\?=|\r\n ){0,14}",
        ) {
            let header = read(format!("From: {value}\r\n").as_bytes());
            if let Field::Authors(authors) = &header.from {
                prop_assert!((1..=5).contains(&authors.len()));
                let plain: String = value.split_whitespace().collect();
                for author in authors {
                    let written = author.address.rsplit('@').next().unwrap();
                    prop_assert!(plain.contains(written) || plain.contains('('), "{:?} {:?}", value, author);
                }
            }
        }
    }
}
