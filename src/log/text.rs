//! Fields as text: hazards escaped, and a value that could be taken for two fields quoted.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatFields, Writer};

use crate::smtp::escape::OneLine;

/// Writes the message, then `name=value` for each field.
pub(super) struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = FieldWriter { writer, blank: "", result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct FieldWriter<'w> {
    writer: Writer<'w>,
    blank: &'static str,
    result: fmt::Result,
}

impl FieldWriter<'_> {
    fn write(&mut self, name: &str, value: fmt::Arguments<'_>) {
        if self.result.is_ok() {
            let blank = std::mem::replace(&mut self.blank, " ");
            self.result = if name == "message" {
                write!(self.writer, "{blank}{value}")
            } else {
                write!(self.writer, "{blank}{name}={value}")
            };
        }
    }
}

impl Visit for FieldWriter<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = OneLine(format_args!("{value:?}")).to_string();
        if field.name() == "message" || is_one_word(&text) {
            self.write(field.name(), format_args!("{text}"));
        } else {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            self.write(field.name(), format_args!("\"{quoted}\""));
        }
    }
}

/// Whether a value can't be taken for two fields: no blank, quote or equals sign, or between quotes already.
fn is_one_word(text: &str) -> bool {
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
