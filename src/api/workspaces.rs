//! Workspaces, for admins.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::fields::Fields;
use super::reply::Problem;
use super::{Context, policy};
use crate::clock::Clock;
use crate::lifecycle::{View, Workspace};
use crate::model::{Phase, Tier};

/// A workspace as the API tells it.
#[derive(Debug, Serialize)]
pub(super) struct Representation {
    id: String,
    /// Where end users find it.
    url: String,
    driver: &'static str,
    phase: Phase,
    tier: Option<Tier>,
    /// When it entered its phase; RFC 3339.
    since: String,
    live_connections: LiveConnections,
    /// Requests that wait at its gate.
    held: usize,
    /// How many workspaces wait for a slot before it; `null`: it doesn't wait for one.
    queue_position: Option<usize>,
    /// Whether its own last check-in says that it is active.
    reports_activity: bool,
    /// When it will be frozen if nothing happens; RFC 3339. `null` while it is in use, doesn't run,
    /// or is never frozen by itself.
    freeze_at: Option<String>,
    /// When it will be removed as things are; RFC 3339. `null`: never.
    remove_at: Option<String>,
    policy: policy::Representation,
    /// Why it failed.
    last_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct LiveConnections {
    requests: u32,
    tunnels: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct List {
    items: Vec<Representation>,
}

impl Representation {
    pub(super) fn of(workspace: &Workspace, context: &Context) -> Self {
        let view = workspace.view();
        let View { phase, tier, since, failure, inside, tunnels, held, .. } = view;
        let port = match context.public_port {
            80 => String::new(),
            port => format!(":{port}"),
        };
        Self {
            id: workspace.id().to_string(),
            url: format!("http://{}.{}{port}/", workspace.id(), context.registry.domain()),
            driver: workspace.driver_name(),
            phase,
            tier,
            since: Clock.rfc3339(since),
            live_connections: LiveConnections { requests: inside.saturating_sub(tunnels), tunnels },
            held,
            queue_position: view.queue_position,
            reports_activity: view.reports_activity,
            freeze_at: view.freeze_at.map(|at| Clock.rfc3339(at)),
            remove_at: view.remove_at.map(|at| Clock.rfc3339(at)),
            policy: (&*workspace.policy()).into(),
            last_error: failure,
        }
    }
}

/// `GET /api/v1/workspaces`
pub(super) async fn list(State(context): State<Context>, caller: Caller) -> Json<List> {
    let all = context.registry.all();
    let seen = all.iter().filter(|workspace| caller.may_see(workspace));
    Json(List { items: seen.map(|workspace| Representation::of(workspace, &context)).collect() })
}

/// `GET /api/v1/workspaces/{id}`
pub(super) async fn read(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
) -> Result<Json<Representation>, Problem> {
    let workspace = find(&context, &caller, id)?;
    Ok(Json(Representation::of(&workspace, &context)))
}

/// `PATCH /api/v1/workspaces/{id}`: changes the fields of its policy that are named, at once.
pub(super) async fn change(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
    fields: Fields,
) -> Result<Json<Representation>, Problem> {
    let workspace = find(&context, &caller, id)?;
    policy::only(&fields)?;
    let changes = policy::overrides(&fields)?;
    policy::check(&changes.over(&workspace.policy()))?;
    workspace.change_policy(&changes).await?;
    Ok(Json(Representation::of(&workspace, &context)))
}

/// `DELETE /api/v1/workspaces/{id}`: 204 once it is gone, with all that it had.
pub(super) async fn delete(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
) -> Result<StatusCode, Problem> {
    find(&context, &caller, id)?.remove().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /api/v1/workspaces/{id}/remove`: the same, with a message.
pub(super) async fn remove(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
) -> Result<Json<serde_json::Value>, Problem> {
    find(&context, &caller, id)?.remove().await?;
    Ok(Json(serde_json::json!({ "message": "Workspace has been removed" })))
}

/// Whether to wait until it has come about.
#[derive(Debug, Deserialize)]
pub(super) struct Wait {
    #[serde(default = "yes")]
    wait: bool,
}

fn yes() -> bool {
    true
}

/// `PUT /api/v1/workspaces/{id}/stop`: 200 once it is frozen; with `?wait=false` 202 at once.
pub(super) async fn stop(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Result<(StatusCode, Json<Representation>), Problem> {
    let workspace = find(&context, &caller, id)?;
    if !workspace.can_freeze() {
        workspace.stop().await?;
    }
    let asked = workspace.clone();
    carry_out(&context, &workspace, wait, async move { asked.stop().await }).await
}

/// `PUT /api/v1/workspaces/{id}/resume`: 200 once it is running; with `?wait=false` 202 at once.
pub(super) async fn resume(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Result<(StatusCode, Json<Representation>), Problem> {
    let workspace = find(&context, &caller, id)?;
    let asked = workspace.clone();
    carry_out(&context, &workspace, wait, async move { asked.resume().await }).await
}

async fn carry_out(
    context: &Context,
    workspace: &Workspace,
    wait: Result<Query<Wait>, QueryRejection>,
    asked: impl Future<Output = crate::lifecycle::Answer>,
) -> Result<(StatusCode, Json<Representation>), Problem> {
    let Query(Wait { wait }) = wait
        .map_err(|_| Problem::Invalid("the parameter \"wait\" must be true or false".to_owned()))?;
    let mut asked = Box::pin(asked);
    let status = if wait {
        asked.await?;
        StatusCode::OK
    } else {
        // The first poll gives the command to the workspace's task, which does not need us.
        drop(futures_util::poll!(&mut asked));
        StatusCode::ACCEPTED
    };
    Ok((status, Json(Representation::of(workspace, context))))
}

/// The id in a path, which may be nothing that a workspace could be called.
pub(super) type Id = Result<Path<String>, PathRejection>;

/// The workspace of a path. One that the caller may not see is one that does not exist.
pub(super) fn find(context: &Context, caller: &Caller, id: Id) -> Result<Arc<Workspace>, Problem> {
    let Path(id) = id.map_err(|rejection| Problem::Invalid(rejection.body_text()))?;
    let shown = || id.chars().take(100).collect();
    let found = context.registry.get(&id).filter(|workspace| caller.may_see(workspace));
    found.ok_or_else(|| Problem::UnknownWorkspace(shown()))
}
