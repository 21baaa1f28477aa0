//! `rmxd completions`: completion scripts for shells.

use std::process::ExitCode;

use clap_complete::Shell;

use crate::cli::commands;
use crate::console::print;

/// Print the completion script for a shell
///
/// The Debian package installs those for bash, zsh and fish. To install one by hand for bash: rmxd completions bash >
/// ~/.local/share/bash-completion/completions/rmxd
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

pub fn run(args: &Args) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut commands(), "rmxd", &mut script);
    print(&String::from_utf8_lossy(&script)).into()
}
