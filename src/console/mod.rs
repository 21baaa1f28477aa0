//! What the commands share: exit codes, where the configuration comes from, output to a terminal.

pub mod colour;
pub mod folder;
pub mod refusals;
pub mod signals;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::config::{Flags, Loaded, Problem};

/// Where the configuration is when nobody says otherwise.
pub(crate) const DEFAULT_FILE: &str = "/etc/rmxd/rmxd.toml";

/// What a command ends with (sysexits.h where it has a word for it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or the verdict is accept.
    Done = 0,
    /// The verdict is reject; a message of the demo was not judged as expected; there is no such decision.
    Reject = 1,
    /// The command line is wrong (EX_USAGE).
    Usage = 64,
    /// It may work later, or the verdict is defer (EX_TEMPFAIL).
    Temporary = 75,
    /// The configuration is wrong (EX_CONFIG).
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Where a command takes the configuration from.
#[derive(Debug, clap::Args)]
pub struct ConfigSource {
    /// Configuration file. Without it: $RMXD_CONFIG, else /etc/rmxd/rmxd.toml if there is one, else the defaults
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set a key over file and environment, as in limits.errors=5; a list is parted by commas
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

impl ConfigSource {
    /// Loads the configuration; its problems go to standard error, one a line.
    ///
    /// # Errors
    /// [`Exit::Config`].
    pub fn load(&self, drain: Duration) -> Result<Loaded, Exit> {
        self.read(drain).map_err(|problems| {
            report(&problems);
            Exit::Config
        })
    }

    /// Loads the configuration.
    ///
    /// # Errors
    /// All problems.
    pub fn read(&self, drain: Duration) -> Result<Loaded, Vec<Problem>> {
        let flags = Flags { set: self.set.clone(), drain };
        crate::config::load(self.file().as_deref(), std::env::vars_os(), &flags)
    }

    /// The file that is read.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        let named = || std::env::var_os("RMXD_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
        // One that is there but can't be looked at is named too: reading it tells why.
        let usual =
            || Path::new(DEFAULT_FILE).try_exists().unwrap_or(true).then(|| PathBuf::from(DEFAULT_FILE));
        self.config.clone().or_else(named).or_else(usual)
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

pub(crate) fn report(problems: &[Problem]) {
    for problem in problems {
        eprintln!("{problem}");
    }
}

/// Prints a command's result. A reader that has seen enough (`rmxd ... | head`) is no failure.
pub fn print(text: &str) -> Exit {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Exit::Done,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            eprintln!("rmxd: standard output: {error}");
            Exit::Temporary
        }
    }
}
