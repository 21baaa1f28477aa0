//! Values of From:, made by combination: honest ones, and those in which readers could see different senders.

/// What must become of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// Accepted: honest programs write it.
    Taken,
    /// Refused: some reader or relay sees another sender.
    Refused,
    /// Either; accepted only where all readers agree.
    Either,
}

pub(super) struct Variant {
    pub(super) value: Vec<u8>,
    pub(super) expected: Expected,
}

/// Domains that exist in the sample zone.
const GOOD: &str = "good.test";
const BANK: &str = "bank.test";
/// Below a wildcard MX, as an attacker would have it.
const WILD: &str = "any.wild.test";

pub(super) fn variants() -> Vec<Variant> {
    let mut all = Vec::new();
    honest(&mut |value| all.push(Variant { value: value.into_bytes(), expected: Expected::Taken }));
    broken_domains(&mut |value| all.push(Variant { value, expected: Expected::Refused }));
    lookalikes(&mut |value| all.push(Variant { value: value.into_bytes(), expected: Expected::Refused }));
    long_lines(&mut |value, expected| all.push(Variant { value: value.into_bytes(), expected }));
    odd(&mut |value| all.push(Variant { value: value.into_bytes(), expected: Expected::Either }));
    all
}

/// Display names x addresses.
fn honest(add: &mut impl FnMut(String)) {
    let names = [
        "",
        "Ann",
        "Ann Lee",
        "\"Lee, Ann\"",
        "\"Ann (Sales)\"",
        "John Q. Public",
        "[EXT] Jira (ABC-1)",
        "O'Neil & Sons",
        "=?utf-8?Q?J=C3=BCrgen?=",
        "=?iso-8859-1?Q?B=E4cker=2C_Erna_=28Lager=29?=",
        "=?utf-8?B?R3LDvG5l?=\r\n =?utf-8?B?IEJvaG5l?=",
        "J\u{fc}rgen M\u{fc}ller",
        "\"Ann via dev\"",
        "Ann\r\n Lee",
    ];
    let locals = ["a", "ann.lee", "o'neil+tag", "bounce-1=x", "j\u{fc}rgen", "a..b"];
    for name in names {
        for local in locals {
            add(format!("{name} <{local}@{GOOD}>").trim_start().to_owned());
        }
    }
    for local in locals {
        add(format!("{local}@{GOOD}"));
        add(format!("{local}@GOOD.Test (Ann)"));
        add(format!("<{local}@{GOOD}>,"));
        add(format!("<{local}@{GOOD}>, Bo <bo@{BANK}>"));
        add(format!("\r\n\t{local}@{GOOD}"));
    }
    add(format!("a@{GOOD} <a@{GOOD}>"));
    add(format!("\"a@{GOOD}\" <a@{GOOD}>"));
}

/// White space, comments and folds at each place of a domain.
fn broken_domains(add: &mut impl FnMut(Vec<u8>)) {
    let gaps = [" ", "\t", "\r\n ", "(x)", " (x) ", "\r\n\t(x)", "\u{b}", "\u{c}", "\u{1}"];
    for gap in gaps {
        for value in [
            format!("ceo@{gap}{WILD}"),
            format!("ceo@{BANK}{gap}.{WILD}"),
            format!("ceo@{BANK}.{gap}{WILD}"),
            format!("ceo@bank{gap}.test.{WILD}"),
        ] {
            for whole in
                [value.clone(), format!("<{value}>"), format!("Ann <{value}>"), format!("a@{GOOD}, {value}")]
            {
                add(whole.into_bytes());
            }
        }
    }
    for octets in [&b"\xff"[..], b"\xc3", b"\xe9", b"\xed\xa0\x80", b"\xc0\xae"] {
        add([b"Ann <ceo@ba", octets, b"nk.", WILD.as_bytes(), b">"].concat());
    }
}

/// Domains that look like another one.
fn lookalikes(add: &mut impl FnMut(String)) {
    let domains = [
        "\u{1d41b}\u{1d41a}\u{1d427}\u{1d424}.test",
        "\u{ff42}\u{ff41}\u{ff4e}\u{ff4b}.test",
        "\u{24d1}ank.test",
        "ban\u{212a}.test",
        "ba\u{ad}nk.test",
        "ba\u{200b}nk.test",
        "bank\u{3002}test",
        "bank\u{ff0e}test",
        "bank\u{2024}test",
        "bank.test\u{2044}x.any.wild.test",
        "bank.te\u{17f}t",
        "\u{202e}tset.knab",
    ];
    for domain in domains {
        add(format!("ceo@{domain}"));
        add(format!("\"Bank\" <ceo@{domain}>"));
    }
}

/// Addresses around the places where relays cut a line, a record or a field.
fn long_lines(add: &mut impl FnMut(String, Expected)) {
    for (limit, all) in [(998, true), (998 + 997, true), (2048, false)] {
        for back in [1, 3, 5, 10, 14, 20, 40] {
            // the address is cut `back` octets from the limit; `From: ` stands in front
            let name = "x".repeat(limit - 6 - 2 - back);
            let inside = back > 3 && back < "ceo@bank.test.any.wild.test".len();
            let expected = if inside && all { Expected::Refused } else { Expected::Either };
            add(format!("{name} <ceo@{BANK}.{WILD}>"), expected);
            add(format!("({}) <a@{GOOD}>", "y".repeat(limit - 6 - 4 - back)), Expected::Either);
        }
    }
    add(format!("a@{GOOD} {}", "(x)".repeat(5_000)), Expected::Taken);
    add(format!("a@{GOOD} {}", "(x)".repeat(6_000)), Expected::Refused);
    add(format!("Ann{} <a@{GOOD}>", "\r\n Lee".repeat(1_000)), Expected::Taken);
    add(format!("{} <ceo@{BANK}>", "\r\n Ann".repeat(20_000)), Expected::Refused);
}

/// Delimiters, encodings and second addresses in all combinations.
fn odd(add: &mut impl FnMut(String)) {
    let first = [
        format!("ceo@{BANK}"),
        format!("<ceo@{BANK}>"),
        format!("\"ceo@{BANK}\""),
        format!("(ceo@{BANK})"),
        format!("\"<ceo@{BANK}>\""),
        format!("=?utf-8?Q?ceo=40{BANK}?="),
        format!("=?utf-8?Q?=3Cceo=40{BANK}=3E?="),
        format!("=?utf-8?Q?ceo@{BANK}?="),
        format!("\"=?utf-8?Q?=3Cceo=40{BANK}=3E?=\""),
        format!("\"x\\\" <ceo@{BANK}>"),
        format!("@{BANK}"),
        format!("Ann: ceo@{BANK}"),
    ];
    let separators = [" ", "", ",", ", ", ";", ":", "\r\n ", "\\ ", "\" \"", " <", "@", "%", "!"];
    let second = [format!("x@{WILD}"), format!("<x@{WILD}>"), format!("\"x y\"@{WILD}")];
    for first in &first {
        for separator in separators {
            for second in &second {
                add(format!("{first}{separator}{second}"));
            }
        }
        add(first.clone());
    }
    for gap in [" ", "\t", "\r\n ", "(c)", " (ceo@bank.test) "] {
        for (open, close) in [("", ""), ("<", ">"), ("Ann <", ">")] {
            add(format!("{open}a{gap}@{GOOD}{close}"));
            add(format!("{open}{gap}a@{GOOD}{gap}{close}"));
            add(format!("{open}a{gap}.b@{GOOD}{close}"));
        }
    }
    for quoted in [
        format!("\"ceo@{BANK}\""),
        format!("\"ceo@{BANK} x\""),
        format!("\"<ceo@{BANK}>\""),
        "\"a b\"".to_owned(),
        "\"a\\@b\"".to_owned(),
        format!("\"a\\\"@{BANK}\""),
    ] {
        for (open, close) in [("", ""), ("<", ">"), ("Ann <", ">"), ("Team: ", ";")] {
            add(format!("{open}{quoted}@{WILD}{close}"));
        }
    }
    for route in ["@bank.test:", "@bank.test,@good.test:"] {
        add(format!("<{route}a@{GOOD}>"));
        add(format!("Ann <{route}a@{GOOD}>"));
        add(format!("{route}a@{GOOD}"));
    }
    for (open, close) in
        [("Team:", ";"), ("Team: ", ""), ("Team:;,", ""), ("\"T: x\":", ";"), ("ceo@bank.test:", ";")]
    {
        add(format!("{open}a@{GOOD}{close}"));
        add(format!("{open}Ann <a@{GOOD}>, Bo <bo@{BANK}>{close}"));
    }
    for text in [
        "",
        "root",
        "Nobody:;",
        "<>",
        "Ann <>",
        "ceo@",
        "ceo@bank",
        "a@b_d.test",
        "a@[127.0.0.10]",
        "a@good.test.",
        "a@good..test",
        "<a@good.test>>",
        "a@good.test%0aceo@bank.test",
        "a@good.test\u{85}ceo@bank.test",
        "a\u{202e}@good.test",
    ] {
        add(text.to_owned());
        add(format!("Ann <{text}>"));
    }
}
