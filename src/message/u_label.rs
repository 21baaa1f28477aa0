//! Domains with U-labels (RFC 5890 2.3.2.1), accepted only in the spelling of their registry.
//!
//! Programs look up names by UTS #46. It maps mathematical, full-width and other compatible characters to plain letters
//! and drops invisible ones, so that a text which isn't `bank.test` leads to `bank.test`. IDNA2008 maps nothing (RFC
//! 5891 4). Here a label is accepted if it has only characters that IDNA2008 permits (RFC 5892) and comes back
//! unchanged from its A-label; only case and NFC may differ (RFC 5895 2). A-labels are accepted as they are: DNS
//! answers for exactly that name. Symbols such as emoji are not permitted in U-labels, although registries have sold
//! them.

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::CodePointMapData;
use icu_properties::props::GeneralCategory;

use crate::smtp::address::DomainName;

/// Longer text is no domain; the time for converting U-labels is not linear.
const MAX_TEXT: usize = 1024;

/// The domain that a text names; `None` if it names none, or only looks like one.
pub(crate) fn domain(text: &str) -> Option<DomainName> {
    if text.len() > MAX_TEXT {
        return None;
    }
    if text.is_ascii() {
        return DomainName::parse(text).ok();
    }
    // The whole name is decoded and encoded: the Bidi rule (RFC 5893 2) applies to all labels of a domain together.
    let name = DomainName::parse_unicode(text).ok()?;
    let unchanged = text.split('.').all(|label| label.is_ascii() || is_own_u_label(label))
        && text.split('.').count() == name.as_str().split('.').count();
    unchanged.then_some(name)
}

fn is_own_u_label(label: &str) -> bool {
    let lower: String = label.chars().flat_map(char::to_lowercase).collect();
    let plain = ComposingNormalizerBorrowed::new_nfc().normalize(&lower);
    let (decoded, result) = idna::domain_to_unicode(&plain);
    let characters: Vec<char> = plain.chars().collect();
    let ascii = |text: &str| text.bytes().filter(u8::is_ascii).count();
    let permitted = |(at, &character)| {
        let before = usize::checked_sub(at, 1).and_then(|at| characters.get(at));
        is_permitted(character, before.copied(), characters.get(at + 1).copied(), &characters)
    };
    // the Kelvin sign is a `K` by case and by NFC
    result.is_ok()
        && decoded == *plain
        && ascii(&plain) <= ascii(label)
        && characters.iter().enumerate().all(permitted)
}

/// RFC 5892 2 and appendix A, for characters that UTS #46 leaves unchanged; it checks joiners itself.
fn is_permitted(character: char, before: Option<char>, behind: Option<char>, label: &[char]) -> bool {
    let greek = |other: Option<char>| other.is_some_and(|other| matches!(other, '\u{370}'..='\u{3ff}'));
    let hebrew = |other: Option<char>| other.is_some_and(|other| matches!(other, '\u{591}'..='\u{5ea}'));
    let japanese = |other: &char| matches!(other, '\u{3041}'..='\u{30fa}' | '\u{30fc}'..='\u{30ff}' | '\u{4e00}'..='\u{9fff}');
    match character {
        '-' | '\u{200c}' | '\u{200d}' | '\u{6fd}' | '\u{6fe}' | '\u{f0b}' | '\u{3007}' => true,
        '\u{b7}' => before == Some('l') && behind == Some('l'),
        '\u{375}' => greek(behind),
        '\u{5f3}' | '\u{5f4}' => hebrew(before),
        '\u{30fb}' => label.iter().any(japanese),
        '\u{640}' | '\u{7fa}' | '\u{302e}' | '\u{302f}' | '\u{3031}'..='\u{3035}' | '\u{303b}' => false,
        '\u{1100}'..='\u{11ff}' | '\u{a960}'..='\u{a97f}' | '\u{d7b0}'..='\u{d7ff}' => false,
        _ => matches!(
            CodePointMapData::<GeneralCategory>::new().get(character),
            GeneralCategory::LowercaseLetter
                | GeneralCategory::OtherLetter
                | GeneralCategory::ModifierLetter
                | GeneralCategory::NonspacingMark
                | GeneralCategory::SpacingMark
                | GeneralCategory::DecimalNumber
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_u_label_is_accepted_only_in_its_own_spelling() {
        let rows = [
            ("good.test", Some("good.test")),
            ("GOOD.test", Some("good.test")),
            ("b\u{fc}cher.test", Some("xn--bcher-kva.test")),
            ("B\u{dc}CHER.Test", Some("xn--bcher-kva.test")),
            ("bu\u{308}cher.test", Some("xn--bcher-kva.test")), // NFD
            ("fa\u{df}.test", Some("xn--fa-hia.test")),
            ("xn--ls8h.b\u{fc}cher.test", Some("xn--ls8h.xn--bcher-kva.test")),
            ("\u{65e5}\u{672c}\u{30fb}\u{8a9e}.test", Some("xn--vek160nb2acz6g.test")),
            ("\u{3b1}\u{3b2}\u{3b3}.test", Some("xn--mxacd.test")),
            ("xn--ls8h.test", Some("xn--ls8h.test")),
            ("pal\u{b7}lada.test", Some("xn--pallada-xma.test")),
            ("pa\u{b7}lada.test", None),
            ("b\u{fc}cher-laden.test", Some("xn--bcher-laden-thb.test")),
            ("\u{375}\u{3b1}.test", Some("xn--wva4j.test")),
            ("\u{5d0}\u{5f3}.test", Some("xn--4db4e.test")),
            ("\u{65e5}\u{303b}.test", None),
            ("\u{1100}.test", None),
            ("\u{1f4a9}.test", None),                            // a symbol
            ("\u{1d420}\u{1d428}\u{1d428}\u{1d41d}.test", None), // mathematical
            ("g\u{ff4f}od.test", None),                          // full-width
            ("good\u{3002}test", None),                          // ideographic full stop
            ("good\u{ff0e}test", None),
            ("good\u{2024}test", None),
            ("b\u{fc}cher\u{3002}good.test", None),
            ("go\u{ad}od.test", None),   // soft hyphen
            ("go\u{200b}od.test", None), // zero width
            ("go\u{fe0f}od.test", None),
            ("go\u{202e}od.test", None),
            ("good\u{2044}x.test", None), // fraction slash
            ("good\u{2100}.test", None),  // a/c
            ("\u{24d6}ood.test", None),   // circled
            ("\u{212a}ing.test", None),   // Kelvin sign
            ("\u{17f}pam.test", None),    // long s
            ("\u{fb01}.test", None),      // ligature
            ("\u{2168}.test", None),      // Roman numeral
            ("go\u{640}od.test", None),
            ("\u{fc}\u{fffd}.test", None),
        ];
        for (text, expected) in rows {
            assert_eq!(domain(text).as_ref().map(DomainName::as_str), expected, "{text:?}");
        }
        assert_eq!(domain(&format!("{}.test", "\u{fc}".repeat(600))), None);
    }
}
