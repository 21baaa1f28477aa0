//! The progress bar on a terminal, and samples of the memory of the daemon during the run.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::interval;

use crate::tools::load::process;
use crate::tools::load::run::Run;

const PERIOD: Duration = Duration::from_millis(200);

/// The terminal's width cuts the message. ASCII, since indicatif counts the octets of other characters here.
const TEMPLATE: &str = "[{bar:20}] {percent:>3}% {wide_msg}";
const BAR: &str = "=> ";

/// Runs until its task is aborted.
pub(super) async fn watch(run: Arc<Run>, pid: Option<u32>) {
    let bar = Bar::new(&run);
    let mut ticks = interval(PERIOD);
    loop {
        ticks.tick().await;
        let elapsed = run.started.elapsed();
        let memory = pid.and_then(process::memory);
        let mut stats = run.stats();
        if let Some(memory) = memory {
            stats.memory(memory.now, elapsed);
        }
        let (sessions, total) = (stats.sessions, stats.total());
        drop(stats);
        let rate = sessions as f64 / elapsed.as_secs_f64().max(0.001);
        let text = format!(
            "{sessions} sessions, {rate:.0}/s, {} wrong, {} failed, {} accepted, {} rejected, {} deferred",
            total.wrong(),
            total.failed,
            total.accepted,
            total.rejected,
            total.deferred
        );
        bar.show(sessions, elapsed, text);
    }
}

/// Dropping it removes the bar.
struct Bar {
    bar: ProgressBar,
    by_time: bool,
}

impl Bar {
    fn new(run: &Run) -> Self {
        let (length, by_time) = match (run.pace.sessions, run.pace.duration) {
            (Some(sessions), _) => (sessions, false),
            (None, duration) => (millis(duration.unwrap_or_default()), true),
        };
        // Draws nothing if standard error is not a terminal.
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars(BAR));
        }
        Self { bar, by_time }
    }

    fn show(&self, sessions: u64, elapsed: Duration, text: String) {
        self.bar.set_message(text);
        self.bar.set_position(if self.by_time { millis(elapsed) } else { sessions });
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
