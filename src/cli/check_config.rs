//! `frostgate check-config`: whether the configuration is right, or everything that is wrong with it.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::client::Output;
use super::{Environment, MISUSED, Overrides, Told};
use crate::app::App;
use crate::config::{Config, ConfigError};

/// Which configuration.
#[derive(Debug, Args)]
pub(super) struct CheckConfig {
    /// The configuration [default: as for serve]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print every option and its effective value as TOML
    #[arg(long, conflicts_with = "output")]
    print: bool,
    /// What is printed: a sentence for people, or JSON
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Output,
}

/// Reads it as `serve` does, and its certificates.
pub(super) fn run(check: CheckConfig, environment: &Environment) -> anyhow::Result<()> {
    let CheckConfig { config: named, print, output } = check;
    let file = Config::find(named.as_deref(), environment);
    let overrides = Overrides { config: named, ..Overrides::default() };
    let read = overrides.load(environment).map_err(anyhow::Error::from);
    let read = read.and_then(|config| App::certificates(&config).map(|_| config));
    let mut out = std::io::stdout();
    if output == Output::Json {
        let problems = read.as_ref().err().map(problems).unwrap_or_default();
        let workspaces = read.as_ref().map_or(0, |config| config.workspaces.len());
        let valid = problems.is_empty();
        let report = json!({
            "file": file, "valid": valid, "workspaces": workspaces, "problems": problems,
        });
        writeln!(out, "{report}")?;
        return if valid { Ok(()) } else { Err(Told { code: MISUSED }.into()) };
    }
    let config = read?;
    if print {
        write!(out, "{}", config.to_toml())?;
        return Ok(());
    }
    let subject = match file {
        Some(path) => format!("{} is fine", path.display()),
        None => "there is no configuration file, which is fine".to_owned(),
    };
    let workspaces = match config.workspaces.len() {
        1 => "1 workspace".to_owned(),
        number => format!("{number} workspaces"),
    };
    writeln!(out, "{subject}: {workspaces}")?;
    Ok(())
}

/// One for each mistake.
fn problems(error: &anyhow::Error) -> Vec<String> {
    match error.downcast_ref() {
        Some(ConfigError::Invalid { problems }) => {
            problems.iter().map(ToString::to_string).collect()
        }
        Some(ConfigError::Unreadable { .. }) | None => vec![format!("{error:#}")],
    }
}
