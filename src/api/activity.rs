//! Why a workspace is awake, or what froze it: every signal now, the deadlines, and the last lines of
//! its journal.

use axum::extract::State;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::Context;
use super::caller::Caller;
use super::date::Date;
use super::reply::{Failure, Json, Problem};
use super::workspaces::{Id, Representation, find};
use crate::clock::{spoken, to_the_millisecond};
use crate::lifecycle::{CheckIn, View, Workspace};
use crate::model::{FrozenStorage, Phase, Policy, Tier};
use crate::store::{JOURNAL_LINES_MAX, JournalEntry};

/// Why a workspace is awake, or what froze it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Activity {
    /// In plain words.
    #[schema(examples("awake: 2 requests and 1 tunnel are inside"))]
    why: String,
    signals: Signals,
    workspace: Representation,
    /// The newest first.
    journal: Vec<Line>,
}

/// Everything that counts for or against a freeze, as it is now.
#[derive(Debug, Serialize, ToSchema)]
struct Signals {
    /// Requests inside.
    live_requests: u32,
    /// WebSockets and other tunnels inside.
    live_tunnels: u32,
    /// Those of them that don't keep it awake by being open.
    quiet_tunnels: u32,
    /// Requests that wait at its gate.
    held_requests: usize,
    /// When the last request or tunnel ended; `null`: none has since Frostgate was started.
    last_request_ended_at: Option<Date>,
    /// Its own last report since it was started; `null`: there is none.
    check_in: Option<Report>,
    /// `false`: only calls freeze it.
    monitoring: bool,
    /// Until when it is not frozen because it was started; `null`: it has no such grace.
    initial_timeout_ends_at: Option<Date>,
    /// Until when it is kept awake because somebody asked for that; `null`: nobody did.
    kept_until: Option<Date>,
    /// When it is looked at next, if nothing happens before; `null`: nothing is due.
    next_deadline_at: Option<Date>,
}

/// What the workspace said of itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LastCheckIn)]
struct Report {
    active: bool,
    at: Date,
    /// When it no longer counts; `null`: it counts until the next.
    expires_at: Option<Date>,
}

impl Signals {
    fn of(view: &View, policy: &Policy) -> Self {
        let report = |CheckIn { active, at, expires_at }| Report {
            active,
            at: at.into(),
            expires_at: expires_at.map(Date::from),
        };
        Self {
            live_requests: view.requests(),
            live_tunnels: view.tunnels,
            quiet_tunnels: view.quiet_tunnels,
            held_requests: view.held,
            last_request_ended_at: view.last_left.map(Date::from),
            check_in: view.check_in.map(report),
            monitoring: policy.monitoring,
            initial_timeout_ends_at: view.initial_timeout_ends.map(Date::from),
            kept_until: view.kept_until.map(Date::from),
            next_deadline_at: view.deadline.map(Date::from),
        }
    }
}

/// A phase that was entered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JournalLine)]
struct Line {
    at: Date,
    phase: Phase,
    tier: Option<Tier>,
    #[schema(examples("idle for 15m"))]
    reason: String,
    /// What the wake or the freeze that ended then took, in milliseconds; `null`: none ended.
    #[schema(examples(420))]
    took_ms: Option<u128>,
}

impl From<JournalEntry> for Line {
    fn from(entry: JournalEntry) -> Self {
        let JournalEntry { at, phase, tier, reason, took } = entry;
        Self { at: at.into(), phase, tier, reason, took_ms: took.map(|took| took.as_millis()) }
    }
}

/// Tell why a workspace is awake, or what froze it.
#[utoipa::path(
    get,
    path = "/workspaces/{id}/activity",
    operation_id = "getWorkspaceActivity",
    tag = "workspaces",
    params(Id),
    responses(
        (status = 200, description = "Every signal as it is now", body = Activity),
        Id,
        Failure,
    )
)]
pub(super) async fn read(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
) -> Result<Json<Activity>, Problem> {
    let workspace = find(&context, &caller, id)?;
    let mut journal = workspace.journal(JOURNAL_LINES_MAX).await?;
    if caller.scope.projects().is_some() {
        // A journal outlives its workspace, and another of the same id may have been somebody else's.
        let since = to_the_millisecond(workspace.created_at());
        journal.retain(|entry| entry.at >= since);
    }
    let view = workspace.view();
    Ok(Json(Activity {
        why: why(&workspace, &view, journal.first()),
        signals: Signals::of(&view, &workspace.policy()),
        workspace: Representation::of(&workspace, &context),
        journal: journal.into_iter().map(Line::from).collect(),
    }))
}

/// The one signal that decides, in words that read alone.
fn why(workspace: &Workspace, view: &View, last: Option<&JournalEntry>) -> String {
    let reason = last.map_or("nothing is known yet", |entry| entry.reason.as_str());
    match view.phase {
        Phase::Running => why_running(workspace, view),
        Phase::Starting => match view.queue_position {
            Some(before) => format!("waiting for a slot, {before} before it: {reason}"),
            None => format!("starting: {reason}"),
        },
        Phase::Freezing => format!("being frozen: {reason}{}", held_off(view)),
        Phase::Frozen => {
            let removed =
                view.remove_at.map(|at| format!("; it will be removed in {}", time_until(at)));
            format!("frozen: {reason}{}{}", removed.unwrap_or_default(), held_off(view))
        }
        Phase::Failed => format!("failed: {}", view.failure.as_deref().unwrap_or(reason)),
        Phase::Removing | Phase::Removed => format!("being removed: {reason}"),
    }
}

fn why_running(workspace: &Workspace, view: &View) -> String {
    if view.inside > 0 {
        return format!("awake: {} inside", crowd(view));
    }
    if let Some(CheckIn { expires_at, .. }) = view.check_in.filter(|_| view.reports_activity) {
        let until = expires_at.map(|at| format!(", for another {}", time_until(at)));
        return format!("awake: it reports activity itself{}", until.unwrap_or_default());
    }
    if let Some(until) = view.kept_until {
        return format!("awake: somebody keeps it awake for another {}", time_until(until));
    }
    let policy = workspace.policy();
    if let Some(at) = view.freeze_at {
        let how = match policy.storage {
            FrozenStorage::None => "removed, for it can't be frozen,",
            FrozenStorage::Limited(_) | FrozenStorage::Unlimited => "frozen",
        };
        let open = match view.quiet_tunnels {
            0 => String::new(),
            1 => ", though 1 tunnel is open".to_owned(),
            tunnels => format!(", though {tunnels} tunnels are open"),
        };
        return format!("awake and idle: it will be {how} in {}{open}", time_until(at));
    }
    let never = match (workspace.can_freeze(), policy.monitoring) {
        (false, _) => "it is a fixed upstream, which can't be frozen",
        (true, false) => "its monitoring is off, so only a call freezes it",
        (true, true) => "its inactivity_timeout is 0, so only a call freezes it",
    };
    format!("awake: {never}")
}

/// What an admin's stop still does, behind the rest.
fn held_off(view: &View) -> String {
    match view.held_off_until {
        Some(until) => format!("; for {} only a page that is opened wakes it", time_until(until)),
        None => String::new(),
    }
}

/// `2 requests and 1 tunnel are`
fn crowd(view: &View) -> String {
    let counted = |number: u32, noun: &str| match number {
        0 => None,
        1 => Some(format!("1 {noun}")),
        _ => Some(format!("{number} {noun}s")),
    };
    let requests = view.requests();
    let kinds = [counted(requests, "request"), counted(view.inside - requests, "tunnel")];
    let kinds: Vec<String> = kinds.into_iter().flatten().collect();
    let verb = if view.inside == 1 { "is" } else { "are" };
    format!("{} {verb}", kinds.join(" and "))
}

fn time_until(at: Instant) -> String {
    spoken(at.saturating_duration_since(Instant::now()))
}
