//! A panic on purpose, for the tests of doors: a log that panics at a line.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::subscriber::DefaultGuard;

#[derive(Clone)]
struct Bomb {
    text: &'static str,
    went_off: Arc<AtomicBool>,
}

/// The first line with this text that this thread logs ends in a panic.
pub(super) fn panic_at(text: &'static str) -> DefaultGuard {
    let bomb = Bomb { text, went_off: Arc::default() };
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || bomb.clone());
    tracing::subscriber::set_default(subscriber.finish())
}

impl io::Write for Bomb {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let is_meant = String::from_utf8_lossy(line).contains(self.text);
        assert!(!is_meant || self.went_off.swap(true, Ordering::Relaxed), "as it was planned");
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
