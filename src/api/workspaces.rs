//! Workspaces, for admins: list and create in files of their own; the rest is here.

mod create;
mod list;
mod representation;

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;

use super::caller::Caller;
use super::fields::Fields;
use super::reply::Problem;
use super::{Context, policy};
use crate::lifecycle::Workspace;

pub(super) use create::create;
pub(super) use list::list;
pub(super) use representation::{Project, Representation};

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
    policy::only(&fields, &[])?;
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
    let status = if waits(wait)? {
        workspace.stop().await?;
        StatusCode::OK
    } else {
        workspace.begin_stop().await?;
        StatusCode::ACCEPTED
    };
    Ok((status, Json(Representation::of(&workspace, &context))))
}

/// `PUT /api/v1/workspaces/{id}/resume`: 200 once it is running; with `?wait=false` 202 at once.
pub(super) async fn resume(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Result<(StatusCode, Json<Representation>), Problem> {
    let workspace = find(&context, &caller, id)?;
    let status = if waits(wait)? {
        workspace.resume().await?;
        StatusCode::OK
    } else {
        workspace.begin_resume().await?;
        StatusCode::ACCEPTED
    };
    Ok((status, Json(Representation::of(&workspace, &context))))
}

fn waits(wait: Result<Query<Wait>, QueryRejection>) -> Result<bool, Problem> {
    let unclear = |_| Problem::Invalid("the parameter \"wait\" must be true or false".to_owned());
    Ok(wait.map_err(unclear)?.wait)
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
