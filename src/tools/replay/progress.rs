//! The progress bar: the read part of the logs, and the number of judged senders. Nothing is drawn if standard error is not a
//! terminal.

use std::sync::atomic::Ordering;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::tools::replay::input::Octets;

const TEMPLATE: &str = "[{bar:20}] {percent:>3}% {wide_msg}";
const ENDLESS: &str = "{spinner} {wide_msg}";
const BAR: &str = "=> ";

/// Dropping it removes the bar.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn reading(octets: &Octets) -> Self {
        Self::new(octets.all)
    }

    pub(super) fn judging(senders: usize) -> Self {
        Self::new(u64::try_from(senders).unwrap_or(0))
    }

    fn new(length: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        let template = if length == 0 { ENDLESS } else { TEMPLATE };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars(BAR));
        }
        Self(bar)
    }

    pub(super) fn read(&self, octets: &Octets, lines: u64, senders: usize) {
        self.0.set_message(format!("{lines} lines, {senders} senders"));
        self.0.set_position(octets.read.load(Ordering::Relaxed));
    }

    pub(super) fn judged(&self, questions: u64) {
        self.0.inc(1);
        if self.0.position().is_multiple_of(64) {
            self.0.set_message(format!("{} senders, {questions} DNS queries", self.0.position()));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
