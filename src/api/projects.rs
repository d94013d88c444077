//! What workspaces can be created from.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Context;
use super::caller::Caller;
use super::reply::Json;
use super::workspaces::Project;

/// All projects, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectList)]
pub(super) struct List {
    items: Vec<Project>,
}

/// List projects, which are templates of workspaces.
#[utoipa::path(
    get,
    path = "/projects",
    operation_id = "listProjects",
    tag = "projects",
    responses((status = 200, description = "Those that the token may use", body = List))
)]
pub(super) async fn list(State(context): State<Context>, caller: Caller) -> Json<List> {
    let projects = context.creator.projects().iter().filter(|(id, _)| caller.may_use(id.as_str()));
    let items =
        projects.map(|(id, project)| Project { id: id.to_string(), name: project.name.clone() });
    Json(List { items: items.collect() })
}
