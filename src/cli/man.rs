//! `rmxd man`: the manual, one page for each command and one for the configuration.
//!
//! The pages have the same text as `--help` and as the comments of the default configuration. They have no date, so that a
//! version of the program always writes the same pages.

mod keys;
mod page;
mod prose;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use roff::{Roff, roman};

use crate::cli::commands;
use crate::config::reference::reference;
use crate::console::{Exit, print, report};

/// Write the manual pages into a folder
///
/// It writes a page for each command, such as rmxd-check.1, and rmxd.toml.5 with all keys of the configuration.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder; created if necessary, and existing pages are replaced
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

struct Page {
    /// Name of the file.
    file: String,
    /// roff.
    text: String,
}

pub fn run(args: &Args) -> ExitCode {
    match write(&args.folder) {
        Ok(count) => print(&format!("{}: {count} pages\n", args.folder.display())).into(),
        Err(exit) => exit.into(),
    }
}

fn write(folder: &Path) -> Result<usize, Exit> {
    let failed = |path: &Path, error: std::io::Error| {
        eprintln!("rmxd man: {}: {error}", path.display());
        Exit::Temporary
    };
    let reference = reference().map_err(|problems| {
        report(&problems);
        Exit::Config
    })?;
    let mut pages = page::all(commands());
    pages.push(keys::page(&reference));
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    for page in &pages {
        let path = folder.join(&page.file);
        std::fs::write(&path, &page.text).map_err(|error| failed(&path, error))?;
    }
    Ok(pages.len())
}

/// An empty argument has to be quoted.
const NO_DATE: &str = "\"\"";

/// A page with its head: title and NAME.
fn document(name: &str, section: &str, about: &str) -> Roff {
    let mut roff = Roff::new();
    let source = concat!("rmxd ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", [name.to_uppercase().as_str(), section, NO_DATE, source, "rmxd manual"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(format!("{name} - {about}"))]);
    roff
}
