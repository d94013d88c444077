//! `frostgate show`: how a workspace is, with its policy.

use std::io::Write;

use clap::Args;
use serde_json::Value;

use super::Environment;
use super::client::{Client, Output, Remote};
use super::table::{Cell, table};
use super::when::{Now, minutes};
use super::workspace::{Workspace, size};
use crate::clock::local;
use crate::model::WorkspaceId;

/// The fields of a policy that are times; the others are shown as they are.
const TIMES: [&str; 9] = [
    "inactivity_timeout",
    "initial_timeout",
    "max_inactive_storage_time",
    "max_storage_time",
    "stop_after",
    "check_in_ttl",
    "hold_max",
    "page_after",
    "stop_hold_off",
];

/// The workspace in question.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Which workspace
    #[arg(value_parser = WorkspaceId::parse)]
    id: WorkspaceId,
    #[command(flatten)]
    remote: Remote,
}

/// Asks, and prints the answer.
pub(super) fn run(show: &Show, environment: &Environment) -> anyhow::Result<()> {
    let Show { id, remote } = show;
    let client = Client::find(&remote.gateway, environment)?;
    let answer = client.get(&format!("/api/v1/workspaces/{id}"))?;
    let printed = match remote.output {
        Output::Json => format!("{}\n", answer.text()),
        Output::Table => told(&answer.read()?, Now::read()),
    };
    write!(anstream::stdout(), "{printed}")?;
    Ok(())
}

/// One workspace in full.
pub(super) fn told(workspace: &Workspace, now: Now) -> String {
    let text = |value: String| if value.is_empty() { Cell::faint("-") } else { Cell::new(value) };
    let date = |date: &Option<String>| date.as_deref().map(local).unwrap_or_default();
    let mut rows = vec![
        ("id", Cell::new(&workspace.id)),
        ("url", Cell::new(&workspace.url)),
        ("state", workspace.state()),
        (
            "since",
            Cell::new(format!("{} ({})", now.ago(&workspace.since), local(&workspace.since))),
        ),
        ("next", text(workspace.next(now))),
        ("inside", text(workspace.live_connections.in_words())),
        (
            "last active",
            text(workspace.last_usage.as_deref().map(|at| now.ago(at)).unwrap_or_default()),
        ),
        ("memory", text(workspace.memory())),
        ("driver", Cell::new(&workspace.driver)),
    ];
    if let Some(project) = &workspace.project {
        let name =
            if project.name == project.id { String::new() } else { format!(" ({})", project.name) };
        rows.push(("project", Cell::new(format!("{}{name}", project.id))));
    }
    rows.push(("created", Cell::new(local(&workspace.created_at))));
    rows.push(("removed", text(date(&workspace.remove_at))));
    if workspace.hold_off_until.is_some() {
        let until = format!(
            "until {} only a page that is opened wakes it",
            date(&workspace.hold_off_until)
        );
        rows.push(("held off", Cell::new(until)));
    }
    if let Some(error) = &workspace.last_error {
        rows.push(("last error", Cell::coloured(error, super::table::BAD)));
    }
    let rows = rows.into_iter().map(|(name, value)| [Cell::faint(name), value]);
    let policy = workspace.policy.iter().map(|(name, value)| {
        [Cell::faint(format!("  {name}")), Cell::new(policy_value(name, value))]
    });
    format!("{}\npolicy\n{}", table(rows), table(policy))
}

fn policy_value(name: &str, value: &Value) -> String {
    match value {
        // It has no end; that of the others is never reached.
        Value::Null if name == "max_inactive_storage_time" => "unlimited".to_owned(),
        _ if TIMES.contains(&name) => minutes(value.as_f64()),
        Value::Number(bytes) if name == "idle_bytes" => size(bytes.as_u64().unwrap_or_default()),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        other => other.to_string(),
    }
}
