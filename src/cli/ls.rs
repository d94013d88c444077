//! `frostgate ls`: the workspaces, one a line.

use std::io::Write;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Environment;
use super::client::{Client, Output, Remote};
use super::table::{Cell, table};
use super::when::Now;
use super::workspace::Workspace;
use crate::model::{Phase, ProjectId};

/// As many as a page may have.
const PAGE: usize = 100;

/// Which workspaces are listed, and how.
#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Those of this project alone
    #[arg(long, value_name = "PROJECT", value_parser = ProjectId::parse)]
    project: Option<ProjectId>,
    /// Those in this phase alone, such as running or frozen; may be given several times, or with
    /// commas
    #[arg(long, value_name = "PHASE", value_delimiter = ',', value_parser = phase)]
    phase: Vec<Phase>,
    /// Print the ids alone, for other commands: frostgate stop $(frostgate ls -q --project a)
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Value>,
    paging: Paging,
}

#[derive(Deserialize)]
struct Paging {
    next_page_token: Option<String>,
}

fn phase(text: &str) -> Result<Phase, String> {
    serde_json::from_value(Value::from(text)).map_err(|_| {
        "expected starting, running, freezing, frozen, removing, removed or failed".to_owned()
    })
}

/// Asks for page after page, and prints them as one list.
pub(super) fn run(ls: &Ls, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::find(&ls.remote.gateway, environment)?;
    let items = all(&client, ls.project.as_ref(), &ls.phase)?;
    let mut out = anstream::stdout().lock();
    if ls.remote.output == Output::Json {
        #[derive(Serialize)]
        struct List {
            items: Vec<Value>,
        }
        writeln!(out, "{}", serde_json::to_string(&List { items })?)?;
        return Ok(());
    }
    let read = |item| Ok(serde_json::from_value::<Workspace>(item)?);
    let workspaces: Vec<Workspace> = items.into_iter().map(read).collect::<anyhow::Result<_>>()?;
    if ls.quiet {
        for workspace in workspaces {
            writeln!(out, "{}", workspace.id)?;
        }
        return Ok(());
    }
    write!(out, "{}", told(&workspaces, Now::read()))?;
    Ok(())
}

/// The ids of all workspaces that the token may see.
pub(super) fn ids(client: &Client) -> anyhow::Result<Vec<String>> {
    let id = |item: Value| item["id"].as_str().map(str::to_owned);
    Ok(all(client, None, &[])?.into_iter().filter_map(id).collect())
}

fn all(
    client: &Client,
    project: Option<&ProjectId>,
    phases: &[Phase],
) -> anyhow::Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut next = None;
    loop {
        let mut query = vec![("limit", PAGE.to_string())];
        query.extend(project.map(|project| ("project_id", project.to_string())));
        query.extend(phases.iter().map(|phase| ("states[]", phase.to_string())));
        query.extend(next.take().map(|token| ("page_token", token)));
        let query = serde_urlencoded::to_string(query)?;
        let page: Page = client.get(&format!("/api/v1/workspaces?{query}"))?.read()?;
        items.extend(page.items);
        next = page.paging.next_page_token;
        if next.is_none() {
            return Ok(items);
        }
    }
}

fn told(workspaces: &[Workspace], now: Now) -> String {
    let head = ["ID", "STATE", "SINCE", "INSIDE", "NEXT", "MEMORY", "URL"].map(Cell::head);
    let rows = workspaces.iter().map(|workspace| {
        let dash = |text: String| if text.is_empty() { Cell::faint("-") } else { Cell::new(text) };
        [
            Cell::new(&workspace.id),
            workspace.state(),
            Cell::new(now.ago(&workspace.since)),
            dash(workspace.live_connections.in_words()),
            dash(workspace.next(now)),
            dash(workspace.memory()),
            Cell::new(&workspace.url),
        ]
    });
    table(std::iter::once(head).chain(rows))
}
