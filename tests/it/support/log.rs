//! The log of one thread, to be asked what it has.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::pattern::{Found, matches};

/// What rmxd's modules log on this thread, one JSON object a line.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn start(&self) -> tracing::subscriber::DefaultGuard {
        let sink = self.clone();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_env_filter("rmxd=debug");
        let subscriber = subscriber.with_writer(move || sink.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Whether some event has all these fields.
    pub(crate) fn has(&self, fields: &str, found: &Found) -> Result<(), String> {
        let events: Vec<serde_json::Value> =
            self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let held = events.iter().any(|event| {
            fields.split_whitespace().all(|field| {
                let (name, expected) = field.split_once('=').unwrap();
                let value = match &event[name] {
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                matches(expected, &value, &mut found.clone())
            })
        });
        if held { Ok(()) } else { Err(format!("no event has {fields} with {found:?}")) }
    }
}

/// The first line with this text that rmxd's modules log on this thread ends in a panic.
pub(crate) fn panic_at(text: &'static str) -> tracing::subscriber::DefaultGuard {
    let went_off = Arc::new(AtomicBool::new(false));
    let subscriber = tracing_subscriber::fmt().with_ansi(false);
    let subscriber = subscriber.with_writer(move || Bomb { text, went_off: Arc::clone(&went_off) });
    tracing::subscriber::set_default(subscriber.finish())
}

struct Bomb {
    text: &'static str,
    went_off: Arc<AtomicBool>,
}

impl Write for Bomb {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let is_meant = String::from_utf8_lossy(line).contains(self.text);
        assert!(!is_meant || self.went_off.swap(true, Ordering::Relaxed), "as it was planned");
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
