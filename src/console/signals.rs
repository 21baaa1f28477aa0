//! What ends `rmxd demo` and `rmxd load` before their time. The daemon has signals of its own, since it reloads.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What ends a command that somebody watches: SIGTERM, Ctrl-C, or the end of its terminal.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub(crate) async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
