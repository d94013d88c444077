//! `frostgate man`: the manual pages, in roff.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_mangen::Man as Page;

use super::{CommandLine, Misuse};

/// Which page, or where to put all of them.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Write all pages there, as frostgate.1, frostgate-ls.1 and so on
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// The command whose page is printed, such as ls or token add [default: frostgate itself]
    #[arg(value_name = "COMMAND", conflicts_with = "directory")]
    command: Vec<String>,
}

/// Prints one page, or writes all.
pub(super) fn run(man: &Man) -> anyhow::Result<()> {
    let mut all = CommandLine::command().disable_help_subcommand(true);
    all.build();
    match &man.directory {
        Some(directory) => {
            fs::create_dir_all(directory)
                .with_context(|| format!("could not make the directory {}", directory.display()))?;
            write_all(&all, directory)
        }
        None => {
            let command = find(&all, &man.command)?;
            std::io::stdout().write_all(&page(command)?)?;
            Ok(())
        }
    }
}

fn find<'a>(all: &'a clap::Command, names: &[String]) -> anyhow::Result<&'a clap::Command> {
    names.iter().try_fold(all, |command, name| {
        command.find_subcommand(name).ok_or_else(|| {
            let why = format!("{} has no command {name:?}", command.get_bin_name().unwrap_or(""));
            Misuse(why.trim_start().to_owned()).into()
        })
    })
}

fn write_all(command: &clap::Command, directory: &std::path::Path) -> anyhow::Result<()> {
    let path = directory.join(format!("{}.1", file_name(command)));
    fs::write(&path, page(command)?)
        .with_context(|| format!("could not write {}", path.display()))?;
    let mut shown = command.get_subcommands().filter(|below| !below.is_hide_set());
    shown.try_for_each(|below| write_all(below, directory))
}

/// `frostgate-token-add`
fn file_name(command: &clap::Command) -> String {
    command.get_bin_name().unwrap_or(command.get_name()).replace(' ', "-")
}

fn page(command: &clap::Command) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Page::new(command.clone()).render(&mut page)?;
    Ok(page)
}
