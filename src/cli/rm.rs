//! `frostgate rm`: workspaces that are removed with all that they have.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;
use hyper::Method;
use serde_json::json;

use super::change::Which;
use super::client::{Client, Output};
use super::{Environment, Misuse, Told};

/// What is removed.
#[derive(Debug, Args)]
pub(super) struct Rm {
    #[command(flatten)]
    which: Which,
    /// Don't ask whether it is meant
    #[arg(short, long)]
    yes: bool,
}

/// Asks whether it is meant, and removes one after another.
pub(super) fn run(rm: &Rm, environment: &Environment) -> anyhow::Result<()> {
    let Rm { which, yes } = rm;
    if !yes && !is_meant(which)? {
        writeln!(io::stderr(), "nothing was removed")?;
        return Ok(());
    }
    let client = Client::find(&which.remote.gateway, environment)?;
    let mut out = anstream::stdout().lock();
    let mut failed = None;
    for id in &which.ids {
        let path = format!("/api/v1/workspaces/{id}");
        match client.call(Method::DELETE, &path, None::<&()>) {
            Ok(_) if which.remote.output == Output::Json => {
                writeln!(out, "{}", json!({ "id": id, "removed": true }))?;
            }
            Ok(_) => writeln!(out, "{id}: removed")?,
            Err(error) => {
                let told = Told::of(&error);
                failed.get_or_insert(told);
            }
        }
    }
    failed.map_or(Ok(()), |told| Err(told.into()))
}

/// Asks on the terminal. Where there is nobody to ask, it has to be said.
fn is_meant(which: &Which) -> anyhow::Result<bool> {
    let ids: Vec<&str> = which.ids.iter().map(|id| id.as_str()).collect();
    let ids = ids.join(", ");
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let how = format!("this removes {ids} with all that is in it: say --yes if that is meant");
        return Err(Misuse(how).into());
    }
    write!(io::stderr(), "Remove {ids} with all that is in it? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
