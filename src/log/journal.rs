//! Events for the journal of systemd: lines with a priority on standard error, or entries with fields.
//!
//! The entries are not written by tracing-journald, for two reasons: it sends on the thread of the caller, so that mail
//! would wait for a journal that is stuck, and its `MESSAGE` is without the fields, so that `journalctl` would show no more
//! than "message" for each decision. Values have their hazards escaped, and so no line feed: each field is one line.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::log::sink::Sink;
use crate::log::text::Fields;
use crate::smtp::escape::OneLine;

/// The socket of the native protocol (systemd's JOURNAL_NATIVE_PROTOCOL).
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// Whether standard error goes to the journal (`JOURNAL_STREAM` in systemd.exec(5)).
pub(super) fn has_standard_error() -> bool {
    let Some((device, inode)) = std::env::var("JOURNAL_STREAM").ok().and_then(|text| {
        let (device, inode) = text.split_once(':')?;
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    }) else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|stderr| (stderr.dev(), stderr.ino()) == (device, inode))
}

/// The priority of syslog (RFC 5424 6.2.1).
fn priority(level: Level) -> char {
    match level {
        Level::ERROR => '3',
        Level::WARN => '4',
        Level::INFO => '6',
        Level::DEBUG | Level::TRACE => '7',
    }
}

/// Makes writers of lines with a priority in front (sd-daemon(3)).
pub(super) struct Prioritized(pub(super) Sink);

impl<'w> MakeWriter<'w> for Prioritized {
    type Writer = Line<'w>;

    fn make_writer(&'w self) -> Line<'w> {
        Line { sink: &self.0, priority: priority(Level::INFO) }
    }

    fn make_writer_for(&'w self, metadata: &Metadata<'_>) -> Line<'w> {
        Line { sink: &self.0, priority: priority(*metadata.level()) }
    }
}

pub(super) struct Line<'w> {
    sink: &'w Sink,
    priority: char,
}

impl Write for Line<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut line = Vec::with_capacity(event.len() + 3);
        line.extend_from_slice(&[b'<', self.priority as u8, b'>']);
        line.extend_from_slice(event);
        let mut sink = self.sink;
        sink.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats an event as an entry of the native protocol: a field in each line, an empty line at the end. The field `id` of
/// an event is `RMXD_ID`.
pub(super) struct Entry;

impl<S, N> FormatEvent<S, N> for Entry
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _spans: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let target = metadata.target();
        write!(writer, "PRIORITY={}\nSYSLOG_IDENTIFIER=rmxd\n", priority(*metadata.level()))?;
        write!(writer, "RMXD_TARGET={target}\nMESSAGE={target}: ")?;
        Fields.format_fields(writer.by_ref(), event)?;
        writer.write_char('\n')?;
        let mut fields = EntryFields { writer: writer.by_ref(), result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        writer.write_char('\n')
    }
}

struct EntryFields<'w> {
    writer: Writer<'w>,
    result: fmt::Result,
}

impl EntryFields<'_> {
    fn field(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.result.is_ok() && field.name() != "message" {
            self.result = self.put(field.name(), value);
        }
    }

    fn put(&mut self, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
        self.writer.write_str("RMXD_")?;
        for character in name.chars() {
            let allowed = character.is_ascii_alphanumeric();
            self.writer.write_char(if allowed { character.to_ascii_uppercase() } else { '_' })?;
        }
        writeln!(self.writer, "={}", OneLine(value))
    }
}

impl Visit for EntryFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, format_args!("{value:?}"));
    }
}

/// Sends each entry in a datagram. An entry that the journal doesn't take is a line on standard error.
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// # Errors
    /// There is no journal.
    pub(super) fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        Ok(Self(socket))
    }

    /// Again at its new socket, if the journal was started again.
    fn send(&mut self, entry: &str) -> io::Result<usize> {
        self.0.send(entry.as_bytes()).or_else(|_restarted| {
            *self = Self::connect()?;
            self.0.send(entry.as_bytes())
        })
    }
}

impl Write for Journal {
    /// Takes whole entries.
    fn write(&mut self, entries: &[u8]) -> io::Result<usize> {
        for entry in String::from_utf8_lossy(entries).split_inclusive("\n\n") {
            if self.send(entry.strip_suffix('\n').unwrap_or(entry)).is_err() {
                let message = entry.lines().find_map(|line| line.strip_prefix("MESSAGE="));
                writeln!(io::stderr(), "{}", message.unwrap_or(entry))?;
            }
        }
        Ok(entries.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
