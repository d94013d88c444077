//! The `frostgate` command: a shell around [`frostgate::cli`], where everything can be tested.

use std::process::ExitCode;

fn main() -> ExitCode {
    frostgate::cli::run(std::env::args_os(), std::env::vars_os())
}
