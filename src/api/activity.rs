//! Why a workspace is awake, or what froze it: every signal now, the deadlines, and the last lines of
//! its journal.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tokio::time::Instant;

use super::Context;
use super::caller::Caller;
use super::reply::Problem;
use super::workspaces::{Id, Representation, find};
use crate::clock::{rfc3339, spoken};
use crate::lifecycle::View;
use crate::model::{Phase, Tier};
use crate::store::{JOURNAL_LINES_MAX, JournalEntry};

/// What is told.
#[derive(Debug, Serialize)]
pub(super) struct Activity {
    /// In plain words.
    why: String,
    workspace: Representation,
    /// The newest first.
    journal: Vec<Line>,
}

/// A phase that was entered.
#[derive(Debug, Serialize)]
struct Line {
    /// RFC 3339.
    at: String,
    phase: Phase,
    tier: Option<Tier>,
    reason: String,
    /// What the wake or the freeze that ended then took, in milliseconds.
    took_ms: Option<u128>,
}

impl From<JournalEntry> for Line {
    fn from(entry: JournalEntry) -> Self {
        let JournalEntry { at, phase, tier, reason, took } = entry;
        Self { at: rfc3339(at), phase, tier, reason, took_ms: took.map(|took| took.as_millis()) }
    }
}

/// `GET /api/v1/workspaces/{id}/activity`
pub(super) async fn read(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
) -> Result<Json<Activity>, Problem> {
    let workspace = find(&context, &caller, id)?;
    let journal = workspace.journal(JOURNAL_LINES_MAX).await?;
    Ok(Json(Activity {
        why: why(&workspace.view(), journal.first()),
        workspace: Representation::of(&workspace, &context),
        journal: journal.into_iter().map(Line::from).collect(),
    }))
}

/// The one signal that decides, in words that read alone.
fn why(view: &View, last: Option<&JournalEntry>) -> String {
    let reason = last.map_or("nothing is known yet", |entry| entry.reason.as_str());
    let in_time = |at: Instant| spoken(at.saturating_duration_since(Instant::now()));
    match view.phase {
        Phase::Running if view.inside > 0 => {
            let requests = view.inside.saturating_sub(view.tunnels);
            format!("awake: {requests} requests and {} tunnels are inside", view.tunnels)
        }
        Phase::Running if view.reports_activity => "awake: it reports activity itself".to_owned(),
        Phase::Running => match view.freeze_at {
            Some(at) => format!("awake and idle: it will be frozen in {}", in_time(at)),
            None => "awake: its policy never freezes it by itself".to_owned(),
        },
        Phase::Starting => match view.queue_position {
            Some(before) => format!("waiting for a slot, {before} before it: {reason}"),
            None => format!("starting: {reason}"),
        },
        Phase::Freezing => format!("being frozen: {reason}"),
        Phase::Frozen => format!("frozen: {reason}"),
        Phase::Failed => format!("failed: {}", view.failure.as_deref().unwrap_or(reason)),
        Phase::Removing | Phase::Removed => format!("being removed: {reason}"),
    }
}
