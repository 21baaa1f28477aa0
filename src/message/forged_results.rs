//! Removes results in our name that we did not write (RFC 8601 5), in every spelling that a lenient reader takes for
//! our name.
//!
//! Later readers drop comments, white space, quotes and backslashes, and don't agree on what a comment is. So each
//! reading of the field is tried, and the field is removed if one of them finds our name before the first `;`. Names
//! are compared without case, as A-label and as U-label, with and without a final dot, without characters that are no
//! text, and as the first word before a version. A field that can't be read safely and may have our name is removed
//! too. A longer name, and our name in any other place, stay as they are, octet for octet.
//!
//! ARC-Authentication-Results: (RFC 8617 4.1.1) in our name is removed as well, unless the block has an ARC-Seal: of
//! the same instance: a chain must not be broken.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::collections::HashMap;

use crate::message::fields::{Item, items};
use crate::smtp::address::DomainName;

const FIELD: &[u8] = b"authentication-results";
const ARC_FIELD: &[u8] = b"arc-authentication-results";
const SEAL: &[u8] = b"arc-seal";
/// Longer text is no name in any spelling; the time for converting U-labels is not linear.
const MAX_NAME: usize = 1024;

/// The block without the fields in our name; the block itself if it has none.
#[must_use]
pub fn without_own_results<'a>(block: &'a [u8], authserv_id: &str) -> Cow<'a, [u8]> {
    let own = Own::of(block, authserv_id);
    if !items(block).any(|item| own.has(&item)) {
        return Cow::Borrowed(block);
    }
    let mut kept = Vec::with_capacity(block.len());
    for item in items(block).filter(|item| !own.has(item)) {
        let (Item::Field { raw, .. } | Item::Stray(raw)) = item;
        kept.extend_from_slice(raw);
    }
    Cow::Owned(kept)
}

/// A field in our name, by its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnResults {
    /// As it stands in the block.
    pub name: String,
    /// From 1, among all fields of this name in any case.
    pub index: u32,
}

/// The fields in our name, in the order of the block.
#[must_use]
pub fn own_results(block: &[u8], authserv_id: &str) -> Vec<OwnResults> {
    let own = Own::of(block, authserv_id);
    let mut counts: HashMap<String, u32> = HashMap::new();
    let mut found = Vec::new();
    for item in items(block).filter(|item| kind(item).is_some()) {
        let name = match item {
            Item::Field { name, .. } => name,
            Item::Stray(raw) => raw.split(|&byte| byte == b':').next().unwrap_or_default(),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let count = counts.entry(name.to_ascii_lowercase()).or_default();
        *count = count.saturating_add(1);
        if own.has(&item) {
            found.push(OwnResults { name, index: *count });
        }
    }
    found
}

/// Tells the fields in our name from others.
struct Own<'a> {
    block: &'a [u8],
    name: OwnName<'a>,
    seals: OnceCell<Seals>,
}

impl<'a> Own<'a> {
    fn of(block: &'a [u8], authserv_id: &'a str) -> Self {
        Self { block, name: OwnName::new(authserv_id), seals: OnceCell::new() }
    }

    fn has(&self, item: &Item<'_>) -> bool {
        match kind(item) {
            Some((Kind::Results, value)) => claims(value, &self.name),
            Some((Kind::ArcResults, value)) => {
                claims_in_arc(value, &self.name)
                    && !self.seals.get_or_init(|| Seals::of(self.block)).cover(value)
            }
            None => false,
        }
    }
}

enum Kind {
    Results,
    ArcResults,
}

/// The kind of a field, for a reader that skips everything in front of the colon but another name.
fn kind<'a>(item: &Item<'a>) -> Option<(Kind, &'a [u8])> {
    let (name, value): (Cow<'_, [u8]>, _) = match *item {
        Item::Field { name, value, .. } => (Cow::Borrowed(name), value),
        Item::Stray(raw) => {
            let (name, value) = raw.split_at_checked(memchr::memchr(b':', raw)?)?;
            (name.iter().copied().filter(u8::is_ascii_graphic).collect(), value.strip_prefix(b":")?)
        }
    };
    if name.eq_ignore_ascii_case(FIELD) {
        Some((Kind::Results, value))
    } else if name.eq_ignore_ascii_case(ARC_FIELD) {
        Some((Kind::ArcResults, value))
    } else {
        None
    }
}

/// Whether a reading of the value begins with this authserv-id.
fn claims(value: &[u8], own: &OwnName<'_>) -> bool {
    Reading::all().any(|reading| reading.segment(value).0.is(own))
}

/// The same after the instance, and without an instance.
fn claims_in_arc(value: &[u8], own: &OwnName<'_>) -> bool {
    Reading::all().any(|reading| {
        let (first, rest) = reading.segment(value);
        first.is(own) || reading.segment(rest).0.is(own)
    })
}

/// The instances for which the block has an ARC-Seal:.
struct Seals(Vec<u8>);

impl Seals {
    fn of(block: &[u8]) -> Self {
        let seal = |item: Item<'_>| match item {
            Item::Field { name, value, .. } if name.eq_ignore_ascii_case(SEAL) => {
                value.split(|&byte| byte == b';').find_map(instance)
            }
            Item::Field { .. } | Item::Stray(_) => None,
        };
        let mut seals: Vec<u8> = items(block).filter_map(seal).collect();
        seals.sort_unstable();
        seals.dedup();
        Self(seals)
    }

    /// Whether there is a seal of the instance of these results.
    fn cover(&self, results: &[u8]) -> bool {
        let tag = results.split(|&byte| byte == b';').next();
        tag.and_then(instance).is_some_and(|instance| self.0.contains(&instance))
    }
}

/// `i=1`
fn instance(tag: &[u8]) -> Option<u8> {
    let number = tag.trim_ascii().strip_prefix(b"i")?.trim_ascii_start().strip_prefix(b"=")?;
    std::str::from_utf8(number.trim_ascii()).ok()?.parse().ok()
}

/// One way to separate comments (RFC 5322 3.2.2) from text.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// A comment may contain comments.
    nested: bool,
    /// A backslash in a comment escapes the parenthesis after it.
    escapes: bool,
    /// A parenthesis in a quoted string is text.
    quotes: bool,
}

impl Reading {
    fn all() -> impl Iterator<Item = Self> {
        (0_u8..8).map(|bits| Self { nested: bits & 1 == 0, escapes: bits & 2 == 0, quotes: bits & 4 == 0 })
    }

    /// The name in front of the first `;`, and the octets after it. A comment that isn't closed is no comment: only its
    /// parenthesis is dropped.
    fn segment(self, value: &[u8]) -> (Name, &[u8]) {
        let (mut name, mut rest, mut quoted, mut closes) = (Name::default(), value, false, true);
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            match byte {
                b'(' if closes && !(quoted && self.quotes) => match self.behind_comment(behind) {
                    Some(behind) => {
                        rest = behind;
                        name.gap();
                    }
                    // no later comment is closed either
                    None => closes = false,
                },
                b';' => break,
                b'"' => quoted = !quoted,
                b'\\' | b'(' | b')' => {}
                _ if byte.is_ascii_whitespace() || byte.is_ascii_control() => {
                    if !quoted {
                        name.gap();
                    }
                }
                _ => name.text.push(byte),
            }
        }
        (name, rest)
    }

    fn behind_comment(self, mut rest: &[u8]) -> Option<&[u8]> {
        let mut depth = 1_usize;
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            match byte {
                b'\\' if self.escapes => rest = rest.get(1..).unwrap_or_default(),
                b'(' if self.nested => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(rest);
            }
        }
        None
    }
}

/// The text in front of a `;`, without everything that a reader may leave out.
#[derive(Debug, Default)]
struct Name {
    text: Vec<u8>,
    /// The places outside of quotes where something was left out that may end a word.
    gaps: Vec<usize>,
}

impl Name {
    fn gap(&mut self) {
        self.gaps.push(self.text.len());
    }

    fn is(&self, own: &OwnName<'_>) -> bool {
        let text = self.text.get(..MAX_NAME.min(self.text.len())).unwrap_or_default();
        let ascii: Vec<u8> = text.iter().copied().filter(u8::is_ascii).collect();
        // an encoded word (RFC 2047) isn't allowed here; a reader that decodes it may find our name
        memchr::memmem::find(text, b"=?").is_some()
            || self.words(text).any(|word| own.is(word))
            || (ascii.len() < text.len() && own.is(&ascii))
    }

    /// The whole text, and each part of it that may be its first word.
    fn words<'a>(&self, text: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte) || byte >= 128;
        let token = text.iter().position(|&byte| !of_name(byte)).unwrap_or(text.len());
        let ends = self.gaps.iter().copied().filter(move |&gap| gap <= token).take(MAX_WORDS);
        ends.chain([token, text.len()]).filter_map(|end| text.get(..end))
    }
}

/// No honest field has more gaps in front of the end of its name; after so many, only the token and the whole text are
/// compared.
const MAX_WORDS: usize = 64;

/// Conversions of U-labels for one block. Hundreds of honest fields with such names need fewer.
const MOST_CONVERSIONS: u32 = 4_000;

/// Our name. After so many conversions every name that needs one counts as ours, so that no block costs more.
struct OwnName<'a> {
    authserv_id: &'a str,
    conversions: Cell<u32>,
}

impl<'a> OwnName<'a> {
    fn new(authserv_id: &'a str) -> Self {
        Self { authserv_id, conversions: Cell::new(MOST_CONVERSIONS) }
    }

    fn is(&self, word: &[u8]) -> bool {
        let word = word.strip_suffix(b".").unwrap_or(word);
        if word.is_ascii() {
            return word.eq_ignore_ascii_case(self.authserv_id.as_bytes());
        }
        let Some(left) = self.conversions.get().checked_sub(1) else { return true };
        self.conversions.set(left);
        std::str::from_utf8(word)
            .ok()
            .and_then(|word| DomainName::parse_unicode(word).ok())
            .is_some_and(|name| name.as_str().eq_ignore_ascii_case(self.authserv_id))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: &str = "gate.relay.test";

    fn assert_taken_out(field: &str, own: bool) {
        let block = format!("From: a@good.test\r\n{field}\r\nSubject:  two  \r\n\tlines \r\n");
        let expected = if own { block.replace(&format!("{field}\r\n"), "") } else { block.clone() };
        let left = without_own_results(block.as_bytes(), OURS);
        assert_eq!(left.escape_ascii().to_string(), expected.as_bytes().escape_ascii().to_string());
        assert_eq!(matches!(left, Cow::Owned(_)), own);
    }

    #[test]
    fn fields_in_our_name_are_counted_among_those_of_the_same_name() {
        let ours = "Authentication-Results: gate.relay.test; forged=pass\r\n";
        let other = "authentication-results: mx.other.test; spf=pass\r\n";
        let arc =
            |instance| format!("ARC-Authentication-Results: i={instance}; gate.relay.test; forged=pass\r\n");
        let rows: [(String, &[(&str, u32)]); 6] = [
            (String::new(), &[]),
            (other.repeat(3), &[]),
            (format!("From: a\r\n{ours}"), &[("Authentication-Results", 1)]),
            (
                format!("{other}{ours}X: y\r\n{other}AUTHENTICATION-results:\r\n gate.relay.test\r\n"),
                &[("Authentication-Results", 2), ("AUTHENTICATION-results", 4)],
            ),
            (
                format!("{}{ours}ARC-Seal: i=2; a=b\r\n{}{}", arc(1), arc(2), arc(3)),
                &[
                    ("ARC-Authentication-Results", 1),
                    ("Authentication-Results", 1),
                    ("ARC-Authentication-Results", 3),
                ],
            ),
            (
                format!("Authentication-Results : gate.relay.test\r\n{ours}"),
                &[("Authentication-Results", 1), ("Authentication-Results", 2)],
            ),
        ];
        for (block, expected) in rows {
            let found = own_results(block.as_bytes(), OURS);
            let found: Vec<_> = found.iter().map(|own| (own.name.as_str(), own.index)).collect();
            assert_eq!(found, expected, "{block}");
        }
    }

    #[test]
    fn a_block_costs_a_bounded_number_of_conversions() {
        let gaps = "\u{e9}(c)".repeat(MAX_WORDS);
        let foreign = format!("Authentication-Results: {gaps}.mx.other.test; spf=pass\r\n");
        let few = foreign.repeat(5);
        assert_eq!(own_results(few.as_bytes(), OURS), []);
        let many = format!("{}Authentication-Results: mx.other.test; spf=pass\r\n", foreign.repeat(500));
        let began = std::time::Instant::now();
        let found = own_results(many.as_bytes(), OURS);
        assert!((400..500).contains(&found.len()), "{}", found.len());
        assert!(found.iter().all(|own| own.index <= 500));
        assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
    }

    #[test]
    fn fields_in_our_name_are_removed_and_no_others() {
        let rows = [
            ("Authentication-Results: gate.relay.test; forged=pass", true),
            ("authentication-RESULTS:GATE.relay.TEST;forged=pass", true),
            ("Authentication-Results : gate.relay.test; forged=pass", true),
            ("Authentication-Results\t \t:\tgate.relay.test", true),
            ("Authentication-Results: gate.relay.test 1; forged=pass", true),
            ("Authentication-Results: gate.relay.test/1; forged=pass", true),
            ("Authentication-Results:\r\n gate.relay.test;\r\n\tforged=pass", true),
            ("Authentication-Results: (c (nested \\) \\( gate.x)) gate.relay.test(d); forged=pass", true),
            ("Authentication-Results: (a)\r\n (b) \"gate.relay.test\"; forged=pass", true),
            ("Authentication-Results: \"g\\ate.relay.te\\st\" 1; forged=pass", true),
            ("Authentication-Results: \" gate.relay.test \"; forged=pass", true),
            ("Authentication-Results: gate.relay.test.; forged=pass", true),
            ("Authentication-Results: g\u{ff41}te.relay.test; forged=pass", true),
            ("Authentication-Results: gate .relay.test; forged=pass", true),
            ("Authentication-Results: gate. relay\t.test; forged=pass", true),
            ("Authentication-Results: gate\r\n .relay.test; forged=pass", true),
            ("Authentication-Results: gate(c).relay.test; forged=pass", true),
            ("Authentication-Results: ga(c)te.relay.(d)test . ; forged=pass", true),
            ("Authentication-Results: (a;b) gate.relay.test; forged=pass", true),
            ("Authentication-Results: gate.relay.test (a;b) 1; forged=pass", true),
            ("Authentication-Results: \"gate\".relay.test; forged=pass", true),
            ("Authentication-Results: g\"a\"te.\"relay.test\"; forged=pass", true),
            ("Authentication-Results: g\\ate.relay.test; forged=pass", true),
            ("Authentication-Results: \\gate.relay.test; forged=pass", true),
            ("Authentication-Results: \u{b}gate.relay.test; forged=pass", true),
            ("Authentication-Results: gate\u{c}.relay\u{1}.test\u{7f}; forged=pass", true),
            ("Authentication-Results: )gate.relay.test; forged=pass", true),
            ("Authentication-Results: (a\\)gate.relay.test; forged=pass", true),
            ("Authentication-Results: (a(b)gate.relay.test; forged=pass", true),
            ("Authentication-Results: \"(\"gate.relay.test; forged=pass", true),
            ("Authentication-Results: (\")gate.relay.test; forged=pass", true),
            ("Authentication-Results: (a (b) c) gate.relay.test; forged=pass", true),
            ("Authentication-Results: (a \\) b) gate.relay.test; forged=pass", true),
            ("Authentication-Results: (a (b (c\\) d) e) gate.relay.test; forged=pass", true),
            ("Authentication-Results: (a ( \\) \\) b) gate.relay.test; forged=pass", true),
            ("Authentication-Results: \"(\" gate.relay.test ); forged=pass", true),
            ("Authentication-Results: \"(\" x) gate.relay.test; forged=pass", true),
            ("Authentication-Results: (gate.relay.test; forged=pass", true),
            ("Authentication-Results: \"gate.relay.test; forged=pass", true),
            ("Authentication-Results: gate.relay.test .evil.test; forged=pass", true),
            ("Authentication-Results: ga\u{ad}te.relay.test; forged=pass", true),
            ("Authentication-Results: ga\u{200b}te.relay.test; forged=pass", true),
            ("Authentication-Results: gate\u{3002}relay\u{ff0e}test; forged=pass", true),
            ("Authentication-Results: =?utf-8?Q?gate=2Erelay=2Etest?=; forged=pass", true),
            ("Authentication-Results\u{b}: gate.relay.test; forged=pass", true),
            ("Authentication-Results\r\n : gate.relay.test; forged=pass", true),
            ("Authentication-\r\n Results: gate.relay.test; forged=pass", true),
            ("Authen tication-Results: gate.relay.test; forged=pass", true),
            ("Authentication-Results: gate.relay.test.evil.test; dkim=pass", false),
            ("Authentication-Results: xgate.relay.test; dkim=pass", false),
            ("Authentication-Results: gate.relay.test1; dkim=pass", false),
            ("Authentication-Results: mx.other.test; spf=pass smtp.helo=gate.relay.test", false),
            ("Authentication-Results: mx.other.test (gate.relay.test); spf=pass", false),
            ("Authentication-Results: (gate.relay.test) mx.other.test; spf=pass", false),
            ("Authentication-Results: \"gate.relay.test x\"; spf=pass", false),
            ("Authentication-Results: ; gate.relay.test", false),
            ("Authentication-Results: \u{fc}.test; spf=pass", false),
            ("Authentication-Results:", false),
            ("X-Authentication-Results: gate.relay.test; spf=pass", false),
            ("Subject: Authentication-Results: gate.relay.test; spf=pass", false),
            ("Subject: x\r\n Authentication-Results: gate.relay.test; spf=pass", false),
        ];
        for (field, own) in rows {
            assert_taken_out(field, own);
        }
        let block = b"Authentication-Results: ga\xffte.relay.test; forged=pass\r\n";
        assert_eq!(&*without_own_results(block, OURS), b"", "octets that are no text");
    }

    #[test]
    fn arc_results_are_removed_unless_their_instance_has_a_seal() {
        let results = "ARC-Authentication-Results: i=1; gate.relay.test; dkim=pass";
        let seal = |instance: &str| format!("ARC-Seal: a=rsa-sha256; t=1;\r\n i={instance} ; b=x\r\n");
        let rows = [
            (String::new(), results, true),
            (seal("2"), results, true),
            (seal("1"), results, false),
            (seal("1"), "ARC-Authentication-Results: i = 1 ; (c) gate . relay.test ; dkim=pass", false),
            (String::new(), "ARC-Authentication-Results: i = 1 ; (c) gate . relay.test ; dkim=pass", true),
            (seal("1"), "ARC-Authentication-Results: gate.relay.test; dkim=pass", true),
            (seal("1"), "ARC-Authentication-Results: (i=1;) i=1; gate.relay.test; dkim=pass", true),
            (String::new(), "ARC-Authentication-Results: i=1; mx.other.test; dkim=pass", false),
        ];
        for (seal, results, own) in rows {
            let block = format!("{seal}{results}\r\nFrom: a@good.test\r\n");
            let expected = if own { block.replace(&format!("{results}\r\n"), "") } else { block.clone() };
            assert_eq!(&*without_own_results(block.as_bytes(), OURS), expected.as_bytes(), "{block:?}");
        }
    }

    #[test]
    fn hostile_fields_take_linear_time() {
        let fill = |text: &str| text.repeat(128 * 1024 / text.len());
        for value in ["(", "(\\", "a ", "()", "\"(", ";", "\u{fc}.", "a(b)", "=?"].map(fill) {
            let block = format!("Authentication-Results: {value}\r\nARC-Authentication-Results: {value}\r\n");
            let started = tokio::time::Instant::now();
            let left = without_own_results(block.as_bytes(), OURS).len();
            assert!(left <= block.len() && started.elapsed().as_millis() < 1500, "{:?}", value.get(..4));
        }
    }

    proptest! {
        #[test]
        fn blocks_without_our_name_are_untouched(block in "(Authentication-Results ?: ?|[ ->@-~]|\r\n[ \t]?|gate[.]relay|[(\"\\\\)]){0,60}") {
            let left = without_own_results(block.as_bytes(), OURS);
            prop_assert!(matches!(left, Cow::Borrowed(same) if same == block.as_bytes()));
        }

        #[test]
        fn nothing_that_is_left_out_hides_our_name(
            gaps in proptest::collection::vec("[ \t\u{b}\u{c}\\\\\"]{0,2}|\r\n |\\([a-z]{0,3}\\)", 16),
        ) {
            let spelled: String = OURS.chars().map(String::from).zip(&gaps).map(|(letter, gap)| letter + gap).collect();
            let block = format!("Authentication-Results: {spelled}; dkim=pass\r\n");
            prop_assert_eq!(&*without_own_results(block.as_bytes(), OURS), b"");
        }
    }
}
