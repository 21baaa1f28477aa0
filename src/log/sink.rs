//! The sink collects events in memory, and a thread writes them, so that mail never waits for the reader of the log.
//!
//! The thread writes all collected events in one piece, at most a hundred times a second. If the reader is so slow that
//! the buffer is full, further events are dropped, and their number is logged as soon as there is room again. No other
//! event is lost: dropping the [`Guard`] writes the rest.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// The time to collect events before a write.
const COLLECT: Duration = Duration::from_millis(10);
/// Octets that wait for a slow reader at most.
const MAX_COLLECTED: usize = 8 << 20;
/// Octets of an empty buffer that stay allocated.
const KEPT: usize = 64 << 10;

/// Takes events; clones share one buffer.
#[derive(Debug, Clone)]
pub(super) struct Sink(Arc<Shared>);

/// The writer thread. Dropping it writes the rest and waits for the end of the thread.
#[derive(Debug)]
pub(super) struct Guard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    collected: Mutex<Collected>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Collected {
    text: Vec<u8>,
    lost: u64,
    ending: bool,
}

impl Sink {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// The thread can't be started.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<(Self, Guard)> {
        let shared = Arc::<Shared>::default();
        let writer = Arc::clone(&shared);
        let thread = thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_to(out))?;
        Ok((Self(Arc::clone(&shared)), Guard { shared, thread: Some(thread) }))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.collected().ending = true;
        self.shared.changed.notify_all();
        let ended = self.thread.take().map(JoinHandle::join);
        debug_assert!(!matches!(ended, Some(Err(_))), "the thread of the log panicked");
    }
}

impl Shared {
    fn collected(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut out: impl Write) {
        let mut text = Vec::new();
        loop {
            let mut collected = self.collected();
            while collected.text.is_empty() && !collected.ending {
                collected = self.changed.wait(collected).unwrap_or_else(PoisonError::into_inner);
            }
            if !collected.ending {
                let waited =
                    self.changed.wait_timeout_while(collected, COLLECT, |collected| !collected.ending);
                collected = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            let ending = collected.ending;
            let lost = std::mem::take(&mut collected.lost);
            std::mem::swap(&mut collected.text, &mut text);
            drop(collected);
            // There is no other place to report that the log can't be written.
            out.write_all(&text).and_then(|()| out.flush()).ok();
            text.clear();
            text.shrink_to(KEPT);
            if lost > 0 {
                tracing::warn!(target: "rmxd::log", lost, "events were lost: the reader of the log is too slow");
            }
            if ending && self.collected().text.is_empty() {
                return;
            }
        }
    }
}

impl<'w> MakeWriter<'w> for Sink {
    type Writer = &'w Self;

    fn make_writer(&'w self) -> Self::Writer {
        self
    }
}

impl Write for &Sink {
    /// Takes an event whole, or drops it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut collected = self.0.collected();
        if collected.text.len() + event.len() > MAX_COLLECTED {
            collected.lost += 1;
            return Ok(event.len());
        }
        let first = collected.text.is_empty();
        collected.text.extend_from_slice(event);
        drop(collected);
        if first {
            self.0.changed.notify_one();
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A slow reader of the log, which takes each piece when the test allows it.
    struct Stuck {
        reached: Sender<()>,
        leave: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
            self.reached.send(()).map_err(|_gone| gone())?;
            self.leave.recv().map_err(|_gone| gone())?;
            self.written.send(text.to_vec()).map_err(|_gone| gone())?;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The test's side of a slow reader. Fields are dropped in order: after a failed assertion `leave` is dropped before the
    /// guard, so that the thread ends.
    struct Test {
        leave: Sender<()>,
        reached: Receiver<()>,
        written: Receiver<Vec<u8>>,
        sink: Sink,
        guard: Guard,
    }

    fn stuck() -> Test {
        let ((leave, wait), (reach, reached), (hand, written)) = (channel(), channel(), channel());
        let (sink, guard) = Sink::start(Stuck { reached: reach, leave: wait, written: hand }).unwrap();
        Test { leave, reached, written, sink, guard }
    }

    #[test]
    fn concurrent_events_are_written_in_one_piece_and_in_order() {
        let test = stuck();
        let mut sink = &test.sink;
        sink.write_all(b"first\n").unwrap();
        test.reached.recv().unwrap();
        for event in ["one\n", "two\n", "three\n"] {
            sink.write_all(event.as_bytes()).unwrap();
        }
        (0..2).for_each(|_| test.leave.send(()).unwrap());
        assert_eq!(test.written.recv().unwrap(), b"first\n");
        assert_eq!(test.written.recv().unwrap(), b"one\ntwo\nthree\n");
        sink.write_all(b"last\n").unwrap();
        test.leave.send(()).unwrap();
        drop(test.guard);
        assert_eq!(test.written.recv().unwrap(), b"last\n");
    }

    #[test]
    fn a_slow_reader_blocks_no_writer_and_lost_events_are_counted() {
        let test = stuck();
        let mut sink = &test.sink;
        sink.write_all(b"first\n").unwrap();
        test.reached.recv().unwrap();
        let event = vec![b'x'; 1 << 20];
        for _ in 0..40 {
            sink.write_all(&event).unwrap();
        }
        let (held, lost) = {
            let collected = test.sink.0.collected();
            (collected.text.len(), collected.lost)
        };
        assert_eq!((held, lost), (MAX_COLLECTED, 40 - (MAX_COLLECTED >> 20) as u64));
        (0..2).for_each(|_| test.leave.send(()).unwrap());
        drop(test.guard);
        let octets: Vec<_> = test.written.try_iter().map(|text| text.len()).collect();
        assert_eq!(octets, [6, MAX_COLLECTED]);
    }
}
