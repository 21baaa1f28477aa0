//! The log: one line per event, on standard error, written by a thread of its own.
//!
//! Many values come from clients. tracing-subscriber's text format doesn't escape CR, LF and format controls of `%`
//! fields and separates fields by blanks only, so `text` formats the fields: it escapes hazards and quotes a value that
//! looks like two fields. Callers need not escape. serde_json escapes C0 controls; `json` escapes the other hazards.
//! `journal` is for systemd.

mod journal;
mod json;
mod sink;
mod text;

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};

use tracing::subscriber::set_global_default;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format;
use tracing_subscriber::fmt::{MakeWriter, SubscriberBuilder};
use tracing_subscriber::reload;

use crate::log::json::Json;
use crate::log::sink::{Guard, Sink};
use crate::log::text::Fields;

/// The format of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `TIME LEVEL target: message field=value ...`; where standard error goes to the journal, `<PRIORITY>` in the place
    /// of the time.
    Text,
    /// One JSON object per line.
    Json,
    /// Entries of the journal of systemd, by its native protocol, with a field for each of the event.
    Journald,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub format: Format,
    /// A level, or directives as in `info,rmxd::dns=debug`.
    pub level: String,
}

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Parses `log.level`. A single word must be a level: `EnvFilter` would take `verbose` for a module and log nothing.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn filter(level: &str) -> Result<EnvFilter, String> {
    let invalid = || {
        format!(
            "{level:?} is not allowed: {}, or by module such as \"info,rmxd::dns=debug\"",
            LEVELS.join(", ")
        )
    };
    let known = |part: &str| {
        let named = part.rsplit_once('=').map_or(part, |(_, level)| level);
        LEVELS.contains(&named) || (named == "off" && part.contains('='))
    };
    if !level.split(',').all(known) {
        return Err(invalid());
    }
    EnvFilter::builder().parse(level).map_err(|_detail| invalid())
}

#[derive(Debug)]
pub enum Output {
    /// With colours if standard error is a terminal.
    StandardError,
    File(File),
}

/// The log of the process. Dropping it writes the remaining events; later events are lost.
pub struct Log {
    _writer: Guard,
    format: Format,
    set_filter: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("format", &self.format).finish_non_exhaustive()
    }
}

/// Starts logging for the whole process.
///
/// # Errors
/// The level is invalid, logging was started before, or the thread can't be started.
pub fn start(settings: &Settings, output: Output) -> Result<Log, String> {
    let filter = filter(&settings.level)?;
    let is_stderr = matches!(output, Output::StandardError);
    let (out, colour): (Box<dyn Write + Send>, bool) = match (settings.format, output) {
        (Format::Journald, _) => {
            let journal = journal::Journal::connect();
            let why = |error| format!("log.format \"journald\": {} can't be used: {error}", journal::SOCKET);
            (Box::new(journal.map_err(why)?), false)
        }
        (Format::Text | Format::Json, Output::StandardError) => {
            (Box::new(io::stderr()), io::stderr().is_terminal() && !is_set("NO_COLOR"))
        }
        (Format::Text | Format::Json, Output::File(file)) => (Box::new(file), false),
    };
    let (sink, writer) = Sink::start(out).map_err(|error| error.to_string())?;
    let (started, set_filter): (_, Box<dyn Fn(_) -> _ + Send + Sync>) = match settings.format {
        Format::Text if is_stderr && journal::has_standard_error() => {
            let builder = text(filter, journal::Prioritized(sink)).without_time();
            let builder = builder.with_ansi(false).with_filter_reloading();
            let handle = builder.reload_handle();
            (set_global_default(builder.finish()), Box::new(move |filter| handle.reload(filter)))
        }
        Format::Text => {
            let builder = text(filter, sink).with_ansi(colour).with_filter_reloading();
            let handle = builder.reload_handle();
            (set_global_default(builder.finish()), Box::new(move |filter| handle.reload(filter)))
        }
        Format::Json => {
            let builder = json(filter, sink).with_filter_reloading();
            let handle = builder.reload_handle();
            (set_global_default(builder.finish()), Box::new(move |filter| handle.reload(filter)))
        }
        Format::Journald => {
            let builder = journald(filter, sink).with_filter_reloading();
            let handle = builder.reload_handle();
            (set_global_default(builder.finish()), Box::new(move |filter| handle.reload(filter)))
        }
    };
    started.map_err(|error| error.to_string())?;
    Ok(Log { _writer: writer, format: settings.format, set_filter })
}

impl Log {
    /// Applies another level.
    ///
    /// # Errors
    /// The level is invalid, or the format differs: it can change at a start only.
    pub fn change(&self, settings: &Settings) -> Result<(), String> {
        (self.set_filter)(filter(&settings.level)?).map_err(|error| format!("log.level: {error}"))?;
        if settings.format == self.format {
            Ok(())
        } else {
            Err("log.format: another format takes effect at the next start".to_owned())
        }
    }
}

/// <https://no-color.org>: set, and not empty.
fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn text<W>(filter: EnvFilter, writer: W) -> SubscriberBuilder<Fields, format::Format, EnvFilter, W>
where
    W: for<'w> MakeWriter<'w> + 'static,
{
    tracing_subscriber::fmt().with_env_filter(filter).fmt_fields(Fields).with_writer(writer)
}

fn journald<W>(
    filter: EnvFilter,
    writer: W,
) -> SubscriberBuilder<format::DefaultFields, journal::Entry, EnvFilter, W>
where
    W: for<'w> MakeWriter<'w> + 'static,
{
    tracing_subscriber::fmt().with_env_filter(filter).event_format(journal::Entry).with_writer(writer)
}

fn json<W>(
    filter: EnvFilter,
    writer: W,
) -> SubscriberBuilder<format::JsonFields, format::Format<format::Json>, EnvFilter, Json<W>>
where
    W: for<'w> MakeWriter<'w> + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).json();
    builder.flatten_event(true).with_current_span(true).with_span_list(false).with_writer(Json(writer))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::smtp::escape::is_hazard;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn written(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    const HOSTILE: &str = "a\r\nb\t\x1b[31m\x7f\u{85}\u{9b}1m\u{2028}\u{202e}\u{e0041}\\ verdict=accept";

    fn text_of(log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let make = sink.clone();
        let subscriber =
            text(filter("info").unwrap(), move || make.clone()).with_ansi(false).without_time().finish();
        tracing::subscriber::with_default(subscriber, log);
        sink.written()
    }

    #[test]
    fn a_text_event_is_one_line_for_any_field_values() {
        let written = text_of(|| {
            let span = tracing::info_span!("smtp", client = %HOSTILE);
            tracing::info!(parent: &span, helo = %HOSTILE, from = ?HOSTILE, reply_to = HOSTILE, "m {HOSTILE}");
        });
        let line = written.strip_suffix('\n').unwrap();
        assert!(!line.contains(is_hazard), "{line:?}");
        let hostile = "a\\\\x0d\\\\x0ab\\\\x09\\\\x1b[31m\\\\x7f\\\\u{85}\\\\u{9b}1m";
        assert!(line.contains(&format!("helo=\"{hostile}")), "{line}");
        assert!(line.contains("from=\"a\\r\\nb\\t\\u{1b}[31m"), "{line}");
    }

    #[test]
    fn no_value_can_look_like_another_field() {
        let rows = [
            ("good.test", "good.test"),
            ("", "\"\""),
            ("a verdict=accept", "\"a verdict=accept\""),
            ("a=b", "\"a=b\""),
            ("\"a b\"@c.test", "\"\\\"a b\\\"@c.test\""),
            ("\"a\" b=\"c\"", "\"\\\"a\\\" b=\\\"c\\\"\""),
            ("\"a\\\"", "\"\\\"a\\\\\\\"\""),
            ("a\u{a0}b", "\"a\u{a0}b\""),
        ];
        for (value, expected) in rows {
            let written = text_of(|| tracing::info!(target: "t", helo = %value, n = 1, "event"));
            assert_eq!(written, format!(" INFO t: event helo={expected} n=1\n"));
        }
        let written = text_of(|| tracing::info!(target: "t", helo = ?"a b", "event"));
        assert_eq!(written, " INFO t: event helo=\"a b\"\n");
    }

    #[test]
    fn a_json_event_is_one_line_and_parses_to_the_same_value() {
        let sink = Sink::default();
        let make = sink.clone();
        let subscriber = json(filter("info").unwrap(), move || make.clone()).finish();
        tracing::subscriber::with_default(subscriber, || tracing::info!(helo = %HOSTILE, "event"));
        let written = sink.written();
        let line = written.strip_suffix('\n').unwrap();
        assert!(!line.contains(is_hazard), "{line:?}");
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["helo"], HOSTILE);
    }

    #[test]
    fn an_entry_of_the_journal_has_a_line_for_each_field_and_no_value_makes_another() {
        let sink = Sink::default();
        let make = sink.clone();
        let subscriber = journald(filter("info").unwrap(), move || make.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "rmxd::decision", id = "4KXN7Q2M", helo = %HOSTILE, n = 1, "message");
        });
        let written = sink.written();
        let lines: Vec<&str> = written.split('\n').collect();
        let [priority, identifier, target, message, id, helo, n, "", ""] = lines[..] else {
            panic!("{written:?}");
        };
        assert_eq!((priority, identifier), ("PRIORITY=4", "SYSLOG_IDENTIFIER=rmxd"));
        assert_eq!((target, id, n), ("RMXD_TARGET=rmxd::decision", "RMXD_ID=4KXN7Q2M", "RMXD_N=1"));
        assert!(message.starts_with("MESSAGE=rmxd::decision: message id=4KXN7Q2M helo=\"a\\"), "{message}");
        assert!(helo.starts_with("RMXD_HELO=a\\x0d\\x0ab"), "{helo}");
        assert!(!lines.iter().any(|line| line.contains(is_hazard)), "{written:?}");
    }

    #[test]
    fn a_number_has_no_exponent() {
        let log = || tracing::info!(target: "t", duration = 0.00001, "event");
        assert_eq!(text_of(log), " INFO t: event duration=0.00001\n");
        let (sink, entries) = (Sink::default(), Sink::default());
        let (make, make_entry) = (sink.clone(), entries.clone());
        let subscriber = json(filter("info").unwrap(), move || make.clone()).finish();
        tracing::subscriber::with_default(subscriber, log);
        assert!(sink.written().contains("\"duration\":0.00001"), "{}", sink.written());
        let subscriber = journald(filter("info").unwrap(), move || make_entry.clone()).finish();
        tracing::subscriber::with_default(subscriber, log);
        assert!(entries.written().contains("\nRMXD_DURATION=0.00001\n"), "{}", entries.written());
    }

    #[test]
    fn only_levels_and_directives_are_accepted() {
        for good in LEVELS.into_iter().chain(["info,rmxd::dns=debug", "rmxd=debug", "warn,hickory_net=off"]) {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["", "verbose", "INFORM", "info,", "rmxd=loud", "off", "info debug"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
