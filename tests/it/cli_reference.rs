//! The reference of the command line is what `--help` says.

use std::path::Path;

use clap::{Command, CommandFactory};
use frostgate::cli::CommandLine;

const STORED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/cli.md");

/// As wide as the help is at most, whatever terminal the tests run in.
const WIDTH: usize = 100;

fn page() -> String {
    let mut all = CommandLine::command().term_width(WIDTH).disable_help_subcommand(true);
    all.build();
    let mut page = "\
# Commands

What `frostgate --help` says, and `--help` of each command. `frostgate man` has the same as manual
pages, and `frostgate completions` completes them in a shell.

"
    .to_owned();
    add(&all, &mut page);
    page
}

fn add(command: &Command, page: &mut String) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let help = command.clone().term_width(WIDTH).render_long_help().to_string();
    let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    page.push_str(&format!("## {name}\n\n```text\n{}\n```\n\n", help.join("\n")));
    let shown = command.get_subcommands().filter(|below| !below.is_hide_set());
    shown.for_each(|below| add(below, page));
}

#[test]
fn the_reference_has_every_command_as_it_is() {
    let page = page().trim_end().to_owned() + "\n";
    if std::env::var_os("FROSTGATE_BLESS").is_some() {
        std::fs::create_dir_all(Path::new(STORED).parent().unwrap()).unwrap();
        std::fs::write(STORED, &page).unwrap();
    }
    let stored = std::fs::read_to_string(STORED).unwrap_or_default();
    let first = stored.lines().zip(page.lines()).find(|(stored, now)| stored != now);
    assert!(
        stored == page,
        "run FROSTGATE_BLESS=1 cargo test reference; the first difference: {first:#?}"
    );
    assert!(page.matches("\n## ").count() > 20 && !page.contains("frostgate sample"), "{page}");
}
