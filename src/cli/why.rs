//! `frostgate why`: what keeps a workspace awake, or what froze it, in plain words.

use std::io::Write;

use clap::Args;
use serde::Deserialize;

use super::Environment;
use super::client::{Client, Output, Remote};
use super::table::{Cell, style_of, table};
use super::workspace::state;
use crate::clock::{local, spoken};
use crate::model::{Phase, Tier, WorkspaceId};

/// The workspace in question.
#[derive(Debug, Args)]
pub(super) struct Why {
    /// Which workspace
    #[arg(value_parser = WorkspaceId::parse)]
    id: WorkspaceId,
    /// Lines of its journal that are shown
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    lines: usize,
    #[command(flatten)]
    remote: Remote,
}

/// What the API tells, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Activity {
    why: String,
    signals: Signals,
    workspace: Workspace,
    journal: Vec<Line>,
}

#[derive(Debug, Deserialize)]
struct Signals {
    live_requests: u32,
    live_tunnels: u32,
    held_requests: usize,
    last_request_ended_at: Option<String>,
    check_in: Option<CheckIn>,
    monitoring: bool,
    initial_timeout_ends_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct CheckIn {
    active: bool,
    at: String,
    expires_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Workspace {
    phase: Phase,
    tier: Option<Tier>,
    since: String,
    freeze_at: Option<String>,
    remove_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Line {
    at: String,
    phase: Phase,
    tier: Option<Tier>,
    reason: String,
    took_ms: Option<u64>,
}

/// Asks, and prints the answer.
pub(super) fn run(why: &Why, environment: &Environment) -> anyhow::Result<()> {
    let Why { id, lines, remote } = why;
    let client = Client::find(&remote.gateway, environment)?;
    let answer = client.get(&format!("/api/v1/workspaces/{id}/activity"))?;
    let printed = match remote.output {
        Output::Json => format!("{}\n", answer.text()),
        Output::Table => told(id, &answer.read()?, *lines),
    };
    write!(anstream::stdout(), "{printed}")?;
    Ok(())
}

fn told(id: &WorkspaceId, activity: &Activity, lines: usize) -> String {
    let mut text = format!("{id}: {}\n\n{}", activity.why, table(signals(activity).into_iter()));
    if lines > 0 && !activity.journal.is_empty() {
        let rows = activity.journal.iter().take(lines).map(|line| {
            let took = line.took_ms.map(|took| spoken(std::time::Duration::from_millis(took)));
            let took = took.map(|took| format!(", after {took}")).unwrap_or_default();
            let state = Cell::coloured(state(line.phase, line.tier), style_of(line.phase));
            [local(&line.at).into(), state, format!("{}{took}", line.reason).into()]
        });
        text.push_str(&format!("\nThe last that happened, the newest first:\n\n{}", table(rows)));
    }
    text
}

fn signals(activity: &Activity) -> Vec<[Cell; 2]> {
    let Activity { signals, workspace, .. } = activity;
    let date = |date: &Option<String>, without: &str| {
        date.as_deref().map_or_else(|| without.to_owned(), local)
    };
    let until = |date: &Option<String>, without: &str| {
        date.as_deref().map_or_else(|| without.to_owned(), |date| format!("until {}", local(date)))
    };
    let check_in = match &signals.check_in {
        None => "none since it was started".to_owned(),
        Some(CheckIn { active, at, expires_at }) => {
            let said = if *active { "active" } else { "idle" };
            format!("{said}, at {}, counts {}", local(at), until(expires_at, "until the next"))
        }
    };
    let monitoring = if signals.monitoring { "on" } else { "off: only a call freezes it" };
    let phase = state(workspace.phase, workspace.tier);
    let rows = [
        ("state", format!("{phase} since {}", local(&workspace.since))),
        ("requests inside", signals.live_requests.to_string()),
        ("tunnels inside", signals.live_tunnels.to_string()),
        ("requests held", signals.held_requests.to_string()),
        ("last one ended", date(&signals.last_request_ended_at, "none has yet")),
        ("own report", check_in),
        ("monitoring", monitoring.to_owned()),
        ("grace after start", until(&signals.initial_timeout_ends_at, "none")),
        ("will be frozen", date(&workspace.freeze_at, "not as things are")),
        ("will be removed", date(&workspace.remove_at, "not as things are")),
    ];
    rows.map(|(name, value)| [Cell::faint(format!("  {name}")), value.into()]).to_vec()
}
