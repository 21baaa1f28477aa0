//! What a session costs, step by step: `cargo bench`.
//!
//! Time and allocations, with nothing of the kernel in it: sessions are played over a pipe in memory, and DNS is asked
//! once before the clock starts. What a session costs on a real socket, beside other servers, is in benches/README.md.

#![expect(clippy::expect_used, reason = "a stage that can't be set up ends the run")]

mod counted;
mod exempt;
mod history;
mod parse;
mod session;
mod verdict;

use rmxd::log;

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler<mimalloc::MiMalloc> = divan::AllocProfiler::new(mimalloc::MiMalloc);

fn main() {
    // each decision is written down, as in a daemon
    let nowhere = std::fs::File::options().write(true).open("/dev/null").expect("a place for the log");
    let settings = log::Settings { format: log::Format::Text, level: "info,hickory_server=warn".to_owned() };
    let _log = log::start(&settings, log::Output::File(nowhere)).expect("a log");
    divan::main();
}
