//! Formats fields as text: hazards are escaped, and a value that looks like two fields is quoted.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatFields, Writer};

use crate::smtp::escape::OneLine;

/// Writes the message, then `name=value` for each field.
pub(super) struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = FieldWriter { writer, first: true, value: String::new(), result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct FieldWriter<'w> {
    writer: Writer<'w>,
    first: bool,
    /// The current value; the buffer is used again for each.
    value: String,
    result: fmt::Result,
}

impl FieldWriter<'_> {
    fn field(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.result.is_ok() {
            self.value.clear();
            self.result = write!(self.value, "{}", OneLine(value)).and_then(|()| self.put(field.name()));
        }
    }

    fn put(&mut self, name: &str) -> fmt::Result {
        if !std::mem::take(&mut self.first) {
            self.writer.write_char(' ')?;
        }
        if name == "message" {
            return self.writer.write_str(&self.value);
        }
        self.writer.write_str(name)?;
        self.writer.write_char('=')?;
        if is_one_word(&self.value) {
            return self.writer.write_str(&self.value);
        }
        let quoted = self.value.replace('\\', "\\\\").replace('"', "\\\"");
        write!(self.writer, "\"{quoted}\"")
    }
}

impl Visit for FieldWriter<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, format_args!("{value}"));
    }

    /// `Debug` would use an exponent.
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, format_args!("{value:?}"));
    }
}

/// Whether a value can't look like two fields: it has no white space, quote or equals sign, or is already quoted.
fn is_one_word(text: &str) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'=');
    if !text.is_empty() && text.as_bytes().iter().all(is_plain) {
        return true; // the common case
    }
    let plain = |text: &str| {
        !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '='))
    };
    let quoted = |text: &str| {
        let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'))?;
        let mut escaped = false;
        for character in inner.chars() {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return None,
                _ => {}
            }
        }
        (!escaped).then_some(())
    };
    plain(text) || quoted(text).is_some()
}
