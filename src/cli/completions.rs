//! `frostgate completions`: what a shell needs to complete command lines.

use std::io::Write;

use clap::{Args, CommandFactory, ValueEnum};

use super::CommandLine;

/// For which shell.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl From<Shell> for clap_complete::Shell {
    fn from(shell: Shell) -> Self {
        match shell {
            Shell::Bash => Self::Bash,
            Shell::Zsh => Self::Zsh,
            Shell::Fish => Self::Fish,
        }
    }
}

/// Prints the script.
pub(super) fn run(completions: &Completions) -> anyhow::Result<()> {
    let shell = clap_complete::Shell::from(completions.shell);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "frostgate", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(())
}
