//! What workspaces can be created from.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Context;
use super::caller::Caller;
use super::workspaces::Project;

/// All projects, in the order of their ids.
#[derive(Debug, Serialize)]
pub(super) struct List {
    items: Vec<Project>,
}

/// `GET /api/v1/projects`
pub(super) async fn list(State(context): State<Context>, caller: Caller) -> Json<List> {
    let projects = context.creator.projects().iter().filter(|(id, _)| caller.may_use(id.as_str()));
    let items =
        projects.map(|(id, project)| Project { id: id.to_string(), name: project.name.clone() });
    Json(List { items: items.collect() })
}
