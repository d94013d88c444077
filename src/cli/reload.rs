//! `frostgate reload`: has a running gateway read its configuration again, and says what came of it.

use std::io::Write;

use clap::Args;
use hyper::Method;
use serde::Deserialize;

use super::Environment;
use super::client::{Client, Output, Remote};

/// Which gateway.
#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    remote: Remote,
}

/// What the API tells.
#[derive(Debug, Deserialize)]
struct Reloaded {
    changed: Vec<String>,
    needs_restart: Vec<String>,
}

/// Asks, and prints the answer.
pub(super) fn run(reload: &Reload, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::find(&reload.remote.gateway, environment)?;
    let answer = client.call(Method::POST, "/api/v1/reload", None::<&()>)?;
    let printed = match reload.remote.output {
        Output::Json => format!("{}\n", answer.text()),
        Output::Table => told(&answer.read()?),
    };
    write!(std::io::stdout(), "{printed}")?;
    Ok(())
}

fn told(reloaded: &Reloaded) -> String {
    let list = |head: &str, lines: &[String]| match lines {
        [] => String::new(),
        lines => format!("{head}\n  {}\n", lines.join("\n  ")),
    };
    let Reloaded { changed, needs_restart } = reloaded;
    if changed.is_empty() && needs_restart.is_empty() {
        return "nothing has changed; certificates were read again\n".to_owned();
    }
    let changed = list("changed:", changed);
    format!("{changed}{}", list("needs a restart:", needs_restart))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_and_what_needs_a_restart_is_told_apart() {
        let told = |changed: &[&str], needs_restart: &[&str]| {
            let owned = |lines: &[&str]| lines.iter().map(|line| line.to_string()).collect();
            told(&Reloaded { changed: owned(changed), needs_restart: owned(needs_restart) })
        };
        let both = "changed:\n  a: 1 -> 2\nneeds a restart:\n  b: 3\n  c: 4\n";
        assert_eq!(told(&["a: 1 -> 2"], &["b: 3", "c: 4"]), both);
        assert_eq!(told(&[], &["b: 3"]), "needs a restart:\n  b: 3\n");
        assert!(told(&[], &[]).starts_with("nothing has changed"));
    }
}
