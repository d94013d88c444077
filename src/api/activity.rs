//! Why a workspace is awake, or what froze it: every signal now, the deadlines, and the last lines of
//! its journal.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Serialize;
use tokio::time::Instant;

use super::Context;
use super::reply::Problem;
use super::workspaces::{Representation, find};
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
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Activity>, Problem> {
    let workspace = find(&context, id)?;
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
    let held_off = || match view.held_off_until {
        Some(until) => format!("; for {} only a page that is opened wakes it", in_time(until)),
        None => String::new(),
    };
    match view.phase {
        Phase::Running if view.inside > 0 => {
            let requests = view.requests();
            format!("awake: {requests} requests and {} tunnels are inside", view.inside - requests)
        }
        Phase::Running if view.reports_activity => "awake: it reports activity itself".to_owned(),
        Phase::Running => match view.freeze_at {
            Some(at) if view.quiet_tunnels > 0 => {
                let tunnels = view.quiet_tunnels;
                format!("awake and idle: {tunnels} tunnels are quiet, frozen in {}", in_time(at))
            }
            Some(at) => format!("awake and idle: it will be frozen in {}", in_time(at)),
            None => "awake: its policy never freezes it by itself".to_owned(),
        },
        Phase::Starting => match view.queue_position {
            Some(before) => format!("waiting for a slot, {before} before it: {reason}"),
            None => format!("starting: {reason}"),
        },
        Phase::Freezing => format!("being frozen: {reason}{}", held_off()),
        Phase::Frozen => format!("frozen: {reason}{}", held_off()),
        Phase::Failed => format!("failed: {}", view.failure.as_deref().unwrap_or(reason)),
        Phase::Removing | Phase::Removed => format!("being removed: {reason}"),
    }
}
