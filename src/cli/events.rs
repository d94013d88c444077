//! `frostgate events`: what happened to workspaces, and what happens, as it does.
//!
//! What happened is in their journals, which outlive the gateway. What happens comes as server-sent
//! events; a connection that is lost is made again, and goes on after the last event that was told.

use std::io::Write;
use std::time::Duration;

use clap::{Args, ValueEnum};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::{sleep, timeout};

use super::client::{CallError, Client, Output, Remote};
use super::feed::{Event, Feed};
use super::ls;
use super::table::{DUBIOUS, style_of};
use super::workspace::state;
use super::{Environment, complain};
use crate::clock::{local, spoken};
use crate::model::{Phase, Tier, WorkspaceId};

/// A gateway that has not even said that it is there for so long is gone; it says so every 10 s.
const SILENCE_MAX: Duration = Duration::from_secs(35);
/// Before a connection that could not be made is tried again.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Which events.
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Those of this workspace alone
    #[arg(value_parser = WorkspaceId::parse)]
    id: Option<WorkspaceId>,
    /// Tell what happens from now on, until Ctrl-C, instead of what has happened
    #[arg(short, long)]
    follow: bool,
    /// Of this kind alone; may be given several times, or with commas
    #[arg(long, value_enum, value_name = "TYPE", value_delimiter = ',', requires = "follow")]
    types: Vec<Type>,
    /// How many of the last lines of the journals are told
    #[arg(
        short = 'n',
        long,
        value_name = "NUMBER",
        default_value_t = 50,
        conflicts_with = "follow"
    )]
    lines: usize,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Type {
    /// A workspace is in another phase
    Phase,
    /// A workspace has reported its own activity
    #[value(name = "check_in", alias = "check-in")]
    CheckIn,
}

/// What is told of a phase, by the events and by the journal.
#[derive(Debug, Deserialize)]
struct Change {
    at: String,
    #[serde(default)]
    workspace: String,
    phase: Phase,
    tier: Option<Tier>,
    reason: String,
    took_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct CheckIn {
    at: String,
    workspace: String,
    active: bool,
}

/// Prints one event a line.
pub(super) fn run(events: &Events, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::find(&events.remote.gateway, environment)?;
    if events.follow {
        return client.block_on(follow(&client, events));
    }
    for event in past(&client, events)? {
        print(&event, events.remote.output)?;
    }
    Ok(())
}

/// The last lines of all journals, in the order in which they happened.
fn past(client: &Client, events: &Events) -> anyhow::Result<Vec<Event>> {
    #[derive(Deserialize)]
    struct Activity {
        journal: Vec<Map<String, Value>>,
    }
    let ids = match &events.id {
        Some(id) => vec![id.to_string()],
        None => ls::ids(client)?,
    };
    let mut lines = Vec::new();
    for id in ids {
        let answer = match client.get(&format!("/api/v1/workspaces/{id}/activity")) {
            // Gone since it was listed.
            Err(error) if events.id.is_none() && is_unknown(&error) => continue,
            answer => answer?,
        };
        for mut line in answer.read::<Activity>()?.journal {
            line.insert("workspace".to_owned(), Value::from(id.clone()));
            lines.push(line);
        }
    }
    // Dates of one form, which are in order as texts; the newest of each journal came first.
    lines.reverse();
    lines.sort_by(|one, other| one["at"].as_str().cmp(&other["at"].as_str()));
    let rest = lines.split_off(lines.len().saturating_sub(events.lines));
    let event = |line| Event { kind: "phase".to_owned(), data: Value::Object(line).to_string() };
    Ok(rest.into_iter().map(event).collect())
}

fn is_unknown(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(CallError::Refused { status, .. }) if *status == 404)
}

/// The first time, whoever can't be reached is told, and that is the end; later, it is tried again.
async fn follow(client: &Client, events: &Events) -> anyhow::Result<()> {
    let path = path(events)?;
    let mut feed = Feed::default();
    let mut body = client.open(&path, None).await?.into_body();
    loop {
        // How it broke off says less than what comes of the next attempt.
        read(&mut body, &mut feed, events.remote.output).await?;
        body = again(client, &path, &mut feed).await?;
    }
}

async fn again(client: &Client, path: &str, feed: &mut Feed) -> anyhow::Result<Incoming> {
    let mut pause = PAUSE;
    loop {
        let after = feed.resume().map(|id| ("last-event-id", id));
        match client.open(path, after).await {
            Ok(response) => return Ok(response.into_body()),
            Err(error) if is_gone(&error) => {
                if pause == PAUSE {
                    complain(&error.context("waiting for the gateway to be back"));
                }
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            Err(error) => return Err(error),
        }
    }
}

fn path(events: &Events) -> anyhow::Result<String> {
    let types: Vec<String> = events
        .types
        .iter()
        .filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()))
        .collect();
    let mut query = Vec::new();
    query.extend(events.id.iter().map(|id| ("workspace", id.to_string())));
    query.extend((!types.is_empty()).then(|| ("types", types.join(","))));
    Ok(format!("/api/v1/events?{}", serde_urlencoded::to_string(query)?))
}

fn is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(CallError::Unreachable { .. }))
}

/// Prints what comes, until nothing does any more: the gateway is gone, or has ended the connection,
/// as it ends each after a while.
async fn read(body: &mut Incoming, feed: &mut Feed, output: Output) -> anyhow::Result<()> {
    while let Ok(Some(Ok(frame))) = timeout(SILENCE_MAX, body.frame()).await {
        if let Some(data) = frame.data_ref() {
            for event in feed.push(data) {
                print(&event, output)?;
            }
        }
    }
    Ok(())
}

fn print(event: &Event, output: Output) -> anyhow::Result<()> {
    let line = match output {
        Output::Json => as_json(event),
        Output::Table => in_words(event)?,
    };
    let mut out = anstream::stdout();
    writeln!(out, "{line}")?;
    // Whoever reads along has it at once, also through a pipe.
    out.flush()?;
    Ok(())
}

/// What the event says, and of which kind it is, in one object.
fn as_json(event: &Event) -> String {
    let data = serde_json::from_str(&event.data).unwrap_or(Value::Null);
    let mut object = Map::new();
    object.insert("event".to_owned(), json!(event.kind));
    if let Value::Object(data) = data {
        object.extend(data);
    }
    Value::Object(object).to_string()
}

fn in_words(event: &Event) -> anyhow::Result<String> {
    let line = |at: &str, workspace: &str, said: &str, style: anstyle::Style, why: &str| {
        let at = local(at);
        format!("{at}  {workspace:<16}  {style}{said:<16}{style:#}  {why}")
    };
    Ok(match event.kind.as_str() {
        "phase" => {
            let change: Change = serde_json::from_str(&event.data)?;
            let took = change.took_ms.map(|took| spoken(Duration::from_millis(took)));
            let took = took.map(|took| format!(", after {took}")).unwrap_or_default();
            let why = format!("{}{took}", change.reason);
            let state = state(change.phase, change.tier);
            line(&change.at, &change.workspace, &state, style_of(change.phase), &why)
        }
        "check_in" => {
            let CheckIn { at, workspace, active } = serde_json::from_str(&event.data)?;
            let said = if active { "active" } else { "idle" };
            line(&at, &workspace, said, anstyle::Style::new(), "its own report")
        }
        "lost" => format!("{DUBIOUS}some events were missed{DUBIOUS:#}"),
        other => format!("{other}: {}", event.data),
    })
}
