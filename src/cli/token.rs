//! `frostgate token`: who may call the API.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde::{Deserialize, Serialize};

use super::Environment;
use super::client::{Client, Output, Remote};
use super::table::{Cell, table};
use crate::clock::local;
use crate::token::TokenName;

const PATH: &str = "/api/v1/tokens";

/// What is done with tokens.
#[derive(Debug, Args)]
pub(super) struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the tokens: what they are called and what they open, not what they are
    List(Remote),
    /// Make a token and print it, this once
    Add(Add),
    /// Revoke a token: it opens nothing any more
    Revoke(Named),
    /// Replace a token and print the new one, this once; the old one opens nothing any more
    Rotate(Named),
}

#[derive(Debug, Args)]
struct Add {
    /// What to call it
    #[arg(value_parser = TokenName::parse)]
    name: TokenName,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    remote: Remote,
}

/// How far a token reaches.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Reach {
    /// What it may do, with every workspace
    #[arg(long, value_enum)]
    scope: Option<Scope>,
    /// The project whose workspaces it may do everything with; may be given several times
    #[arg(long = "project", value_name = "PROJECT")]
    projects: Vec<String>,
}

#[derive(Debug, Clone, Copy, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Scope {
    /// Everything
    Admin,
    /// Look, and change nothing
    Read,
}

#[derive(Debug, Args)]
struct Named {
    /// What it is called; "admin" is the one in the state directory
    #[arg(value_parser = TokenName::parse)]
    name: TokenName,
    #[command(flatten)]
    remote: Remote,
}

/// A token that is to be made, as the API wants it.
#[derive(Debug, Serialize)]
struct NewToken<'a> {
    name: &'a TokenName,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<Scope>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    projects: &'a [String],
}

/// What the API tells.
#[derive(Debug, Deserialize)]
struct List {
    items: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    scope: String,
    projects: Option<Vec<String>>,
    created_at: Option<String>,
    source: String,
}

#[derive(Deserialize)]
struct Made {
    token: String,
}

/// Carries out what the command line says.
pub(super) fn run(token: &Token, environment: &Environment) -> anyhow::Result<()> {
    match &token.action {
        Action::List(remote) => list(remote, environment),
        Action::Add(Add { name, reach, remote }) => {
            let new = NewToken { name, scope: reach.scope, projects: &reach.projects };
            make(PATH, Some(&new), remote, environment)
        }
        Action::Rotate(Named { name, remote }) => {
            make(&format!("{PATH}/{name}/rotate"), None, remote, environment)
        }
        Action::Revoke(Named { name, remote }) => {
            let client = Client::find(&remote.gateway, environment)?;
            client.call(Method::DELETE, &format!("{PATH}/{name}"), None::<&()>)?;
            Ok(())
        }
    }
}

fn list(remote: &Remote, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::find(&remote.gateway, environment)?;
    let answer = client.get(PATH)?;
    let mut out = anstream::stdout();
    if remote.output == Output::Json {
        writeln!(out, "{}", answer.text())?;
        return Ok(());
    }
    let header = ["NAME", "OPENS", "KEPT IN", "MADE"].map(Cell::head);
    let rows = answer.read::<List>()?.items.into_iter().map(|listed| {
        let opens = match listed.projects {
            Some(projects) => format!("projects {}", projects.join(", ")),
            None => listed.scope,
        };
        let made = listed.created_at.map_or_else(|| "-".to_owned(), |date| local(&date));
        [listed.name, opens, listed.source, made].map(Cell::new)
    });
    write!(out, "{}", table(std::iter::once(header).chain(rows)))?;
    Ok(())
}

/// Prints the token alone, so that a script can keep what is printed.
fn make(
    path: &str,
    new: Option<&NewToken<'_>>,
    remote: &Remote,
    environment: &Environment,
) -> anyhow::Result<()> {
    let client = Client::find(&remote.gateway, environment)?;
    let answer = client.call(Method::POST, path, new)?;
    let printed = match remote.output {
        Output::Json => answer.text(),
        Output::Table => answer.read::<Made>()?.token,
    };
    writeln!(std::io::stdout(), "{printed}")?;
    Ok(())
}
