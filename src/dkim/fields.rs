//! The header as a signer hashes it (RFC 6376 3.7, 5.4.2): the fields that the signature names, in its order, then the
//! signature field itself without the value of `b=`. Pure.
//!
//! A name that comes again takes the next field above, and nothing when there is none left: so a signer can
//! forbid that a field is added. The signature's own field is never among those named.

use std::collections::HashMap;

use compact_str::CompactString;

use crate::dkim::body::Form;
use crate::message::fields::{Item, items};

/// A header block by the names of its fields.
pub(super) struct Fields<'a> {
    all: Vec<Field<'a>>,
    /// Places, top first.
    by_name: HashMap<Vec<u8>, Vec<usize>, foldhash::fast::RandomState>,
}

#[derive(Clone, Copy)]
struct Field<'a> {
    name: &'a [u8],
    value: &'a [u8],
    raw: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(block: &'a [u8]) -> Self {
        let (mut all, mut by_name) = (Vec::new(), HashMap::<Vec<u8>, Vec<usize>, _>::default());
        for item in items(block) {
            if let Item::Field { name, value, raw } = item {
                by_name.entry(name.to_ascii_lowercase()).or_default().push(all.len());
                all.push(Field { name, value, raw });
            }
        }
        Self { all, by_name }
    }

    /// The fields with this name: place and value, top first.
    pub(super) fn named(&self, name: &[u8]) -> impl Iterator<Item = (usize, &'a [u8])> {
        let places = self.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        places.iter().filter_map(|&place| Some((place, self.all.get(place)?.value)))
    }

    /// What was signed by the signature in the field at `place`. No field goes in twice, so it is no longer than the
    /// block.
    pub(super) fn signed(&self, names: &[CompactString], form: Form, place: usize) -> Vec<u8> {
        let mut left: HashMap<&str, &[usize], foldhash::fast::RandomState> = HashMap::default();
        let mut out = Vec::new();
        for name in names {
            let all = || self.by_name.get(name.as_bytes()).map(Vec::as_slice).unwrap_or_default();
            let left = left.entry(name).or_insert_with(all);
            while let [above @ .., lowest] = *left {
                *left = above;
                if *lowest != place {
                    if let Some(field) = self.all.get(*lowest) {
                        write(*field, form, &mut out);
                    }
                    break;
                }
            }
        }
        if let Some(field) = self.all.get(place) {
            let value = without_signature(field.value);
            let name = field.raw.strip_suffix(field.value).unwrap_or_default();
            let mut own = Vec::new();
            write(Field { value: &value, raw: &[name, &value].concat(), ..*field }, form, &mut own);
            out.extend_from_slice(own.strip_suffix(b"\r\n").unwrap_or(&own));
        }
        out
    }
}

/// With its CRLF.
fn write(field: Field<'_>, form: Form, out: &mut Vec<u8>) {
    match form {
        Form::Simple => out.extend_from_slice(field.raw),
        Form::Relaxed => {
            out.extend(field.name.iter().map(u8::to_ascii_lowercase));
            out.push(b':');
            let words = field.value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            for (at, word) in words.enumerate() {
                out.extend_from_slice(if at == 0 { b"" } else { b" " });
                out.extend_from_slice(word);
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// All but the value of the tag `b`, which goes with the white space around it.
fn without_signature(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for (at, spec) in value.split(|&byte| byte == b';').enumerate() {
        out.extend_from_slice(if at == 0 { b"" } else { b";" });
        let name = spec.iter().position(|&byte| byte == b'=').and_then(|equals| spec.get(..=equals));
        match name {
            Some(name) if name.trim_ascii_start().strip_prefix(b"b").is_some_and(is_equals) => {
                out.extend_from_slice(name);
            }
            _ => out.extend_from_slice(spec),
        }
    }
    out
}

fn is_equals(text: &[u8]) -> bool {
    text.trim_ascii_start() == b"="
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &str = "DKIM-Signature: v=1; bh=b;\r\n\tb = a b\r\n c ; d=x\r\n\
                         Subject : one  two\t\r\n\tthree \r\n\
                         To: first\r\n\
                         DKIM-Signature: older; b=keep\r\n\
                         to:second\r\n\
                         Empty:\r\n";

    fn signed(names: &[&str], form: Form, place: usize) -> String {
        let names: Vec<_> = names.iter().map(|name| CompactString::new(*name)).collect();
        String::from_utf8(Fields::new(BLOCK.as_bytes()).signed(&names, form, place)).unwrap()
    }

    #[test]
    fn fields_are_taken_from_the_bottom_up_and_no_field_twice() {
        let own = "dkim-signature:v=1; bh=b; b =; d=x";
        let rows: [(&[&str], &str); 6] = [
            (&[], ""),
            (&["to"], "to:second\r\n"),
            (&["to", "subject", "to"], "to:second\r\nsubject:one two three\r\nto:first\r\n"),
            (&["to", "to", "to", "absent"], "to:second\r\nto:first\r\n"),
            (&["dkim-signature", "dkim-signature"], "dkim-signature:older; b=keep\r\n"),
            (&["empty"], "empty:\r\n"),
        ];
        for (names, expected) in rows {
            assert_eq!(signed(names, Form::Relaxed, 0), format!("{expected}{own}"), "{names:?}");
        }
    }

    #[test]
    fn the_simple_form_is_the_field_as_it_came() {
        assert_eq!(
            signed(&["subject"], Form::Simple, 0),
            "Subject : one  two\t\r\n\tthree \r\nDKIM-Signature: v=1; bh=b;\r\n\tb =; d=x"
        );
        assert_eq!(signed(&[], Form::Simple, 3), "DKIM-Signature: older; b=");
    }

    #[test]
    fn a_hostile_list_of_names_takes_linear_time() {
        let (fields, names) = ("a:\r\n".repeat(60_000), vec![CompactString::new("a"); 60_000]);
        let started = tokio::time::Instant::now();
        let out = Fields::new(fields.as_bytes()).signed(&names, Form::Relaxed, 59_999);
        assert!(out.len() < fields.len() && started.elapsed().as_millis() < 1500, "{:?}", started.elapsed());
    }
}
