//! Workspaces, for admins: list and create in files of their own; the rest is here.

mod create;
mod keep;
mod list;
mod logs;
mod representation;

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use http::StatusCode;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, IntoResponses, ToSchema};

use super::caller::Caller;
use super::fields::Fields;
use super::reply::{ErrorCode, Json, Problem, Responses, problems};
use super::{Context, openapi, policy};
use crate::lifecycle::{CommandError, Workspace};

pub(super) use create::{__path_create, create, rule};
pub(super) use keep::{__path_keep, keep};
pub(super) use list::{__path_list, list};
pub(super) use logs::{__path_logs, logs};
pub(super) use representation::{Project, Representation};

/// Tell how a workspace is.
#[utoipa::path(
    get,
    path = "/workspaces/{id}",
    operation_id = "getWorkspace",
    tag = "workspaces",
    params(Id),
    responses((status = 200, description = "The workspace", body = Representation), Id)
)]
pub(super) async fn read(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
) -> Result<Json<Representation>, Problem> {
    let workspace = find(&context, &caller, id)?;
    Ok(Json(Representation::of(&workspace, &context)))
}

/// Change its policy.
///
/// What is named is changed at once and for good; the rest stays as it is.
#[utoipa::path(
    patch,
    path = "/workspaces/{id}",
    operation_id = "changeWorkspace",
    tag = "workspaces",
    params(Id),
    request_body = Option<policy::Changes>,
    responses(
        (status = 200, description = "The workspace as it is now", body = Representation),
        Id,
        CommandError,
        policy::Changes,
    )
)]
pub(super) async fn change(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
    mut fields: Fields,
) -> Result<Json<Representation>, Problem> {
    let workspace = find(&context, &caller, id)?;
    let changes = policy::Changes::read(&mut fields)?;
    fields.end()?;
    let changes = changes.overrides()?;
    policy::check(&changes.over(&workspace.policy()))?;
    workspace.change_policy(changes).await?;
    Ok(Json(Representation::of(&workspace, &context)))
}

/// Remove a workspace.
///
/// With all that it has, whoever is inside. Answered once it is gone.
#[utoipa::path(
    delete,
    path = "/workspaces/{id}",
    operation_id = "deleteWorkspace",
    tag = "workspaces",
    params(Id),
    responses((status = 204, description = "It is gone"), Id, CommandError)
)]
pub(super) async fn delete(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
) -> Result<StatusCode, Problem> {
    find(&context, &caller, id)?.remove().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Words for whoever reads them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Message {
    #[schema(examples("Workspace has been removed"))]
    pub(super) message: &'static str,
}

/// Remove a workspace, with a message.
///
/// As `DELETE` does.
#[utoipa::path(
    put,
    path = "/workspaces/{id}/remove",
    operation_id = "removeWorkspace",
    tag = "workspaces",
    params(Id),
    responses((status = 200, description = "It is gone", body = Message), Id, CommandError)
)]
pub(super) async fn remove(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
) -> Result<Json<Message>, Problem> {
    find(&context, &caller, id)?.remove().await?;
    Ok(Json(Message { message: "Workspace has been removed" }))
}

/// Whether to wait until it has come about.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wait {
    /// `false`: answer when it has begun.
    #[serde(default = "yes")]
    #[param(default = true)]
    wait: bool,
}

fn yes() -> bool {
    true
}

/// Freeze a workspace.
///
/// Requests inside may finish within its `drain_grace`; what is left then is closed. One that is
/// frozen stays so.
#[utoipa::path(
    put,
    path = "/workspaces/{id}/stop",
    operation_id = "stopWorkspace",
    tag = "workspaces",
    params(Id, Wait),
    responses(
        (status = 200, description = "It is frozen", body = Representation),
        (status = 202, description = "It has begun", body = Representation),
        Id,
        CommandError,
    )
)]
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

/// Wake a workspace.
///
/// One that runs stays so.
#[utoipa::path(
    put,
    path = "/workspaces/{id}/resume",
    operation_id = "resumeWorkspace",
    tag = "workspaces",
    params(Id, Wait),
    responses(
        (status = 200, description = "It is running", body = Representation),
        (status = 202, description = "It has begun", body = Representation),
        Id,
        CommandError,
    )
)]
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
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        let Path(id) = path.map_err(|rejection| Problem::Invalid(rejection.body_text()))?;
        Ok(Self(id))
    }
}

impl IntoParams for Id {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![openapi::in_path("id", "Which workspace.", "alice")]
    }
}

impl IntoResponses for Id {
    fn responses() -> Responses {
        problems(&[ErrorCode::UnknownWorkspace])
    }
}

/// The workspace of a path. One that the caller may not see is one that does not exist.
pub(super) fn find(
    context: &Context,
    caller: &Caller,
    Id(id): Id,
) -> Result<Arc<Workspace>, Problem> {
    let shown = || id.chars().take(100).collect();
    let found = context.registry.get(&id).filter(|workspace| caller.may_see(workspace));
    found.ok_or_else(|| Problem::UnknownWorkspace(shown()))
}
