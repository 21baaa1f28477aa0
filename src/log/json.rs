//! Escapes the characters above C0 that serde_json writes unescaped and a terminal would interpret.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

use crate::smtp::escape::is_hazard;

/// Makes [`JsonLine`]s.
pub(super) struct Json<W>(pub(super) W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Json<W> {
    type Writer = JsonLine<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        JsonLine(self.0.make_writer())
    }
}

/// Writes JSON. Hazards above C0 occur only inside its strings, and become `\uNNNN` there (RFC 8259 7).
pub(super) struct JsonLine<W>(W);

impl<W: Write> Write for JsonLine<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) if text.contains(is_json_hazard) => self.0.write_all(escape_json(text).as_bytes())?,
            Ok(_) | Err(_) => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn is_json_hazard(character: char) -> bool {
    character > '\u{1f}' && is_hazard(character)
}

fn escape_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_json_hazard(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(character);
        }
    }
    out
}
